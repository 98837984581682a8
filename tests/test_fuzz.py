"""Hard use: random calls, sizes that no machine has, and interruptions at any moment."""

import contextlib
import signal
import threading
import time

import numpy as np
import pytest

import structmask as sm
from tests import fuzz, zoo


def test_random_calls_agree_with_their_definitions(capsys):
    assert fuzz.main(["150"]) == 0, capsys.readouterr().out


def test_a_wrong_answer_is_found(monkeypatch):
    monkeypatch.setattr(sm.Causal, "_matmat", lambda *given: 2 * given[1])
    assert any(fuzz.run(0, index, ["causal"])[2] for index in range(0, 20, 2))


def test_an_undocumented_exception_is_found(monkeypatch):
    monkeypatch.setattr(sm.Causal, "_matmat", lambda *given: given[1].no_such_name)
    assert any("AttributeError" in (fuzz.run(0, index, ["causal"])[2] or "") for index in range(0, 20, 2))


@pytest.mark.parametrize(
    "call",
    [
        lambda n: sm.Toeplitz.from_function(lambda s: 1.0 / (1 + np.abs(s)), (n,)),
        lambda n: sm.complete_diffusion(n, 1.0).to_dense(),
        lambda n: sm.Band(np.ones(3), n).to_dense(),
        lambda n: sm.Buckets(np.ones(2), (0,), n).to_dense(),
        lambda n: sm.ExponentialSum(np.ones(2), np.full(2, 0.5), n).to_dense(),
        lambda n: sm.with_global_tokens(sm.Causal(4), n).to_dense(),
        lambda n: sm.positive_features(10, n),
        lambda n: sm.as_adjacency(nodes=n, edges=[[0], [1]]),
    ],
)
def test_impossible_sizes_fail_early_and_name_their_memory(call):
    start = time.monotonic()
    with pytest.raises(MemoryError, match=r"allocate [\d.]+ (P|E)iB"):
        call(10**15)
    assert time.monotonic() - start < 60  # and not after the work


@pytest.mark.parametrize(
    "call",
    [
        lambda n: sm.random_walk_kernel(np.ones((3, 3)), 3, walks=n),
        lambda n: sm.graph_random_features(np.ones((3, 3)) / 9, np.ones(2), walks=n, stop=0.5),
    ],
)
def test_more_walks_than_memory_holds_are_refused(call):
    with pytest.raises(MemoryError, match=r"walks=1000000000000000 .* 33,527,613 GiB"):
        call(10**15)


def test_a_hypercube_beyond_any_memory_is_refused():
    with pytest.raises(ValueError, match="d <= 40"):
        sm.Hypercube(np.ones(60))


def interrupted(run, seconds):
    """Ctrl-C after so long, if the function still runs then."""
    armed = [True]

    def interrupt(*_):
        if armed:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    # An interruption that arrives inside a compiled kernel may leave it as numba's SystemError.
    with contextlib.suppress(KeyboardInterrupt, SystemError):
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            run()
        finally:
            armed.clear()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


PATH = zoo.tree("deep", 400)
BUILDERS = {
    "toeplitz": lambda: sm.Toeplitz(np.random.default_rng(0).standard_normal((63, 63)), levels=2),
    "tree": lambda: sm.tree_mask(sm.as_forest(parents=PATH, lengths=np.ones(400)), lambda d: np.exp(-d * d / 9)),
    "diffusion": lambda: sm.diffusion_kernel(sm.as_adjacency(nodes=400, edges=RING), 2.0),
    "chain": lambda: sm.MarkovChain.from_graph(sm.as_adjacency(nodes=400, edges=RING)).discounted_visits(0.9),
}
ENDS = np.stack([np.arange(400), np.roll(np.arange(400), 1)])
RING = np.concatenate([ENDS, ENDS[::-1]], axis=1)


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals need the main thread")
@pytest.mark.parametrize("name", BUILDERS)
def test_an_interruption_leaves_plans_sound(name):
    """At every tenth of its first product a matrix is interrupted; its next product is the right one."""
    M = BUILDERS[name]()
    X = np.random.default_rng(1).standard_normal((M.shape[-1], 3))
    want = M @ X  # everything is compiled
    start = time.perf_counter()
    BUILDERS[name]() @ X
    whole = time.perf_counter() - start
    for tenth in range(10):
        M = BUILDERS[name]()
        interrupted(lambda M=M: M @ X, (tenth + 0.5) / 10 * whole)
        np.testing.assert_allclose(M @ X, want, rtol=0, atol=1e-12 * np.abs(want).max())
