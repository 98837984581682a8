"""What every structured matrix refuses, and how it says so; where its generators live."""

import numpy as np
import pytest

from structmask import BackendError, Causal, Dense, Diagonal, LowRank, Toeplitz, to_numpy
from tests.cases import real

M = Toeplitz(real(9))


@pytest.mark.parametrize("dtype", ["float16", "longdouble", "clongdouble", "object", "U3", "datetime64[s]"])
def test_other_dtypes_are_refused(dtype):
    x = np.zeros(5, dtype=dtype)
    for use in (lambda: M @ x, lambda: x @ M, lambda: Diagonal(x), lambda: Causal(5, decay=x), lambda: M.astype(dtype)):
        with pytest.raises(TypeError, match="float32"):
            use()


def test_product_says_what_does_not_fit():
    with pytest.raises(
        ValueError, match=r"Toeplitz\(5 x 5, float64\) needs an operand with 5 rows, got shape \(4, 2\)"
    ):
        M @ np.ones((4, 2))
    with pytest.raises(ValueError, match="scalar operand"):
        M @ 2.0
    with pytest.raises(ValueError, match=r"batch dimensions \(2,\) and \(3,\) do not broadcast"):
        Toeplitz(real(2, 9)) @ np.ones((3, 5, 1))


@pytest.mark.parametrize(
    ("G", "X"),
    [((5, 2), (4, 2)), ((4, 2), (5, 2)), ((5, 2), (5, 3)), ((5,), (5, 1)), ((), ())],
)
def test_pullback_says_what_does_not_fit(G, X):
    with pytest.raises(ValueError, match=r"needs G \(\.\.\., 5, k\) and X \(\.\.\., 5, k\), got"):
        M.pullback(np.ones(G), np.ones(X))


def test_pullback_takes_vectors(close):
    g, x = real(5), real(5, seed=1)
    close(M.pullback(g, x)["offsets"], M.pullback(g[:, None], x[:, None])["offsets"])


@pytest.mark.parametrize("batch", [(2,), (2, 1)])
def test_pullback_of_heads_takes_operands_without(batch, close):
    matrix, G, X = Toeplitz(real(*batch, 9)), real(5, 2), real(5, 2, seed=1)
    close(matrix.pullback(G, X)["offsets"], np.broadcast_to(M.pullback(G, X)["offsets"], (*batch, 9)))


def test_pullback_promotes_to_one_precision():
    assert M.pullback(np.ones(5), np.ones(5, "float32"))["offsets"].dtype == "float64"
    assert M.pullback(np.ones(5, "float32"), np.ones(5, "float32"))["offsets"].dtype == "float32"


def test_generators_are_kept_by_reference():
    offsets = real(9)
    assert Toeplitz(offsets).offsets is offsets
    assert M.astype("float64").offsets is M.offsets


def test_matrix_is_frozen_and_hashed_by_identity():
    with pytest.raises(AttributeError):
        M.offsets = np.zeros(9)
    assert Toeplitz(M.offsets) != M
    assert len({M, M}) == 1


def test_product_in_another_precision_is_planned_once():
    matrix = Toeplitz(real(9))
    _ = matrix @ np.ones(5, "float32")
    first = matrix._copies["float32", "numpy", 0]
    _ = matrix @ np.ones(5, "float32")
    assert matrix._copies["float32", "numpy", 0] is first


def test_with_parameters_reaches_into_composites(close):
    a, b = Toeplitz(real(9)), Causal(5, decay=0.5)
    changed = (a + b).with_parameters({"terms": {1: {"decay": 0.25}}})
    close(changed.to_dense(), (a + Causal(5, decay=0.25)).to_dense())
    changed = (a @ b).with_parameters(left={"offsets": real(9, seed=1)})
    close(changed.to_dense(), (Toeplitz(real(9, seed=1)) @ b).to_dense())


def test_dtype_is_that_of_the_widest_generator():
    assert Toeplitz(real(9).astype("float32")).dtype == "float32"
    assert LowRank(real(5, 1).astype("float32"), real(5, 1)).dtype == "float64"
    assert Causal(3).dtype == "float64"
    assert Causal(3, decay=0.5j).dtype == "complex128"
    assert (Dense(real(2, 2).astype("float32")) * 1j).dtype == "complex64"


def test_unknown_place():
    with pytest.raises(ValueError, match="'cupy' for the GPU"):
        M.to("tpu")
    assert M.to("numpy").offsets is M.offsets
    assert M.to("numba").offsets is M.offsets


def test_arrays_of_two_libraries_do_not_mix():
    xp = pytest.importorskip("array_api_strict")
    with pytest.raises(BackendError, match=r"lives in array_api_strict but .* lives in numpy; move one of them"):
        M @ xp.ones((5, 1))
    strict = Toeplitz(xp.ones(9))
    with pytest.raises(BackendError, match="different places"):
        M + strict
    with pytest.raises(BackendError, match="different places"):
        LowRank(np.ones((2, 1)), xp.ones((2, 1)))


@pytest.mark.gpu
def test_host_arrays_and_device_matrices_do_not_mix():
    pytest.importorskip("cupy")
    device = M.to("cupy")
    with pytest.raises(BackendError, match=r"structmask\.to_numpy"):
        device @ np.ones(5)
    with pytest.raises(BackendError, match="different places"):
        M * device
    assert type(device.offsets) is not type(M.offsets)
    np.testing.assert_array_equal(to_numpy(device.to("numpy").offsets), M.offsets)
