"""Functions of Hermitian matrices, the intervals that hold their eigenvalues, and the series in between."""

import copy
import tracemalloc

import numpy as np
import pytest
import scipy.fft
import scipy.sparse
import scipy.special

from structmask import (
    Causal,
    ConvergenceWarning,
    Dense,
    Diagonal,
    Kronecker,
    LowRank,
    Sparse,
    StructuredMatrix,
    Toeplitz,
    kronecker_sum,
    matrix_function,
    to_numpy,
)
from structmask.linalg import MatrixFunction
from structmask.linalg.chebyshev import chebyshev_coefficients, chebyshev_series
from structmask.linalg.spectrum import enclosure, is_hermitian, norm_bound
from tests import naive
from tests.cases import complex_, hermitian, real


def second_difference(n):
    return Toeplitz.from_column_row(np.concatenate([[2.0, -1.0], np.zeros(n)])[:n])


def heat(x):
    return np.exp(-x)


def path_modes(n):
    """Orthonormal eigenvectors of the second difference, and its eigenvalues: sines."""
    j = np.arange(1, n + 1)
    return np.sqrt(2 / (n + 1)) * np.sin(np.pi * np.outer(j, j) / (n + 1)), 2 - 2 * np.cos(np.pi * j / (n + 1))


# --- values -----------------------------------------------------------------------------------------------------------

FUNCTIONS = {
    "heat": heat,
    "wave": lambda x: np.exp(-1j * x),
    "resolvent": lambda x: 1 / (1 + x),
    "cosine": lambda x: np.cos(7 * x),
    "even": lambda x: x**2,
    "linear": lambda x: 3 * x - 1,
    "constant": lambda x: 0 * x + 2,
    "integers": lambda x: np.ones(x.size, dtype=int),
    "scalar": lambda _: 0.5,
}


@pytest.mark.parametrize("f", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("n", [1, 2, 33])
def test_values_are_those_on_the_eigenvectors(f, n, close):
    V, values = path_modes(n)
    M = matrix_function(second_difference(n), f, tol=1e-11)
    x = real(n, 2)
    close(M @ x, V @ ((f(values) * np.ones(n))[:, None] * (V.T @ x)), scale=np.abs(x).sum(), tolerance=1e-11)
    assert M.dtype.kind == np.asarray(f(values)).dtype.kind.replace("i", "f")


@pytest.mark.parametrize("tol", [1e-2, 1e-5, 1e-8, 1e-12])
@pytest.mark.parametrize("time", [1e-3, 1.0, 30.0])
def test_error_is_below_tol_and_below_the_estimate(tol, time):
    n = 64
    V, values = path_modes(n)
    M = matrix_function(second_difference(n), lambda x: np.exp(-time * x), tol=tol)
    error = np.linalg.norm(M.to_dense() - (V * np.exp(-time * values)) @ V.T, 2)
    assert error <= tol
    assert error <= M.error_estimate <= tol + 1e-13 * (1 + M.degree)
    assert np.isnan(M.error_bound)


def test_degree_grows_with_accuracy_and_width_only_as_it_must():
    """exp(-t x) on [0, 4]: about sqrt(2 t b log(1 / tol)) terms, with b = 4."""
    degrees = [matrix_function(second_difference(64), lambda x, t=t: np.exp(-t * x)).degree for t in (1, 10, 100, 1000)]
    assert degrees == sorted(degrees)
    assert degrees[-1] < 1.2 * np.sqrt(2 * 4 * 1000 * np.log(1e8))
    assert matrix_function(second_difference(64), heat, tol=1e-3).degree < degrees[0]


def test_several_functions_share_one_recurrence(close):
    a, times = second_difference(20), np.array([[0.1], [1.0], [5.0]])
    M = matrix_function(a, lambda x: np.exp(-times * x), tol=1e-12)
    assert M.shape == (3, 20, 20)
    for index, t in enumerate(times[:, 0]):
        close(
            (M @ real(20, 2))[index], naive.matrix_function(a.to_dense(), lambda x, t=t: np.exp(-t * x)) @ real(20, 2)
        )
    heads = Dense(np.stack([a.to_dense(), 2 * a.to_dense(), np.eye(20)]))
    both = matrix_function(heads, lambda x: np.exp(-times * x), tol=1e-12)
    want = [naive.matrix_function(h, lambda x, t=t: np.exp(-t * x)) for h, t in zip(heads.a, times[:, 0], strict=True)]
    close(both.to_dense(), np.stack(want))


def test_given_interval_is_used(close):
    a = second_difference(20)
    M = matrix_function(a, heat, interval=(-1, 5), tol=1e-12)
    assert M.interval == (-1.0, 5.0)
    close(M.to_dense(), naive.matrix_function(a.to_dense(), heat))
    narrow = matrix_function(a, np.sqrt, interval=(0.02, 3.98), tol=1e-10)  # they start at 0.022
    close(narrow @ narrow @ np.eye(20), a.to_dense(), tolerance=1e-9)


def test_functions_compose(close):
    a = second_difference(20)
    inverse = matrix_function(matrix_function(a, heat, tol=1e-12), lambda x: 1 / (2 + x), tol=1e-11)
    close(inverse.to_dense(), naive.matrix_function(a.to_dense(), lambda x: 1 / (2 + np.exp(-x))), tolerance=1e-10)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_generators_have_the_precision_of_the_matrix(precision):
    M = matrix_function(second_difference(20).astype(precision), heat)
    assert M.dtype == M.coefficients.dtype == precision
    assert M.error_estimate < (1e-4 if precision == "float32" else 2e-8)
    wave = matrix_function(second_difference(20).astype(precision), lambda x: np.exp(1j * x))
    assert wave.dtype == ("complex64" if precision == "float32" else "complex128")


def test_copies_keep_what_is_known_of_the_error():
    M = matrix_function(second_difference(20), heat)
    for other in (M.T, M.conj(), copy.deepcopy(M), M.astype("float32"), 1 * M):
        assert other.error_estimate == M.error_estimate
    assert MatrixFunction(M.matrix, M.coefficients, interval=M.interval).error_bound == 0  # of the polynomial itself


def test_work_and_repr_tell_the_degree():
    a = second_difference(20)
    M = matrix_function(a, heat)
    assert repr(M) == f"MatrixFunction({a!r}, degree {M.degree})"
    assert M._work(3).flops == M.degree * a._work(3).flops


def test_memory_does_not_grow_with_the_degree():
    n, k = 20_000, 4
    a = Diagonal(np.linspace(0, 1, n))
    X, G = real(n, k), real(n, k, seed=1)
    peaks = []
    for degree in (10, 60):
        M = MatrixFunction(a, 0.5 ** np.arange(degree + 1.0), interval=(0, 1))
        for run in (lambda M=M: M @ X, lambda M=M: M.pullback(G, X)):
            run()
            tracemalloc.start()
            run()
            peaks.append(tracemalloc.get_traced_memory()[1] / X.nbytes)
            tracemalloc.stop()
    assert max(peaks[2:]) < 12
    np.testing.assert_allclose(peaks[2:], peaks[:2], rtol=0.1)


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [1, 2, 3, 40])
@pytest.mark.parametrize("data", [real, complex_], ids=["real", "complex"])
def test_gradient_is_that_of_the_polynomial(degree, data, close):
    """d p(A) = sum_ij V_i (p[lambda_i, lambda_j] V_i^H dA V_j) V_j^H with divided differences p[.,.]."""
    n = 8
    A, c = hermitian(data(n, n)), real(degree + 1) / (1.0 + np.arange(degree + 1))
    M = MatrixFunction(Dense(A), c, interval=(-12, 12))
    values, V = np.linalg.eigh(A)
    p = np.polynomial.Chebyshev(c, domain=[-12, 12])
    gap = values[:, None] - values
    with np.errstate(all="ignore"):
        divided = np.where(gap == 0, p.deriv()(values)[:, None], (p(values)[:, None] - p(values)) / gap)
    G, X = data(n, 3), data(n, 3, seed=1)
    want = V @ (divided.conj() * (V.conj().T @ (G @ X.conj().T) @ V)) @ V.conj().T
    gradient = M.pullback(G, X)
    close(gradient["matrix"]["a"], want, tolerance=1e-11)
    basis = np.polynomial.chebyshev.chebvander(values / 12, degree)
    inner = [np.vdot(V @ (t[:, None] * (V.conj().T @ X)), G).real for t in basis.T]
    close(gradient["coefficients"], np.array(inner), tolerance=1e-11)


def test_gradient_of_a_batch_of_functions_is_the_sum(close):
    a, times = second_difference(12), np.array([[0.3], [2.0]])
    M = matrix_function(a, lambda x: np.exp(-times * x), tol=1e-12)
    G, X = real(2, 12, 3), real(12, 3)
    got = M.pullback(G, X)
    parts = [MatrixFunction(a, c, interval=M.interval).pullback(g, X) for c, g in zip(M.coefficients, G, strict=True)]
    close(got["matrix"]["offsets"], sum(part["matrix"]["offsets"] for part in parts))
    close(got["coefficients"], np.stack([part["coefficients"] for part in parts]))


# --- series -----------------------------------------------------------------------------------------------------------


def test_coefficients_of_the_exponential_are_bessel_functions(close):
    got = chebyshev_coefficients(np.exp, (-3, 3), 64)
    want = 2 * scipy.special.iv(np.arange(64), 3)
    want[0] /= 2
    close(got, want, tolerance=1e-15)


def test_coefficients_of_a_polynomial_are_its_own(close):
    c = real(7)
    p = np.polynomial.Chebyshev(c, domain=[2, 5])
    close(chebyshev_coefficients(p, (2, 5), 16)[:7], c, tolerance=1e-14)
    series = chebyshev_series(p, (2, 5), 1e-10)
    assert series.coefficients.shape == (7,)
    assert series.error < 1e-12


def test_oscillation_beyond_the_first_samples_is_seen():
    series = chebyshev_series(lambda x: np.cos(400 * x), (-1, 1), 1e-8)
    x = np.linspace(-1, 1, 1001)
    assert np.abs(np.polynomial.chebyshev.chebval(x, series.coefficients) - np.cos(400 * x)).max() <= 1e-8
    assert 400 < series.coefficients.size < 480


def test_functions_that_no_polynomial_reaches_warn():
    with pytest.warns(ConvergenceWarning, match=r"misses tol=1.0e-08: .*f is not smooth on \[-1, 1\]") as log:
        M = matrix_function(Diagonal(np.zeros(3)), np.abs, interval=(-1, 1))
    assert log[0].filename == __file__
    assert M.error_estimate > 1e-8


def test_tolerance_below_rounding_warns():
    with pytest.warns(ConvergenceWarning, match="below the rounding of"):
        matrix_function(second_difference(30), lambda x: np.exp(-300 * x), tol=1e-14)


def test_values_without_enough_digits_warn_soon():
    with pytest.warns(ConvergenceWarning, match="has no more digits"):
        M = matrix_function(second_difference(9), lambda x: np.exp(-x).astype("float32"), tol=1e-12)
    assert M.degree < 100
    assert M.error_estimate < 1e-5


# --- enclosures -------------------------------------------------------------------------------------------------------


def numerical_range(dense):
    """Smallest and largest eigenvalue of the Hermitian parts."""
    values = np.linalg.eigvalsh((dense + np.swapaxes(dense, -1, -2).conj()) / 2)
    return values.min(initial=np.inf), values.max(initial=-np.inf)


def test_enclosures_hold_for_every_structure(case, library):
    """Of the matrix plus its adjoint, of its Gram matrix, and of the matrix itself: none of them must be Hermitian."""
    M, dense = library.build(case), case.dense
    assert norm_bound(M) * (1 + 1e-9) >= np.linalg.norm(dense, 2, axis=(-2, -1)).max(initial=0) if dense.size else True
    matrices = [(M.mH @ M, np.swapaxes(dense, -1, -2).conj() @ dense)]
    if dense.shape[-1] == dense.shape[-2]:
        matrices += [(M, dense), (M + M.mH, dense + np.swapaxes(dense, -1, -2).conj()), (-2 * M, -2 * dense)]
    for matrix, array in matrices:
        low, high = enclosure(matrix)
        smallest, largest = numerical_range(array)
        slack = 1e-9 * np.abs(array).max(initial=0)
        assert low - slack <= smallest
        assert largest <= high + slack


@pytest.mark.parametrize(
    ("build", "width"),
    [
        (lambda: second_difference(50), 1.01),
        (lambda: Diagonal(np.linspace(-3, 8, 50)), 1.0001),
        (lambda: Diagonal(np.arange(50.0)) + second_difference(50), 1.1),
        (lambda: Toeplitz(0.5 ** abs(np.arange(-49, 50.0))), 1.1),
        (lambda: Toeplitz(np.cos(np.arange(-49, 50.0))), 2.5),
        (lambda: kronecker_sum(second_difference(7), second_difference(7)), 1.1),
    ],
    ids=range(6),
)
def test_enclosures_are_not_much_wider_than_the_spectrum(build, width):
    M = build()
    smallest, largest = numerical_range(M.to_dense())
    low, high = enclosure(M)
    assert high - low <= width * (largest - smallest)


def test_hermitian_matrices_are_told_from_others(library):
    for n in (0, 1, 2, 9):
        A = hermitian(complex_(n, n))
        assert is_hermitian(Dense(library.array(A)))
        assert is_hermitian(Dense(library.array(A.real)))
        assert is_hermitian(Dense(library.array(A.real)).astype("float32"))
        if n > 1:
            changed = A.copy()
            changed[0, 1] *= 1 + 1e-3
            assert not is_hermitian(Dense(library.array(changed)))
            assert not is_hermitian(Dense(library.array(A + 1e-3j * np.eye(n))))
            assert not is_hermitian(Dense(library.array(np.stack([A, changed]))))


# --- errors -----------------------------------------------------------------------------------------------------------


def test_arguments_that_make_no_sense():
    a = second_difference(5)
    with pytest.raises(TypeError, match=r"wrap it: Dense\(x\) or Sparse\(x\)"):
        matrix_function(np.eye(3), heat)
    with pytest.raises(TypeError, match="needs a callable on arrays of eigenvalues, got float"):
        matrix_function(a, 2.0)
    with pytest.raises(ValueError, match="square matrix, got Dense"):
        matrix_function(Dense(np.ones((2, 3))), heat)
    for tol in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="tol must be positive and finite"):
            matrix_function(a, heat, tol=tol)
    for interval in ((1, 1), (2, 1), (0, np.inf), (np.nan, 1)):
        with pytest.raises(ValueError, match="finite ends low < high"):
            matrix_function(a, heat, interval=interval)
    for coefficients in (1.0, [1.0], np.zeros((3, 1))):
        with pytest.raises(ValueError, match=r"two or more coefficients \(\.\.\., K \+ 1\)"):
            MatrixFunction(a, coefficients, interval=(0, 4))


@pytest.mark.parametrize(
    "a",
    [
        Causal(5, decay=0.5),
        Dense(1j * np.eye(3)),
        Toeplitz(real(9)),
        Sparse(scipy.sparse.coo_array(([1.0], ([0], [1])), shape=(4, 4))),
    ],
    ids=range(4),
)
def test_matrices_that_are_not_hermitian(a):
    with pytest.raises(ValueError, match=r"symmetric \(Hermitian\) matrix.*symmetrise it"):
        matrix_function(a, heat)


def test_functions_that_do_not_fit():
    a = second_difference(5)
    with pytest.raises(ValueError, match=r"not finite everywhere on the interval \[.*pass a narrower interval"):
        matrix_function(a - Diagonal(np.ones(5)), lambda x: np.where(x > 0, x, np.nan))
    with pytest.raises(ValueError, match=r"called with 16 eigenvalues and returned shape \(3,\); it needs"):
        matrix_function(a, lambda _: np.ones(3))
    with pytest.raises(TypeError, match="the value of f has dtype"):
        matrix_function(a, lambda x: x.astype(str))


@pytest.mark.parametrize("interval", [(1, 3), (0.5, 100), (-100, 3.5)])
def test_interval_that_misses_eigenvalues_is_refused(interval):
    with pytest.raises(ValueError, match="does not hold all eigenvalues of Toeplitz"):
        matrix_function(second_difference(50), lambda x: np.cos(3 * x), interval=interval)


class Unknown(StructuredMatrix):
    """A structure of which nothing is known."""

    shape = (4, 4)

    def _matmat(self, X):
        return 2 * X

    def transpose(self):
        return self

    def _pullback(self, G, X):
        return {}

    def _norm_bound(self):
        return np.inf


def test_structure_that_tells_no_interval(close):
    with pytest.raises(ValueError, match=r"does not tell where its eigenvalues lie; pass interval=\(low, high\)"):
        matrix_function(Unknown(), heat)
    with pytest.raises(ValueError, match="pass interval="):
        matrix_function(Kronecker([Unknown(), Diagonal(np.ones(2))]), heat)
    close(matrix_function(Unknown(), heat, interval=(0, 3), tol=1e-12) @ np.ones(4), np.exp(-2 * np.ones(4)))


def test_a_mask_whose_factor_is_a_function_asks_for_an_interval():
    a, f = second_difference(6), real(6, 2)
    masked = matrix_function(a, heat) * LowRank(f, f)
    with pytest.raises(ValueError, match="pass interval="):
        matrix_function(masked, heat)


def test_oracle_agrees_with_sines(close):
    V, values = path_modes(9)
    close(naive.matrix_function(second_difference(9).to_dense(), heat), (V * heat(values)) @ V.T)
    close(to_numpy(scipy.fft.dst(np.eye(9), type=1, norm="ortho", axis=0)), V)
