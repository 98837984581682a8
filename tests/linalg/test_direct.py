"""Solutions without iterations: which structure has one, that it is right, and what happens where it is not enough."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse

from structmask import (
    BlockDiagonal,
    Causal,
    Dense,
    Diagonal,
    Hypercube,
    LowRank,
    Sparse,
    Toeplitz,
    kron,
    kronecker_sum,
    solve,
    solve_pullback,
)
from structmask.linalg.direct import Inverse, direct_methods
from structmask.linalg.kronecker import Identity
from tests.cases import complex_, real

N = 700  # rows: more than are factored


def definite(n, decay=0.5):
    return Toeplitz(decay ** np.abs(np.arange(1 - n, n)))


def periodic(*grid, data=real):
    """A table of one period, repeated."""
    once = data(*grid)
    once[(0,) * len(grid)] += 3 * np.sqrt(np.prod(grid))
    return Toeplitz(once[np.ix_(*(np.arange(1 - n, n) % n for n in grid))], levels=len(grid))


WALSH = Hypercube(np.r_[40.0, real(10)])
LOW = LowRank(real(N, 3) / 30, real(N, 3, seed=1))
CLOSED = {
    "identity": Identity(N),
    "diagonal": Diagonal(2 + real(N) / 10),
    "causal": Causal(N, decay=0.5),
    "hypercube": WALSH,
    "circulant": periodic(N),
    "circulant-complex": periodic(N, data=complex_),
    "circulant-grid": periodic(20, 35),
    "scaled": Causal(N, decay=0.5) * 3.0,
    "product": Causal(N, decay=0.5) @ Diagonal(2 + real(N) / 10),
    "kronecker": kron(definite(20), Causal(7, decay=0.3), Dense(real(5, 5) + 5 * np.eye(5))),
    "separable": Toeplitz.from_function(lambda i, j: 0.8 ** abs(i) * 0.6 ** abs(j), (28, 25)),
    "kronecker-large": kron(definite(600), Diagonal([1.0, 2.0])),
    "blocks": BlockDiagonal([definite(600), Dense(real(9, 9) + 5 * np.eye(9)), Diagonal(np.ones(91))]),
    "woodbury": Diagonal(2 + np.arange(N) % 3) + LOW,
    "woodbury-complex": Diagonal(2 + complex_(N) / 10) + LOW,
    "constant": Diagonal(2 + np.arange(N) % 3) + 0.01,
}


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("shape", [(1,), (3,), (2, 3)])
def test_closed_forms_call_nothing_and_are_right(name, shape, close):
    a = CLOSED[name]
    if "large" in name or name == "blocks":
        a = a * 1.0
    *batch, k = shape
    x, called = real(*batch, a.shape[-1], k), []
    got = solve(a, a @ x, tol=1e-11, callback=lambda *args: called.append(args))
    close(got, x, tolerance=1e-9)
    assert called == []


def test_vectors_and_batches_of_matrices(close):
    for a in (Hypercube(np.r_["0,2", CLOSED["hypercube"].values, 2 * WALSH.values]), kron(definite(5), WALSH)):
        x = real(*a.shape[:-1])
        close(solve(a, (a @ x[..., None])), x[..., None], tolerance=1e-10)
    tables = np.stack([periodic(30).offsets, 2 * periodic(30).offsets])
    close(solve(Toeplitz(tables), np.ones(30)), np.linalg.solve(Toeplitz(tables).to_dense(), np.ones((30, 1)))[..., 0])


@pytest.mark.parametrize("n", [1, 2, 3, 64, 256, 1000])
@pytest.mark.parametrize("data", [real, complex_], ids=["real", "complex"])
def test_small_toeplitz_systems_by_levinson(n, data, close, monkeypatch):
    monkeypatch.setattr("structmask.linalg.direct.factored", None)  # not needed
    table = data(2 * n - 1) / np.sqrt(n)
    table[n - 1] += 5
    if n < 64:
        monkeypatch.setattr("structmask.linalg.direct._LEVINSON", 0)
    a, b = Toeplitz(table), data(n)
    close(solve(a, b), scipy.linalg.solve(a.to_dense(), b), tolerance=1e-12)


def test_where_levinson_fails_the_factorisation_takes_over(close):
    n = 64
    table = real(2 * n - 1)
    table[n - 1] = 0  # the first leading submatrix is singular
    a = Toeplitz(table)
    close(solve(a, real(n)), np.linalg.solve(a.to_dense(), real(n)), tolerance=1e-10)
    table[n - 1] = 1e-14  # almost so: digits are lost, and the residual tells
    a = Toeplitz(table)
    close(solve(a, real(n), tol=1e-12), np.linalg.solve(a.to_dense(), real(n)), tolerance=1e-10)


def test_singular_parts_raise():
    with pytest.raises(np.linalg.LinAlgError, match="Singular"):
        solve(kron(Dense(np.ones((2, 2))), definite(600)), np.ones(1200))
    with pytest.raises(np.linalg.LinAlgError, match="Singular"):
        solve(BlockDiagonal([definite(600), Diagonal([0.0, 1.0])]), np.ones(602))
    with pytest.raises(np.linalg.LinAlgError, match="Singular"):
        solve(Hypercube(np.ones(3)), np.ones(4))


def test_singular_circulants_are_left_to_the_iterations():
    n = 600
    a = Toeplitz(np.r_[-1.0, np.zeros(n - 3), -1.0, 2.0, -1.0, np.zeros(n - 3), -1.0])  # a cycle's Laplacian
    b = a @ real(n)
    assert np.linalg.norm(b - a @ solve(a, b)) <= 1e-8 * np.linalg.norm(b)


def test_a_diagonal_with_zeros_leaves_a_low_rank_sum_to_the_iterations():
    d = np.where(np.arange(N) < 2, 0.0, 1.0)
    a = Diagonal(d) + LowRank(np.eye(N)[:, :2], np.eye(N)[:, :2])
    assert direct_methods(a, real(N, 1), None) == ([], False)
    assert np.linalg.norm(real(N) - a @ solve(a, real(N))) <= 1e-8 * np.linalg.norm(real(N))


def test_structures_without_a_direct_method():
    sparse = Sparse(scipy.sparse.eye_array(N))
    for a in (definite(1200), sparse, sparse + LOW, kronecker_sum(definite(30), definite(30))):
        assert direct_methods(a, real(a.shape[-1], 1), None) == ([], False)


def test_parts_that_are_badly_conditioned_are_refined(close):
    """A residual of one part is amplified by the next; another round makes up for it."""
    scales = np.logspace(0, 5, 40)
    a = kron(Diagonal(scales), definite(600, 0.9), Diagonal(1 / scales))
    b = real(a.shape[-1])
    assert np.linalg.norm(b - a @ solve(a, b, tol=1e-10)) <= 1e-10 * np.linalg.norm(b)


def test_gradients_go_through_parts(close):
    a = kron(definite(4), Diagonal([1.0, 2.0])) * 2.0
    x, g = real(8, 2), real(8, 2, seed=1)
    gradients, d_b = solve_pullback(a, x, g)
    close(d_b, np.linalg.solve(a.to_dense().T, g))
    close(gradients["factors"][1]["d"], a.pullback(-np.linalg.solve(a.to_dense().T, g), x)["factors"][1]["d"])


def test_inverse_is_a_structure(close):
    a = Dense(real(5, 5) + 4 * np.eye(5))
    inverse = Inverse(a, solve)
    dense, X, G = np.linalg.inv(a.to_dense()), real(5, 2), real(5, 2, seed=1)
    close(inverse @ X, dense @ X)
    close(inverse.T @ X, dense.T @ X)
    close(inverse.to_dense(), dense)
    close(inverse.pullback(G, X)["matrix"]["a"], -dense.T @ G @ X.T @ dense.T)
