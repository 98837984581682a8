import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import spsolve

from structmask.backends._numba.aggregation import aggregates, collapsed
from structmask.backends._numba.conjugate_gradients import _preconditioned
from structmask.graphs.grounded import GroundedLaplacian
from tests.graphs.zoo import ADJACENCY


def grid(side, spread=0.0):
    """Conductances exp(spread normal) on the edges of a square."""
    v = np.arange(side * side).reshape(side, side)
    i, j = np.r_[v[:, 1:].ravel(), v[1:].ravel()], np.r_[v[:, :-1].ravel(), v[:-1].ravel()]
    w = np.exp(spread * np.random.default_rng(0).standard_normal(i.size))
    C = scipy.sparse.coo_array((w, (i, j)), shape=(side * side,) * 2)
    return scipy.sparse.csr_array(C + C.T)


def solved(C, ground, tol=1e-11):
    laplacian = GroundedLaplacian(C, ground)
    b = laplacian.diagonal[:, None].copy()
    x, size = laplacian.solve(b, 1 / b, tol)
    S = scipy.sparse.csc_array(scipy.sparse.diags_array(laplacian.diagonal) - C)
    assert size <= tol
    np.testing.assert_allclose(x[:, 0], spsolve(S, b[:, 0]), rtol=1e-9)
    return laplacian


def grounded_at(n, *nodes):
    ground = np.zeros(n)
    ground[list(nodes)] = 1.0
    return ground


@pytest.mark.parametrize(
    ("C", "method"),
    [(np.ones((40, 40)) - np.eye(40), "jacobi"), (grid(60), "aggregates"), (grid(60, 4.0), "cholesky")],
    ids=["complete", "grid", "grid of wild weights"],
)
def test_the_preconditioner_is_the_cheapest_that_will_do(C, method):
    C = scipy.sparse.csr_array(C)
    laplacian = solved(C, grounded_at(C.shape[0], *range(0, C.shape[0], 300)))
    assert laplacian.method == method


@pytest.mark.parametrize("method", ["jacobi", "aggregates", "cholesky"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_small_networks(n, method):
    C = scipy.sparse.csr_array(np.ones((n, n)) - np.eye(n))
    laplacian = GroundedLaplacian(C, np.ones(n))
    laplacian.method = method
    x, size = laplacian.solve(np.ones((n, 1)), np.ones((n, 1)), 1e-12)
    assert size <= 1e-12
    np.testing.assert_allclose(x, 1.0, rtol=1e-11)


@pytest.mark.parametrize("name", ADJACENCY)
def test_preconditioners_are_symmetric_and_positive(name):
    C = ADJACENCY[name].astype(np.float64)
    laplacian, n = GroundedLaplacian(C, np.ones(C.shape[0])), C.shape[0]
    for method in ("jacobi", "aggregates", "cholesky"):
        M = np.stack([applied(laplacian, method, e) for e in np.eye(n)], axis=1)
        assert np.abs(M - M.T).max() <= 1e-12 * np.abs(M).max()
        assert np.linalg.eigvalsh(M).min() > 0


def applied(laplacian, method, r):
    parts, z = laplacian.preconditioner(method), np.empty_like(r)
    energy = _preconditioned(parts, laplacian.diagonal, r, z, np.empty(parts[-1].size))
    assert energy == pytest.approx(r @ z)
    return z


@pytest.mark.parametrize("name", ADJACENCY)
def test_aggregates_are_neighbourhoods_and_what_is_between_them_is_summed(name):
    C = ADJACENCY[name].astype(np.float64)
    labels, count = aggregates(C.indptr, C.indices, C.data)
    assert set(labels) == set(range(count))
    for label in range(count):
        own = np.flatnonzero(labels == label)
        reach = (C[own][:, own] != 0).toarray() | np.eye(own.size, dtype=bool)
        assert (reach @ reach @ reach @ reach).all()  # a centre, its neighbours, theirs
    P = np.eye(count)[labels]
    between = P.T @ C.toarray() @ P
    indptr, indices, data = collapsed(C.indptr, C.indices, C.data, labels, count)
    np.testing.assert_allclose(
        scipy.sparse.csr_array((data, indices, indptr), shape=(count, count)).toarray(),
        between - np.diag(np.diag(between)),
        rtol=1e-13,
    )


def test_columns_after_the_first_begin_with_the_way_that_worked():
    C = grid(40)
    laplacian = GroundedLaplacian(C, grounded_at(C.shape[0], 3))
    B = laplacian.diagonal[:, None] * [1.0, 2.0]
    X, _ = laplacian.solve(B, 1 / B, 1e-10)
    np.testing.assert_allclose(X[:, 1], 2 * X[:, 0], rtol=1e-8)
    assert laplacian.method == "aggregates"
