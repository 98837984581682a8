"""CUDA kernels beside NVIDIA's libraries, float32, by device events: time of others / ours.

`library` is the same in CuPy: cuSPARSE for sparse products and their recurrences, gathers and sums for entries of
F G^T, a cumulative sum for scans, cuFFT with the spectrum at hand for Toeplitz products, our own CPU kernel for walks.
`floor` is the time to move what has to be moved at least, at the speed of a copy on this device: its ratio is below 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.fft
import scipy.sparse

from benchmarks.report import Row
from benchmarks.settings import Settings
from structmask import Toeplitz, use_backend
from structmask.backends import graph_kernels, kernels, walk_kernels
from structmask.backends._standard_walks import WORD, Plan, Steps
from structmask.backends.config import cupy_status

Way = Callable[[], Any]
TERMS = 32


def rows(settings: Settings) -> Iterator[Row]:
    if reason := cupy_status():
        yield Row("GPU", {"ours, ms": f"- ({reason})"})
        return
    n, k = (1 << 9, 8) if settings.tiny else (1 << 20, 32)
    for contest in (sparse_product, chebyshev_sum, sampled_entries, linear_scan, toeplitz_product, walks):
        yield contest(n, k)


def sparse_product(n: int, k: int) -> Row:
    A, X = _matrix(n), _block(n, k)
    moved = 8 * A.nnz + 8 * n * k
    return _row(f"A X, n={n} k={k}", lambda: kernels.csr_product(A, A.data, X), lambda: A @ X, moved)


def chebyshev_sum(n: int, k: int) -> Row:
    import cupy

    A, X = _matrix(n), _block(n, k)
    c = cupy.asarray(np.linspace(1, 0.1, TERMS + 1), dtype="float32")
    recurrence = graph_kernels.Recurrence(A, (-10.0, 10.0))

    def library() -> Any:
        old, T = X, 0.1 * (A @ X)
        total = c[0] * old + c[1] * T
        for term in range(2, TERMS + 1):
            old, T = T, 0.2 * (A @ T) - old
            total += c[term] * T
        return total

    moved = TERMS * (8 * A.nnz + 20 * n * k)
    return _row(f"sum of {TERMS} T_j(A) X, n={n} k={k}", lambda: recurrence.sum(X, c), library, moved)


def sampled_entries(n: int, k: int) -> Row:
    import cupy

    A, F, G = _matrix(n), _block(n, k), _block(n, k)
    places = cupy.repeat(cupy.arange(n), np.diff(A.indptr.get()).tolist())
    moved = A.nnz * (8 * k + 12)
    ours = lambda: kernels.sampled_product(A, places, F, G)  # noqa: E731
    return _row(f"entries of F G^T, n={n} r={k}", ours, lambda: (F[places] * G[A.indices]).sum(axis=-1), moved)


def linear_scan(n: int, k: int) -> Row:
    import cupy

    X, decay = _block(n, k) / n, cupy.ones(n)
    ours = lambda: kernels.linear_scan(X, decay, upper=False)  # noqa: E731
    return _row(f"scan, n={n} k={k}", ours, lambda: cupy.cumsum(X, axis=0), 8 * n * k)


def toeplitz_product(n: int, k: int) -> Row:
    import cupy

    X, table = _block(n, k), np.exp(-np.abs(np.arange(1 - n, n)) / 100).astype(np.float32)
    M, length = Toeplitz(table).to("cupy"), scipy.fft.next_fast_len(2 * n - 1)
    column = np.zeros(length, np.float32)
    column[:n], column[length - n + 1 :] = table[n - 1 :], table[: n - 1]
    spectrum = cupy.fft.rfft(cupy.asarray(column))[:, None]

    def library() -> Any:
        return cupy.fft.irfft(cupy.fft.rfft(X, length, axis=0) * spectrum, length, axis=0)[:n]

    return _row(f"Toeplitz, n={n} k={k}", lambda: M @ X, library, 8 * n * k)


def walks(n: int, k: int) -> Row:
    import cupy

    host = walk_kernels.steps(scipy.sparse.csr_array(_matrix(n).get()))
    device, plan = Steps(*map(cupy.asarray, host)), Plan(8, k, int(0.1 * WORD), 20220717)
    starts = np.arange(n)
    on_device = cupy.asarray(starts)

    def library() -> Any:
        with use_backend("numba"):
            return cupy.asarray(walk_kernels.random_walks(host, starts, plan))

    ours = lambda: walk_kernels.random_walks(device, on_device, plan)  # noqa: E731
    return _row(f"walks of 8 nodes, {k} from each of {n}", ours, library, 4 * n * k * 8)


# --- time and checks --------------------------------------------------------------------------------------------------


def _row(case: str, ours: Way, library: Way, moved: float) -> Row:
    """Both ways checked against each other and timed, and the floor."""
    a, b = ours(), library()
    error = float(abs(a - b).max() / abs(b).max())
    if not error < 1e-4:
        msg = f"{case}: results differ by {error:.1e}"
        raise AssertionError(msg)
    del a, b
    own, other = _seconds(ours), _seconds(library)
    figures = {"ours, ms": own * 1e3, "error": f"{error:.0e}", "library": other / own}
    return Row(case, {**figures, "floor": moved * _seconds_a_byte() / own})


def _seconds(call: Way, repetitions: int = 10) -> float:
    """The least time between two events on the device, after a call that warms up."""
    import cupy

    call()
    times = []
    for _ in range(repetitions):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(cupy.cuda.get_elapsed_time(begin, end) * 1e-3)
    return min(times)


def _seconds_a_byte() -> float:
    """Of copying a large array: every byte is read and written."""
    import cupy

    a = cupy.zeros(1 << 26, dtype="float32")
    return _seconds(a.copy) / (2 * a.nbytes)


def _matrix(n: int) -> Any:
    """A symmetric adjacency matrix with about eight neighbours a node, its norm below ten."""
    import cupyx.scipy.sparse

    rng = np.random.default_rng(n)
    i, j = rng.integers(0, n, (2, 4 * n))
    A = scipy.sparse.coo_array((np.ones(4 * n, np.float32), (i, j)), shape=(n, n)).tocsr()
    A = scipy.sparse.csr_array(A + A.T)
    A.data = (A.data / A.sum(axis=0).max() * 9).astype(np.float32)
    return cupyx.scipy.sparse.csr_matrix(scipy.sparse.csr_matrix(A))


def _block(n: int, k: int) -> Any:
    import cupy

    return cupy.asarray(np.random.default_rng(k).standard_normal((n, k)), dtype="float32")
