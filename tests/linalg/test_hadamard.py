"""The central lemma by every method, its memory, and its accuracy row by row."""

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from structmask import Causal, Dense, Diagonal, LowRank, Sparse, Toeplitz, masked_attention, use_backend
from structmask.backends import arrays
from structmask.linalg import hadamard
from structmask.linalg.hadamard import METHODS, Hadamard, Kind, applicable, mask_gradient, masked_product
from tests import naive
from tests.cases import complex_, gates, real
from tests.methods import check_methods

M, R, E = 40, 3, 2
MASKS = {
    "toeplitz": Toeplitz(real(2 * M - 1)),
    "toeplitz-2": Toeplitz(real(9, 15), levels=2),
    "causal": Causal(M, decay=gates(M)),
    "causal-upper": Causal(M, decay=0.5, upper=True),
    "dense": Dense(real(M, M)),
    "diagonal": Diagonal(real(M)),
    "sparse": Sparse(scipy.sparse.csr_array(np.where(real(M, M) > 1, real(M, M), 0))),
    "low_rank": LowRank(real(M, 2), real(M, 2, seed=1)),
    "sum": Toeplitz(real(2 * M - 1)) + Causal(M),
    "scaled": 2 * Causal(M, decay=gates(M)),
    "product": Toeplitz(real(2 * M - 1)) @ Causal(M),
    "heads": Toeplitz(real(2, 1, 2 * M - 1)),
}


def features(data=real):
    return data(M, R), data(M, R, seed=1), data(M, E, seed=2)


@pytest.mark.parametrize("data", [real, complex_], ids=["real", "complex"])
@pytest.mark.parametrize("backend", ["numpy", "auto"])
@pytest.mark.parametrize("name", MASKS)
def test_every_method_gives_the_product_and_its_row_sums(name, backend, data, close):
    with use_backend(backend):
        assert {"dense", "stream"} <= check_methods(MASKS[name], *features(data), close) <= set(METHODS)


@pytest.mark.parametrize(
    ("name", "method"),
    [("causal", "scan"), ("sparse", "sparse"), ("diagonal", "diagonal"), ("low_rank", "low_rank"), ("sum", "terms")],
)
def test_structures_bring_methods_of_their_own(name, method):
    kind = Kind.of(*features())
    assert method in applicable(MASKS[name], kind)
    assert method not in applicable(MASKS["dense"], kind)


def test_sparse_features_are_streamed(close):
    factor = scipy.sparse.csr_array(np.where(real(M, R) > 0, real(M, R), 0))
    for mask in MASKS.values():
        matrix, X = mask * LowRank(factor, factor), real(M, E)
        dense = mask.to_dense() * (factor @ factor.T).toarray()
        close(matrix @ X, dense @ X, scale=np.max(np.abs(dense) @ np.abs(X)))


@pytest.mark.parametrize("method", ["scan", "sparse", "low_rank", "diagonal", "terms"])
def test_methods_of_other_structures_are_refused(method):
    with pytest.raises(ValueError, match=rf"method '{method}' does not apply to Dense.*'dense', 'stream'.* do"):
        masked_product(MASKS["dense"], *features(), method)


def test_unknown_methods_are_refused():
    with pytest.raises(ValueError, match=r"unknown method 'fast'; choose one of 'auto', 'dense'"):
        masked_product(MASKS["dense"], *features(), "fast")


def test_blocks_change_nothing(monkeypatch, close):
    """With room for a few numbers at a time, every loop over blocks makes many turns."""
    F, G, X = features()
    for mask in MASKS.values():
        dense = mask.to_dense() * naive.low_rank(F, G)
        P = np.broadcast_to(X, (dense @ X).shape)  # a cotangent has the batch of the product
        want = mask_gradient(mask, F, G, P, X)
        with monkeypatch.context() as patch, use_backend("numpy"):
            patch.setattr(arrays, "block_entries", lambda _: 2 * M)
            for method in ("dense", "stream"):
                Y, mass = masked_product(mask, F, G, X, method)
                close(Y, dense @ X, scale=(np.abs(dense) @ np.abs(X)).max())
                close(mass, dense.sum(axis=-1), scale=np.abs(dense).sum(axis=-1).max())
            compare(mask_gradient(mask, F, G, P, X), want)


def compare(got, want):
    if isinstance(want, dict):
        assert set(got) == set(want)
        for key, value in want.items():
            compare(got[key], value)
    else:
        np.testing.assert_allclose(got, want, atol=1e-12 * max(1, np.abs(want).max()))


# --- accuracy row by row ----------------------------------------------------------------------------------------------

L, D, V = 1024, 4, 8


def uneven(precision="float32"):
    """Positive features whose keys differ in size by e^16, and a mask that decays fast."""
    rng = np.random.default_rng(7)
    F, G = np.abs(rng.standard_normal((2, L, D))) + 0.1
    G *= np.exp(np.linspace(-8, 8, L))[:, None]
    mask = Toeplitz.from_function(lambda s: np.maximum(np.exp(-((s / 32.0) ** 2)), 1e-30), L).astype("float32")
    return mask, [a.astype("float32").astype(precision) for a in (F, G, rng.standard_normal((L, V)))]


def row_errors(got, want):
    """Error of each row, relative to its largest entry."""
    return np.abs(got - want).max(axis=-1) / np.abs(want).max(axis=-1)


def exact_attention():
    mask, (F, G, X) = uneven("float64")
    A = naive_mask(mask) * (F @ G.T)
    return A @ X / A.sum(axis=-1, keepdims=True)


def naive_mask(mask):
    s = np.arange(L)[:, None] - np.arange(L)
    return mask.offsets.astype("float64")[s + L - 1]


@pytest.mark.parametrize("backend", ["numpy", "auto"])
def test_auto_is_accurate_in_every_row(backend):
    mask, (F, G, X) = uneven()
    with use_backend(backend):
        got = masked_attention(F, G, X, mask=mask, features=None)
    assert got.dtype == "float32"
    assert row_errors(got, exact_attention()).max() <= 1e-5


@pytest.mark.parametrize("backend", ["numpy", "auto"])
@pytest.mark.parametrize("method", ["stream", "fused"])
def test_auto_is_accurate_in_every_row_when_a_transform_is_cheapest(backend, method, monkeypatch):
    """Whatever the planner would have chosen at this size: the guard itself is what is tested."""
    mask, (F, G, X) = uneven()
    with use_backend(backend):
        if method not in applicable(mask, Kind.of(F, G, X)):
            pytest.skip("no kernel for this on the backend")
        chosen = make_chooser(method)
        monkeypatch.setattr(hadamard, "plan", chosen)
        got = masked_attention(F, G, X, mask=mask, features=None)
    assert chosen.called
    assert row_errors(got, exact_attention()).max() <= 1e-5


def make_chooser(method):
    """A planner that has one favourite."""

    def chosen(*_):
        chosen.called = True
        return type("Choice", (), {"method": method})

    chosen.called = False
    return chosen


@pytest.mark.parametrize("backend", ["numpy", "auto"])
def test_stream_is_not_accurate_in_every_row(backend):
    """So that the tests above can fail: without the guard these inputs lose digits in rows of small mass."""
    mask, (F, G, X) = uneven()
    with use_backend(backend):
        got = masked_attention(F, G, X, mask=mask, features=None, method="stream")
    errors = row_errors(got, exact_attention())
    assert errors.max() > 1e-4
    assert np.median(errors) < 1e-4  # it is rows that are lost, not the product


def test_few_rows_at_risk_are_mended_densely(monkeypatch):
    """A few small rows do not send the whole product to double precision."""
    rng = np.random.default_rng(7)
    F, G = np.abs(rng.standard_normal((2, L, D))).astype("float32") + np.float32(0.1)
    X = rng.standard_normal((L, V)).astype("float32")
    table = np.full(2 * L - 1, 1e-30)  # a band of zeros would be recognised, and exact
    table[L - 1 : L + 8] = 1  # nine entries a row ...
    G[100:112] *= np.float32(1e-7)  # ... and for four rows all of them are tiny
    mask = Toeplitz(table.astype("float32"))
    want = (naive_mask(mask) * (F.astype("float64") @ G.astype("float64").T)) @ X.astype("float64")
    monkeypatch.setattr(hadamard, "plan", make_chooser("stream"))
    monkeypatch.setattr(hadamard, "_in_double", lambda *_, **__: pytest.fail("carried out in double precision"))
    assert row_errors(masked_product(mask, F, G, X, "stream")[0], want).max() > 1e-3
    assert row_errors(masked_product(mask, F, G, X)[0], want).max() <= 1e-5


# --- any expression ---------------------------------------------------------------------------------------------------

n = 6
LEAVES = [
    Toeplitz(real(2 * n - 1)),
    Toeplitz(real(3, 5), levels=2),
    Toeplitz(complex_(2 * n - 1)),
    Causal(n, decay=0.5),
    Causal(n, decay=gates(n), upper=True),
    LowRank(real(n, 2), real(n, 2, seed=1)),
    Dense(real(n, n)),
    Diagonal(real(n)),
    Sparse(scipy.sparse.csr_array(np.where(real(n, n) > 0, real(n, n), 0))),
    Toeplitz(real(2, 2 * n - 1)),
]
leaves = st.sampled_from(LEAVES).map(lambda M: (M, M.to_dense(), np.abs(M.to_dense())))


@st.composite
def grown(draw, children):
    """A matrix, its dense form, and a bound of the entries and of all intermediate ones."""
    (A, a, p), (B, b, q) = draw(children), draw(children)
    kind = draw(st.sampled_from(["+", "-", "@", "*", "T", "scale", "shift"]))
    if kind == "*" and not isinstance(B, LowRank):
        factor = LEAVES[5]
        B, b, q = factor, factor.to_dense(), np.abs(factor.to_dense())
    return {
        "+": lambda: (A + B, a + b, p + q),
        "-": lambda: (A - B, a - b, p + q),
        "@": lambda: (A @ B, a @ b, p @ q),
        "*": lambda: (A * B, a * b, p * q),
        "T": lambda: (A.T, np.swapaxes(a, -1, -2), np.swapaxes(p, -1, -2)),
        "scale": lambda: (-1.5 * A, -1.5 * a, 1.5 * p),
        "shift": lambda: (A + 2, a + 2, p + 2),
    }[kind]()


expressions = leaves
for _ in range(3):
    expressions = st.one_of(leaves, grown(expressions))


@given(expressions)
def test_any_expression_is_its_dense_form(expression):
    A, dense, bound = expression
    X = real(n, 2)
    scale = np.max(bound) * n * np.abs(X).max()
    assert A.shape == dense.shape
    np.testing.assert_allclose(A @ X, dense @ X, rtol=0, atol=1e-13 * scale)
    np.testing.assert_allclose(A.to_dense(), dense, rtol=0, atol=1e-13 * scale)
    np.testing.assert_allclose(X.T @ A, X.T @ dense, rtol=0, atol=1e-13 * scale)


def test_entries_of_several_precisions_have_the_widest():
    """A factor in single precision is not multiplied out in it where the other is in double."""
    L, R = (np.random.default_rng(i).standard_normal((5, 2)).astype(np.float32) for i in (0, 1))
    a, b = real(5, 1), real(5, 1, seed=1)
    M = Hadamard(LowRank(L, R), LowRank(a, b))
    want = (L.astype(float) @ R.T.astype(float)) * (a @ b.T)
    np.testing.assert_allclose(M.to_dense(), want, rtol=1e-14)
    np.testing.assert_allclose(M.diagonal(), np.diagonal(want), rtol=1e-14)
