"""The Chebyshev recurrence on the CPU: however the rows are passed over, the same numbers come out."""

import numpy as np
import pytest
import scipy.sparse

from structmask.backends import graph_kernels
from structmask.backends._numba import chebyshev
from structmask.backends.graph_kernels import Recurrence

INTERVAL = (-1.5, 2.0)


def banded(n, reach, rng, dtype="d"):
    """A symmetric matrix with eigenvalues in the interval, whose entries reach so far, and not everywhere."""
    A = scipy.sparse.random_array((n, n), density=min(1, 20 / max(1, n)), rng=rng, dtype=dtype).tocoo()
    near = np.abs(A.row - A.col) <= reach
    rows, columns, values = A.row[near], A.col[near], A.data[near]
    if reach < n:  # one entry as far as that
        rows, columns, values = np.append(rows, 0), np.append(columns, reach), np.append(values, values.dtype.type(1))
    A = scipy.sparse.csr_array((values, (rows, columns)), shape=(n, n))
    A = scipy.sparse.csr_array(A + A.T)
    return scipy.sparse.csr_array(A * (1 / max(1, abs(A).sum(axis=0).max(initial=0))), dtype=dtype)


def by_terms(A, X, c):
    """sum_k c[f, k] T_k(B) X from the definition."""
    low, high = INTERVAL
    B = (2 * A.toarray() - (high + low) * np.eye(A.shape[0])) / (high - low)
    T = [X, B @ X]
    for _ in range(2, c.shape[1]):
        T.append(2 * B @ T[-1] - T[-2])
    return np.einsum("fk,kij->fij", c, np.stack(T[: c.shape[1]]))


@pytest.fixture(params=["one thread", "threads", "panels apart"])
def threads(request, monkeypatch):
    """Small matrices as if they were large."""
    if request.param != "one thread":
        monkeypatch.setattr(chebyshev, "SERIAL_WORK", 0 if request.param == "threads" else 10_000)
        monkeypatch.setattr(chebyshev, "_ROOM", 0)  # not all panels at a time


@pytest.mark.parametrize("terms", [1, 2, 3, 4, 6, 13, 29])
@pytest.mark.parametrize(
    ("n", "reach"), [(0, 1), (1, 1), (2, 1), (3, 2), (40, 0), (40, 1), (300, 3), (300, 299), (900, 20)]
)
def test_every_passage_sums_the_same(n, reach, terms, threads, monkeypatch, rng):
    A = banded(n, reach, rng)
    X, c = rng.standard_normal((n, 19)), rng.standard_normal((2, terms + 1))
    expected, results = by_terms(A, X, c), []
    for deepest in (1, 2, 5, 12):
        monkeypatch.setattr(chebyshev, "DEEPEST", deepest)
        results.append(Recurrence(A, INTERVAL).sum(X, c))
        np.testing.assert_allclose(results[-1], expected, rtol=0, atol=1e-12 * terms)
    assert all(np.array_equal(results[0], result) for result in results)


@pytest.mark.parametrize("q", [0, 1, 2, 7, 8, 9, 16, 33])
@pytest.mark.parametrize("dtype", ["f", "d"])
def test_any_number_of_columns(q, dtype, threads, rng):
    A, X = banded(200, 5, rng, dtype), rng.standard_normal((200, q)).astype(dtype)
    c = rng.standard_normal((1, 12)).astype(dtype)
    Y = Recurrence(A, INTERVAL).sum(X, c[0])
    assert Y.dtype == X.dtype
    np.testing.assert_allclose(Y, by_terms(A, X, c)[0], rtol=0, atol=2e-5 if dtype == "f" else 1e-13)


def test_terms_follow_each_other_where_the_cache_has_room(rng):
    """As many as fit; one by one where neighbours are far, or the parts of the threads are narrow."""
    steps = Recurrence(banded(4000, 10, rng), INTERVAL)._steps
    assert chebyshev._depth(steps.matrix, 10, 192) == chebyshev.DEEPEST
    assert 1 < chebyshev._depth(steps.matrix, 1000, 192) < chebyshev.DEEPEST
    assert chebyshev._depth(steps.matrix, 100_000, 192) == 1
    assert chebyshev._passage(steps.matrix, 4, 12, 10).depth == 12
    assert chebyshev._passage(steps.matrix, 4, 12, 100).depth < 6
    assert chebyshev._passage(steps.matrix, 4, 12, 1000).depth == 1


def test_far_neighbours_are_brought_near(monkeypatch, rng):
    """A ring has an edge from end to end; in the order of the plan all are near, and results are the same."""
    n, X = 3000, rng.standard_normal((3000, 3))
    ring = scipy.sparse.diags_array([np.ones(n - 1)] * 2, offsets=[-1, 1], format="lil") / 2
    ring[0, n - 1] = ring[n - 1, 0] = 0.5
    ring, c = scipy.sparse.csr_array(ring), rng.standard_normal(20)
    plan = Recurrence(ring, INTERVAL)
    assert plan._steps.reach <= 2
    monkeypatch.setattr(graph_kernels, "_NEAR", n)
    natural = Recurrence(ring, INTERVAL)
    assert natural._steps.reach == n - 1
    np.testing.assert_allclose(plan.sum(X, c), natural.sum(X, c), rtol=0, atol=1e-12)
