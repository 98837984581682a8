"""Learnable masks against their formulas, written out by torch and differentiated by it."""

import math

import numpy as np
import pytest

from structmask import as_forest, graph_random_features, laplacian

torch = pytest.importorskip("torch")

from structmask.adapters import torch as adapter  # noqa: E402  torch is optional

N = 6
GRAPH = np.roll(np.eye(N), 1, axis=0) + np.roll(np.eye(N), -1, axis=0)
GRAPH[0, 3] = GRAPH[3, 0] = 2.0
PARENTS = [-1, 0, 0, 1, 1, -1]
TREE = as_forest(parents=PARENTS)
LONG = as_forest(parents=PARENTS, lengths=[0, 1.5, 0.5, 2.0, 1.0, 0])

pytestmark = pytest.mark.usefixtures("double")


def offsets(n):
    index = torch.arange(n)
    return index[:, None] - index[None, :]


def grid(rows, columns):
    """Differences of the points of a grid, on each axis."""
    i = torch.arange(rows * columns)
    return [a[:, None] - a[None, :] for a in (i // columns, i % columns)]


def distances(forest):
    i = np.arange(N)
    d = forest.distances(i[:, None], i[None, :])
    return torch.tensor(np.where(np.isfinite(d), d, 0.0)), torch.tensor(np.isfinite(d))


def on_tree(forest, f):
    d, inside = distances(forest)
    return torch.where(inside, f(d), 0.0)


def gathered(table, index):
    """Entries of a table (heads, ...) at index tensors."""
    return table[(..., *index)]


def polynomial(a, s):
    return torch.exp(sum(a[..., t, None, None] * s ** (t + 1) for t in range(a.shape[-1])))


def exponential(t, L):
    return torch.linalg.matrix_exp(-t[..., None, None] * L)


def filtered(log_a):
    P = torch.eye(N) - torch.tensor(laplacian(GRAPH, kind="symmetric").toarray())
    return sum(
        a[..., None, None] * torch.linalg.matrix_power(P, power) for power, a in enumerate(log_a.exp().unbind(-1))
    )


L1 = sum(abs(d) for d in grid(2, 3))
L = torch.tensor(laplacian(GRAPH).toarray(), dtype=torch.float64)
TREE_DEPTH = 3.0

MASKS = {  # how it is made, and its entries from its only parameter
    "positions": (
        lambda heads: adapter.RelativePositionMask(N, heads=heads),
        lambda b: gathered(b, [offsets(N) + N - 1]).exp(),
    ),
    "positions-2": (
        lambda heads: adapter.RelativePositionMask((2, 3), heads=heads, form="abs"),
        lambda p: gathered(p, [d + n - 1 for d, n in zip(grid(2, 3), (2, 3), strict=True)]).abs(),
    ),
    "distance": (
        lambda heads: adapter.DistanceMask((2, 3), degree=3, heads=heads),
        lambda a: polynomial(a, L1 / 3),
    ),
    "decay": (
        lambda heads: adapter.DecayMask(N, heads=heads),
        lambda x: (torch.sigmoid(x)[..., None, None] ** offsets(N).clamp(min=0)).tril(),
    ),
    "decay-both": (
        lambda heads: adapter.DecayMask(N, heads=heads, causal=False),
        lambda x: torch.sigmoid(x)[..., None, None] ** abs(offsets(N)),
    ),
    "diffusion": (
        lambda heads: adapter.DiffusionMask(GRAPH, heads=heads, tol=1e-13),
        lambda x: exponential(x.exp(), L),
    ),
    "filter": (lambda heads: adapter.FilterMask(GRAPH, degree=3, heads=heads), filtered),
    "tree": (
        lambda heads: adapter.TreeDistanceMask(TREE, heads=heads),
        lambda b: on_tree(TREE, lambda d: gathered(b, [d.long()]).exp()),
    ),
    "tree-abs": (
        lambda heads: adapter.TreeDistanceMask(TREE, heads=heads, form="abs"),
        lambda p: on_tree(TREE, lambda d: gathered(p, [d.long()]).abs()),
    ),
    "tree-polynomial": (
        lambda heads: adapter.TreeDistanceMask(TREE, degree=2, heads=heads),
        lambda a: on_tree(TREE, lambda d: polynomial(a, d / TREE_DEPTH)),
    ),
    "tree-decay": (
        lambda heads: adapter.TreeDecayMask(LONG, heads=heads),
        lambda x: on_tree(LONG, lambda d: torch.exp(-x.exp()[..., None, None] * d)),
    ),
}


def relative(a, b):
    return ((a - b).abs().max() / b.abs().max().clamp(min=1e-30)).item()


@pytest.mark.parametrize("heads", [None, 2])
@pytest.mark.parametrize("name", MASKS)
def test_entries_attention_and_gradients_are_those_of_the_formula(name, heads):
    make, formula = MASKS[name]
    mask = make(heads)
    (parameter,) = mask.parameters()
    with torch.no_grad():
        parameter += 0.3 * torch.randn_like(parameter)
    M = formula(parameter)
    assert M.shape[:-2] == (() if heads is None else (heads,))
    assert relative(torch.tensor(mask.as_matrix().to_dense()), M) <= 1e-11
    q, k, v = (torch.randn(2, N, 3, requires_grad=True) for _ in range(3))
    A = M * ((torch.nn.functional.elu(q) + 1) @ (torch.nn.functional.elu(k) + 1).mT)
    leaves, weight = (q, k, v, parameter), torch.randn(2, N, 3)
    wanted = torch.autograd.grad((A @ v / A.sum(-1, keepdim=True) * weight).sum(), leaves)
    own = torch.autograd.grad((mask.attention(q, k, v) * weight).sum(), leaves)
    assert max(map(relative, own, wanted)) <= 1e-9


@pytest.mark.parametrize("name", MASKS)
def test_state_dict_round_trip(name):
    mask, other = MASKS[name][0](2), MASKS[name][0](2)
    (parameter,) = mask.parameters()
    with torch.no_grad():
        parameter += 0.3 * torch.randn_like(parameter)
    assert len(mask.state_dict()) == 1
    other.load_state_dict(mask.state_dict())
    x = torch.randn(N, 2)
    assert torch.equal(mask(x), other(x))
    assert relative(mask.float()(x.float()).double(), other(x)) <= 1e-5


@pytest.mark.parametrize("name", ["positions", "positions-2", "distance", "tree", "tree-abs", "tree-polynomial"])
def test_masks_start_without_effect(name):
    M = torch.tensor(MASKS[name][0](2).as_matrix().to_dense())
    assert torch.equal(M, (M != 0).double())


def test_where_the_others_start():
    assert torch.allclose(adapter.DecayMask(4, heads=3).generators()["decay"][:, 0], 1 - 0.5 ** torch.arange(5.0, 8))
    mask = adapter.DiffusionMask(GRAPH, heads=2, initial=[0.5, 2.0])
    assert torch.allclose(mask.generators()["response.time"], torch.tensor([0.5, 2.0]))
    heat = adapter.FilterMask(GRAPH, degree=20).as_matrix().to_dense()
    assert np.allclose(heat, exponential(torch.ones(()), torch.tensor(laplacian(GRAPH, kind="symmetric").toarray())))
    rate = adapter.TreeDecayMask(TREE, heads=2, initial=[1.0, math.e]).log_rate
    assert torch.allclose(rate, torch.tensor([0.0, 1.0]))


def test_coefficients_of_random_features_are_learned():
    module = adapter.as_module(graph_random_features(GRAPH / 8, [1.0, 0.5, 0.25], walks=5, stop=0.5, rng=0))
    assert list(module.state_dict()) == ["modulation"]
    q, k, v = (torch.randn(N, 3) for _ in range(3))
    weight = torch.randn(N, 3)

    def loss(f):
        return (torch.func.functional_call(module, {"modulation": f}, (v,)) * weight).sum()

    def attention(f):
        return adapter.masked_attention(q, k, v, mask=module.structure, parameters={"modulation": f}, eps=0.1)

    f = module.modulation.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, (f,))
    assert torch.autograd.gradcheck(attention, (f,))


def test_one_mask_serves_several_heads_and_layers():
    mask = adapter.RelativePositionMask(N)
    layers = torch.nn.ModuleList([adapter.MaskedLinearAttention(4, 2, mask=mask) for _ in range(2)])
    x = torch.randn(1, N, 4)
    for layer in layers:
        x = layer(x)
    x.sum().backward()
    assert mask.table.grad.abs().sum() > 0
    assert sum(p is mask.table for p in layers.parameters()) == 1


def test_a_mask_is_learned():
    target = torch.exp(-abs(offsets(N)) / 2.0)
    mask = adapter.DistanceMask(N, degree=1)
    optimizer = torch.optim.Adam(mask.parameters(), lr=0.2)
    for _ in range(150):
        loss = (mask(torch.eye(N)) - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert abs(mask.coefficients.item() + (N - 1) / 2) < 0.1


def test_what_they_refuse():
    with pytest.raises(ValueError, match="sides of at least 1"):
        adapter.RelativePositionMask((2, 0))
    with pytest.raises(ValueError, match="unknown form 'relu'; choose 'exp' or 'abs'"):
        adapter.RelativePositionMask(3, form="relu")
    with pytest.raises(ValueError, match="heads must be at least 1"):
        adapter.DecayMask(3, heads=0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        adapter.DecayMask(3, initial=1.0)
    with pytest.raises(ValueError, match="degree must be at least 1"):
        adapter.DistanceMask(3, degree=0)
    with pytest.raises(ValueError, match="degree must not be negative"):
        adapter.FilterMask(GRAPH, degree=-1)
    with pytest.raises(ValueError, match="a diffusion time must be positive"):
        adapter.DiffusionMask(GRAPH, initial=0.0)
    with pytest.raises(ValueError, match="whole numbers"):
        adapter.TreeDistanceMask(LONG)
    with pytest.raises(NotImplementedError):
        adapter.MaskModule(adapter.DecayMask(3).structure).generators()
