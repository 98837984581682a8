"""Markov chains and processes on a device: results of the host, where the matrix or the backend wants them."""

import pickle

import numpy as np
import pytest
import scipy.sparse

from structmask import BackendError, MarkovChain, MarkovProcess, to_numpy, use_backend
from structmask.backends import arrays
from structmask.graphs import uniformisation
from structmask.graphs.transient import TransientSystem
from tests.conftest import LIBRARIES
from tests.gpu import stand_in
from tests.gpu.test_transfers import twice

LIBRARY = LIBRARIES["stand-in"]
N, LARGE = 12, 1600
TARGETS = [2, 5]


@pytest.fixture(autouse=True)
def device():
    with stand_in.installed():
        yield


def steps(n):
    """Rates around a ring, not reversible, with a few long ways."""
    rng = np.random.default_rng(n)
    far = scipy.sparse.random_array((n, n), density=1 / n, rng=rng, format="csr")
    ring = scipy.sparse.diags_array([0.5, 0.25, 0.25], offsets=[1, -1, 1 - n], shape=(n, n))
    A = scipy.sparse.csr_array(ring + far)
    A.setdiag(0)
    A.eliminate_zeros()
    return A


def probabilities(A):
    return scipy.sparse.csr_array(A / np.asarray(A.sum(axis=1)).reshape(-1, 1))


def path(n):
    return scipy.sparse.csr_array(scipy.sparse.diags_array([1.0, 1.0], offsets=[1, -1], shape=(n, n)))


def columns(n):
    return np.random.default_rng(0).random((n, 2))


COMMON = {
    "stationary": lambda walk, _: walk.stationary(),
    "hitting-times": lambda walk, _: walk.hitting_times(TARGETS),
    "hitting-probabilities": lambda walk, _: walk.hitting_probabilities(3, avoid=TARGETS),
    "hitting-transform": lambda walk, _: walk.hitting_transform(TARGETS, [0.0, 0.5, np.inf]),
    "hitting-moments": lambda walk, _: walk.hitting_moments(TARGETS, 3),
    "absorption": lambda walk, _: walk.absorption_probabilities(),
    "mean-first-passage": lambda walk, _: walk.mean_first_passage([0, 4]),
    "commute-times": lambda walk, _: walk.commute_times([(0, 4), (2, 2)]),
}
CHAIN = COMMON | {
    "evolve": lambda chain, a: chain.evolve(a(np.eye(N)[:2]), 7),
    "evolve-single": lambda chain, a: chain.evolve(a(np.eye(N, dtype=np.float32)[0]), 7),
    "expect": lambda chain, a: chain.expect(a(columns(N)), 7),
    "expect-complex": lambda chain, a: chain.expect(a(1j * columns(N)), 7),
    "first-passage": lambda chain, _: chain.first_passage_distribution(TARGETS, 9),
    "simulate": lambda chain, _: chain.simulate([0, 3], 20, rng=1),
    "visits": lambda chain, a: chain.visits(TARGETS) @ a(columns(N)),
    "discounted-visits": lambda chain, a: chain.discounted_visits(0.75) @ a(columns(N)),
    "first-passage-kernel": lambda chain, a: chain.first_passage_kernel(0.75) @ a(columns(N)),
}
PROCESS = COMMON | {
    "evolve": lambda process, a: process.evolve(a(np.eye(N)[:2]), 2.5),
    "evolve-at-rest": lambda process, a: process.evolve(a(np.eye(N)[0]), 1e12),
    "expect": lambda process, a: process.expect(a(columns(N)), 2.5),
    "expect-complex": lambda process, a: process.expect(a(1j * columns(N)), 2.5),
    "occupation": lambda process, a: process.occupation(2.5) @ a(columns(N)),
    "occupation-at-rest": lambda process, a: a(columns(N).T) @ process.occupation(1e6),
    "first-passage": lambda process, _: process.first_passage_distribution(TARGETS, [2.0, 0.0, 1.0]),
    "simulate": lambda process, _: process.simulate([[0], [3]], 20, rng=1),
}
QUESTIONS = [
    pytest.param(kind, prepare, question, id=f"{kind.__name__}-{name}")
    for kind, prepare, questions in ((MarkovChain, probabilities, CHAIN), (MarkovProcess, lambda A: A, PROCESS))
    for name, question in questions.items()
]


def agree(got, want, rtol=1e-9, atol=0.0):
    if isinstance(want, tuple):
        for one, other in zip(got, want, strict=True):
            agree(one, other)
        return
    assert arrays.home(got) == "cupy"
    assert got.dtype == want.dtype
    np.testing.assert_allclose(to_numpy(got), want, rtol=1e-6 if want.dtype == np.float32 else rtol, atol=atol)


@pytest.mark.parametrize(("kind", "prepare", "question"), QUESTIONS)
def test_results_are_those_of_the_host(kind, prepare, question):
    check(LIBRARY, kind, prepare, question)


def check(library, kind, prepare, question):
    A = prepare(steps(N))
    want = question(kind(A), lambda x: x)
    agree(question(kind(library.array(A)), library.array), want)
    with use_backend("cupy"):  # as it is, by the setting alone
        agree(question(kind(A), lambda x: x), want)


def test_reversible_walks():
    """Chebyshev polynomials, resistances, and matrices of graphs."""
    W, start = path(60), np.eye(60)[0]
    process, device = MarkovProcess(W), MarkovProcess(LIBRARY.array(W))
    agree(device.evolve(LIBRARY.array(start), 400.0), process.evolve(start, 400.0))
    agree(device.expect(LIBRARY.array(start), 400.0), process.expect(start, 400.0))
    chain, device = MarkovChain.from_graph(W), MarkovChain.from_graph(LIBRARY.array(W))
    agree(device.effective_resistance([(0, 9)]), chain.effective_resistance([(0, 9)]))
    agree(device.stationary(), chain.stationary())
    assert device.kemeny_constant() == pytest.approx(chain.kemeny_constant())


def torus(side):
    """Reversible, and elimination is not tried at once."""
    ring = path(side).tolil()
    ring[0, side - 1] = ring[side - 1, 0] = 1
    one = scipy.sparse.eye_array(side)
    return scipy.sparse.csr_array(scipy.sparse.kron(ring, one) + scipy.sparse.kron(one, ring))


@pytest.mark.parametrize("A", [steps(LARGE), torus(40)], ids=["directed", "reversible"])
def test_large_systems_are_iterated_on_the_device(A):
    """What is asked comes to the device, the solution stays there."""
    P = probabilities(A)
    chain, device = MarkovChain(P), MarkovChain(LIBRARY.array(P))
    for question in (
        lambda walk: walk.hitting_times(TARGETS),
        lambda walk: walk.hitting_probabilities(3, avoid=TARGETS),
        lambda walk: walk.hitting_moments(TARGETS, 2),
        lambda walk: walk.hitting_transform(TARGETS, [0.0, 0.5, np.inf]),
        lambda walk: walk.stationary(),
    ):
        with stand_in.forbid("to_host"):
            got = question(device)
        agree(got, question(chain), rtol=1e-7, atol=1e-10)  # residuals of both are within 1e-10


@pytest.mark.parametrize("A", [steps(LARGE), torus(40)], ids=["directed", "reversible"])
def test_iterations_move_nothing_and_wait_now_and_then(A):
    is_kept = np.arange(LARGE) > 0
    system = TransientSystem(A, np.zeros(LARGE), is_kept=is_kept)
    b, products = LIBRARY.array(np.ones((LARGE - 1, 1))), []
    product = system.product
    system.product = lambda X, **options: products.append(1) or product(X, **options)
    twice(lambda: system.solve(b, tol=1e-9), waits=True)
    products.clear()
    before = stand_in.events["synchronisation"]
    system.solve(b, tol=1e-9)
    assert len(products) > 60
    assert stand_in.events["synchronisation"] - before < len(products) // 2


@pytest.mark.parametrize(
    "operation",
    [
        lambda walk, x: walk.expect(x, 3),
        lambda walk, x: walk.evolve(x.T / x.sum(axis=0)[:, None], 3),
    ],
    ids=["expect", "evolve"],
)
@pytest.mark.parametrize("kind", [MarkovChain, MarkovProcess])
def test_time_passes_without_transfers(kind, operation):
    walk = kind(LIBRARY.array(probabilities(steps(N))))
    x = LIBRARY.array(columns(N))
    waits = not (kind is MarkovChain and operation(walk, x).shape == (N, 2))
    twice(lambda: operation(walk, x), waits=waits)


def test_uniformisation_waits_every_sixteenth_step_only(monkeypatch):
    counts, step = [], uniformisation.Clock.step
    monkeypatch.setattr(uniformisation.Clock, "step", lambda clock, x: counts.append(1) or step(clock, x))
    process, x = MarkovProcess(LIBRARY.array(steps(N))), LIBRARY.array(columns(N))
    process.expect(x, 1e9)
    before = stand_in.events["synchronisation"]
    counts.clear()
    process.expect(x, 1e9)
    assert len(counts) > 100
    assert stand_in.events["synchronisation"] - before < len(counts) // 8


def test_what_does_not_meet_says_what_to_do():
    P, x = probabilities(steps(N)), columns(N)
    with pytest.raises(BackendError, match="lives in cupy, the walk in numpy"):
        MarkovChain(P).expect(LIBRARY.array(x), 2)
    with pytest.raises(BackendError, match="lives in numpy, the walk in cupy"):
        MarkovProcess(LIBRARY.array(P)).expect(x, 2.0)
    with use_backend("numba"), pytest.raises(BackendError, match="lives on the GPU but the backend in force"):
        MarkovChain(LIBRARY.array(P)).hitting_times(0)


def test_stiff_processes_say_where_they_run(monkeypatch):
    monkeypatch.setattr(uniformisation, "TRIAL", 20)
    monkeypatch.setattr(uniformisation, "_LONGEST", 100)
    process, x = MarkovProcess(LIBRARY.array(steps(60))), LIBRARY.array(columns(60))
    with pytest.raises(BackendError, match="implicit steps, which run on the host"):
        process.expect(x, 1e4)


def test_pickles_leave_the_device_out():
    chain, x = MarkovChain(probabilities(steps(N))), columns(N)
    process = MarkovProcess(steps(N))
    with use_backend("cupy"):
        chain.expect(x, 2)
        process.expect(x, 2.0)
    for walk, time in (chain, 2), (process, 2.0):
        copy = pickle.loads(pickle.dumps(walk))
        parts = copy, *copy.__dict__.values()
        assert not any("_copies" in getattr(part, "__dict__", {}) for part in parts)
        np.testing.assert_array_equal(copy.expect(x, time), walk.expect(x, time))
