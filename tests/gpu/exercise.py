"""Every CUDA kernel at the sizes where kernels go wrong, on the emulator, against obvious loops.

`python -m tests.gpu.exercise address` (or `thread`) does so under a sanitizer, whose library has to be preloaded.
"""

import sys
from unittest import mock

import numpy as np
import scipy.sparse

from structmask.backends import _cupy
from tests.gpu import emulator, stand_in

SOURCES = ("linear_scan", "csr")
SIZES = (1, 2, 8, 9, 65, 300)  # about the rows of a thread, of a tile, of several tiles
COLUMNS = (1, 3, 33)  # less than a warp, more than one


def run(seed=0, sizes=SIZES, columns=COLUMNS, precisions=("float32", "float64")):
    """All kernels under one schedule; few blocks, so that each has several operands."""
    emulator.RawModule.seed = seed
    rng = np.random.default_rng(seed)
    with stand_in.installed(), mock.patch.object(_cupy, "_MOST_BLOCKS", 2):
        for precision in precisions:
            for n in sizes:
                for k in columns:
                    for check in (scan, product, chebyshev, sampled):
                        check(rng, n, k, precision)


def on_device(a, dtype):
    return stand_in.asarray(a, dtype=dtype)


def scan(rng, n, k, precision):
    decay, X = rng.uniform(0.9, 1, (3, n)) * rng.choice([-1, 1], (3, n)), rng.standard_normal((3, n, k))
    decay[:, 70::71] = 0
    heads = decay if k > 1 else decay[:1]
    for upper in (False, True):
        Y = _cupy.linear_scan(on_device(X, precision), on_device(heads, "float64"), upper=upper)
        for b, y in enumerate(Y.held):
            assert_near(y, scanned(X[b].astype(precision), heads[b % len(heads)], upper), precision)


def scanned(X, decay, upper):
    Y = X.astype(np.float64)
    for i in range(len(X) - 2, -1, -1) if upper else range(1, len(X)):
        Y[i] += decay[i + 1] * Y[i + 1] if upper else decay[i] * Y[i - 1]
    return Y


def random_pattern(rng, m, n):
    A = scipy.sparse.random_array((m, n), density=min(1.0, 3 / n), rng=rng, format="csr")
    return A, stand_in.csr_matrix(
        (on_device(A.data, "float64"), on_device(A.indices, "int32"), on_device(A.indptr, "int32")), A.shape
    )


def product(rng, n, k, precision):
    A, device = random_pattern(rng, n, n + 1)
    values, X = rng.standard_normal((3, A.nnz)), rng.standard_normal((3, n + 1, k))
    Y = _cupy.csr_product(device, on_device(values, precision), on_device(X, precision))
    for b, y in enumerate(Y.held):
        dense = scipy.sparse.csr_array((values[b], A.indices, A.indptr), shape=A.shape).toarray()
        assert_near(y, dense @ X[b], precision)


def chebyshev(rng, n, k, precision):
    A, _ = random_pattern(rng, n, n)
    A = scipy.sparse.csr_array(A + A.T)
    parts = (on_device(A.data, precision), on_device(A.indices, "int32"), on_device(A.indptr, "int32"))
    X, c = rng.standard_normal((n, k)), rng.standard_normal((2, 5))
    Y = _cupy.ChebyshevSteps(stand_in.csr_matrix(parts, A.shape), 0.5, 0.25).sums(
        on_device(X, precision), on_device(c, precision)
    )
    B, T = 0.5 * A.toarray() - 0.25 * np.eye(n), [np.eye(n)]
    for term in range(1, 5):
        T.append(B if term == 1 else 2 * B @ T[-1] - T[-2])
    for y, own in zip(Y.held, c, strict=True):
        assert_near(y, sum(weight * t for weight, t in zip(own, T, strict=True)) @ X, precision)


def sampled(rng, n, k, precision):
    A, device = random_pattern(rng, n, n + 1)
    F, G = rng.standard_normal((3, n, k)), rng.standard_normal((3, n + 1, k))
    rows = np.repeat(np.arange(n), np.diff(A.indptr))
    S = _cupy.sampled_product(device, on_device(rows, "int64"), on_device(F, precision), on_device(G, precision))
    for b, s in enumerate(S.held):
        assert_near(s, (F[b] @ G[b].T)[rows, A.indices], precision)


def assert_near(got, want, precision):
    tolerance = 2e-5 if precision == "float32" else 1e-13
    scale = max(1.0, np.abs(want).max(initial=0))
    if got.shape != want.shape or not np.abs(got - want).max(initial=0) <= tolerance * scale:
        msg = f"a kernel is wrong by {np.abs(got - want).max() / scale:.1e} in {precision}"
        raise AssertionError(msg)


if __name__ == "__main__":
    emulator.RawModule.sanitizer = sys.argv[1]
    if sys.argv[1] == "thread":  # a system thread for every thread: slow
        run(sizes=(20,), columns=(3,), precisions=("float64",))
    else:
        run(sizes=(1, 9, 65), columns=(3, 33))
