"""Every law of structured matrices, for every case on every library. No test knows which library it runs on."""

import copy
import dataclasses
import inspect
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from structmask import LowRank, StructuredMatrix, to_numpy
from structmask.graphs.resolvent import Resolvent
from tests import naive
from tests.cases import CASES
from tests.conftest import assert_close


def normal(rng, *shape, complex_=False):
    X = rng.standard_normal(shape)
    return X + 1j * rng.standard_normal(shape) if complex_ else X


def magnitude(dense, X):
    """The largest entry of |M| |X|: what the rounding of a product is relative to."""
    return np.max(np.abs(dense) @ np.abs(X), initial=0)


def adjoint(dense):
    return np.swapaxes(dense, -1, -2).conj()


def largest(dense):
    return np.max(np.abs(dense), initial=0)


# --- products ---------------------------------------------------------------------------------------------------------

PRECISIONS = (  # of the matrix, of the operand, of the product
    ("float64", "float64", "float64"),
    ("float32", "float32", "float32"),
    ("float64", "float32", "float32"),
    ("float32", "float64", "float64"),
    ("float64", "complex128", "complex128"),
    ("float32", "complex64", "complex64"),
    ("float32", "int64", "float64"),
    ("float64", "bool", "float64"),
)


@pytest.mark.parametrize("precisions", [PRECISIONS[:4], PRECISIONS[4:]], ids=["floats", "others"])
def test_product_is_that_of_the_dense_matrix_in_the_precision_of_the_operand(case, library, precisions, rng):
    for of_matrix, of_operand, of_product in precisions:
        assert_product(case, library, of_matrix, of_operand, of_product, rng)


def assert_product(case, library, of_matrix, of_operand, of_product, rng):
    X = (3 * normal(rng, case.dense.shape[-1], 3, complex_="complex" in of_operand)).astype(of_operand)
    operand = library.array(X)
    Y = library.build(case, of_matrix) @ operand
    tolerance = 1e-5 if "float32" in (of_matrix, of_product) else 1e-12
    assert_close(Y, case.dense @ X, scale=magnitude(case.dense, X), tolerance=tolerance)
    complex_ = case.dense.dtype.kind == "c"
    assert to_numpy(Y).dtype == (np.result_type(of_product, np.complex64) if complex_ else of_product)
    assert type(Y) is type(operand)


def test_product_from_both_sides_and_with_vectors(case, library, rng):
    M, (m, n) = library.build(case), case.dense.shape[-2:]
    x, y, Y = normal(rng, n), normal(rng, m), normal(rng, 2, m)
    transposed = np.swapaxes(case.dense, -1, -2)
    assert_close(M @ library.array(x), case.dense @ x, scale=magnitude(case.dense, x))
    assert_close(M.matvec(library.array(x)), case.dense @ x, scale=magnitude(case.dense, x))
    assert_close(M.rmatvec(library.array(y)), transposed.conj() @ y, scale=magnitude(transposed, y))
    assert_close(library.left_product(library.array(y), M), y @ case.dense, scale=magnitude(transposed, y))
    assert_close(library.left_product(library.array(Y), M), Y @ case.dense, scale=magnitude(transposed, Y.T))


def test_batches_broadcast_as_in_matmul(case, library, rng):
    M, n = library.build(case), case.dense.shape[-1]
    batch = case.dense.shape[:-2] or (2, 1)
    for lead in (batch, (2, *(1 for _ in batch)), batch[-1:], (0, *batch)):
        X = normal(rng, *lead, n, 2)
        assert_close(M @ library.array(X), case.dense @ X, scale=magnitude(case.dense, X))


def test_operands_of_any_layout(case, library, rng):
    """Every second row, reversed rows, columns in Fortran order, and no columns at all."""
    M, n = library.build(case), case.dense.shape[-1]
    X = normal(rng, 2 * n, 3)
    given, fortran = library.array(X), library.array(np.ascontiguousarray(X[:n].T)).T
    for operand, same in (
        (given[::2, :], X[::2]),
        (given[:n, :][::-1, :], X[:n][::-1]),
        (fortran, X[:n]),
        (given[:n, :0], X[:n, :0]),
    ):
        assert_close(M @ operand, case.dense @ same, scale=magnitude(case.dense, same))


def test_linearity_and_dot_test(case, library, rng):
    """M (x - 2 z) = M x - 2 M z and <y, M x> = <M^H y, x>."""
    M, (*batch, m, n) = library.build(case), case.dense.shape
    x, z, y = (normal(rng, *batch, p, 1, complex_=True) for p in (n, n, m))
    P, Q, R = (to_numpy(A @ library.array(a)) for A, a in ((M, x), (M, z), (M.mH, y)))
    assert_close(M @ library.array(x - 2 * z), P - 2 * Q, scale=magnitude(case.dense, np.abs(x) + 2 * np.abs(z)))
    scale = np.sum(np.abs(y) * (np.abs(case.dense) @ np.abs(x)))
    assert_close(np.vdot(y, P), np.vdot(R, x), scale=scale)


# --- transposes and entries -------------------------------------------------------------------------------------------


def test_transposes_are_those_of_the_dense_matrix(case, library):
    M, transposed = library.build(case), np.swapaxes(case.dense, -1, -2)
    assert_close(M.T.to_dense(), transposed)
    assert_close(M.mT.to_dense(), transposed)
    assert_close(M.mH.to_dense(), transposed.conj())
    assert_close(M.conj().to_dense(), case.dense.conj())
    assert M.T.shape == transposed.shape


def test_entries_are_those_of_the_dense_matrix(case, library, rng):
    for precision in ("float64", "float32"):
        assert_entries(case, library.build(case, precision), rng, tolerance=1e-12 if precision == "float64" else 1e-5)


def assert_entries(case, M, rng, tolerance):
    (m, n), scale = case.dense.shape[-2:], largest(case.dense)
    assert (M.shape, M.ndim) == (case.dense.shape, case.dense.ndim)
    rows, cols = (rng.integers(-p, p, 5 if p else 0) for p in (m, n))
    for got, want in (
        (M.to_dense(), case.dense),
        (M.entries(rows, cols), case.dense[..., rows[:, None], cols]),
        (M.entries(slice(1, None), slice(None, None, -2)), case.dense[..., 1:, ::-2]),
        (M.entries([], list(range(n))), case.dense[..., :0, :]),
        (M.diagonal(), np.diagonal(case.dense, axis1=-2, axis2=-1)),
    ):
        assert_close(got, want, scale=scale, tolerance=tolerance)
        assert to_numpy(got).dtype == M.dtype


def test_bad_indices_raise_index_error(case, host):
    M = host.build(case)
    for index in ([10**6], [-(10**6)], [0.5], [[0]], 0):
        for rows, cols in ((index, slice(None)), (slice(None), index)):
            with pytest.raises(IndexError):
                M.entries(rows, cols)


# --- algebra ----------------------------------------------------------------------------------------------------------


def test_algebra_with_scalars(case, library):
    M = library.build(case)
    for got, want in (
        (M + 2, case.dense + 2),
        (1 - M, 1 - case.dense),
        (-M, -case.dense),
        (M * np.float64(0.5), case.dense / 2),
        (np.float32(2) * M, 2 * case.dense),
        (M / 4, case.dense / 4),
        (1j * M, 1j * case.dense),
        (M + np.complex64(1j), case.dense + 1j),
        (M * library.array(np.array(3.0)) - True, 3 * case.dense - 1),
    ):
        assert isinstance(got, StructuredMatrix)
        assert_close(got.to_dense(), want)


def test_algebra_with_itself_and_its_transpose(case, library, rng):
    M, dense, transposed = library.build(case), case.dense, np.swapaxes(case.dense, -1, -2)
    (m, n), bound = dense.shape[-2:], largest(dense)
    X, Z = normal(rng, n, 2), normal(rng, m, 2)
    x, z = library.array(X), library.array(Z)
    assert_close((M + M) @ x, (dense + dense) @ X, scale=2 * magnitude(dense, X))
    assert_close((M - M) @ x, 0 * (dense @ X), scale=magnitude(dense, X))
    assert_close((M.T @ M) @ x, transposed @ (dense @ X), scale=bound * m * magnitude(dense, X))
    assert_close((M @ M.T) @ z, dense @ (transposed @ Z), scale=bound * n * magnitude(transposed, Z))


def test_elementwise_product_with_low_rank(case, library, rng):
    """The central lemma, for every mask."""
    M, (m, n) = library.build(case), case.dense.shape[-2:]
    F, G, X = normal(rng, m, 2), normal(rng, n, 2), normal(rng, n, 3)
    low_rank = LowRank(library.array(F), library.array(G))
    dense = case.dense * naive.low_rank(F, G)
    scale = magnitude(np.abs(case.dense) * naive.low_rank(np.abs(F), np.abs(G)), X)
    for A in (M * low_rank, low_rank * M):
        assert_close(A @ library.array(X), dense @ X, scale=scale)


# --- generators and gradients -----------------------------------------------------------------------------------------


def leaves(parameters, path=()):
    """Paths and values of nested parameters."""
    for name, value in parameters.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name), value


def nested(path, value):
    return {path[0]: nested(path[1:], value)} if path else value


def test_generators_can_be_replaced_and_cast(case, library):
    M = library.build(case)
    assert_close(M.with_parameters(M.parameters).to_dense(), case.dense)
    with pytest.raises(ValueError, match="no parameters"):
        M.with_parameters(no_such_parameter=1.0)
    for precision in ("float32", "float64", "complex64", "complex128"):
        kind = "c" if precision.startswith("c") else "f"
        if case.dense.dtype.kind == "c" and kind == "f":
            with pytest.raises(TypeError, match="imaginary"):
                M.astype(precision)
            continue
        changed = M.astype(precision)
        assert changed.dtype.kind == kind
        assert_close(changed.to_dense(), case.dense, tolerance=1e-5 if precision in ("float32", "complex64") else 1e-12)
    assert_close(M.to_dense(), case.dense)


def test_pullback_is_the_gradient(case, library, rng):
    """d Re <G, M X> = Re <gradient, d theta>, for every parameter in a random direction."""
    if not case.differentiable:
        pytest.skip("no pullback")
    M, (*batch, m, n) = library.build(case), case.dense.shape
    for complex_ in [True] if case.dense.dtype.kind == "c" else [False, True]:
        X, G = (normal(rng, *batch, p, 2, complex_=complex_) for p in (n, m))
        gradients = dict(leaves(M.pullback(library.array(G), library.array(X))))
        assert set(gradients) == set(dict(leaves(M.parameters)))
        scale = max(1, m) * np.sum(np.abs(G) * ((np.abs(case.dense) + 1) @ np.abs(X)))
        for path, value in leaves(M.parameters):
            theta, gradient = np.asarray(to_numpy(value)), to_numpy(gradients[path])
            assert (gradient.shape, gradient.dtype) == (theta.shape, theta.dtype)
            direction = np.asarray(normal(rng, *theta.shape, complex_=theta.dtype.kind == "c"))

            def loss(step, path=path, value=value, theta=theta, direction=direction, X=X, G=G):
                moved = theta + step * direction
                moved = moved.item() if isinstance(value, float | complex) else library.array(moved)
                return np.vdot(G, to_numpy(M.with_parameters(nested(path, moved)) @ library.array(X))).real

            want = naive.directional_derivative(loss, 1e-3 / max(1, m))  # a decay enters to powers up to m
            got = np.vdot(gradient, direction).real
            assert_close(got, want, scale=max(scale, abs(want)), tolerance=1e-10)


def test_pullback_without_columns_is_zero(case, library):
    if not case.differentiable:
        pytest.skip("no pullback")
    M, (*batch, m, n) = library.build(case), case.dense.shape
    gradients = M.pullback(*(library.array(np.zeros((*batch, p, 0))) for p in (m, n)))
    for path, value in leaves(M.parameters):
        assert_close(dict(leaves(gradients))[path], np.zeros(np.shape(value)), tolerance=0)


# --- the object -------------------------------------------------------------------------------------------------------


def contents(x):
    """Copies of all numbers that an array or sparse matrix holds."""
    return [np.array(part) for part in ((x.data, *x.coords) if hasattr(x, "coords") else (x,))]


def exercise(M, rng):
    m, n = M.shape[-2:]
    x, y = normal(rng, n, 2), normal(rng, m, 2)
    return [M @ x, M.T @ y, y.T @ M, (M + 1) @ x, (2 * M) @ x, M.to_dense(), M.diagonal(), M.conj() @ x]


def test_inputs_are_never_modified(case, host, rng):
    given = []

    def remember(x):
        x = host.array(x)
        given.append((x, contents(x)))
        return x

    M = case.build(remember)
    exercise(M, rng)
    for used, kept in given:
        for now, before in zip(contents(used), kept, strict=True):
            np.testing.assert_array_equal(now, before)


def test_read_only_generators_give_the_same(case, host):
    read_only = dataclasses.replace(host, writable=False).build(case)
    for got, want in zip(
        exercise(read_only, np.random.default_rng(0)), exercise(host.build(case), np.random.default_rng(0)), strict=True
    ):
        np.testing.assert_array_equal(got, want)


def test_copies_multiply_alike_and_carry_no_plans(case, host, rng):
    M, X = host.build(case), normal(rng, case.dense.shape[-1], 3)
    for x in (X, X.astype(np.float32)):  # makes plans, and a copy in another precision
        _ = M @ x
    for copied in (lambda M: pickle.loads(pickle.dumps(M)), copy.deepcopy, copy.copy):
        again = copied(M)
        assert set(vars(again)) == {field.name for field in dataclasses.fields(M)}
        np.testing.assert_array_equal(again @ X, M @ X)


def parts(M):
    """The matrices without matrices inside that a matrix is made of."""
    values = [getattr(M, field.name) for field in dataclasses.fields(M)]
    flat = [value for group in values for value in (group if isinstance(group, tuple) else (group,))]
    inner = [part for value in flat if isinstance(value, StructuredMatrix) for part in parts(value)]
    return inner or [M]


def test_repr_is_one_short_line_that_names_the_structure(case, host):
    M = host.build(case)
    text = repr(M)
    assert "\n" not in text
    assert len(text) < 80 * len(parts(M))
    assert all(type(part).__name__ in text for part in parts(M))
    assert all(str(size) in text for size in M.shape[-2:])
    assert 0 <= M.error_bound < 1e-9 * (1 + largest(case.dense)) or np.isnan(M.error_bound)


def test_scipy_interoperability(case, host, rng):
    M, (*batch, m, n) = host.build(case), case.dense.shape
    if batch:
        with pytest.raises(ValueError, match="batch"):
            M.aslinearoperator()
        return
    X, Y = normal(rng, n, 2), normal(rng, m, 2)
    A, image, adjoint_image = M.aslinearoperator(), case.dense @ X, adjoint(case.dense) @ Y
    forward, backward = magnitude(case.dense, X), magnitude(adjoint(case.dense), Y)
    assert isinstance(A, LinearOperator)
    assert (A.shape, A.dtype) == (M.shape, M.dtype)
    assert_close(A.matmat(X), image, scale=forward)
    assert_close(A.rmatmat(Y), adjoint_image, scale=backward)
    for operator in (A, aslinearoperator(M)):  # scipy's own wrapper takes the matrix for what it is, too
        assert_close(operator.matvec(X[:, 0]), image[:, 0], scale=forward)
        assert_close(operator.rmatvec(Y[:, 0]), adjoint_image[:, 0], scale=backward)


def test_errors_are_those_of_numpy(case, host):
    M, dense = host.build(case), case.dense
    m, n = dense.shape[-2:]
    operands = (np.ones((n + 1, 2)), np.ones(n + 1), np.array(1.0), "text", np.ones((7, 11, n, 2)))
    pairs = [((dense, x), (M, x)) for x in operands]
    operands = (np.ones((2, m + 1)), np.ones(m + 1), np.array(1.0), "text", np.ones((7, 11, 2, m)))
    pairs += [((x, dense), (x, M)) for x in operands]
    for (a, b), (p, q) in pairs:
        expected = error_of(a, b)
        assert expected is None or issubclass(error_of(p, q), expected), (p, q)


def error_of(a, b):
    """The builtin exception that a @ b raises, if it does."""
    try:
        a @ b
    except Exception as error:  # noqa: BLE001  whatever it is, it is what is asked for
        return next(kind for kind in type(error).__mro__ if kind.__module__ == "builtins")
    return None


def test_threads_get_the_same_product(case, host, rng):
    X = normal(rng, case.dense.shape[-1], 3)
    want, M = host.build(case) @ X, host.build(case)  # M without plans: the threads race to make them
    with ThreadPoolExecutor(4) as pool:
        for Y in pool.map(lambda _: M @ X, range(8)):
            np.testing.assert_array_equal(Y, want)


def test_every_class_has_a_case(host):
    matrices = [host.build(case) for case in CASES]
    tested = {type(matrix) for M in matrices for matrix in (M, *parts(M))}
    concrete = {kind for kind in subclasses(StructuredMatrix) if not inspect.isabstract(kind)}
    inner = {Resolvent}  # made by no caller: the matrix of filters for long times, as in `diffusion-long`
    assert {kind for kind in concrete if kind.__module__.startswith("structmask.")} <= tested | inner


def subclasses(kind):
    return {sub for child in kind.__subclasses__() for sub in (child, *subclasses(child))}
