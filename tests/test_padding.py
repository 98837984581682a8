"""Key padding: attention with padded keys is attention without these keys, and nothing stored there is ever read."""

import array_api_strict
import numpy as np
import pytest

from structmask import (
    BackendError,
    Causal,
    Dense,
    Toeplitz,
    masked_attention,
    positive_features,
    relu_features,
    use_backend,
)
from structmask.attention import attend, attend_pullback
from tests import naive
from tests.test_attention import MASKS, L, elu, line, normal, positive, prefer, row_error, spread_keys

torch = pytest.importorskip("torch")

from structmask.adapters import torch as adapter  # noqa: E402  torch is optional

HEADS = 3
LENGTHS = np.array([L, 17, 1, 0])
PADDING = {
    "one": (np.random.default_rng(3).random(L) < 0.4)[None],
    "batch": np.arange(L) >= LENGTHS[:, None, None],
    "heads": np.random.default_rng(4).random((4, HEADS, L)) < 0.4,
}


def operands(dtype=np.float64):
    return [normal(4, HEADS, L, size, seed=i).astype(dtype) for i, size in enumerate((4, 4, 5))]


def soiled(x, padding):
    """x with what memory may hold in its padded rows."""
    x = np.array(np.broadcast_to(x, (*np.broadcast_shapes(x.shape[:-2], padding.shape[:-1]), *x.shape[-2:])))
    rows = np.broadcast_to(padding, x.shape[:-1])
    values = np.resize([np.nan, np.inf, -np.inf, np.finfo(x.dtype).max], (*x.shape,))
    return np.where(rows[..., None], values.astype(x.dtype), x)


def without(phi_q, phi_k, v, dense, padding, eps=0.0):
    """The definition on the keys that are present, one head after the other."""
    batch = np.broadcast_shapes(phi_q.shape[:-2], phi_k.shape[:-2], v.shape[:-2], dense.shape[:-2], padding.shape[:-1])
    F, G, V, M = (np.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (phi_q, phi_k, v, dense))
    padding = np.broadcast_to(padding, (*batch, padding.shape[-1]))
    out = np.zeros((*batch, F.shape[-2], V.shape[-1]))
    for head in np.ndindex(batch):
        keep = np.flatnonzero(~padding[head])
        out[head] = naive.masked_attention(F[head], G[head][keep], V[head][keep], M[head][:, keep], eps)
    return out


@pytest.fixture(params=["numpy", "numba"])
def backend(request):  # instead of the one of conftest.py
    with use_backend(request.param):
        yield request.param


# --- the definition ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [0.0, 0.5])
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.usefixtures("backend")
def test_the_definition(name, eps):
    mask, dense, _ = MASKS[name]
    q, k, v = operands()
    padding = PADDING["batch"]
    wanted = without(elu(q), elu(k), v, dense, padding, eps)
    assert not wanted[3].any()  # no key present
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
        given = [soiled(x.astype(dtype), padding) for x in (k, v)]
        out = masked_attention(q.astype(dtype), *given, mask=mask, key_padding_mask=padding, eps=eps)
        assert out.dtype == dtype
        assert row_error(out, wanted) <= tolerance


@pytest.mark.parametrize(
    ("name", "method"), [(name, method) for name in MASKS for method in ("dense", "stream", *sorted(MASKS[name][2]))]
)
def test_every_method(name, method, backend):
    mask, dense, _ = MASKS[name]
    if method == "fused" and backend == "numpy":
        pytest.skip("a compiled kernel only")
    (q, k, v), padding = operands(), PADDING["heads"]
    wanted = without(elu(q), elu(k), v, dense, padding, 0.5)
    out = masked_attention(
        q, soiled(k, padding), soiled(v, padding), mask=mask, key_padding_mask=padding, method=method, eps=0.5
    )
    np.testing.assert_allclose(out, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


@pytest.mark.parametrize("padding", PADDING)
@pytest.mark.parametrize("shapes", [((), ()), ((HEADS,), (1,)), ((4, HEADS), (4, 1)), ((4, 1), ())])
def test_leading_axes_broadcast(shapes, padding):
    padding = PADDING[padding][0] if PADDING[padding].ndim < 3 else PADDING[padding]
    k, v = (normal(*batch, L, size, seed=i) for i, (batch, size) in enumerate(zip(shapes, (4, 5), strict=True)))
    q = normal(L, 4)
    wanted = without(elu(q), elu(k), v, naive.causal(L, 0.75), padding, 0.5)
    given = (soiled(x, padding) for x in (k, v))
    out = masked_attention(q, *given, mask=Causal(L, decay=0.75), key_padding_mask=padding, eps=0.5)
    assert row_error(out, wanted) <= 1e-12


def test_lengths_and_cross_attention():
    lengths = np.array([0, 1, 5, 7])
    q, k, v, table = normal(4, 9, 3), normal(4, 7, 3), normal(4, 7, 2), positive(15)
    padding = np.arange(7) >= lengths[:, None]
    out = masked_attention(q, k, v, mask=Toeplitz(table, columns=(7,)), key_padding_mask=padding, eps=0.25)
    for i, n in enumerate(lengths):
        alone = masked_attention(q[i], k[i, :n], v[i, :n], mask=Dense(naive.toeplitz(table, 1, (7,))[:, :n]), eps=0.25)
        np.testing.assert_allclose(out[i], alone, rtol=1e-12)


@pytest.mark.parametrize(
    "features", [positive_features(4, 6, rng=0), relu_features(4), (np.exp, np.square), np.exp, None]
)
def test_features_never_see_what_is_stored_in_padded_keys(features):
    (q, k, v), padding = operands(), PADDING["heads"]
    keep = [np.flatnonzero(~row) for row in padding.reshape(-1, L)]
    given = soiled(k, padding), soiled(v, padding)
    out = masked_attention(q, *given, mask=Causal(L), features=features, key_padding_mask=padding).reshape(-1, L, 5)
    for i, own in enumerate(keep):
        q_, k_, v_ = (x.reshape(-1, L, x.shape[-1])[i] for x in (q, k, v))
        alone = masked_attention(q_, k_[own], v_[own], mask=Dense(naive.causal(L)[:, own]), features=features)
        np.testing.assert_allclose(out[i], alone, rtol=1e-10, atol=1e-12)


def test_padding_does_not_change_the_stabiliser_of_positive_features():
    """`eps` is weighed against features that are scaled by their largest, which must be one of a key present."""
    phi = positive_features(4, 16, rng=0)
    q, k, v = normal(8, 4), 3 * normal(8, 4, seed=1), normal(8, 3)
    padding = np.array([True, True] + [False] * 6)
    out = masked_attention(q, soiled(k, padding), v, features=phi, key_padding_mask=padding, eps=0.1)
    np.testing.assert_allclose(out, masked_attention(q, k[2:], v[2:], features=phi, eps=0.1), rtol=1e-12)
    other = masked_attention(q, np.where(padding[:, None], 0, k), v, features=phi, eps=0.1)
    assert np.abs(out - other).max() > 1e-3


@pytest.mark.parametrize("attention", [masked_attention, adapter.masked_attention], ids=["arrays", "tensors"])
def test_features_see_keys_present_only(attention):
    """In the place of a padded key the first one present, or zeros if there is none."""
    (q, k, v), padding = operands(), PADDING["batch"][..., ::-1].copy()
    seen = []
    given = [q, soiled(k, padding), soiled(v, padding), padding]
    if attention is adapter.masked_attention:
        given = list(map(torch.tensor, given))
    attention(*given[:3], features=(lambda q: q * q, lambda k: seen.append(k) or k * k), key_padding_mask=given[3])
    for i, length in enumerate(LENGTHS):
        wanted = k[i].copy()
        wanted[:, : L - length] = k[i, :, [L - length]].swapaxes(0, 1) if length else 0.0
        np.testing.assert_array_equal(np.asarray(seen[0])[i], wanted)


def test_features_that_are_not_defined_everywhere():
    def directions(x):
        return 2 + x / (x * x).sum(-1)[..., None] ** 0.5

    (q, k, v), padding = operands(), PADDING["one"][0]
    given = [q, soiled(k, padding), soiled(v, padding)]
    out = masked_attention(*given, features=directions, key_padding_mask=padding)
    keep = ~padding
    np.testing.assert_allclose(out, masked_attention(q, k[..., keep, :], v[..., keep, :], features=directions))
    leaves = [torch.tensor(x, requires_grad=True) for x in given]
    adapter.masked_attention(*leaves, features=directions, key_padding_mask=torch.tensor(padding)).sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in leaves)


def test_a_transform_keeps_every_row_exact_beside_padding(monkeypatch):
    F, G, v = spread_keys(512, 6)
    mask, padding = line(512, 16), np.random.default_rng(0).random(512) < 0.5
    padding[100:300] = True  # rows in the middle keep next to no mass, and it is exact
    prefer(monkeypatch, "fused", "stream")
    out = masked_attention(
        F, soiled(G, padding), soiled(v, padding), mask=mask, features=None, key_padding_mask=padding
    )
    A = mask.to_dense()[:, ~padding] * (F.astype(float) @ G[~padding].T.astype(float))
    assert row_error(out, A @ v[~padding].astype(float) / A.sum(axis=1, keepdims=True)) <= 1e-5


def test_nothing_is_changed_without_padding():
    q, k, v = operands()
    for padding in (np.zeros(L, bool), np.zeros((4, 1, L), bool), [False] * L):
        np.testing.assert_array_equal(
            masked_attention(q, k, v, mask=Causal(L), key_padding_mask=padding, eps=0.5),
            masked_attention(q, k, v, mask=Causal(L), eps=0.5),
        )


def test_operands_stay_as_they_are():
    (q, k, v), padding = operands(), PADDING["batch"].copy()
    given = [q, soiled(k, padding), soiled(v, padding), padding]
    copies = [x.copy() for x in given]
    for x in given:
        x.setflags(write=False)
    masked_attention(*given[:3], mask=Causal(L), key_padding_mask=padding)
    masked_attention(*given[:3], mask=Causal(L), key_padding_mask=padding[..., ::-1][..., ::-1])
    for x, copy in zip(given, copies, strict=True):
        np.testing.assert_array_equal(x, copy)


def test_arrays_of_a_strict_library():
    (q, k, v), padding = operands(), PADDING["batch"]
    given = (array_api_strict.asarray(x) for x in (q, soiled(k, padding), soiled(v, padding)))
    out = masked_attention(*given, key_padding_mask=array_api_strict.asarray(padding), eps=0.5)
    wanted = without(elu(q), elu(k), v, np.ones((L, L)), padding, 0.5)
    assert row_error(np.from_dlpack(out), wanted) <= 1e-12


@pytest.mark.parametrize(("rows", "columns", "e"), [(0, 4, 2), (3, 0, 2), (3, 4, 0), (1, 1, 1), (2, 2, 1)])
@pytest.mark.parametrize("eps", [0.0, 0.5])
def test_small_and_empty(rows, columns, e, eps):
    q, k, v = normal(2, rows, 2), normal(2, columns, 2), normal(2, columns, e)
    for padding in (np.ones(columns, bool), np.arange(columns) % 2 == 1):
        out = masked_attention(q, k, v, key_padding_mask=padding, eps=eps)
        np.testing.assert_allclose(out, without(elu(q), elu(k), v, np.ones((rows, columns)), padding, eps), rtol=1e-13)


def test_complex_operands():
    F, G, v = (normal(2, 6, 3, seed=s) + 1j * normal(2, 6, 3, seed=s + 3) for s in range(3))
    padding = np.array([[True, False, False, True, False, False], [True] * 6])
    out = masked_attention(F, soiled(G.real, padding) + 0 * G, v, features=None, key_padding_mask=padding, eps=0.5)
    A = (F @ G.real.mT + 0.5)[..., ~padding[0]]
    wanted = A @ v[:, ~padding[0]] / A.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(out[0], wanted[0], rtol=1e-10)
    assert not out[1].any()


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [0.0, 0.25])
@pytest.mark.parametrize(
    "name", ["none", "toeplitz", "toeplitz-4x6", "causal-gates", "sparse", "low_rank", "dense", "diagonal", "sum"]
)
def test_gradients_are_those_without_the_keys(name, eps):
    mask, dense, _ = MASKS[name]
    padding = PADDING["batch"][:3]
    q, k, v = (normal(3, 1, L, size, seed=i) for i, size in enumerate((3, 3, 2)))
    leaves = [torch.tensor(x, requires_grad=True) for x in (q, soiled(k, padding), soiled(v, padding))]
    weights = torch.tensor(normal(3, 1, L, 2, seed=9))
    out = adapter.masked_attention(*leaves, mask=mask, key_padding_mask=torch.tensor(padding), eps=eps)
    gradients = torch.autograd.grad((out * weights).sum(), leaves)
    for i in range(3):
        keep = torch.tensor(~padding[i, 0])
        own = [torch.tensor(x[i, 0], requires_grad=True) for x in (q, k, v)]
        F, G = (torch.nn.functional.elu(x) + 1 for x in (own[0], own[1][keep]))
        A = torch.tensor(dense)[:, keep] * (F @ G.mT) + eps
        mass = A.sum(-1, keepdim=True)
        alone = torch.where(mass == 0, 0.0, A @ own[2][keep] / torch.where(mass == 0, 1.0, mass))
        torch.testing.assert_close(out[i, 0], alone, rtol=1e-10, atol=1e-12)
        for got, wanted in zip(
            gradients, torch.autograd.grad((alone * weights[i, 0]).sum(), own, allow_unused=True), strict=True
        ):
            torch.testing.assert_close(got[i, 0], wanted, rtol=1e-9, atol=1e-11)
        assert not gradients[1][i, 0][~keep].any()
        assert not gradients[2][i, 0][~keep].any()


def test_gradcheck_with_the_masks_parameters_and_a_shared_key():
    q, k, v = (torch.tensor(normal(*shape), requires_grad=True) for shape in ((2, 4, 3), (5, 3), (2, 5, 2)))
    table = torch.tensor(positive(8), requires_grad=True)
    padding = torch.tensor([[False, True, False, False, True], [False, False, False, True, True]])

    def attention(q, k, v, table):
        parameters = {"offsets": table}
        mask = Toeplitz(np.ones(8), columns=(5,))
        return adapter.masked_attention(q, k, v, mask=mask, parameters=parameters, key_padding_mask=padding, eps=0.1)

    assert torch.autograd.gradcheck(attention, (q, k, v, table))


def test_a_modules_attention_takes_padding():
    q, k, v = (torch.tensor(x) for x in operands())
    padding = torch.tensor(PADDING["batch"])
    module = adapter.as_module(Causal(L, decay=0.75)).double()
    out = module.attention(q, k, v, key_padding_mask=padding, eps=0.5)
    wanted = masked_attention(
        *(x.numpy() for x in (q, k, v)), mask=Causal(L, decay=0.75), key_padding_mask=padding.numpy(), eps=0.5
    )
    np.testing.assert_allclose(out.detach().numpy(), wanted, rtol=1e-12)


def test_attend_counts_the_keys_present():
    F, G, V = positive(4, 2), positive(5, 2), normal(5, 3)
    padding = np.array([False, True, False, False, True])
    G[padding], V[padding] = 0.0, 0.0
    out, mass = attend(F, G, V, None, padding=padding, eps=0.5)
    np.testing.assert_allclose(mass, (F @ G.T).sum(axis=1) + 0.5 * 3, rtol=1e-13)
    _, dG, _, _ = attend_pullback(F, G, V, None, out, mass, np.ones_like(out), eps=0.5)
    assert np.isfinite(dG).all()


# --- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "padding", [np.zeros(4), np.zeros(4, int), [0, 1, 0, 1], np.array([3])], ids=["floats", "ints", "list", "lengths"]
)
def test_other_dtypes(padding):
    x = np.ones((4, 2))
    with pytest.raises(TypeError, match=r"must be boolean, True where a key is padding, got (float|int)64; .*lengths"):
        masked_attention(x, x, x, key_padding_mask=padding)
    with pytest.raises(TypeError, match="must be boolean"):
        adapter.masked_attention(*[torch.tensor(x)] * 3, key_padding_mask=torch.tensor(padding))


@pytest.mark.parametrize("shape", [(), (3,), (1,), (4, 1), (5, 4)])
def test_shapes_that_do_not_fit(shape):
    x = np.ones((2, 3, 4, 2))
    with pytest.raises(ValueError, match=r"key_padding_mask of shape \(.*\) does not fit 4 keys and 2 batch axes"):
        masked_attention(x, x, x, key_padding_mask=np.zeros(shape, bool))


def test_a_batch_is_never_taken_for_heads():
    x = np.ones((3, 3, 4, 2))
    padding = np.zeros((3, 4), bool)
    with pytest.raises(ValueError, match=r"a padding \(batch, S\) for all heads is padding\[:, None, :\]"):
        masked_attention(x, x, x, key_padding_mask=padding)
    with pytest.raises(ValueError, match="does not fit"):
        masked_attention(x[0], x[0], x[0], mask=Dense(np.ones((3, 3, 4, 4))), key_padding_mask=padding)
    with pytest.raises(ValueError, match="does not fit"):
        adapter.masked_attention(*[torch.tensor(x)] * 3, key_padding_mask=torch.tensor(padding))
    with pytest.raises(ValueError, match=r"batch dimensions of key_padding_mask, k and v do not broadcast: \(2, 1\)"):
        masked_attention(x, x, x, key_padding_mask=np.zeros((2, 1, 4), bool))
    with pytest.raises(ValueError, match="batch dimensions of mask, q, k and v do not broadcast"):
        masked_attention(x[0], x[0, 0], x[0, 0], key_padding_mask=np.zeros((2, 4), bool))


def test_padding_that_lives_elsewhere():
    x = np.ones((4, 2))
    with pytest.raises(BackendError, match="k, key_padding_mask live in different places"):
        masked_attention(x, x, x, key_padding_mask=torch.zeros(4, dtype=torch.bool))
    with pytest.raises(TypeError, match="key_padding_mask must be a torch tensor, got ndarray"):
        adapter.masked_attention(*[torch.ones(4, 2)] * 3, key_padding_mask=np.zeros(4, bool))
    with pytest.raises(BackendError, match="key_padding_mask is on meta"):
        adapter.masked_attention(*[torch.ones(4, 2)] * 3, key_padding_mask=torch.zeros(4, dtype=bool, device="meta"))
