"""Linear systems: the residual is what counts, whatever the structure, the method or the guess about it."""

import importlib
import itertools
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import aslinearoperator

from structmask import (
    BackendError,
    Causal,
    ConvergenceWarning,
    Dense,
    Diagonal,
    Sparse,
    StructuredMatrix,
    Toeplitz,
    solve,
    solve_pullback,
    to_numpy,
    use_backend,
)
from structmask.linalg import krylov
from tests.cases import complex_, real

module = importlib.import_module("structmask.linalg.solve")  # the package's attribute of that name is the function

N = 600  # rows: more than are factored
OFFSET = np.arange(1 - N, N)
POSITIVE = Toeplitz(0.7 ** abs(OFFSET))
INDEFINITE = Toeplitz(np.cos(OFFSET) * 0.7 ** abs(OFFSET)) + Diagonal(np.where(np.arange(N) % 3 == 0, -3.0, 3.0))
HERMITIAN = Toeplitz(0.7 ** abs(OFFSET) * np.exp(1j * OFFSET))
GENERAL = Toeplitz(np.where(OFFSET > 0, 0.8, -0.3) ** abs(OFFSET)) + Diagonal(1.0 + np.arange(N) % 5)
COMPLEX = GENERAL * (1 + 2j)


@pytest.fixture
def iterate(monkeypatch):
    """Nothing is factored."""
    monkeypatch.setattr(module, "direct_methods", lambda *_: ([], False))


def residuals(a, x, b):
    x, b = (np.asarray(v)[..., None] if np.ndim(b) == 1 else np.asarray(v) for v in (x, b))
    return np.linalg.norm(b - a.to_dense() @ x, axis=-2) / np.linalg.norm(b, axis=-2)


def shifted(case, library):
    """A well conditioned matrix and the dense one: M, or M^H M if M is not square, plus a multiple of the identity."""
    M, dense = library.build(case), case.dense
    if dense.shape[-2] != dense.shape[-1]:
        M, dense = M.mH @ M, np.swapaxes(dense, -1, -2).conj() @ dense
    n, shift = dense.shape[-1], 2 * (1 + np.abs(dense).sum(axis=-1).max(initial=0))
    return M + Diagonal(library.array(np.full(n, shift))), dense + shift * np.eye(n)


# --- every structure --------------------------------------------------------------------------------------------------


def test_solution_is_that_of_the_dense_matrix(case, library, rng, close):
    a, dense = shifted(case, library)
    b = rng.standard_normal((*dense.shape[:-2], dense.shape[-1], 2))
    close(solve(a, library.array(b)), np.linalg.solve(dense, b), tolerance=1e-11)


def test_iterations_reach_the_same_solution(case, library, rng, close, iterate):
    a, dense = shifted(case, library)
    b = rng.standard_normal((dense.shape[-1], 2))
    got = solve(a, library.array(b), tol=1e-13)
    close(got, np.linalg.solve(dense, np.broadcast_to(b, (*dense.shape[:-2], *b.shape))), tolerance=1e-11)


@pytest.mark.parametrize("a", [POSITIVE, INDEFINITE, HERMITIAN, GENERAL, COMPLEX], ids=range(5))
@pytest.mark.parametrize("tol", [1e-3, 1e-8, 1e-12])
def test_residual_is_below_tol_for_every_right_hand_side(a, tol):
    b = real(N, 3) * [1e-6, 1.0, 1e6]
    assert residuals(a, solve(a, b, tol=tol), b).max() <= tol
    assert residuals(a, solve(a, b[:, 0], tol=tol), b[:, 0]).max() <= tol


# --- what may be asked ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 5])
@pytest.mark.parametrize("path", ["direct", "iterated"])
def test_shapes_are_those_of_numpy(n, path, monkeypatch, close):
    if path == "iterated":
        monkeypatch.setattr(module, "direct_methods", lambda *_: ([], False))
    one, many = 3 * np.eye(n) + real(n, n) / 4, 3 * np.eye(n) + real(2, 3, n, n) / 4
    for dense in (one, many):
        a = Dense(dense) @ Toeplitz.from_column_row(np.eye(n)[0]) if n else Dense(dense)
        for shape in ((n,), (n, 1), (n, 2), (n, 0), (3, n, 2), (2, 1, n, 2)):
            b = real(*shape)
            want = np.linalg.solve(dense, b)
            got = solve(a, b, tol=1e-13)
            assert got.shape == want.shape
            close(got, want, tolerance=1e-10)


@pytest.mark.parametrize("of_matrix", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("of_b", ["float32", "float64", "complex64", "complex128", "int64"])
def test_solution_has_the_precision_of_the_right_hand_side(of_matrix, of_b):
    for a in (POSITIVE.astype(of_matrix), Diagonal(np.ones(N, of_matrix)), Causal(N, decay=np.ones(N, of_matrix))):
        x = solve(a, np.arange(N).astype(of_b))
        assert x.dtype == (a @ np.ones(N, of_b)).dtype
        assert residuals(a, x, np.arange(N)) <= (1e-8 if x.dtype in ("float64", "complex128") else 1e-5)


def test_any_layout_and_read_only_input():
    b = real(2 * N, 3)
    b.setflags(write=False)
    kept = b.copy()
    for part in (b[::2], b[:N][::-1], np.asfortranarray(b[:N]), b[:N, ::2]):
        assert residuals(POSITIVE, solve(POSITIVE, part), part).max() <= 1e-8
    np.testing.assert_array_equal(b, kept)


def test_zero_right_hand_sides_have_zero_solutions():
    b, called = real(N, 3), []
    b[:, 1] = 0
    assert not solve(POSITIVE, b)[:, 1].any()
    assert not solve(GENERAL, b)[:, 1].any()
    assert not solve(POSITIVE, np.zeros(N), callback=lambda *args: called.append(args)).any()
    assert called == []


def test_callback_counts_iterations_down_to_the_tolerance():
    for a in (POSITIVE, INDEFINITE, GENERAL):
        seen = []
        solve(a, real(N, 2), tol=1e-9, preconditioner="none", callback=lambda *args, seen=seen: seen.append(args))
        assert [iteration for iteration, _ in seen] == list(range(1, len(seen) + 1))
        assert 1e-12 < seen[-1][1] <= 1e-9 < seen[0][1]


def test_same_input_same_output():
    b = real(N)
    np.testing.assert_array_equal(solve(INDEFINITE, b), solve(INDEFINITE, b))


# --- closed forms and factorisations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("decay", [0.5, -1.0, 0.3j, np.linspace(-1, 1, N), complex_(3, N) / 4], ids=range(5))
def test_causal_matrices_are_solved_exactly(upper, decay, close):
    a, x = Causal(N, decay=decay, upper=upper), real(N, 2)
    close(solve(a, a @ x), np.broadcast_to(x, (*a.shape[:-2], N, 2)))


def test_small_systems_call_nothing():
    called = []
    for a in (Toeplitz([1.0, 3.0, 1.0]), Dense(np.eye(N)), Diagonal(np.ones(N)), Causal(N)):
        solve(a, np.ones(a.shape[-1]), callback=lambda *args: called.append(args))
    assert called == []


@pytest.mark.parametrize(
    "a", [Diagonal([1.0, 0.0]), Dense(np.ones((2, 2))), Toeplitz(np.ones(3)), Dense(np.zeros((3, 2, 2)))], ids=range(4)
)
def test_singular_matrices_raise_as_in_numpy(a):
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.solve(a.to_dense(), np.ones((2, 1)))
    with pytest.raises(np.linalg.LinAlgError, match="Singular"):
        solve(a, np.ones(2))


# --- misses are said --------------------------------------------------------------------------------------------------


def path_laplacian(n):
    return scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n)).tolil()


@pytest.mark.parametrize("kind", ["hermitian", "general"])
def test_singular_systems_warn_and_come_back(kind, rng):
    values = np.where(np.arange(N) < 3, 0.0, 1.0 + np.arange(N) % 4)
    a = Sparse(scipy.sparse.diags_array(values))  # no closed form
    if kind == "general":
        a = Causal(N, decay=0.5) @ a
    b = np.ones((N, 2))
    b[:, 1] = a @ rng.standard_normal(N)
    with pytest.warns(
        ConvergenceWarning, match=r"relative residual is .* after \d+ iterations.* for 1 of 2 right"
    ) as log:
        x = solve(a, b)
    assert log[0].filename == __file__
    assert np.isfinite(x).all()
    assert residuals(a, x, b)[1] <= 1e-8  # the one that has a solution
    assert residuals(a, x, b)[0] <= 1.0


def test_consistent_singular_system_is_solved():
    n = 2000
    laplacian = path_laplacian(n)
    laplacian[0, 0] = laplacian[n - 1, n - 1] = 1.0
    a = Sparse(laplacian.tocsr())
    b = a @ real(n)
    assert residuals(a, solve(a, b, tol=1e-7), b) <= 1e-7


def test_tolerance_beyond_rounding_warns():
    with pytest.warns(ConvergenceWarning, match=r"above tol=1.0e-18, for 1 of 1"):
        x = solve(POSITIVE, real(N), tol=1e-18)
    assert residuals(POSITIVE, x, real(N)) <= 1e-13


def test_factorisation_that_loses_all_digits_warns():
    n = 30
    hilbert = Dense(1.0 / (1 + np.add.outer(np.arange(n), np.arange(n))))
    with pytest.warns(ConvergenceWarning, match="after 0 iterations"):
        solve(hilbert, np.ones(n), tol=1e-12)


def test_an_almost_symmetric_matrix_is_solved_all_the_same():
    """The probe takes it for symmetric; only the residual decides."""
    a = Toeplitz(0.7 ** abs(OFFSET) * (1 + 1e-9 * np.sign(OFFSET)))
    b = real(N, 2)
    assert residuals(a, solve(a, b, tol=1e-12), b).max() <= 1e-12


def test_columns_that_need_different_methods():
    """Conjugate gradients end one column (an eigenvector's) and give up the other."""
    d = np.where(np.arange(N) % 2 == 0, 1.0, -2.0)
    a = Sparse(scipy.sparse.diags_array(d))
    b = np.stack([np.eye(N)[0], np.ones(N)], axis=1)
    assert residuals(a, solve(a, b, tol=1e-12), b).max() <= 1e-12


# --- preconditioners --------------------------------------------------------------------------------------------------

SCALES = 10.0 ** np.linspace(-3, 3, N)
SCALED = Toeplitz(0.3 ** abs(OFFSET)) + Diagonal(SCALES)


def count(a, b, preconditioner, tol=1e-8):
    seen = []
    x = solve(a, b, tol=tol, preconditioner=preconditioner, callback=lambda *args: seen.append(args))
    assert residuals(a, x, b).max() <= tol
    return len(seen)


def test_diagonal_preconditioner_pays():
    b = real(N, 2)
    plain = count(SCALED, b, None)
    assert count(SCALED, b, "jacobi") < plain / 2
    assert count(SCALED, b, "auto") == count(SCALED, b, "jacobi")
    for d in (np.ones(N), np.where(np.arange(N) % 3 == 0, -3.0, 3.0)):  # a constant one, an indefinite one: no use
        a = Sparse(scipy.sparse.diags_array([0.3, 0.3], offsets=[-1, 1], shape=(N, N)) + scipy.sparse.diags_array(d))
        assert count(a, b, "auto") == count(a, b, None)


@pytest.mark.parametrize("a", [SCALED, GENERAL, HERMITIAN], ids=["symmetric", "general", "hermitian"])
def test_every_kind_of_preconditioner(a):
    inverse = np.linalg.inv(a.to_dense())
    b = complex_(N, 2) if a is HERMITIAN else real(N, 2)
    for given in (Dense(inverse), lambda R: inverse @ R, aslinearoperator(inverse)):
        assert count(a, b, given) <= 3
    assert count(a, np.stack([b, 2 * b]), aslinearoperator(inverse)) <= 3


def test_preconditioners_that_break_the_assumptions_cost_time_only():
    b = real(N, 2)
    for given in (lambda R: -R, lambda R: R[..., ::-1, :], lambda R: 0 * R):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the last one leaves nothing to work with
            x = solve(POSITIVE, b, preconditioner=given)
        assert residuals(POSITIVE, x, b).max() <= 1.0
    assert count(POSITIVE, b, lambda R: -R) > 0


@pytest.mark.parametrize(
    ("preconditioner", "kind", "message"),
    [
        ("ilu", ValueError, "choose 'auto', 'circulant', 'strang', 'parzen', 'chan', 'jacobi', 'amg', 'none', None or"),
        (3.0, TypeError, "StructuredMatrix, a LinearOperator or a callable, got float"),
        (Dense(np.eye(3)), ValueError, r"shape \(3, 3\), but the matrix is"),
        (aslinearoperator(np.eye(3)), ValueError, r"shape \(3, 3\), but the matrix is"),
    ],
)
def test_unknown_preconditioners(preconditioner, kind, message):
    with pytest.raises(kind, match=message):
        solve(POSITIVE, np.ones(N), preconditioner=preconditioner)


def test_jacobi_needs_a_diagonal_without_zeros():
    with pytest.raises(np.linalg.LinAlgError, match="the diagonal has a zero"):
        solve(POSITIVE - Diagonal(np.ones(N)), np.ones(N), preconditioner="jacobi")


def test_multigrid():
    pytest.importorskip("pyamg")
    line = scipy.sparse.diags_array([-np.ones(39), 2.01 * np.ones(40), -np.ones(39)], offsets=[-1, 0, 1])
    one = scipy.sparse.eye_array(40)
    a, b = Sparse(scipy.sparse.kron(line, one) + scipy.sparse.kron(one, line)), real(1600, 2)
    assert 3 * count(a, b, "amg") < count(a, b, "jacobi")
    upwind = Sparse(a.csr + scipy.sparse.eye_array(1600, k=1))
    assert count(upwind, b, "amg") > 0
    assert count(a, np.stack([b, b]), "amg") > 0
    with pytest.raises(TypeError, match="multigrid needs a Sparse matrix"):
        solve(POSITIVE, np.ones(N), preconditioner="amg")


def test_multigrid_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyamg", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'structmask\[amg\]'"):
        solve(
            Sparse(scipy.sparse.eye_array(600) * 2 + scipy.sparse.eye_array(600, k=1)),
            np.ones(600),
            preconditioner="amg",
        )


class Opaque(Sparse):
    """A matrix without fast entries."""

    _at = StructuredMatrix._at


def test_diagonal_is_tried_out_for_structures_without_entries_only_when_asked():
    a = Opaque(scipy.sparse.csr_array(SCALED.to_dense()))
    assert count(a, real(N), "jacobi") < count(a, real(N), "auto") == count(a, real(N), None)


@pytest.mark.parametrize("preconditioner", ["none", None, "jacobi", "circulant", "strang", "parzen", "chan"])
def test_a_preconditioner_that_is_asked_for_is_used_whatever_the_size(preconditioner, close):
    seen = []
    a, b = POSITIVE.entries(range(9), range(9)), real(9)
    small = Toeplitz(POSITIVE.offsets[N - 9 : N + 8])
    x = solve(small, b, tol=1e-9, preconditioner=preconditioner, callback=lambda *args: seen.append(args))
    close(x, np.linalg.solve(a, b), tolerance=1e-7)
    assert seen


# --- methods ----------------------------------------------------------------------------------------------------------

METHODS = {
    "conjugate_gradients": krylov.conjugate_gradients,
    "minimal_residuals": krylov.minimal_residuals,
    "gmres": krylov.generalized_minimal_residuals,
    "long_gmres": krylov.long_minimal_residuals,
}


def run(method, dense, b, *, preconditioner=None, tol=1e-12):
    """The step of one method from zero, and the residuals it saw."""
    seen = []
    watch = krylov.Watch(lambda _, residual: seen.append(residual), 10_000)
    P = (lambda R: R) if preconditioner is None else (lambda R: preconditioner @ R)
    x = METHODS[method](lambda X: dense @ X, P, b, krylov.norms(b), tol, watch)
    return x, seen


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("data", [real, complex_], ids=["real", "complex"])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_methods_on_positive_definite_matrices(method, data, preconditioned, close):
    C = data(2, 12, 12)
    dense = C @ np.swapaxes(C, -1, -2).conj() + np.eye(12)
    P = np.diag(1 / (1.0 + np.arange(12))) if preconditioned else None
    b = data(2, 12, 3)
    x, seen = run(method, dense, b, preconditioner=P)
    close(x, np.linalg.solve(dense, b), tolerance=1e-9)
    assert seen[-1] <= 1e-12


@pytest.mark.parametrize("method", ["minimal_residuals", "gmres"])
def test_least_residuals_never_grow(method):
    d = np.concatenate([-np.arange(1.0, 15), np.arange(1.0, 20)])
    _, seen = run(method, np.diag(d), np.ones((d.size, 1)))
    assert all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(seen))
    assert seen[-1] <= 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_as_many_iterations_as_distinct_eigenvalues(method):
    _, seen = run(method, np.diag(np.repeat([1.0, 2.0, 5.0], 7)), np.ones((21, 1)))
    assert len(seen) == 3


def test_conjugate_gradients_notice_an_indefinite_matrix():
    _, seen = run("conjugate_gradients", np.diag([1.0, -1.0]), np.ones((2, 1)))
    assert seen == []


def test_a_method_without_progress_gives_up():
    watch = krylov.Watch(None, 10_000)
    while not watch.is_over:
        watch.step(np.array([0.5]), np.ones(1), np.ones(1, bool))
    assert watch.iterations == 501
    watch.start()
    assert not watch.is_over


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["toeplitz", "complex", "sum", "batch", "vector"])
def test_gradients_are_those_of_the_dense_inverse(kind, close):
    """d_b = A^-H g, and the entries of A have the gradient -d_b x^H."""
    n, data = 9, complex_ if kind == "complex" else real
    table = data(2, 2 * n - 1) / 9 if kind == "batch" else data(2 * n - 1) / 9
    a = Toeplitz(table) + Diagonal(np.linspace(2, 3, n))
    if kind == "sum":
        a = a + Causal(n, decay=0.5)
    b, g = (data(n, seed=s) if kind == "vector" else data(n, 3, seed=s) for s in (1, 2))
    x = solve(a, b, tol=1e-13)
    g = np.broadcast_to(g, x.shape)
    gradients, d_b = solve_pullback(a, x, g, tol=1e-13)
    adjoint = np.conj(np.swapaxes(a.to_dense(), -1, -2))
    close(d_b, np.linalg.solve(adjoint, g), tolerance=1e-11)
    want = a.pullback(-np.linalg.solve(adjoint, g), np.linalg.solve(a.to_dense(), b) if kind != "batch" else x)
    close(gradients["terms"][0]["offsets"], want["terms"][0]["offsets"], tolerance=1e-11)
    close(gradients["terms"][1]["d"], want["terms"][1]["d"], tolerance=1e-11)


def test_gradients_agree_with_differences(close):
    n, step = 600, 1e-6
    table, b, g = 0.7 ** abs(OFFSET), real(n), real(n, seed=1)
    gradients, d_b = solve_pullback(Toeplitz(table), solve(Toeplitz(table), b, tol=1e-13), g, tol=1e-13)
    direction, shift = real(2 * n - 1, seed=2), real(n, seed=3)

    def value(t):
        return g @ solve(Toeplitz(table + t * direction * 0.01), b + t * shift, tol=1e-13)

    slope = (value(step) - value(-step)) / (2 * step)
    close(slope, 0.01 * gradients["offsets"] @ direction + d_b @ shift, tolerance=1e-6)


def test_cotangents_have_the_shape_of_the_solution():
    with pytest.raises(ValueError, match=r"in the shape \(600, 2\) of the solution, got \(600, 3\)"):
        solve_pullback(POSITIVE, real(N, 2), real(N, 3))
    with pytest.raises(TypeError, match=r"wrap it: Dense\(x\)"):
        solve_pullback(np.eye(3), np.ones(3), np.ones(3))


# --- errors -----------------------------------------------------------------------------------------------------------


def test_arguments_that_make_no_sense():
    a = Toeplitz(real(9))
    with pytest.raises(TypeError, match=r"wrap it: Dense\(x\) or Sparse\(x\)"):
        solve(np.eye(3), np.ones(3))
    with pytest.raises(np.linalg.LinAlgError, match="square matrix, got Dense"):
        solve(Dense(np.ones((2, 3))), np.ones(2))
    for b in (np.ones(4), np.ones((4, 5)), 1.0):
        with pytest.raises(ValueError, match=r"right-hand sides \(5,\) or \(\.\.\., 5, k\)"):
            solve(a, b)
    with pytest.raises(ValueError, match="do not broadcast"):
        solve(Toeplitz(real(2, 9)), np.ones((3, 5, 1)))
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not finite"):
            solve(a, np.full(5, bad))
        with pytest.raises(ValueError, match="tol must be positive and finite"):
            solve(a, np.ones(5), tol=bad)
    for tol in (0.0, -1e-8):
        with pytest.raises(ValueError, match="tol must be positive"):
            solve(a, np.ones(5), tol=tol)
    with pytest.raises(TypeError, match="sparse matrix"):
        solve(a, scipy.sparse.eye_array(5))


def test_operands_of_another_library(close, iterate):
    xp = pytest.importorskip("array_api_strict")
    b = real(5, 2)
    a = Toeplitz.from_column_row([4.0, 1.0, 0.5, 0.0, 0.0], [4.0, -1.0, 0.5, 0.0, 0.0])
    strict = Toeplitz(xp.asarray(a.offsets))
    x = solve(strict, xp.asarray(b), tol=1e-13)
    assert type(x) is type(strict.offsets)
    close(to_numpy(x), np.linalg.solve(a.to_dense(), b), tolerance=1e-11)
    with pytest.raises(BackendError, match="lives in numpy"):
        solve(a, xp.asarray(b))


def test_plain_backend_gives_the_same(close):
    b = real(N)
    x = solve(GENERAL, b, tol=1e-12)
    with use_backend("numpy"):
        close(solve(GENERAL, b, tol=1e-12), x, tolerance=1e-10)
