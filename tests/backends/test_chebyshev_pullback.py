"""Gradients of Chebyshev series by one kernel, against the matrices that they are defined by."""

import numpy as np
import pytest
import scipy.sparse

from structmask.backends._numba import chebyshev_pullback
from structmask.backends.graph_kernels import Recurrence
from structmask.linalg import Sparse
from structmask.linalg.matrix_polynomial import MatrixFunction
from tests.backends.test_chebyshev_steps import INTERVAL, banded

LOW, HIGH = INTERVAL


def by_definition(A, X, G, c):
    """Y, cotangents of X, c and A: dA = 2 / (high - low) (R_1 T_0^H + 2 sum R_k T_{k-1}^H), all of it dense."""
    n, K = A.shape[0], c.size - 1
    B = (2 * A.toarray() - (HIGH + LOW) * np.eye(n)) / (HIGH - LOW)
    T, R = [X, B @ X], np.zeros((K + 3, *G.shape), G.dtype)
    for _ in range(2, K + 1):
        T.append(2 * B @ T[-1] - T[-2])
    for k in range(K, 0, -1):
        R[k] = c[k] * G + 2 * B.T @ R[k + 1] - R[k + 2]
    slope = R[1] @ T[0].conj().T + 2 * sum(R[k] @ T[k - 1].conj().T for k in range(2, K + 1))
    d_c = [np.vdot(t, G).real for t in T[: K + 1]]
    Y, Z = sum(a * t for a, t in zip(c, T, strict=False)), c[0] * G + B.T @ R[1] - R[2]
    rows = np.repeat(np.arange(n), np.diff(A.indptr))
    return Y, Z, np.array(d_c), 2 / (HIGH - LOW) * slope.real[rows, A.indices]


def check(A, X, G, c, atol):
    found = Recurrence(A, INTERVAL).pullback(X, G, c)
    for value, exact in zip(found, by_definition(A, X, G, c), strict=True):
        assert value.shape == exact.shape
        assert value.dtype.char in (X.dtype.char, c.dtype.char)
        np.testing.assert_allclose(value, exact, rtol=0, atol=atol * max(1, np.abs(exact).max(initial=0)))


@pytest.fixture(params=["one thread", "threads", "panels apart"])
def threads(request, monkeypatch):
    """Small matrices as if they were large."""
    if request.param != "one thread":
        monkeypatch.setattr(chebyshev_pullback, "SERIAL_WORK", 0 if request.param == "threads" else 20_000)


@pytest.mark.parametrize("K", [1, 2, 3, 4, 7, 20])
@pytest.mark.parametrize(("n", "reach"), [(1, 1), (2, 1), (3, 2), (40, 0), (40, 3), (300, 299), (2500, 30)])
def test_gradients_are_those_of_the_definition(n, reach, K, threads, rng):
    A, (X, G) = banded(n, reach, rng), rng.standard_normal((2, n, 19))
    check(A, X, G, rng.standard_normal(K + 1), 1e-12)


@pytest.mark.parametrize("q", [1, 7, 8, 16, 17, 33])
@pytest.mark.parametrize("kind", ["f", "d", "F", "D"])
def test_any_number_of_columns_in_any_kind(q, kind, threads, rng):
    real = kind.lower()
    A = banded(200, 5, rng, real)
    operands = rng.standard_normal((2, 200, q)), rng.standard_normal((2, 200, q))
    X, G = (operands[0] if kind in "fd" else operands[0] + 1j * operands[1]).astype(kind)
    check(A, X, G, rng.standard_normal(9).astype(real), 2e-5 if real == "f" else 1e-12)


def test_nodes_in_no_order_and_entries_that_vanish(threads, rng):
    """The plan has an order of its own; entries keep theirs, also such as are zero, or become it on the diagonal."""
    n = 5000
    A = banded(n, 3, rng).tolil()
    A.setdiag((HIGH + LOW) / 2)  # of which the shift leaves nothing
    place = rng.permutation(n)
    A = scipy.sparse.csr_array(scipy.sparse.csr_array(A)[place][:, place])
    A.sort_indices()
    A.data[:2] = A.data[:2] * 0
    mirror = scipy.sparse.csr_array(A.maximum(A.T) * 0.5)
    assert not np.array_equal(Recurrence(mirror, INTERVAL)._steps.order, np.arange(n))
    X, G = rng.standard_normal((2, n, 3))
    check(mirror, X, G, rng.standard_normal(6), 1e-12)


def test_batches_with_one_function_and_with_their_own(rng):
    A = Sparse(banded(30, 4, rng))
    X, G, c = rng.standard_normal((3, 2, 30, 4)), rng.standard_normal((3, 2, 30, 4)), rng.standard_normal((3, 1, 6))
    for own in (c[0, 0], c, c[0]):
        together = MatrixFunction(A, own, interval=INTERVAL)._joint_pullback(G, X)
        each, apart = np.broadcast_to(own, (3, 2, 6)), {}
        for at in np.ndindex(3, 2):
            apart[at] = MatrixFunction(A, each[at], interval=INTERVAL)._joint_pullback(G[at], X[at])
        for at, (Y, Z, _) in apart.items():
            np.testing.assert_allclose(together[0][at], Y, atol=1e-13)
            np.testing.assert_allclose(together[1][at], Z, atol=1e-13)
        d_matrix = sum(part[2]["matrix"]["csr"] for part in apart.values())
        np.testing.assert_allclose(together[2]["matrix"]["csr"], d_matrix, atol=1e-12)
        assert together[2]["coefficients"].shape == own.shape
        d_c = sum(part[2]["coefficients"].sum() for part in apart.values())
        np.testing.assert_allclose(together[2]["coefficients"].sum(), d_c, atol=1e-11)


def test_what_no_kernel_is_for_goes_by_array_code(rng):
    """Matrices that are not symmetric, and complex coefficients, to the same gradients."""
    A, (X, G) = banded(20, 3, rng), rng.standard_normal((2, 20, 2))
    lopsided = scipy.sparse.csr_array(scipy.sparse.triu(A) + 0.5 * scipy.sparse.tril(A, -1))
    c = rng.standard_normal(7)
    assert Recurrence(lopsided, INTERVAL).pullback(X, G, c) is None
    assert Recurrence(A, INTERVAL).pullback(X, G, c + 1j) is None
    Y, Z, inner = MatrixFunction(Sparse(lopsided), c, interval=INTERVAL)._joint_pullback(G, X)
    found = Y, Z, inner["coefficients"], inner["matrix"]["csr"]
    for value, exact in zip(found, by_definition(lopsided, X, G, c), strict=True):
        np.testing.assert_allclose(value, exact, atol=1e-12)
