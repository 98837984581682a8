"""Every CUDA kernel at the sizes where kernels go wrong, against obvious loops: on the emulator, or on a GPU.

`python -m tests.gpu.exercise address` (or `thread`) does so under a sanitizer, whose library has to be preloaded.
"""

import importlib
import sys
from unittest import mock

import numpy as np
import scipy.sparse

from structmask.backends import _cupy, walk_kernels
from structmask.backends import _standard_walks as standard
from structmask.backends.arrays import namespace_called
from tests.gpu import emulator, stand_in

SOURCES = ("linear_scan", "csr", "walks")
SIZES = (1, 2, 8, 9, 65, 300)  # about the rows of a thread, of a tile, of several tiles
COLUMNS = (1, 3, 33)  # less than a warp, more than one


def run(seed=0, sizes=SIZES, columns=COLUMNS, precisions=("float32", "float64")):
    """All kernels on the emulator under one schedule."""
    emulator.RawModule.seed = seed
    with stand_in.installed():
        check_all(seed, sizes, columns, precisions)


def check_all(seed=0, sizes=SIZES, columns=COLUMNS, precisions=("float32", "float64")):
    """All kernels, wherever `import cupy` leads; few blocks, so that each has several operands."""
    rng = np.random.default_rng(seed)
    with mock.patch.object(_cupy, "_MOST_BLOCKS", 2):
        for precision in precisions:
            for n in sizes:
                for k in columns:
                    for check in (scan, product, chebyshev, sampled):
                        check(rng, n, k, precision)
        for n in sizes:
            walks(rng, n)


def on_device(a, dtype):
    return namespace_called("cupy").asarray(a, dtype=dtype)


def csr(data, indices, indptr, shape):
    parts = data, on_device(indices, "int32"), on_device(indptr, "int32")
    return importlib.import_module("cupyx.scipy.sparse").csr_matrix(parts, shape)


def scan(rng, n, k, precision):
    decay, X = rng.uniform(0.9, 1, (3, n)) * rng.choice([-1, 1], (3, n)), rng.standard_normal((3, n, k))
    decay[:, 70::71] = 0
    heads = decay if k > 1 else decay[:1]
    for upper in (False, True):
        Y = _cupy.linear_scan(on_device(X, precision), on_device(heads, "float64"), upper=upper)
        for b, y in enumerate(Y.get()):
            assert_near(y, scanned(X[b].astype(precision), heads[b % len(heads)], upper), precision)


def scanned(X, decay, upper):
    Y = X.astype(np.float64)
    for i in range(len(X) - 2, -1, -1) if upper else range(1, len(X)):
        Y[i] += decay[i + 1] * Y[i + 1] if upper else decay[i] * Y[i - 1]
    return Y


def random_pattern(rng, m, n):
    A = scipy.sparse.random_array((m, n), density=min(1.0, 3 / n), rng=rng, format="csr")
    return A, csr(on_device(A.data, "float64"), A.indices, A.indptr, A.shape)


def product(rng, n, k, precision):
    A, device = random_pattern(rng, n, n + 1)
    values, X = rng.standard_normal((3, A.nnz)), rng.standard_normal((3, n + 1, k))
    Y = _cupy.csr_product(device, on_device(values, precision), on_device(X, precision))
    for b, y in enumerate(Y.get()):
        dense = scipy.sparse.csr_array((values[b], A.indices, A.indptr), shape=A.shape).toarray()
        assert_near(y, dense @ X[b], precision)


def chebyshev(rng, n, k, precision):
    A, _ = random_pattern(rng, n, n)
    A = scipy.sparse.csr_array(A + A.T)
    device = csr(on_device(A.data, precision), A.indices, A.indptr, A.shape)
    X, c = rng.standard_normal((n, k)), rng.standard_normal((2, 5))
    Y = _cupy.ChebyshevSteps(device, 0.5, 0.25).sums(on_device(X, precision), on_device(c, precision))
    B, T = 0.5 * A.toarray() - 0.25 * np.eye(n), [np.eye(n)]
    for term in range(1, 5):
        T.append(B if term == 1 else 2 * B @ T[-1] - T[-2])
    for y, own in zip(Y.get(), c, strict=True):
        assert_near(y, sum(weight * t for weight, t in zip(own, T, strict=True)) @ X, precision)


def sampled(rng, n, k, precision):
    A, device = random_pattern(rng, n, n + 1)
    F, G = rng.standard_normal((3, n, k)), rng.standard_normal((3, n + 1, k))
    rows = np.repeat(np.arange(n), np.diff(A.indptr))
    S = _cupy.sampled_product(device, on_device(rows, "int64"), on_device(F, precision), on_device(G, precision))
    for b, s in enumerate(S.get()):
        assert_near(s, (F[b] @ G[b].T)[rows, A.indices], precision)


def walks(rng, n):
    W, _ = random_pattern(rng, n, n)
    for weighted in (False, True):
        W.data[:] = rng.uniform(0.1, 1, W.nnz) if weighted else 1.0
        steps = walk_kernels.steps(W)
        device = standard.Steps(*(on_device(part, part.dtype) for part in steps))
        for count, stop, repelling in ((3, 0.0, False), (3, 0.25, True), (300, 0.1, True)):
            starts = rng.integers(0, n, 2)
            plan = standard.Plan(4, count, int(stop * standard.WORD), int(rng.integers(1 << 62)), 1, repelling)
            paths = _cupy.random_walks(device, on_device(starts, "int64"), plan, (1 << 32) - 2).get()
            if not np.array_equal(paths, standard.random_walks(steps, starts, plan, (1 << 32) - 2)):
                msg = f"walks differ from those of the reference: {plan}"
                raise AssertionError(msg)


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
