"""Masked attention against its definition: every mask by every method, row by row, and what it refuses."""

import dataclasses

import array_api_strict
import numpy as np
import pytest
import scipy.sparse

from structmask import (
    Causal,
    Dense,
    Diagonal,
    LowRank,
    Sparse,
    Toeplitz,
    elu_features,
    exp_features,
    masked_attention,
    positive_features,
    relu_features,
    use_backend,
)
from structmask.linalg import hadamard
from tests import naive

L = 24


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32).astype(np.float64)


def positive(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).uniform(0.2, 1.0, shape).astype(np.float32).astype(np.float64)


def gates(*shape):
    """Decays with zeros, which start anew, and ones, which keep everything."""
    decay = positive(*shape)
    decay[..., 4::9] = 0.0
    decay[..., 7::9] = 1.0
    return decay


ROWS, COLUMNS = np.nonzero(np.random.default_rng(0).random((L, L)) < 0.2)
KEPT = ROWS != 5  # an empty row
ROWS, COLUMNS = ROWS[KEPT], COLUMNS[KEPT]
VALUES = positive(ROWS.size)
COO = scipy.sparse.coo_array((VALUES, (ROWS, COLUMNS)), shape=(L, L))
LINE, GRID = positive(2 * L - 1), positive(7, 11)
LEFT, RIGHT = positive(L, 3), positive(L, 3, seed=1)
DENSE = positive(L, L)
DENSE[3] = 0.0  # a row of zero mass

dT, dG, dC = naive.toeplitz(LINE), naive.toeplitz(GRID, 2), naive.causal(L, gates(L))
dS, dR = naive.sparse(ROWS, COLUMNS, VALUES, (L, L)), naive.low_rank(LEFT, RIGHT)

# name: (mask, its entries, the methods of its own kind)
MASKS = {
    "none": (None, np.ones((L, L)), {"low_rank"}),
    "dense": (Dense(DENSE), DENSE, set()),
    "dense-heads": (Dense(positive(3, L, L)), positive(3, L, L), set()),
    "diagonal": (Diagonal(positive(L)), naive.diagonal(positive(L)), {"diagonal"}),
    "diagonal-heads": (Diagonal(positive(3, L)), naive.diagonal(positive(3, L)), {"diagonal"}),
    "sparse": (Sparse(COO), dS, {"sparse"}),
    "low_rank": (LowRank(LEFT, RIGHT), dR, {"low_rank"}),
    "low_rank-0": (LowRank(LEFT[:, :0], RIGHT[:, :0]), 0 * dR, {"low_rank"}),
    "low_rank-heads": (
        LowRank(positive(3, L, 2), RIGHT[:, :2]),
        naive.low_rank(positive(3, L, 2), RIGHT[:, :2]),
        {"low_rank"},
    ),
    "toeplitz": (Toeplitz(LINE), dT, {"fused"}),
    "toeplitz-heads": (Toeplitz(positive(3, 2 * L - 1)), naive.toeplitz(positive(3, 2 * L - 1)), {"fused"}),
    "toeplitz-4x6": (Toeplitz(GRID, levels=2), dG, {"fused"}),
    "toeplitz-heads-4x6": (Toeplitz(positive(3, 7, 11), levels=2), naive.toeplitz(positive(3, 7, 11), 2), {"fused"}),
    "causal": (Causal(L, decay=0.75), naive.causal(L, 0.75), {"scan"}),
    "causal-sums": (Causal(L), naive.causal(L), {"scan"}),
    "causal-gates": (Causal(L, decay=gates(L)), dC, {"scan"}),
    "causal-heads": (Causal(L, decay=gates(3, L)), naive.causal(L, gates(3, L)), {"scan"}),
    "causal-upper": (Causal(L, decay=gates(L)).T, dC.T, {"scan"}),
    "sum": (Toeplitz(LINE) + Causal(L, decay=gates(L)), dT + dC, {"terms"}),
    "multiple": (2 * Causal(L, decay=gates(L)), 2 * dC, {"terms"}),
    "hadamard": (Toeplitz(LINE) * LowRank(LEFT, RIGHT), dT * dR, set()),
    "product": (Toeplitz(LINE) @ Causal(L, decay=gates(L)), dT @ dC, set()),
    "sparse-factors": (
        LowRank(scipy.sparse.csr_array(dS), scipy.sparse.csr_array(dC)),
        naive.low_rank(dS, dC),
        set(),
    ),
}

SHAPES = {  # of q, k, v without their last two axes; masks "-heads" have three heads
    "single": ((), (), ()),
    "heads": ((3,), (3,), (3,)),
    "batch-and-heads": ((2, 3), (2, 3), (2, 3)),
    "broadcast": ((2, 1), (3,), ()),
}


def elu(x):
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def row_error(out, wanted):
    """Largest error of a row relative to the row; a row of zeros must be zeros exactly."""
    size = np.max(np.abs(wanted), axis=-1)
    error = np.max(np.abs(out.astype(wanted.dtype) - wanted), axis=-1)
    assert not error[size == 0].any()
    return np.max(error[size > 0] / size[size > 0], initial=0.0)


@pytest.fixture(params=["numpy", "numba"])
def backend(request):  # instead of the one of conftest.py
    with use_backend(request.param):
        yield request.param


# --- the definition ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [0.0, 0.5])
@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.usefixtures("backend")
def test_the_definition(name, shapes, eps):
    mask, dense, _ = MASKS[name]
    q, k, v = (
        normal(*batch, L, size, seed=i) for i, (batch, size) in enumerate(zip(SHAPES[shapes], (4, 4, 5), strict=True))
    )
    wanted = naive.masked_attention(elu(q), elu(k), v, dense, eps)
    out = masked_attention(q, k, v, mask=mask, eps=eps)
    assert out.dtype == np.float64
    assert out.shape == wanted.shape
    assert row_error(out, wanted) <= 1e-12
    single = masked_attention(*(x.astype(np.float32) for x in (q, k, v)), mask=mask, eps=eps)
    assert single.dtype == np.float32
    assert row_error(single, wanted) <= 1e-5


@pytest.mark.parametrize("method", [method for method in hadamard.METHODS if method != "auto"])
@pytest.mark.parametrize("name", MASKS)
def test_every_method_on_every_mask(name, method, backend):
    mask, dense, own = MASKS[name]
    fused = {"fused"} if backend == "numpy" else set()  # a compiled kernel only
    q, k, v = normal(3, L, 4), normal(3, L, 4, seed=1), normal(3, L, 5)
    wanted = naive.masked_attention(elu(q), elu(k), v, dense, 0.5)
    if method not in {"dense", "stream"} | own - fused:
        with pytest.raises(ValueError, match=f"method '{method}' does not apply to .*'auto', .*'stream'.* do"):
            masked_attention(q, k, v, mask=mask, method=method)
        return
    out = masked_attention(q, k, v, mask=mask, method=method, eps=0.5)
    np.testing.assert_allclose(out, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())
    single = masked_attention(*(x.astype(np.float32) for x in (q, k, v)), mask=mask, method=method, eps=0.5)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("size", [1, 2, 63, 129])
@pytest.mark.usefixtures("backend")
def test_sizes(size):
    q, k, v = normal(size, 3), normal(size, 3, seed=1), normal(size, 2)
    table = positive(2 * size - 1)
    for mask, dense in (
        (None, np.ones((size, size))),
        (Causal(size, decay=0.875), naive.causal(size, 0.875)),
        (Toeplitz(table), naive.toeplitz(table)),
    ):
        wanted = naive.masked_attention(elu(q), elu(k), v, dense)
        assert row_error(masked_attention(q, k, v, mask=mask), wanted) <= 1e-12


def test_arrays_of_a_strict_library():
    q, k, v = normal(3, L, 4), normal(3, L, 4, seed=1), normal(3, L, 5)
    for name in (
        "none",
        "toeplitz",
        "toeplitz-4x6",
        "causal-gates",
        "sum",
        "dense",
        "diagonal",
        "low_rank",
        "hadamard",
    ):
        mask, dense, _ = MASKS[name]
        if mask is not None:
            mask = mask._map(lambda x: array_api_strict.asarray(x) if hasattr(x, "dtype") else x)
        out = masked_attention(*map(array_api_strict.asarray, (q, k, v)), mask=mask, eps=0.5)
        assert type(out).__module__.startswith("array_api_strict")
        assert row_error(np.from_dlpack(out), naive.masked_attention(elu(q), elu(k), v, dense, 0.5)) <= 1e-12


# --- features ---------------------------------------------------------------------------------------------------------


def test_features_of_every_form():
    q, k, v = normal(L, 4), normal(L, 4, seed=1), normal(L, 5)
    phi = positive_features(4, 6, rng=0)
    for features, F, G in (
        (elu_features, elu(q), elu(k)),
        (exp_features, np.exp(q), np.exp(k)),
        (relu_features(4), np.maximum(q, 0) + 1e-3, np.maximum(k, 0) + 1e-3),
        (phi, phi(q), phi(k)),
        ((np.exp, np.square), np.exp(q), np.square(k)),
        (None, q, k),
    ):
        wanted = naive.masked_attention(F, G, v, dC)
        np.testing.assert_allclose(
            masked_attention(q, k, v, mask=Causal(L, decay=gates(L)), features=features), wanted, rtol=1e-8
        )


def test_causal_attention_does_not_look_ahead():
    phi = positive_features(4, 16, rng=0)
    q, k, v = normal(L, 4), normal(L, 4, seed=1), normal(L, 5)
    before = masked_attention(q, k, v, mask=Causal(L), features=phi)
    other = k.copy()
    longest = max(phi.projection, key=np.linalg.norm)
    other[-1] = np.sqrt(2) * longest  # the largest key possible: another stabiliser for all of them
    assert phi.key(other)[0, 0] < 0.75 * phi.key(k)[0, 0]
    after = masked_attention(q, other, v, mask=Causal(L), features=phi)
    np.testing.assert_allclose(after[:-1], before[:-1], rtol=1e-10)
    assert np.abs(after - before)[-1].max() > 1e-3


def test_integers_and_mixed_precision():
    x = np.arange(12).reshape(4, 3) % 5
    wanted = naive.masked_attention(elu(x), elu(x), x.astype(float))
    assert masked_attention(x, x, x).dtype == np.float64
    assert row_error(masked_attention(x, x, x), wanted) <= 1e-12
    assert masked_attention(x.astype(np.float32), x.astype(np.float32), x.astype(float)).dtype == np.float64
    assert (
        masked_attention(*[x.astype(np.float32)] * 3, mask=Causal(4, decay=np.ones(4)), eps=np.float64(1)).dtype
        == np.float32
    )


def test_lists_of_numbers():
    assert masked_attention([[1.0], [2.0]], [[1.0], [2.0]], [[1.0], [2.0]], mask=Causal(2))[0, 0] == 1.0


@pytest.mark.usefixtures("backend")
def test_read_only_and_strided_operands_stay_as_they_are():
    q, k, v = (normal(4, 2, L, seed=i) for i in range(3))
    for x in (q, k, v):
        x.flags.writeable = False
    views = [np.moveaxis(x, 0, -1) for x in (q, k, v)]
    flipped = [x[:, ::-1] for x in views]
    for name in ("none", "toeplitz", "causal-gates", "sparse", "dense", "diagonal"):
        mask, dense, _ = MASKS[name]
        for given in (views, flipped):
            wanted = naive.masked_attention(elu(given[0]), elu(given[1]), given[2], dense, 0.5)
            assert row_error(masked_attention(*given, mask=mask, eps=0.5), wanted) <= 1e-12
    for i, x in enumerate((q, k, v)):
        np.testing.assert_array_equal(x, normal(4, 2, L, seed=i))


# --- edges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [0.0, 0.5])
@pytest.mark.parametrize(
    ("batch", "rows", "columns", "d", "e"),
    [
        ((0,), 3, 4, 2, 2),
        ((2,), 0, 4, 2, 2),
        ((2,), 3, 0, 2, 2),
        ((2,), 3, 4, 0, 2),
        ((2,), 3, 4, 2, 0),
        ((), 0, 0, 0, 0),
    ],
)
def test_empty(batch, rows, columns, d, e, eps):
    q, k, v = normal(*batch, rows, d), normal(*batch, columns, d), normal(*batch, columns, e)
    for mask in (None, Dense(np.ones((rows, columns)))):
        out = masked_attention(q, k, v, mask=mask, eps=eps)
        np.testing.assert_allclose(out, naive.masked_attention(elu(q), elu(k), v, None, eps), rtol=1e-13)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.usefixtures("backend")
def test_rows_of_zero_mass_give_zeros_exactly(name):
    mask, dense, _ = MASKS[name]
    F, G, v = positive(L, 4), positive(L, 4, seed=1), normal(L, 3)
    F[7] = 0.0
    for dtype in (np.float64, np.float32):
        out = masked_attention(F.astype(dtype), G.astype(dtype), v.astype(dtype), mask=mask, features=None)
        wanted = naive.masked_attention(F, G, v, dense)
        assert not wanted[..., 7, :].any()
        assert row_error(out, wanted) <= (1e-12 if dtype is np.float64 else 1e-5)


def test_rows_that_a_transform_would_fill_with_rounding_give_zeros_exactly(monkeypatch):
    offsets = np.where(np.abs(np.arange(1 - 300, 300)) < 4, 1.0, 0.0)
    F, G, v = positive(300, 4), positive(300, 4, seed=1), normal(300, 3)
    G[100:120] = 0.0
    prefer(monkeypatch, "fused", "stream")
    for dtype in (np.float64, np.float32):
        out = masked_attention(*(x.astype(dtype) for x in (F, G, v)), mask=Toeplitz(offsets), features=None)
        assert not out[104:116].any()
        assert row_error(out, naive_fast(F, G, v, naive.toeplitz(offsets))) <= (1e-11 if dtype is np.float64 else 1e-5)


# --- accuracy row by row ----------------------------------------------------------------------------------------------


def naive_fast(F, G, v, M):
    """The definition by matrix products in double precision, for sizes that loops do not reach."""
    A = M * (F.astype(np.float64) @ G.astype(np.float64).mT)
    mass = A.sum(axis=-1, keepdims=True)
    return np.divide(A @ v.astype(np.float64), mass, out=np.zeros((*A.shape[:-1], v.shape[-1])), where=mass != 0)


def prefer(monkeypatch, *methods):
    """Let the planner take the first of some methods that applies, whatever the costs."""
    original = hadamard.plan

    def plan(*args, **options):
        found = original(*args, **options)
        order = {method: index for index, method in enumerate(methods)}
        return dataclasses.replace(
            found, steps=tuple(sorted(found.steps, key=lambda s: order.get(s.method, len(order))))
        )

    monkeypatch.setattr(hadamard, "plan", plan)


def spread_keys(n, m, seed=0):
    """Keys whose sizes swing by a factor of e^16, with queries and values of ordinary size, in single precision."""
    rng = np.random.default_rng(seed)
    swing = 8 * np.cos(6 * np.pi * np.arange(n) / n)[:, None]
    G = np.exp(swing + 0.3 * rng.standard_normal((n, m)))
    return [x.astype(np.float32) for x in (rng.uniform(0.1, 1.0, (n, m)), G, rng.standard_normal((n, 4)))]


def grid(a, b, scale):
    s, t = np.meshgrid(np.arange(1 - a, a), np.arange(1 - b, b), indexing="ij")
    return Toeplitz(np.exp(-(s * s + t * t) / scale**2), levels=2)


def line(n, scale):
    return Toeplitz(np.maximum(np.exp(-((np.arange(1 - n, n) / scale) ** 2)), 1e-30))  # not a band: all of it counts


DECAYING = {
    "line-512": lambda: line(512, 16),
    "line-2048": lambda: line(2048, 32),
    "exponential-2048": lambda: Toeplitz(np.exp(-abs(np.arange(-2047, 2048)) / 8)),
    "grid-16x32": lambda: grid(16, 32, 2),
    "grid-32x64": lambda: grid(32, 64, 3),
    "sum-512": lambda: line(512, 16) + Causal(512, decay=0.5),
    "sum-2048": lambda: line(2048, 8) + grid(32, 64, 2) + Diagonal(np.full(2048, 0.5)),
    "multiple-2048": lambda: 3 * (line(2048, 16) + Causal(2048, decay=0.75)),
    "hadamard-512": lambda: line(512, 16) * LowRank(positive(512, 1), positive(512, 1, seed=1)),
    "product-512": lambda: line(512, 4) @ Causal(512, decay=0.5),
}


@pytest.mark.parametrize("methods", [(), ("fused", "stream"), ("stream",)], ids=lambda m: "-".join(m) or "planned")
@pytest.mark.parametrize("name", DECAYING)
def test_auto_keeps_every_row_when_keys_differ_in_size(name, methods, monkeypatch):
    mask = DECAYING[name]()
    n = mask.shape[-1]
    F, G, v = spread_keys(n, 6)
    prefer(monkeypatch, *methods)
    assert row_error(masked_attention(F, G, v, mask=mask, features=None), naive_fast(F, G, v, mask.to_dense())) <= 1e-5


def test_these_keys_do_need_the_care_that_auto_takes():
    F, G, v = spread_keys(2048, 6)
    mask = line(2048, 32)
    careless = masked_attention(F, G, v, mask=mask, features=None, method="stream")
    assert row_error(careless, naive_fast(F, G, v, mask.to_dense())) > 1e-3


@pytest.mark.parametrize("keys", ["smooth", "shuffled", "constant", "outlier", "heads"])
@pytest.mark.parametrize("name", ["line-512", "exponential-2048", "grid-16x32", "sum-512"])
def test_auto_keeps_every_row_of_other_keys(name, keys, monkeypatch):
    """Keys whose rounding errors are not independent: one large coefficient spreads its error over all rows."""
    mask = DECAYING[name]()
    n = mask.shape[-1]
    F, G, v = spread_keys(n, 6)
    position = np.arange(n)[:, None]
    G = {
        "smooth": np.exp(8 * np.cos(2 * np.pi * position / n)) * np.ones((n, 6)),
        "shuffled": np.random.default_rng(1).permuted(G, axis=0),
        "constant": np.where(position < n // 2, 3e3, 1e-3) * np.ones((n, 6)),
        "outlier": np.where(position == n // 3, 1e6, 1.0) * (1 + abs(normal(n, 6))),
        "heads": np.stack([G, np.ones_like(G), G[::-1]]),
    }[keys].astype(np.float32)
    v = (1 + 0.1 * normal(n, 4)).astype(np.float32)
    prefer(monkeypatch, "fused", "stream")
    assert row_error(masked_attention(F, G, v, mask=mask, features=None), naive_fast(F, G, v, mask.to_dense())) <= 1e-5


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_a_large_feature_does_not_disturb_its_neighbour(order, monkeypatch):
    """Kernels that carry two features in one complex transform spread the rounding of one over both."""
    n = 512
    F, G = np.full((n, 2), 1e-30), np.ones((n, 2))
    F[:, 1], F[-10:] = 1.0, [1.0, 1e-3]
    G[: n // 2, 0], G[n // 2 :, 0] = 1e4, 1e-3
    F, G, v = (x.astype(np.float32) for x in (F[:, order], G[:, order], 1 + 0.1 * positive(n, 2)))
    mask = line(n, 30)
    wanted = naive_fast(F, G, v, mask.to_dense())
    prefer(monkeypatch, "fused", "stream")
    assert row_error(masked_attention(F, G, v, mask=mask, features=None), wanted) <= 1e-5


# --- what it refuses --------------------------------------------------------------------------------------------------


def test_shapes_that_do_not_fit():
    x, y = np.ones((4, 2)), np.ones((3, 2))
    with pytest.raises(ValueError, match=r"attention needs q \(\.\.\., L, d\).* got \(4, 2\), \(4, 2\) and \(3, 2\)"):
        masked_attention(x, x, y)
    with pytest.raises(ValueError, match=r"got \(4,\), \(4, 2\)"):
        masked_attention(x[:, 0], x, x)
    with pytest.raises(ValueError, match="as many features, got 2 and 1"):
        masked_attention(x, x[:, :1], x)
    with pytest.raises(
        ValueError, match=r"mask of shape \(5, 5\) does not fit 4 queries and 4 keys; it needs shape \(\.\.\., 4, 4\)"
    ):
        masked_attention(x, x, x, mask=Causal(5))
    with pytest.raises(
        ValueError, match=r"batch dimensions of mask, q, k and v do not broadcast: \(3,\), \(2,\), \(\), \(\)"
    ):
        masked_attention(np.ones((2, 4, 2)), x, x, mask=Dense(np.ones((3, 4, 4))))


@pytest.mark.parametrize("size", [0, 4])
def test_methods_that_do_not_exist_or_apply(size):
    x = np.ones((size, 2))
    with pytest.raises(ValueError, match="unknown method 'fast'; choose one of 'auto', 'dense', 'stream'"):
        masked_attention(x, x, x, method="fast")
    if size:
        with pytest.raises(
            ValueError, match=r"method 'scan' does not apply to LowRank.*; 'auto', 'dense', 'stream', 'low_rank' do"
        ):
            masked_attention(x, x, x, method="scan")


def test_masks_that_are_none():
    x = np.ones((4, 2))
    with pytest.raises(TypeError, match=r"got ndarray; wrap an array as structmask\.Dense\(mask\)"):
        masked_attention(x, x, x, mask=np.ones((4, 4)))
    with pytest.raises(TypeError, match="got csr_array"):
        masked_attention(x, x, x, mask=scipy.sparse.eye_array(4, format="csr"))


def test_operands_that_are_no_arrays_of_numbers():
    x = np.ones((4, 2))
    with pytest.raises(TypeError, match="k is a sparse matrix"):
        masked_attention(x, scipy.sparse.csr_array(x), x)
    with pytest.raises(TypeError, match=r"v has dtype float16; structmask computes in float32"):
        masked_attention(x, x, x.astype(np.float16))
    with pytest.raises(TypeError, match=r"features must be a callable, a pair .* or None, got int"):
        masked_attention(x, x, x, features=3)
    with pytest.raises(TypeError, match="positional"):
        masked_attention(q=x, k=x, v=x)
