"""The torch adapter: gradients by gradcheck and against torch's own autograd through the dense form."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse

import structmask
from structmask import (
    BackendError,
    Causal,
    Dense,
    Diagonal,
    ExponentialSum,
    LowRank,
    Sparse,
    StateSpace,
    StructuredMatrix,
    Toeplitz,
    elu_features,
    exp_features,
    positive_features,
    relu_features,
    use_backend,
)

torch = pytest.importorskip("torch")

from structmask.adapters import _functions, _tensors  # noqa: E402  torch is optional
from structmask.adapters.torch import as_module, masked_attention, matmul, solve  # noqa: E402

N = 6


def positive(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).uniform(0.2, 1.0, shape)


def tensors(*shapes, dtype=torch.float64, grad=True, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(torch.tensor(rng.standard_normal(s), dtype=dtype, requires_grad=grad) for s in shapes)


def decays():
    decay = positive(N)
    decay[3] = 0.0
    return decay


def pattern(n=N):
    rng = np.random.default_rng(5)
    dense = np.where(rng.random((n, n)) < 0.4, rng.uniform(0.2, 1.0, (n, n)), 0.0) + np.eye(n)
    return scipy.sparse.csr_array(dense)


MASKS = {
    "dense": lambda: Dense(positive(N, N)),
    "diagonal": lambda: Diagonal(positive(N)),
    "sparse": lambda: Sparse(pattern()),
    "low_rank": lambda: LowRank(positive(N, 2), positive(N, 2, seed=1)),
    "toeplitz": lambda: Toeplitz(positive(2 * N - 1)),
    "toeplitz-heads": lambda: Toeplitz(positive(2, 2 * N - 1)),
    "toeplitz-2x3": lambda: Toeplitz(positive(3, 5), levels=2),
    "causal": lambda: Causal(N, decay=0.75),
    "causal-gates": lambda: Causal(N, decay=decays()),
    "causal-heads": lambda: Causal(N, decay=positive(2, N)),
    "causal-upper": lambda: Causal(N, decay=decays(), upper=True),
    "exponential_sum": lambda: ExponentialSum(positive(2, 2), positive(2, seed=1) / 2, N),
    "state_space": lambda: StateSpace(
        positive(2, 2) / 3, positive(2), positive(2, seed=1), N, near=positive(2, seed=2)
    ),
    "tree": lambda: structmask.tree_mask(
        structmask.as_forest(parents=np.arange(N) // 2 - 1 + np.arange(N) % 2, lengths=positive(N)),
        lambda d: 1 / (1 + d),
    ),
    "sum": lambda: Toeplitz(positive(2 * N - 1)) + Causal(N, decay=decays()),
    "multiple": lambda: 3 * Causal(N, decay=0.5),
    "hadamard": lambda: Toeplitz(positive(2 * N - 1)) * LowRank(positive(N, 2), positive(N, 2, seed=1)),
    "nested": lambda: Diagonal(positive(N)) + 2 * Causal(N, decay=decays()) + Toeplitz(positive(3, 5), levels=2),
}


def named_values(mask):
    """Dotted names of a mask's parameters, and tensors to differentiate by."""
    module = as_module(mask).double()
    return list(module.state_dict()), [p.detach().clone().requires_grad_() for p in module.parameters()]


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [0.0, 0.25])
@pytest.mark.parametrize("name", MASKS)
def test_gradcheck_of_q_k_v_and_the_mask(name, eps):
    mask = MASKS[name]()
    names, values = named_values(mask)
    q, k, v = tensors((2, N, 3), (2, N, 3), (2, N, 2))

    def attention(q, k, v, *values):
        return masked_attention(q, k, v, mask=mask, parameters=dict(zip(names, values, strict=True)), eps=eps)

    assert names
    assert torch.autograd.gradcheck(attention, (q, k, v, *values))


@pytest.mark.parametrize(
    "features",
    [
        exp_features,
        relu_features(3),
        relu_features(3, 5, rng=0),
        positive_features(3, 5, rng=0),
        (torch.exp, lambda x: x.square() + 1),
        torch.nn.Softplus(),
    ],
    ids=lambda f: type(f).__name__,
)
def test_gradcheck_through_the_features(features):
    q, k, v = tensors((5, 3), (4, 3), (4, 2))
    mask = Toeplitz(positive(8), columns=(4,))
    assert torch.autograd.gradcheck(lambda *x: masked_attention(*x, mask=mask, features=features, eps=0.1), (q, k, v))


def test_elu_features_keep_their_result_only():
    x = torch.tensor([-50.0, -1.0, -1e-9, 0.0, 1e-9, 2.0, 1e3], dtype=torch.float64, requires_grad=True)
    y, wanted = _functions.EluFeatures.apply(x), elu_features(x)
    assert [kept.data_ptr() for kept in y.grad_fn.saved_tensors] == [y.data_ptr()]
    torch.testing.assert_close(y, wanted, rtol=1e-15, atol=0)
    own, theirs = (torch.autograd.grad(z.sum(), x)[0] for z in (y, wanted))
    torch.testing.assert_close(own, theirs, rtol=1e-15, atol=0)


def test_gradcheck_without_a_mask_and_with_features_given():
    F, G = (torch.tensor(positive(4, 3, seed=s), requires_grad=True) for s in (0, 1))
    (v,) = tensors((4, 2))
    assert torch.autograd.gradcheck(lambda *x: masked_attention(*x, features=None), (F, G, v))


@pytest.mark.parametrize("name", MASKS)
def test_gradcheck_of_the_product(name):
    mask = MASKS[name]()
    names, values = named_values(mask)
    (x,) = tensors((2, N, 3))
    assert torch.autograd.gradcheck(
        lambda x, *values: matmul(mask, x, parameters=dict(zip(names, values, strict=True))), (x, *values)
    )


def test_gradcheck_of_a_product_of_masks_a_rectangle_a_vector_and_complex_numbers():
    (x,), (z,) = tensors((N,)), tensors((N, 2), dtype=torch.complex128)
    table = torch.tensor(positive(N + 3), requires_grad=True)
    both = Toeplitz(positive(2 * N - 1)) @ Causal(N, decay=0.5)
    gates = torch.tensor(0.3 + 0.4j, dtype=torch.complex128, requires_grad=True)
    rectangle = Toeplitz(positive(N + 3), columns=(N,))
    assert torch.autograd.gradcheck(lambda x, t: matmul(rectangle, x, parameters={"offsets": t}), (x, table))
    assert torch.autograd.gradcheck(
        lambda x, d: matmul(both, x, parameters={"right": {"decay": d}}),
        (x, torch.tensor(0.5, requires_grad=True).double()),
    )
    assert torch.autograd.gradcheck(lambda z, d: matmul(Causal(N), z, parameters={"decay": d}), (z, gates))
    assert torch.autograd.gradcheck(lambda x, d: matmul(Causal(N), x, parameters={"decay": d}), (x, gates))


SYSTEMS = {
    "toeplitz": lambda: Toeplitz(definite(N)),
    "heads": lambda: Toeplitz(np.stack([definite(N), 2 * definite(N)])),
    "sum": lambda: Toeplitz(definite(N)) + Diagonal(positive(N)),
    "decay": lambda: Causal(N, decay=positive(N) / 3),
    "kron": lambda: structmask.kron(Toeplitz(definite(2)), Causal(N, decay=0.4)),
    "blocks": lambda: structmask.BlockDiagonal([Toeplitz(definite(2)), Diagonal(positive(N))]),
}


def definite(n):
    """A table whose diagonal outweighs the rest."""
    return positive(2 * n - 1) + 5.0 * n * (np.arange(2 * n - 1) == n - 1)


@pytest.mark.parametrize("preconditioner", ["auto", "none"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_gradcheck_of_the_solution(name, preconditioner):
    mask = SYSTEMS[name]()
    names, values = named_values(mask)
    (b,) = tensors((2, mask.shape[-1], 3))
    options = {"tol": 1e-13, "preconditioner": preconditioner}
    assert torch.autograd.gradcheck(
        lambda b, *values: solve(mask, b, parameters=dict(zip(names, values, strict=True)), **options), (b, *values)
    )


def test_gradcheck_of_solutions_for_a_vector_and_complex_numbers():
    (x,), (z,) = tensors((N,)), tensors((N, 2), dtype=torch.complex128)
    table = torch.tensor(definite(N) * (1 + 0.1j), requires_grad=True)
    mask = Toeplitz(definite(N))
    assert torch.autograd.gradcheck(lambda b, t: solve(mask, b, parameters={"offsets": t}, tol=1e-13), (z, table))
    real_table = torch.tensor(definite(N), requires_grad=True)
    assert torch.autograd.gradcheck(lambda b, t: solve(mask, b, parameters={"offsets": t}, tol=1e-13), (z, real_table))
    assert torch.autograd.gradcheck(lambda b, t: solve(mask, b, parameters={"offsets": t}, tol=1e-13), (x, table))


def test_solutions_keep_precision_and_train_through_a_module():
    module = as_module(Toeplitz(definite(N).astype("float32")))
    b = torch.ones(N, 2)
    x = module.solve(b)
    assert x.dtype == torch.float32
    torch.testing.assert_close(module(x), b)
    x.sum().backward()
    dense = torch.tensor(Toeplitz(definite(N)).to_dense())
    ones = torch.ones(N, 2, dtype=torch.float64)
    weight = torch.linalg.solve(dense.mT, ones) @ torch.linalg.solve(dense, ones).mT
    want = [-weight.diagonal(offset=-s).sum() for s in range(1 - N, N)]
    torch.testing.assert_close(module.offsets.grad, torch.stack(want).float())


def test_what_solve_refuses():
    b = torch.ones(3)
    with pytest.raises(TypeError, match=r"StructuredMatrix, got Tensor; torch\.linalg\.solve takes tensors"):
        solve(torch.eye(3), b)
    with pytest.raises(TypeError, match="by name, or None, got Diagonal"):
        solve(Toeplitz([0.0, 0.0, 1.0, 0.0, 0.0]), b, preconditioner=Diagonal(np.ones(3)))
    with pytest.raises(TypeError, match="must be a torch tensor"):
        solve(Causal(3), np.ones(3))
    with pytest.raises(ValueError, match="has no parameters"):
        solve(Causal(3), b, parameters={"offsets": b})


def test_gradcheck_of_complex_attention():
    F, G = (torch.tensor(positive(4, 3, seed=s) * (1 + 0.2j), requires_grad=True) for s in (0, 1))
    v, d = tensors((4, 2), (), dtype=torch.complex128)
    assert torch.autograd.gradcheck(
        lambda F, G, v, d: masked_attention(F, G, v, features=None, mask=Causal(4), parameters={"decay": d}, eps=0.1),
        (F, G, v, d),
    )


def dense_attention(q, k, v, M, eps=0.0):
    """The definition, by torch."""
    F, G = (torch.nn.functional.elu(x) + 1 for x in (q, k))
    A = M * (F @ G.mT) + eps
    return A @ v / A.sum(-1, keepdim=True)


def toeplitz_dense(offsets, n):
    index = torch.arange(n)
    return offsets[..., index[:, None] - index[None, :] + n - 1]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_values_and_gradients_are_those_of_the_dense_form_with_broadcast_heads(dtype, tolerance):
    n = 150
    q, k, v, w = tensors((2, 1, n, 4), (3, n, 4), (n, 5), (2, 3, n, 5), dtype=dtype)
    bias = torch.tensor(np.random.default_rng(1).standard_normal((3, 2 * n - 1)), dtype=dtype, requires_grad=True)
    out = masked_attention(q, k, v, mask=Toeplitz(np.ones(2 * n - 1)), parameters={"offsets": bias.exp()}, eps=0.5)
    wanted = dense_attention(q, k, v, toeplitz_dense(bias.exp(), n), eps=0.5)
    assert out.dtype == dtype
    assert relative(out, wanted) <= tolerance
    leaves = (q, k, v, bias)
    own, others = (torch.autograd.grad((y * w.detach()).sum(), leaves) for y in (out, wanted))
    for gradient, other, leaf in zip(own, others, leaves, strict=True):
        assert gradient.shape == leaf.shape
        assert gradient.dtype == dtype
        assert relative(gradient, other) <= 10 * tolerance


def relative(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize("method", ["auto", "dense", "stream", "scan"])
def test_every_method_has_the_same_gradients(method):
    q, k, v = tensors((40, 3), (40, 3), (40, 2))
    decay = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    out = masked_attention(q, k, v, mask=Causal(40), parameters={"decay": decay}, method=method)
    steps = torch.arange(40)[:, None] - torch.arange(40)[None, :]
    M = torch.where(steps >= 0, decay ** steps.clamp(min=0), 0.0)
    own, others = (torch.autograd.grad(y.square().sum(), (q, k, v, decay)) for y in (out, dense_attention(q, k, v, M)))
    assert max(map(relative, own, others)) <= 1e-11


def test_a_row_of_zero_mass_gives_zeros_and_no_gradient():
    M = positive(4, 4)
    M[2] = 0
    q, k, v = tensors((4, 3), (4, 3), (4, 2))
    out = masked_attention(q, k, v, mask=Dense(M))
    out.sum().backward()
    assert not out[2].any()
    assert not q.grad[2].any()
    assert all(torch.isfinite(x.grad).all() for x in (q, k, v))
    assert torch.autograd.gradcheck(lambda *x: masked_attention(*x, mask=Dense(M)), (q, k, v))


def test_values_are_those_of_the_library_on_arrays():
    q, k, v = tensors((2, 9, 3), (2, 7, 3), (2, 7, 4), grad=False)
    mask = Toeplitz(positive(15), columns=(7,))
    features = positive_features(3, 8, rng=0)
    wanted = structmask.masked_attention(q.numpy(), k.numpy(), v.numpy(), mask=mask, features=features, eps=0.5)
    out = masked_attention(q, k, v, mask=mask, features=features, eps=0.5)
    assert not out.requires_grad
    np.testing.assert_allclose(out.numpy(), wanted, rtol=1e-12)


# --- what it takes ---------------------------------------------------------------------------------------------------


def test_strided_and_expanded_operands():
    q, k, v = tensors((3, 8), (3, 8), (4, 8), grad=False)
    wanted = masked_attention(q.T.contiguous(), k.T.contiguous(), v.T.contiguous(), mask=Causal(8))
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    out = masked_attention(q.mT, k.mT, v.mT, mask=Causal(8))
    assert torch.allclose(out, wanted, rtol=1e-13)
    assert torch.autograd.gradcheck(lambda *x: masked_attention(*(a.mT for a in x), mask=Causal(8)), (q, k, v))
    one = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    matmul(Diagonal(np.ones(4)), torch.ones(4).double(), parameters={"d": one.expand(4)}).sum().backward()
    assert one.grad == 4


def test_single_precision_with_a_mask_in_double():
    q, k, v = tensors((8, 3), (8, 3), (8, 2), dtype=torch.float32)
    offsets = torch.ones(15, dtype=torch.float64, requires_grad=True)
    out = masked_attention(q, k, v, mask=Toeplitz(np.ones(15)), parameters={"offsets": offsets})
    out.square().sum().backward()
    assert out.dtype == q.grad.dtype == torch.float32
    assert offsets.grad.dtype == torch.float64


def test_the_wider_precision_wins():
    (q, k), (v,) = tensors((8, 3), (8, 3), dtype=torch.float32), tensors((8, 2))
    out = masked_attention(q, k, v)
    out.sum().backward()
    assert out.dtype == v.grad.dtype == torch.float64
    assert q.grad.dtype == torch.float32


@pytest.mark.parametrize(("L", "S", "e", "heads"), [(0, 3, 2, 2), (3, 0, 2, 2), (3, 4, 0, 2), (3, 4, 2, 0), (1,) * 4])
def test_empty_and_single(L, S, e, heads):
    q, k, v = tensors((heads, L, 3), (heads, S, 3), (heads, S, e))
    mask = Dense(np.ones((L, S)))
    a = torch.ones(L, S, dtype=torch.float64, requires_grad=True)
    out = masked_attention(q, k, v, mask=mask, parameters={"a": a}, eps=0.1)
    out.sum().backward()
    assert out.shape == (heads, L, e)
    for x in (q, k, v, a):
        assert x.grad.shape == x.shape
    product = matmul(mask, v, parameters={"a": a})
    product.sum().backward()
    assert product.shape == (heads, L, e)


def test_nothing_is_copied(monkeypatch):
    seen = []
    monkeypatch.setattr(_functions, "attend", lambda F, G, V, mask, **_: seen.extend([F, G, V, mask.offsets]) or (V, V))
    given = (*tensors((8, 3), (8, 3), (8, 2)), torch.ones(15, dtype=torch.float64, requires_grad=True))
    out = masked_attention(*given[:3], mask=Toeplitz(np.ones(15)), parameters={"offsets": given[3]}, features=None)
    assert [a.ctypes.data for a in seen] == [x.data_ptr() for x in given]
    assert out.data_ptr() == given[2].data_ptr()


def test_what_needs_no_gradient_costs_nothing(monkeypatch):
    from structmask import attention

    calls = []
    for name in ("masked_product", "masked_pullback", "mask_gradient"):
        original = getattr(attention, name)
        monkeypatch.setattr(attention, name, lambda *a, f=original, n=name, **kw: calls.append(n) or f(*a, **kw))

    def counts(q, k, v, offsets):
        given = tensors((8, 3), (8, 3), (8, 2), (15,), grad=False)
        for x, wanted in zip(given, (q, k, v, offsets), strict=True):
            x.requires_grad_(wanted)
        out = masked_attention(*given[:3], mask=Toeplitz(np.ones(15)), parameters={"offsets": given[3]})
        calls.clear()
        out.sum().backward()
        assert [x.grad is not None for x in given] == [q, k, v, offsets]
        return sorted(calls)

    assert counts(q=True, k=True, v=True, offsets=False) == ["masked_product"] * 3
    assert counts(q=False, k=False, v=True, offsets=False) == ["masked_product"]
    assert counts(q=False, k=False, v=False, offsets=True) == ["mask_gradient"]
    assert counts(q=True, k=False, v=False, offsets=True) == ["mask_gradient", "masked_product"]
    assert counts(q=True, k=True, v=False, offsets=True) == ["masked_pullback"]
    assert counts(q=True, k=True, v=True, offsets=True) == ["masked_pullback"]


def test_the_backward_pass_runs_on_the_backend_of_the_forward_pass(monkeypatch):
    seen = []
    original = _functions.attend_pullback
    monkeypatch.setattr(
        _functions, "attend_pullback", lambda *a, **kw: seen.append(structmask.get_backend()) or original(*a, **kw)
    )
    q, k, v = tensors((4, 2), (4, 2), (4, 2))
    with use_backend("numpy"):
        out = masked_attention(q, k, v)
    with use_backend("auto"):
        out.sum().backward()
    assert seen == ["numpy"]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_data_loader(start):
    rng = np.random.default_rng(0)
    module = as_module(Toeplitz(rng.uniform(0.5, 1.0, 8191).astype("float32"))).requires_grad_(False)
    samples = [torch.tensor(rng.standard_normal((4096, 16)), dtype=torch.float32) for _ in range(2)]
    wanted = [module(x) for x in samples]  # threads run before the fork
    loader = torch.utils.data.DataLoader(
        samples, batch_size=None, num_workers=1, collate_fn=module, multiprocessing_context=start, timeout=60
    )
    for y, x in zip(loader, wanted, strict=True):
        torch.testing.assert_close(y, x)


def test_threads_share_a_mask():
    offsets = torch.tensor(positive(2 * 300 - 1), requires_grad=True)
    mask, x = Toeplitz(positive(2 * 300 - 1)), tensors((300, 4), (300, 4), (300, 4), grad=False)

    def gradient(_=None):
        out = masked_attention(*x, mask=mask, parameters={"offsets": offsets})
        return torch.autograd.grad(out.square().sum(), offsets)[0]

    alone = gradient()
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(gradient, range(16)):
            assert torch.equal(found, alone)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_autocast_computes_in_single_precision(half):
    q, k, v = tensors((40, 3), (40, 3), (40, 2), dtype=torch.float32)
    bias = torch.zeros(79, requires_grad=True)
    with torch.autocast("cpu", dtype=half):
        low = [x.to(half) for x in (q, k, v)]
        out = masked_attention(
            *low,
            mask=Toeplitz(np.ones(79)),
            parameters={"offsets": bias.exp()},
            features=positive_features(3, 8, rng=0),
        )
        assert matmul(Causal(40), low[2]).dtype == solve(Diagonal(np.ones(40)), low[2]).dtype == torch.float32
        assert torch.is_autocast_enabled("cpu")
    assert out.dtype == torch.float32
    out.square().sum().backward()
    wide = [x.to(half).double().detach().requires_grad_() for x in (q, k, v)]
    exact = masked_attention(*wide, features=positive_features(3, 8, rng=0))
    assert relative(out.double(), exact) <= 1e-5
    exact.square().sum().backward()
    for x, y in zip((q, k, v), wide, strict=True):
        assert x.grad.dtype == torch.float32
        assert relative(x.grad.double(), y.grad) <= 1e-2


@pytest.mark.skipif(sys.version_info[:3] == (3, 13, 0), reason="torch's compiler fails there: cpython 125608")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own, when it resumes
def test_the_compiler_breaks_its_graph_and_calls_the_library():
    module = as_module(Causal(N, decay=0.5))
    compiled = torch.compile(lambda x: module.attention(2 * x, x + 1, x) * 3, backend="eager")
    (x,) = tensors((N, 2), dtype=torch.float32)
    own, compiled = (
        torch.autograd.grad(f(x).square().sum(), (x, *module.parameters()))
        for f in (lambda x: module.attention(2 * x, x + 1, x) * 3, compiled)
    )
    torch.testing.assert_close(own, compiled)


# --- modules ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MASKS)
def test_a_module_is_its_mask(name):
    mask = MASKS[name]()
    module = as_module(mask).double()
    q, k, v = tensors((2, N, 3), (2, N, 3), (2, N, 2))
    expected = torch.from_numpy(mask.to_dense())
    assert torch.allclose(module(v), expected @ v)
    assert torch.allclose(module.attention(q, k, v, eps=0.5), dense_attention(q, k, v, expected, eps=0.5))
    module(v).sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    np.testing.assert_allclose(module.as_matrix().to_dense(), mask.to_dense())


def test_a_module_owns_its_parameters_and_names_them_as_the_mask_does():
    mask = Toeplitz(np.ones(2 * N - 1)) + 2 * Causal(N, decay=0.5)
    module = as_module(mask)
    assert set(module.state_dict()) == {"terms.0.offsets", "terms.1.matrix.decay", "terms.1.factor"}
    with torch.no_grad():
        module.get_parameter("terms.0.offsets").zero_()
    assert mask.terms[0].offsets.all()
    assert repr(mask) in repr(module)


def test_state_dict_round_trip():
    module, other = (as_module(Toeplitz(positive(2 * N - 1, seed=s)) + Diagonal(positive(N, seed=s))) for s in (0, 1))
    (x,) = tensors((N, 2), grad=False)
    assert not torch.allclose(module(x), other(x))
    other.load_state_dict(module.state_dict())
    assert torch.equal(module(x), other(x))


def test_training_follows_the_parameters_in_place():
    target = Toeplitz(np.exp(-abs(np.arange(-7.0, 8.0)) / 3))
    module = as_module(Toeplitz(np.ones(15)))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    losses = []
    for _ in range(40):
        (x,) = tensors((8, 16), grad=False)
        loss = (module(x) - torch.from_numpy(target @ x.numpy())).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert losses == sorted(losses, reverse=True)


def test_parametrized_and_tied_parameters():
    class Exp(torch.nn.Module):
        def forward(self, x):
            return x.exp()

    q, k, v = tensors((N, 3), (N, 3), (N, 2))
    module = as_module(Toeplitz(np.zeros(2 * N - 1)))
    torch.nn.utils.parametrize.register_parametrization(module, "offsets", Exp())
    assert torch.allclose(module(v), v.sum(0).expand(N, 2))
    module.attention(q, k, v).square().sum().backward()
    assert module.parametrizations.offsets.original.grad.abs().sum() > 0
    tied = as_module(Diagonal(np.ones(N)) @ Causal(N) @ Diagonal(np.zeros(N)))
    tied.get_submodule("right").d = tied.get_submodule("left.left").d
    assert torch.allclose(tied(v), torch.cumsum(v, 0))


# --- what it refuses -------------------------------------------------------------------------------------------------


def test_second_derivatives_are_refused():
    q, k, v = tensors((4, 2), (4, 2), (4, 2))
    for out in (masked_attention(q, k, v), matmul(Causal(4), v)):
        (gradient,) = torch.autograd.grad(out.square().sum(), v, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.sum().backward()


def test_parameters_changed_between_the_passes_are_refused():
    decay = torch.tensor(0.5, requires_grad=True)
    out = matmul(Causal(3), torch.ones(3), parameters={"decay": decay})
    with torch.no_grad():
        decay.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_other_dtypes_are_refused(dtype):
    q, k, v = tensors((4, 2), (4, 2), (4, 2), dtype=torch.float32)
    with pytest.raises(TypeError, match=r"k has dtype torch\..*: x.float\(\)"):
        masked_attention(q, k.to(dtype), v)
    with pytest.raises(TypeError, match=r"the features of q has dtype torch.bfloat16"):
        masked_attention(q, k, v, features=(torch.Tensor.bfloat16, torch.Tensor.float))
    with pytest.raises(TypeError, match="decay has dtype"):
        matmul(Causal(4), v, parameters={"decay": torch.ones((), dtype=dtype)})


def test_other_devices_and_backends_are_refused(monkeypatch):
    q, k, v = tensors((4, 2), (4, 2), (4, 2))
    with pytest.raises(BackendError, match=r"v is on meta, .* CUDA devices; move it: x.cpu\(\)"):
        masked_attention(q, k, v.to("meta"))
    with pytest.raises(BackendError, match="x is on meta"):
        matmul(Causal(4), v.to("meta"))
    monkeypatch.setattr(_tensors, "get_backend", lambda: "cupy")
    with pytest.raises(BackendError, match=r"do not go to the backend 'cupy'.*use_backend\('auto'\)"):
        masked_attention(q, k, v)


def test_what_is_no_tensor_is_refused():
    q, k, v = tensors((4, 2), (4, 2), (4, 2))
    with pytest.raises(TypeError, match=r"q must be a torch tensor, got ndarray; structmask\.masked_attention takes"):
        masked_attention(np.ones((4, 2)), k, v)
    with pytest.raises(TypeError, match=r"k has layout torch.sparse_coo"):
        masked_attention(q, k.detach().to_sparse(), v)
    with pytest.raises(TypeError, match="mask must be a StructuredMatrix or None, got Tensor"):
        masked_attention(q, k, v, mask=torch.ones(4, 4))
    with pytest.raises(TypeError, match="matmul needs a StructuredMatrix on the left, got Tensor"):
        matmul(q, v)
    with pytest.raises(TypeError, match="as_module needs a StructuredMatrix, got ndarray"):
        as_module(np.ones((4, 4)))
    with pytest.raises(TypeError, match="decay must be a torch tensor, got float"):
        matmul(Causal(4), v, parameters={"decay": 0.5})


def test_what_does_not_fit_is_refused():
    q, k, v = tensors((4, 2), (4, 2), (4, 2))
    one = torch.ones(7)
    with pytest.raises(ValueError, match=r"attention needs q \(\.\.\., L, d\)"):
        masked_attention(q, k, v[:3])
    with pytest.raises(ValueError, match=r"Causal.* has no parameters \['offsets'\]; it has \['decay'\]"):
        masked_attention(q, k, v, mask=Causal(4), parameters={"offsets": one})
    with pytest.raises(ValueError, match=r"None has no parameters \['offsets'\]"):
        masked_attention(q, k, v, parameters={"offsets": one})
    with pytest.raises(ValueError, match="does not fit 4 queries and 4 keys"):
        masked_attention(q, k, v, mask=Causal(5))
    with pytest.raises(ValueError, match="unknown method 'fast'"):
        masked_attention(q, k, v, method="fast")
    with pytest.raises(ValueError, match=r"matmul: .* needs an operand with 5 rows"):
        matmul(Causal(5), v)


def test_a_mask_stays_a_structured_matrix():
    assert isinstance(as_module(Causal(4)).as_matrix(), StructuredMatrix)
    with pytest.raises(TypeError, match=r"structmask.adapters.torch"):
        structmask.masked_attention(*tensors((4, 2), (4, 2), (4, 2)))
