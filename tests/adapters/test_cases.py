"""Every case of `tests.cases` under torch: attention's gradients against torch's own through the dense form.

The dense form is the mask times the identity. Its derivative in the mask's parameters is held against finite
differences by the laws; here it meets autograd through the written-out attention.
"""

import numpy as np
import pytest

from tests.cases import CASES

torch = pytest.importorskip("torch")

from structmask.adapters._parameters import flat  # noqa: E402  torch is optional
from structmask.adapters.torch import masked_attention, matmul  # noqa: E402


def tensor(rng, *shape, complex_):
    x = rng.uniform(0.2, 1.0, shape)
    return torch.tensor(x + 0.3j * rng.standard_normal(shape) if complex_ else x, requires_grad=True)


@pytest.mark.parametrize("entry", [c for c in CASES if c.differentiable and c.dense.shape[-1]], ids=lambda c: c.id)
def test_gradients_are_those_of_the_dense_form(entry):
    mask = entry.build(lambda x: x)
    complex_, (*_, m, n) = mask.dtype.kind == "c", mask.shape
    rng = np.random.default_rng(0)
    q, k, v = (tensor(rng, *s, complex_=complex_) for s in ((m, 3), (n, 3), (n, 2)))
    values = {name: torch.tensor(np.array(x)).requires_grad_() for name, x in flat(mask.parameters).items()}
    values = {name: x.double() if x.dtype is torch.float32 else x for name, x in values.items()}
    leaves = [q, k, v, *values.values()]
    out = masked_attention(q, k, v, mask=mask, parameters=values, features=None, eps=9.0)
    A = matmul(mask, torch.eye(n, dtype=q.dtype), parameters=values) * (q @ k.mT) + 9.0
    wanted = A @ v / A.sum(-1, keepdim=True)
    torch.testing.assert_close(out, wanted, rtol=1e-9, atol=1e-9)
    g = torch.tensor(rng.standard_normal(out.shape)).to(out.dtype)
    own, others = (torch.autograd.grad(y, leaves, g, allow_unused=True) for y in (out, wanted))
    for x, y, leaf in zip(own, others, leaves, strict=True):
        exact = torch.zeros_like(leaf) if y is None else y
        torch.testing.assert_close(x, exact, rtol=1e-6, atol=1e-6 * np.max(abs(exact.detach().numpy()), initial=1.0))
