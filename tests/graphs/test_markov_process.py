"""Processes in continuous time against dense exponentials and solutions; what is drawn against what is computed."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from structmask import ConvergenceWarning, MarkovChain, MarkovProcess, use_backend
from structmask.graphs import uniformisation
from tests import naive
from tests.cases import real
from tests.graphs.chains import CYCLE, N, agree, symmetric, uniform

RATES = {
    "random": 3 * uniform(N, N) * (uniform(N, N, seed=1) < 0.2) + CYCLE,
    "reversible": symmetric(uniform(N, N) * (uniform(N, N, seed=1) < 0.1) + CYCLE),
    "directed": CYCLE,
    "birth-death": np.diag(uniform(N - 1) + 0.1, 1) + np.diag(uniform(N - 1, seed=1) + 0.1, -1),
    "absorbing": np.diag(np.ones(N - 1), 1),
    "stiff": 10.0 ** (6 * uniform(N, N)) * (uniform(N, N, seed=1) < 0.1) + CYCLE,
}
for A in RATES.values():
    np.fill_diagonal(A, 0)


@pytest.fixture(params=RATES)
def rates(request):
    return RATES[request.param]


def generator(A):
    return A - np.diag(A.sum(axis=1))


@pytest.mark.parametrize("backend", ["numpy", "auto"])
@pytest.mark.parametrize("expected_jumps", [0.0, 0.3, 20.0, 3000.0])
def test_evolution_is_that_of_the_exponential(rates, expected_jumps, backend):
    process, Q = MarkovProcess(rates), generator(rates)
    time = expected_jumps / rates.sum(axis=1).max()
    p = uniform(3, N)
    p /= p.sum(axis=1, keepdims=True)
    E = naive.markov_exponential(Q, time)
    with use_backend(backend):
        got = process.evolve(p, time)
        assert np.abs(got - p @ E).sum(axis=1).max() < 3e-10
        assert np.abs(got.sum(axis=1) - 1).max() < 1e-12
        assert got.min() >= 0
        agree(process.evolve(p[0], time), got[0])
        f = real(N, 2)
        np.testing.assert_allclose(process.expect(f, time), E @ f, atol=1e-9)


def test_occupation_is_the_integral(rates):
    process, Q = MarkovProcess(rates), generator(rates)
    time = 30.0 / rates.sum(axis=1).max()
    want = naive.occupation(Q, time)
    M = process.occupation(time, tol=1e-13)
    assert np.abs(M.to_dense() - want).sum(axis=1).max() < 1e-13 + 1e-11 * time
    assert np.abs(M @ np.ones(N) - time).max() < 1e-12 * time


@pytest.mark.parametrize("name", ["random", "reversible"])
def test_first_passage_and_the_long_run(name):
    A = RATES[name]
    process, Q, f = MarkovProcess(A), generator(A), slice(1, None)
    q = A.sum(axis=1).max()
    jumps = np.eye(N) + Q / q
    h = np.linalg.solve(-Q[f, f], np.ones(N - 1))
    agree(process.hitting_times(0)[f], h)
    agree(process.hitting_moments(0, 2)[1, f], np.linalg.solve(-Q[f, f], 2 * h))
    agree(process.stationary(), naive.stationary_distribution(jumps))
    s = 0.7
    agree(process.hitting_transform(0, s)[f], np.linalg.solve(s * np.eye(N - 1) - Q[f, f], Q[f, 0]))
    agree(process.hitting_probabilities(0, avoid=1), MarkovChain(jumps).hitting_probabilities(0, avoid=1))
    pairs = [[0, 5], [3, 0]]
    H = [process.hitting_times(j) for j in (0, 5, 3)]
    agree(process.commute_times(pairs), [H[0][5] + H[1][0], H[0][3] + H[2][0]])


@pytest.mark.parametrize("targets", [0, [2, 7]])
def test_first_passage_distribution_is_that_of_the_absorbed_process(rates, targets):
    """Times in any order and shape, at once and far."""
    absorbed = rates.copy()
    absorbed[targets] = 0
    times = np.array([[3.0, 0.0], [0.01, 0.2]]) * 50 / rates.sum(axis=1).max()
    F = MarkovProcess(rates).first_passage_distribution(targets, times)
    want = [
        [naive.markov_exponential(generator(absorbed), t)[:, targets].reshape(N, -1).sum(axis=1) for t in row]
        for row in times
    ]
    np.testing.assert_allclose(F, want, atol=2e-10)
    np.testing.assert_array_equal(F[0, 1], np.isin(np.arange(N), targets))
    assert (F[..., targets] == 1).all()
    assert 0 <= F.min() <= F.max() <= 1


def test_first_passage_distributions_tend_to_the_probabilities_to_arrive():
    process = MarkovProcess(RATES["absorbing"])
    F = process.first_passage_distribution(5, [0.0, 1.0, 4.0, 1e6])
    assert (np.diff(F, axis=0) >= -1e-10).all()
    agree(F[-1], process.hitting_probabilities(5), 1e-9)
    assert (F[:, 6:] == 0).all()
    stiff = MarkovProcess(RATES["stiff"])
    t = float(np.median(stiff.hitting_times(0)))
    g = stiff.hitting_transform(0, 1 / t)
    assert (math.exp(-1) * stiff.first_passage_distribution(0, t) <= g + 1e-10).all()  # Markov's inequality
    assert process.first_passage_distribution(5, []).shape == (0, N)
    assert MarkovProcess(RATES["absorbing"].astype(np.float32)).first_passage_distribution(5, 1.0).dtype == np.float32


def test_stiff_processes_keep_their_digits():
    A = RATES["stiff"]
    agree(MarkovProcess(A).hitting_times(0), naive.hitting_times_by_fractions(A, 0), 1e-13)
    agree(MarkovProcess(A).stationary(), naive.stationary_by_fractions(A), 1e-13)


def test_long_times_take_few_products(monkeypatch):
    """Reversible: the square root of the expected jumps; otherwise until nothing changes any more."""
    counts = []
    step = uniformisation.Clock.step
    monkeypatch.setattr(uniformisation.Clock, "step", lambda clock, x: counts.append(1) or step(clock, x))
    path = np.diag(np.ones(199), 1) + np.diag(np.ones(199), -1)
    start = np.eye(200)[0]
    got = MarkovProcess(path).evolve(start, 5000.0)
    assert len(counts) < 2000
    values, V = np.linalg.eigh(generator(path))
    assert np.abs(got - V @ (np.exp(5000 * values) * V[0])).sum() < 2e-10
    counts.clear()
    A = RATES["random"]
    process = MarkovProcess(A)
    agree(process.evolve(np.eye(N)[0], 1e9), process.stationary(), 1e-8)
    assert len(counts) < 2000


@pytest.mark.parametrize("rate", [0.0, 1e-9, 0.5, 3.0, 40.0, 1e4, 1e8])
def test_poisson_weights(rate):
    for tol in (1e-3, 1e-12):
        first, w = uniformisation.poisson_weights(rate, tol)
        k = first + np.arange(w.size)
        own = 1e-13 + 4e-16 * rate * math.log(1 + rate)  # rounding of the oracle, which subtracts large logarithms
        left_out = stats.poisson.cdf(first - 1, rate) + stats.poisson.sf(k[-1], rate)
        assert left_out <= 1.01 * tol
        np.testing.assert_allclose(w, stats.poisson.pmf(k, rate), rtol=3 * tol + own)
        assert abs(w.sum() - 1) < 1e-14


def test_precision_and_repr():
    process = MarkovProcess(RATES["random"].astype(np.float32))
    assert process.dtype == np.float32
    assert process.hitting_times(0).dtype == np.float32
    assert process.evolve(np.eye(N, dtype=np.float32)[0], 1.0).dtype == np.float32
    assert repr(process).startswith(f"MarkovProcess({N} states, ")


@pytest.mark.parametrize(
    ("Q", "sentence"),
    [
        ([[0.0, -1.0], [1.0, 0.0]], "row 0 has -1 in column 1"),
        ([[-1.0, 1.0], [1.0, -2.0]], "row 1 sums to -1"),
        ([[1.0, 1.0], [1.0, -1.0]], "row 0 sums to 2"),
    ],
)
def test_generators_that_are_none(Q, sentence):
    with pytest.raises(ValueError, match=sentence):
        MarkovProcess(Q)


def test_arguments_that_do_not_fit():
    process = MarkovProcess(CYCLE)
    for time in ([0.0, 1.0], 1j, "soon"):
        with pytest.raises((TypeError, ValueError), match=r"one real number|could not convert"):
            process.evolve(np.eye(N)[0], time)
    for call in (
        lambda: process.evolve(np.eye(N)[0], -1.0),
        lambda: process.evolve(np.eye(N)[0], np.inf),
        lambda: process.evolve(np.eye(N)[0], 1.0, tol=0.0),
        lambda: process.hitting_moments(0, 0),
        lambda: process.simulate(0, -1),
        lambda: process.hitting_transform(0, [-1.0]),
    ):
        with pytest.raises(ValueError, match=r"must|takes"):
            call()


# --- what is drawn ----------------------------------------------------------------------------------------------------


def test_simulated_chain_agrees_with_its_solutions():
    A = RATES["random"]
    P = A / A.sum(axis=1, keepdims=True)
    chain, walks, steps = MarkovChain(P), 2000, 1500
    paths = chain.simulate(np.full(walks, 3), steps, rng=0)
    assert paths.shape == (walks, steps + 1)
    assert (paths[:, 0] == 3).all()
    assert (P[paths[:, :-1], paths[:, 1:]] > 0).all()
    first = np.argmax(paths == 0, axis=1).astype(float)
    assert (paths == 0).any(axis=1).mean() > 0.999
    assert abs(first.mean() - chain.hitting_times(0)[3]) < 5 * first.std() / np.sqrt(walks)
    p = chain.evolve(np.eye(N)[3], 5)
    seen = np.bincount(paths[:, 5], minlength=N) / walks
    assert (np.abs(seen - p) <= 5 * np.sqrt(p * (1 - p) / walks) + 1e-12).all()


def test_simulated_process_agrees_with_its_solutions():
    A = RATES["random"]
    process, walks = MarkovProcess(A), 2000
    states, times = process.simulate(np.full(walks, 3), 1500, rng=0)
    assert states.shape == times.shape == (walks, 1501)
    first = np.argmax(states == 0, axis=1)
    hit = np.take_along_axis(times, first[:, None], axis=1)[:, 0]
    assert abs(hit.mean() - process.hitting_times(0)[3]) < 5 * hit.std() / np.sqrt(walks)
    t = 0.5
    now = np.take_along_axis(states, (times <= t).sum(axis=1, keepdims=True) - 1, axis=1)[:, 0]
    arrived = process.first_passage_distribution(0, t)[3]
    assert abs((hit <= t).mean() - arrived) < 5 * np.sqrt(arrived * (1 - arrived) / walks)
    p = process.evolve(np.eye(N)[3], t)
    assert (np.abs(np.bincount(now, minlength=N) / walks - p) <= 5 * np.sqrt(p * (1 - p) / walks) + 1e-12).all()


def test_walks_are_reproducible_and_absorbed():
    chain = MarkovChain([[0.5, 0.5], [0.0, 1.0]])
    got = chain.simulate([0, 1], 20, rng=1)
    with use_backend("numpy"):
        np.testing.assert_array_equal(chain.simulate([0, 1], 20, rng=1), got)
    assert (got[1] == 1).all()
    assert chain.simulate(0, 0).tolist() == [0]
    states, times = MarkovProcess([[0.0, 1.0], [0.0, 0.0]]).simulate(0, 3, rng=0)
    assert states.tolist() == [0, 1, 1, 1]
    assert np.isfinite(times).tolist() == [True, True, False, False]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(0, 10**6), st.integers(0, 12), st.sampled_from([0.0, 1e-3, 0.3, 50.0, 1e5, 1e12]))
def test_any_process_gives_an_answer_or_a_documented_infinity(n, seed, decades, time):
    rng = np.random.default_rng(seed)
    A = rng.random((n, n)) * (rng.random((n, n)) < 0.4) * 10.0 ** (-decades * rng.random((n, n)))
    np.fill_diagonal(A, 0)
    process, p, f = MarkovProcess(A), np.eye(n)[:1], rng.uniform(-1, 1, n)
    targets = rng.integers(0, n, 1 + n // 4)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ConvergenceWarning)
        later, values, spent = process.evolve(p, time), process.expect(f, time), p @ process.occupation(time)
    if time <= 50:
        E = naive.markov_exponential(generator(A), time)
        assert np.abs(later - E[:1]).sum() < 1e-9
        assert np.abs(values - E @ f).max() < 1e-9
    assert f.min() <= values.min() <= values.max() <= f.max()
    assert said or np.abs(spent.sum() - time) <= 1e-9 * time  # too stiff for double precision: a bound is told
    hit, g = process.hitting_probabilities(targets), process.hitting_transform(targets, [0.0, 0.5, np.inf])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        until = process.first_passage_distribution(targets, time)
    for x in (later, hit, g, until, process.absorption_probabilities()):
        assert x.min() >= 0
        assert x.max() <= 1
    assert abs(later.sum() - 1) < 1e-12
    h, m = process.hitting_times(targets), process.hitting_moments(targets, 2)
    np.testing.assert_array_equal(np.isinf(h), hit < 1)
    for x in (
        h,
        m,
        process.mean_first_passage(),
        process.commute_times([[0, n - 1]]),
        process.simulate(0, 3, rng=0)[1],
    ):
        assert not np.isnan(x).any()
        assert x.min() >= 0
    if len(process.classes().recurrent) == 1:
        assert abs(process.stationary().sum() - 1) < 1e-12
    else:
        with pytest.raises(ValueError, match="not unique"):
            process.stationary()
