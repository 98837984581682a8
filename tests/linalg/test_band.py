"""Band masks: both ways to multiply, attention in tiles, the rules of the algebra, what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from structmask import Band, Buckets, Causal, LowRank, Toeplitz, masked_attention, use_backend
from structmask.linalg import band
from structmask.linalg.composite import Sum
from structmask.linalg.hadamard import mask_gradient
from structmask.linalg.rounding import rounding_of
from tests import naive
from tests.cases import complex_, gates, real
from tests.methods import check_methods


def test_ones_are_a_sliding_window():
    position = np.arange(9)
    want = np.abs(position[:, None] - position) <= 2
    np.testing.assert_array_equal(Band(np.ones(5), 9).to_dense(), want)


@given(st.integers(1, 12), st.integers(0, 11), st.integers(1, 20), st.sampled_from([real, complex_]), st.booleans())
def test_any_band(count, upper, n, data, tiled):
    upper = min(upper, count - 1)
    offsets, X, G = data(2, count), real(n, 3), real(2, n, 3, seed=1)
    M, dense = Band(offsets, n, upper=upper), naive.band(offsets, n, upper)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Band, "is_tiled", tiled)
        patch.setattr(band, "_FEWEST_ROWS", 3)
        np.testing.assert_allclose(M @ X, dense @ X, atol=1e-12)
        np.testing.assert_allclose(M.T @ X, np.swapaxes(dense, -1, -2) @ X, atol=1e-12)
        got = M.pullback(G, X)["offsets"]
    product = G @ X.T
    want = [np.trace(product, offset=upper - s, axis1=-2, axis2=-1) for s in range(count)]
    np.testing.assert_allclose(got, np.stack(want, axis=-1), atol=1e-12)


def test_narrow_bands_are_tiled_and_wide_ones_transformed():
    narrow, wide = Band(np.ones(9), 4096), Band(np.ones(4001), 4096)
    assert narrow.is_tiled
    assert not wide.is_tiled
    assert rounding_of(narrow, 1e-7).is_local
    assert not rounding_of(wide, 1e-7).is_local
    assert max(narrow._work(1).flops, wide._work(1).flops) < 4096**2 / 10


def test_tiles_cover_the_band_once():
    M, n = Band(real(8), 200, upper=3), 200
    dense = np.zeros((n, n))
    for rows, columns, tile in M.tiles():
        dense[rows, columns] += tile
    np.testing.assert_array_equal(dense, M.to_dense())


# --- attention --------------------------------------------------------------------------------------------------------

N, R, K = 150, 3, 2
MASKS = {"band": Band(real(12), N, upper=4), "heads": Band(real(2, 1, 7), N), "complex": Band(complex_(5), N)}


@pytest.mark.parametrize("data", [real, complex_], ids=["real", "complex"])
@pytest.mark.parametrize("backend", ["numpy", "auto"])
@pytest.mark.parametrize("name", MASKS)
def test_every_method_gives_the_product_and_its_row_sums(name, backend, data, close):
    with use_backend(backend):
        assert {"band", "toeplitz"} < check_methods(
            MASKS[name], data(N, R), data(N, R, seed=1), data(N, K, seed=2), close
        )


@pytest.mark.parametrize("data", [real, complex_], ids=["real", "complex"])
@pytest.mark.parametrize("name", MASKS)
def test_gradient_in_tiles_is_the_sum_of_pullbacks(name, data, close):
    mask, F, G, P, X = MASKS[name], data(N, R), data(N, R, seed=1), data(2, 1, N, K, seed=2), data(N, K, seed=3)
    got = mask_gradient(mask, F.conj(), G, P, X)["offsets"]
    want = sum(mask._placed(X)._pullback(F.conj()[:, [r]] * P, G[:, [r]] * X)["offsets"] for r in range(R))
    close(got, want)


def test_window_attention_sees_the_window_only(close):
    q, k, v = real(9, 4), real(9, 4, seed=1), real(9, 2, seed=2)
    out = masked_attention(q, k, v, mask=Band(np.ones(3), 9, upper=0))
    changed = v.copy()
    changed[[0, 5, 6]] += 1.0
    again = masked_attention(q, k, changed, mask=Band(np.ones(3), 9, upper=0))
    close(again[[3, 4]], out[[3, 4]])
    assert (np.abs(again - out).max(axis=1) > 0.01)[[0, 1, 2, 5, 6, 7, 8]].all()


# --- the algebra ------------------------------------------------------------------------------------------------------

first, same, wider = Band(real(5), 9), Band(real(5, seed=1), 9), Band(real(11), 9, upper=2)
toeplitz, buckets, decay = Toeplitz(real(17)), Buckets(real(2), (1,), 9), Causal(9, decay=0.5)
RULES = [
    (first + same, first.to_dense() + same.to_dense(), Band),
    (first + wider, first.to_dense() + wider.to_dense(), Sum),
    (2 * first, 2 * first.to_dense(), Band),
    (first * same, first.to_dense() * same.to_dense(), Band),
    (first * wider, first.to_dense() * wider.to_dense(), Band),
    (toeplitz * first, toeplitz.to_dense() * first.to_dense(), Band),
    (Band(real(31), 9) * toeplitz, naive.band(real(31), 9) * toeplitz.to_dense(), Band),
    (first * buckets, first.to_dense() * buckets.to_dense(), Band),
    (decay * first, decay.to_dense() * first.to_dense(), Band),
    (decay.T * first, decay.to_dense().T * first.to_dense(), Band),
]


@pytest.mark.parametrize(("result", "want", "kind"), RULES)
def test_rule_is_taken_and_right(result, want, kind, close):
    assert type(result) is kind
    close(result.to_dense(), want)


def test_wider_precision_wins():
    assert (Band(real(5).astype("float32"), 9) * toeplitz).dtype == "float64"


@pytest.mark.parametrize(
    "other", [Causal(9, decay=gates(9)), Toeplitz(real(5, 5), levels=2), Causal(9) + toeplitz @ toeplitz], ids=repr
)
def test_what_does_not_depend_on_the_offset_alone_is_refused(other):
    with pytest.raises(TypeError, match="has no fast product"):
        first * other
    assert (first * LowRank(real(9, 2), real(9, 2))).shape == (9, 9)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offsets", "n", "upper", "sentence"),
    [
        (np.ones(0), 3, None, "needs offsets"),
        (1.0, 3, None, "needs offsets"),
        (np.ones(3), -1, None, "a size n >= 0"),
        (np.ones(4), 3, None, "odd length, got 4; for an uneven band pass upper="),
        (np.ones(4), 3, 4, "upper between 0 and 3, got 4"),
        (np.ones(4), 3, -1, "upper between 0 and 3, got -1"),
    ],
)
def test_tables_that_do_not_fit(offsets, n, upper, sentence):
    with pytest.raises(ValueError, match=sentence):
        Band(offsets, n, upper=upper)
