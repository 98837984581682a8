"""Chains of every kind against dense solutions, and what the graph decides alone."""

import warnings

import numpy as np
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from structmask import LowRank, MarkovChain, masked_attention, use_backend
from structmask.graphs import transient
from tests import naive
from tests.cases import real
from tests.graphs.chains import CYCLE, IRREDUCIBLE, PERIODS, REVERSIBLE, N, agree, normalised, symmetric, uniform


@pytest.fixture(params=IRREDUCIBLE)
def name(request):
    return request.param


@pytest.fixture(params=["direct", "iterated", "numpy"])
def way(request, monkeypatch):
    """Solved by elimination, by iteration, or without compiled code."""
    if request.param == "iterated":
        monkeypatch.setattr(transient.TransientSystem, "factor", lambda *_: None)
    with use_backend("numpy" if request.param == "numpy" else "auto"):
        yield request.param


# --- the solutions ----------------------------------------------------------------------------------------------------


def test_stationary(name, way):
    P = IRREDUCIBLE[name]
    p = MarkovChain(P).stationary(tol=1e-12)
    agree(p, naive.stationary_distribution(P))
    assert abs(p.sum() - 1) < 1e-12
    assert p.min() > 0


@pytest.mark.parametrize("targets", [[0], [1, -1]])
def test_hitting_times(name, way, targets):
    P = IRREDUCIBLE[name]
    indices = [t % len(P) for t in targets]
    agree(MarkovChain(P).hitting_times(targets, tol=1e-12), naive.hitting_times(P, indices))


def test_hitting_probabilities(name, way):
    P = IRREDUCIBLE[name]
    p = MarkovChain(P).hitting_probabilities(0, avoid=1, tol=1e-13)
    agree(p, naive.hitting_probabilities(P, [0], [1]))
    assert p.min() >= 0
    assert p.max() <= 1


def test_visits_and_their_diagonal(name, way):
    P = IRREDUCIBLE[name]
    chain = MarkovChain(P)
    for M, want in (
        (chain.visits([0], tol=1e-13), naive.visits(P, 1.0, (0,))),
        (chain.discounted_visits(0.9, tol=1e-13), naive.visits(P, 0.9)),
    ):
        agree(M.to_dense(), want)
        agree(M.T.to_dense(), want.T)
        agree(M.inverse_diagonal(), np.diagonal(want))


def test_transform_moments_and_distribution(name, way):
    P = IRREDUCIBLE[name]
    chain, n, steps = MarkovChain(P), len(P), 400
    D = chain.first_passage_distribution(0, steps)
    assert D.shape == (steps + 1, n)
    s, t = 0.3, np.arange(steps + 1.0)
    agree(chain.hitting_transform(0, s, tol=1e-13), np.exp(-s * t) @ D)
    agree(chain.hitting_transform(0, [0.0, s], tol=1e-13), [np.ones(n), np.exp(-s * t) @ D])
    f, m = slice(1, None), chain.hitting_moments(0, 3, tol=1e-13)
    h = naive.hitting_times(P, [0])
    second = np.linalg.solve(np.eye(n - 1) - P[f, f], 1 + 2 * P[f, f] @ h[f])
    third = np.linalg.solve(np.eye(n - 1) - P[f, f], 1 + 3 * P[f, f] @ h[f] + 3 * P[f, f] @ second)
    agree(m[:, f], [h[f], second, third])
    assert not m[:, 0].any()


def test_first_passage_kernel_is_the_transform_of_each_column(name):
    chain = MarkovChain(IRREDUCIBLE[name])
    K = chain.first_passage_kernel(0.8).to_dense()
    want = [chain.hitting_transform(j, -np.log(0.8)) for j in range(chain.size)]
    agree(K, np.transpose(want))


def test_times_between_pairs(name, way):
    P = IRREDUCIBLE[name]
    chain, n = MarkovChain(P), len(P)
    H = np.transpose([naive.visits(P, 1.0, (j,)).sum(axis=1) for j in range(n)])
    agree(chain.mean_first_passage(tol=1e-12), H)
    pairs = [[0, n - 1], [1, 0], [0, 0], [n - 1, 1]]
    agree(chain.commute_times(pairs, tol=1e-12), [H[i, j] + H[j, i] for i, j in pairs])
    if name in REVERSIBLE:
        agree(chain.effective_resistance(pairs, tol=1e-12), [H[i, j] + H[j, i] for i, j in pairs])
    else:
        with pytest.raises(ValueError, match="detailed balance"):
            chain.effective_resistance(pairs)
    agree(chain.kemeny_constant(tol=1e-12), (H @ naive.stationary_distribution(P))[0])


def test_estimated_kemeny_constant_is_within_its_errors(name):
    chain = MarkovChain(IRREDUCIBLE[name])
    value, error = chain.kemeny_constant(samples=400, rng=0)
    assert abs(value - chain.kemeny_constant()) <= 5 * error
    assert error <= 0.2 * value


def test_steps(name):
    P = IRREDUCIBLE[name]
    chain, n = MarkovChain(P), len(P)
    p, f = normalised(uniform(3, n)), real(n, 2)
    for steps in (0, 1, 7):
        power = np.linalg.matrix_power(P, steps)
        agree(chain.evolve(p, steps), p @ power)
        agree(chain.evolve(p[0], steps), p[0] @ power)
        np.testing.assert_allclose(chain.expect(f, steps), power @ f, atol=1e-13)
        np.testing.assert_allclose(chain.expect(f[:, 0], steps), power @ f[:, 0], atol=1e-13)
    assert np.abs(chain.evolve(p, 500).sum(axis=-1) - 1).max() < 1e-12


def test_what_the_graph_decides(name):
    chain = MarkovChain(IRREDUCIBLE[name])
    assert chain.classes().is_irreducible
    assert chain.period() == chain.period(0) == PERIODS[name]
    assert chain.is_reversible() == (name in REVERSIBLE)


# --- reducible chains -------------------------------------------------------------------------------------------------

REDUCIBLE = np.array([
    [0.5, 0.25, 0.25, 0.0, 0.0, 0.0],
    [0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
    [0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
    [0.25, 0.0, 0.0, 0.25, 0.5, 0.0],
    [0.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    [0.0, 0.0, 0.0, 0.5, 0.0, 0.5],
])  # fmt: skip


def test_classes_of_a_reducible_chain():
    chain = MarkovChain(REDUCIBLE)
    classes = chain.classes()
    np.testing.assert_array_equal(classes.labels, [0, 1, 1, 2, 3, 4])
    assert [list(states) for states in classes.recurrent] == [[1, 2], [4]]
    np.testing.assert_array_equal(classes.transient, [0, 3, 5])
    assert (chain.period(1), chain.period(4), chain.period(0)) == (2, 1, 1)
    assert "5, of which 2 recurrent" in repr(classes)
    with pytest.raises(ValueError, match="not unique: the chain has 2 recurrent classes"):
        chain.stationary()
    with pytest.raises(ValueError, match="name a state"):
        chain.period()
    with pytest.raises(ValueError, match="irreducible"):
        chain.kemeny_constant()


def test_infinite_times_and_certain_probabilities(way):
    chain = MarkovChain(REDUCIBLE)
    h = chain.hitting_times([1])
    np.testing.assert_array_equal(np.isinf(h), [False, False, False, True, True, True])
    agree(h[[0, 1, 2]], [2.5, 0, 1])
    agree(chain.hitting_probabilities(1), [1, 1, 1, 1 / 3, 0, 1 / 3])
    assert (chain.hitting_probabilities(1)[:3] == 1).all()
    agree(chain.hitting_probabilities(4), [0, 0, 0, 2 / 3, 1, 2 / 3])
    agree(chain.absorption_probabilities(), np.transpose([[1, 1, 1, 1 / 3, 0, 1 / 3], [0, 0, 0, 2 / 3, 1, 2 / 3]]))
    np.testing.assert_array_equal(chain.hitting_moments(1, 2)[:, 3], np.inf)
    agree(chain.hitting_transform(1, 0.0), chain.hitting_probabilities(1))
    with pytest.raises(ValueError, match="cannot reach a target"):
        chain.visits(1)
    agree(chain.visits([1, 4]).to_dense(), naive.visits(REDUCIBLE, 1.0, (1, 4)))
    assert np.isinf(chain.commute_times([[0, 1]])[0])


def test_one_state_and_isolated_nodes():
    chain = MarkovChain([[1.0]])
    agree(chain.stationary(), [1.0])
    agree(chain.hitting_times(0), [0.0])
    assert chain.kemeny_constant() == 0
    assert chain.period() == 1
    lonely = MarkovChain.from_graph(scipy.sparse.csr_array((2, 2)))
    assert lonely.classes().count == 2
    np.testing.assert_array_equal(lonely.hitting_times(0), [0, np.inf])
    assert np.isinf(lonely.effective_resistance([[0, 1]])[0])


def test_resistances_of_a_graph_are_those_of_its_weights(way):
    W = symmetric(uniform(N, N) * (uniform(N, N, seed=1) < 0.1) + CYCLE)
    chain, inverse = MarkovChain.from_graph(W), np.linalg.pinv(np.diag(W.sum(axis=1)) - W)
    pairs = np.array([[0, 5], [7, 5], [3, 3]])
    want = [inverse[i, i] + inverse[j, j] - 2 * inverse[i, j] for i, j in pairs]
    agree(chain.effective_resistance(pairs, tol=1e-12), want)
    agree(chain.commute_times(pairs, tol=1e-12), W.sum() * np.array(want))


# --- as a mask --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["discounted", "kernel", "visits"])
def test_attention_under_visits(kind, close):
    chain = MarkovChain(IRREDUCIBLE["reversible"])
    mask = {
        "discounted": chain.discounted_visits(0.8),
        "kernel": chain.first_passage_kernel(0.8),
        "visits": chain.visits([0]),
    }[kind]
    q, k, v = real(N, 3), real(N, 3, seed=1), real(N, 2, seed=2)
    A = mask.to_dense() * naive.low_rank(np.exp(q), np.exp(k))
    mass = A.sum(axis=1, keepdims=True)
    want = np.divide(A @ v, mass, out=np.zeros((N, 2)), where=mass > 0)
    close(masked_attention(np.exp(q), np.exp(k), v, mask=mask, features=None), want)
    close((mask * LowRank(q, k)) @ v, (mask.to_dense() * naive.low_rank(q, k)) @ v)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transition", "sentence"),
    [
        ([[0.5, 0.5], [0.5, 0.6]], "row 1 sums to 1.1"),
        ([[1.0, 0.0], [0.0, 0.0]], "row 1 sums to 0"),
        ([[1.5, -0.5], [0.0, 1.0]], "row 0 has -0.5 in column 1"),
        (np.ones((2, 3)) / 3, "square"),
        ([[np.nan, 1.0], [0.0, 1.0]], "finite"),
        (np.zeros((0, 0)), "at least one state"),
    ],
)
def test_transitions_that_are_none(transition, sentence):
    with pytest.raises(ValueError, match=sentence):
        MarkovChain(transition)


def test_arguments_that_do_not_fit():
    chain = MarkovChain(IRREDUCIBLE["two"])
    for targets, error in (([], ValueError), (2, IndexError), ([0.5], IndexError), ([True], IndexError)):
        with pytest.raises(error):
            chain.hitting_times(targets)
    with pytest.raises(ValueError, match="both a target and avoided"):
        chain.hitting_probabilities(0, avoid=[0, 1])
    with pytest.raises(ValueError, match="sums to 1, got the sum"):
        chain.evolve([1.0, 0.5], 1)
    with pytest.raises(ValueError, match="not negative"):
        chain.evolve([1.5, -0.5], 1)
    with pytest.raises(ValueError, match="shape"):
        chain.evolve([1.0], 1)
    with pytest.raises(ValueError, match="at least 0"):
        chain.evolve([1.0, 0.0], -1)
    with pytest.raises(TypeError):
        chain.evolve([1.0, 0.0], 0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        chain.discounted_visits(1.0)
    with pytest.raises(ValueError, match="s >= 0"):
        chain.hitting_transform(0, -1.0)
    with pytest.raises(ValueError, match="pairs"):
        chain.commute_times([0, 1])
    with pytest.raises(ValueError, match="undirected"):
        MarkovChain.from_graph([[0.0, 1.0], [0.0, 0.0]])


def test_results_have_the_precision_of_the_chain():
    P = IRREDUCIBLE["random"]
    chain = MarkovChain(P.astype(np.float32))
    results = [chain.stationary(), chain.hitting_times(0), chain.hitting_moments(0, 2), chain.kemeny_constant()]
    assert [np.asarray(x).dtype.name for x in results] == ["float32", "float32", "float32", "float64"]
    np.testing.assert_allclose(results[1], naive.hitting_times(P, [0]), rtol=1e-5)
    p = np.full(N, 1 / N, np.float32)
    assert chain.evolve(p, 3).dtype == MarkovChain(P).evolve(p, 3).dtype == np.float32
    assert repr(chain) == f"MarkovChain({N} states, {chain._A.nnz} steps, float32)"


def test_inputs_are_not_modified():
    A = scipy.sparse.csr_array(np.array([[0.0, 2.0], [2.0, 0.0]]))
    A.data.flags.writeable = False
    MarkovChain.from_graph(A).hitting_times(0)
    np.testing.assert_array_equal(A.data, [2, 2])


# --- anything ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 9), st.integers(0, 10**6), st.floats(0.05, 0.9), st.integers(0, 16))
def test_any_chain_gives_an_answer_or_a_documented_infinity(n, seed, density, decades):
    rng = np.random.default_rng(seed)
    A = rng.random((n, n)) * (rng.random((n, n)) < density) * 10.0 ** (-decades * rng.random((n, n)))
    A[A.sum(axis=1) == 0, 0] = 1.0
    P = A / A.sum(axis=1, keepdims=True)
    chain = MarkovChain(P)
    targets = rng.integers(0, n, 1 + n // 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        h, p = chain.hitting_times(targets), chain.hitting_probabilities(targets)
        absorbed, later = chain.absorption_probabilities(), chain.evolve(np.full(n, 1 / n), 5)
        g, u = chain.hitting_transform(targets, 0.5), chain.first_passage_distribution(targets, 3)
        K, M = chain.first_passage_kernel(0.9).to_dense(), chain.discounted_visits(0.9).to_dense()
        m, H = chain.hitting_moments(targets, 2), chain.mean_first_passage()
        commute, period = chain.commute_times([[0, n - 1]]), chain.period(0)
    assert period >= 0
    assert (chain.simulate(targets, 3, rng=0) < n).all()
    assert np.abs(M.sum(axis=1) - 10).max() < 1e-10
    if chain.classes().is_irreducible:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.isfinite([chain.kemeny_constant(), *chain.kemeny_constant(samples=2, rng=0)]).all()
    if len(chain.classes().recurrent) == 1:
        assert abs(chain.stationary().sum() - 1) < 1e-12
    if chain.is_reversible():
        assert not np.isnan(chain.effective_resistance([[0, n - 1]])).any()
    for x in (h, m, H, commute):
        assert not np.isnan(x).any()
    assert (
        np.isinf(h) == (np.setdiff1d(range(n), naive.certain_states(P, targets))[:, None] == range(n)).any(axis=0)
    ).all()
    for x in (p, absorbed, later, g, u, np.minimum(K, 1)):
        assert np.isfinite(x).all()
        assert x.min() >= 0
        assert x.max() <= 1
    assert K.max() <= 1 + 1e-12
    assert np.abs(absorbed.sum(axis=1) - 1).max() < 1e-12
    finite = np.isfinite(h)
    np.testing.assert_array_equal(p[finite], 1.0)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_steps_beyond_count_end_where_they_come_back_to(n, rng):
    """A chain that goes around is where the remainder of its steps takes it; another one is where it stays."""
    around, p = MarkovChain(np.roll(np.eye(n), 1, axis=1)), rng.dirichlet(np.ones(n))
    for steps in (10**15, 10**15 + 1, 10**15 + 5):
        assert np.array_equal(around.evolve(p, steps), around.evolve(p, steps % n))
        assert np.array_equal(around.expect(p, steps), around.expect(p, steps % n))
    chain = MarkovChain(rng.dirichlet(np.ones(n), size=n))
    agree(chain.evolve(p, 10**15), chain.stationary())
    agree(chain.expect(np.arange(n), 10**15), np.full(n, chain.stationary() @ np.arange(n)))


def test_steps_are_counted_exactly_beyond_a_round(rng):
    """As many as are asked for, also where nothing has come back: a slow walk, step by step."""
    n, e = 50, 1e-5
    P = (1 - e) * np.eye(n) + e * np.roll(np.eye(n), 1, axis=1)
    chain, p = MarkovChain(P), np.eye(n)[0]
    for steps in (5039, 5040, 5041, 12_345):
        agree(chain.evolve(p, steps), p @ np.linalg.matrix_power(P, steps))


def test_a_distribution_without_room_is_refused_at_once():
    with pytest.raises(MemoryError, match="allocate"):
        MarkovChain([[0.5, 0.5], [1.0, 0.0]]).first_passage_distribution([0], 10**15)
