"""Tensors on a GPU, as far as a stand-in goes: tensors of the host taken for device ones, arrays by DLPack.

What it cannot show is that torch and CuPy agree on a real stream.
"""

import types

import numpy as np
import pytest

from structmask import BackendError, Causal, Toeplitz, use_backend
from tests.gpu import stand_in

torch = pytest.importorskip("torch")

from structmask.adapters import _tensors  # noqa: E402  torch is optional
from structmask.adapters.torch import (  # noqa: E402
    DiffusionMask,
    MaskedLinearAttention,
    as_module,
    masked_attention,
    matmul,
    solve,
)

N = 7


@pytest.fixture
def device(monkeypatch):
    """Inside, every tensor counts as one on a GPU, and any of its numbers in NumPy's hands is an error."""
    monkeypatch.setattr(_tensors, "on_gpu", lambda _: True)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: types.SimpleNamespace(cuda_stream=0))
    with stand_in.installed():
        yield


def table(n=N):
    return np.random.default_rng(0).uniform(0.5, 1.0, 2 * n - 1)


def gradients(operation, *shapes):
    rng = np.random.default_rng(1)
    leaves = [torch.tensor(rng.uniform(0.2, 1.0, shape), requires_grad=True) for shape in shapes]
    out = operation(*leaves)
    return out, *torch.autograd.grad(out.square().sum(), leaves)


OPERATIONS = {
    "attention": lambda q, t: masked_attention(q, q, q, mask=Toeplitz(table()), parameters={"offsets": t}),
    "padding": lambda q, t: masked_attention(
        q, q, q, mask=Toeplitz(table()), parameters={"offsets": t}, key_padding_mask=torch.arange(N) > 4
    ),
    "product": lambda x, t: matmul(Toeplitz(table()) + 2 * Causal(N), x, parameters={"terms.0.offsets": t}),
    "solution": lambda b, t: solve(
        Toeplitz(table()), b, parameters={"offsets": t + 20.0 * (torch.arange(2 * N - 1) == N - 1)}, tol=1e-13
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_results_and_gradients_are_those_of_the_host(name, device, monkeypatch):
    found = gradients(OPERATIONS[name], (N, 3), (2 * N - 1,))
    monkeypatch.undo()
    for x, y in zip(found, gradients(OPERATIONS[name], (N, 3), (2 * N - 1,)), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


def test_memory_is_shared_both_ways(device):
    x = torch.arange(4.0)
    a = _tensors.array(x)
    assert type(a).__module__ == "cupy"
    assert a.held.ctypes.data == x.data_ptr() == _tensors.tensor(a).data_ptr()
    assert _tensors.tensor(a[::-1]).tolist() == [3.0, 2.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "make", [lambda: as_module(Toeplitz(table(6))), lambda: DiffusionMask(np.eye(6)[::-1], heads=2)]
)
def test_a_layer_with_its_mask_made_on_the_host(make, device, monkeypatch):
    torch.manual_seed(0)
    layer, x = MaskedLinearAttention(4, 2, mask=make(), global_tokens=1).double(), torch.randn(1, N, 4).double()
    found = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    monkeypatch.undo()
    wanted = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_where_a_gpu_cannot_be_used():
    with use_backend("numpy"), pytest.raises(BackendError, match=r"x is on the GPU but .* 'numpy'"):
        _tensors._check_device("x", "cuda")
    with pytest.raises(BackendError, match=r"x is on the GPU, where structmask computes with CuPy\. .* x\.cpu\(\)"):
        _tensors._check_device("x", "cuda")
    with pytest.raises(BackendError, match=r"x and y are on cpu and meta|y is on meta"):
        _tensors.check_places(x=torch.ones(1), y=torch.ones(1, device="meta"))
