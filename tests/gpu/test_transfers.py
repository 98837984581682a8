"""Once plans are made, no operation moves anything between host and device, nor waits for it, unless it iterates."""

import numpy as np
import pytest
import scipy.sparse.linalg

from structmask import (
    Sparse,
    Toeplitz,
    as_forest,
    graph_random_features,
    masked_attention,
    solve,
    tree_decay,
    use_backend,
)
from structmask.graphs import Visits
from tests.conftest import LIBRARIES
from tests.gpu import stand_in

LIBRARY = LIBRARIES["stand-in"]


@pytest.fixture(autouse=True)
def device():
    with stand_in.installed():
        yield


def path_decay(n):
    return tree_decay(as_forest(parents=np.arange(-1, n - 1), lengths=np.ones(n)), 0.5)


def on_device(rng, *shape):
    return LIBRARY.array(rng.standard_normal(shape))


def twice(operation, *, waits=False):
    """An operation that makes its plans, and then runs again from them; it `waits` if it looks at residuals."""
    operation()
    with stand_in.forbid(*(("to_device", "to_host") if waits else stand_in.KINDS)):
        return operation()


def test_products_transfer_nothing(case, rng):
    M, (m, n) = LIBRARY.build(case), case.dense.shape[-2:]
    X, G = on_device(rng, n, 3), on_device(rng, m, 3)
    twice(lambda: M @ X, waits=case.waits)
    adjoint = M.mH
    twice(lambda: adjoint @ G, waits=case.waits)


def test_gradients_transfer_nothing(case, rng):
    if not case.differentiable:
        return
    M, (*batch, m, n) = LIBRARY.build(case), case.dense.shape
    X, G = on_device(rng, n, 3), on_device(rng, *batch, m, 3)
    twice(lambda: M.pullback(G, X), waits=case.waits)


def test_attention_transfers_nothing(case, rng):
    m, n = case.dense.shape[-2:]
    if np.iscomplexobj(case.dense) or m != n:
        return
    M = LIBRARY.build(case)
    q, k, v = on_device(rng, n, 2), on_device(rng, n, 2), on_device(rng, n, 3)
    twice(lambda: masked_attention(q, k, v, mask=M), waits=case.waits)


def test_host_matrices_move_once_under_the_setting(rng):
    M = Toeplitz(rng.standard_normal(9))
    X = on_device(rng, 5, 2)
    with use_backend("cupy"):
        twice(lambda: M @ X)
        twice(M.diagonal)


def test_every_device_has_its_own_copies(case, rng):
    M, (m, n) = LIBRARIES["numba"].build(case), case.dense.shape[-2:]
    X, G = rng.standard_normal((n, 2)), rng.standard_normal((*case.dense.shape[:-2], m, 2))
    is_mask = m == n and not np.iscomplexobj(case.dense)

    def results():
        x, g = LIBRARY.array(X), LIBRARY.array(G)
        yield from (M @ x, M.diagonal() if m == n else M.to_dense())
        if case.differentiable:
            yield from _leaves(M.pullback(g, x))
        if is_mask:
            yield masked_attention(x, x, x, mask=M)

    with use_backend("cupy"):
        first = list(results())
        with stand_in.Device(1):
            second = list(results())
            assert {x.device.id for x in second} == {1}
        assert {x.device.id for x in first} == {0}
    for x, y in zip(first, second, strict=True):
        np.testing.assert_array_equal(x.get(), y.get())


def _leaves(gradients):
    values = gradients.values() if isinstance(gradients, dict) else [gradients]
    return [leaf for x in values for leaf in (_leaves(x) if isinstance(x, dict) else [x])]


def test_conjugate_gradients_wait_for_the_device_every_sixteenth_iteration_only(rng):
    n = 400
    path = scipy.sparse.diags_array([-1.0, 2.001, -1.0], offsets=[-1, 0, 1], shape=(n, n))
    b, waits, iterations = rng.standard_normal((n, 3)), stand_in.events["synchronisation"], []
    A = Sparse(scipy.sparse.csr_array(path)).to("cupy")
    x = solve(A, LIBRARY.array(b), tol=1e-10, preconditioner=None, callback=lambda i, _: iterations.append(i))
    waits = stand_in.events["synchronisation"] - waits
    assert iterations[-1] > 100
    assert waits < iterations[-1] // 4
    np.testing.assert_allclose(x.get(), scipy.sparse.linalg.spsolve(path.tocsc(), b), rtol=1e-6, atol=1e-6)


def test_minimal_residuals_wait_for_the_device_every_sixteenth_iteration_only(rng):
    n = 600
    A = scipy.sparse.csr_array(scipy.sparse.diags_array([-1.0, 2.2, -0.5, 0.3], offsets=[-1, 0, 1, 7], shape=(n, n)))
    b, iterations = rng.standard_normal((n, 2)), []
    device, right = Sparse(A).to("cupy"), LIBRARY.array(b)
    solve(device, right, tol=0.5, preconditioner=None)  # makes its plans
    before = stand_in.events["synchronisation"]
    with stand_in.forbid("to_device", "to_host"):
        x = solve(device, right, tol=1e-10, preconditioner=None, callback=lambda i, _: iterations.append(i))
    waits = stand_in.events["synchronisation"] - before
    assert iterations[-1] > 60
    assert waits < iterations[-1] // 2
    np.testing.assert_allclose(x.get(), scipy.sparse.linalg.spsolve(A.tocsc(), b), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("targets", [(), (3, 700)])
def test_visits_of_many_states_are_iterated_on_the_device(rng, targets):
    n = 900
    ring = scipy.sparse.diags_array([0.5, 0.25, 0.25], offsets=[1, -1, 8 - n], shape=(n, n))
    host = Visits(scipy.sparse.csr_array(ring), 0.9, targets=targets)
    X, device = rng.standard_normal((n, 2)), host.to("cupy")
    x = LIBRARY.array(X)
    Y = twice(lambda: device @ x, waits=True)
    np.testing.assert_allclose(Y.get(), host @ X, atol=1e-8)
    assert np.abs(Y.get() - host @ X).max() <= device.error_bound * np.abs(X).max()


@pytest.mark.parametrize("repelling", [False, True])
def test_walks_on_the_device_are_those_of_the_host(repelling):
    graph = scipy.sparse.random_array((40, 40), density=0.1, rng=7, format="csr")
    options = {"walks": 6, "stop": 0.2, "repelling": repelling, "rng": 3}
    host = graph_random_features(graph, [1.0, 0.5, 0.25], **options)
    device = host.to("cupy")
    device = device.with_parameters(modulation=device.modulation)  # which draws them there
    for own, other in ((host.left, device.left.get()), (host.right, device.right.get())):
        np.testing.assert_array_equal(own.indices, other.indices)
        np.testing.assert_array_equal(own.indptr, other.indptr)
        np.testing.assert_allclose(own.data, other.data, rtol=1e-14)
