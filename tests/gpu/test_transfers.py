"""Once plans are made, no operation moves anything between host and device, nor waits for the device."""

import numpy as np
import pytest
import scipy.sparse.linalg

from structmask import Sparse, masked_attention, solve
from tests.conftest import LIBRARIES
from tests.gpu import stand_in

LIBRARY = LIBRARIES["stand-in"]


@pytest.fixture(autouse=True)
def device():
    with stand_in.installed():
        yield


def on_device(rng, *shape):
    return LIBRARY.array(rng.standard_normal(shape))


def twice(operation):
    """An operation that makes its plans, and then runs again from them."""
    operation()
    with stand_in.forbid():
        return operation()


def test_products_transfer_nothing(case, rng):
    if not case.device:
        return
    M, (m, n) = LIBRARY.build(case), case.dense.shape[-2:]
    X, G = on_device(rng, n, 3), on_device(rng, m, 3)
    twice(lambda: M @ X)
    adjoint = M.mH
    twice(lambda: adjoint @ G)


def test_gradients_transfer_nothing(case, rng):
    if not (case.differentiable and case.device):
        return
    M, (*batch, m, n) = LIBRARY.build(case), case.dense.shape
    X, G = on_device(rng, n, 3), on_device(rng, *batch, m, 3)
    twice(lambda: M.pullback(G, X))


def test_attention_transfers_nothing(case, rng):
    m, n = case.dense.shape[-2:]
    if np.iscomplexobj(case.dense) or m != n or not case.device:
        return
    M = LIBRARY.build(case)
    q, k, v = on_device(rng, n, 2), on_device(rng, n, 2), on_device(rng, n, 3)
    twice(lambda: masked_attention(q, k, v, mask=M))


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
