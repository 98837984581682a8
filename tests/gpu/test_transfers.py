"""Once plans are made, no operation moves anything between host and device, nor waits for the device."""

import numpy as np
import pytest

from structmask import masked_attention
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
