import numpy as np
import pytest
import scipy.sparse

from structmask import use_backend
from structmask.backends.chain_kernels import restricted
from structmask.graphs.elimination import forest_factor


def walk(n, rng, share=0.3):
    A = np.where(rng.random((n, n)) < share, rng.random((n, n)), 0)
    np.fill_diagonal(A, 0)
    return scipy.sparse.csr_array(A)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("n", [1, 2, 30])
def test_restriction(n, backend):
    rng = np.random.default_rng(n)
    A, is_kept = walk(n, rng), rng.random(n) < 0.6
    leak = rng.random(n)
    with use_backend(backend):
        inside, away = restricted(A, leak, is_kept)
    dense = A.toarray()[is_kept]
    np.testing.assert_array_equal(inside.toarray(), dense[:, is_kept])
    np.testing.assert_allclose(away, leak[is_kept] + dense[:, ~is_kept].sum(axis=1), rtol=1e-14)
    assert inside.has_sorted_indices


def forest(n, rng, roots=1):
    """Rates both ways along the edges of a random forest, nodes in any order."""
    i = np.arange(roots, n)
    label, parents = rng.permutation(n), (rng.random(i.size) * i).astype(int)
    A = np.zeros((n, n))
    A[label[i], label[parents]], A[label[parents], label[i]] = rng.random((2, i.size)) + 0.1
    return A


@pytest.mark.parametrize(("n", "roots"), [(1, 1), (2, 1), (2, 2), (40, 1), (40, 5), (70, 70)])
def test_forests_are_eliminated_without_fill(n, roots):
    rng = np.random.default_rng(n + roots)
    A, leak = forest(n, rng, roots), rng.random(n)
    factor = forest_factor(scipy.sparse.csr_array(A), leak)
    M = np.diag(A.sum(axis=1) + leak) - A
    assert factor.pattern.size == n - roots
    for transposed in (False, True):
        X = factor.solve(np.eye(n), transposed=transposed)
        np.testing.assert_allclose(X, np.linalg.inv(M.T if transposed else M), rtol=1e-11)


def test_forests_among_kept_states():
    """States that are cut out may close cycles."""
    n, rng = 40, np.random.default_rng(0)
    A, leak, is_kept = forest(n, rng), rng.random(n), np.arange(n) % 7 > 0
    A[0], A[:, 0] = 1, 1
    np.fill_diagonal(A, 0)
    factor = forest_factor(scipy.sparse.csr_array(A), leak, is_kept)
    M = (np.diag(A.sum(axis=1) + leak) - A)[is_kept][:, is_kept]
    np.testing.assert_allclose(factor.solve(np.eye(len(M))), np.linalg.inv(M), rtol=1e-11)


def test_what_is_no_forest_is_left_to_others():
    rng = np.random.default_rng(0)
    A = forest(12, rng)
    one_way = A.copy()
    i, j = np.argwhere(A)[0]
    one_way[i, j] = 0
    ring = np.roll(np.eye(6), 1, axis=1)
    apart = np.zeros((30, 30))  # few steps, but a cycle among them
    apart[:6, :6] = ring + ring.T
    for case in (one_way, ring, ring + ring.T, apart):
        assert forest_factor(scipy.sparse.csr_array(case), np.ones(case.shape[0])) is None
