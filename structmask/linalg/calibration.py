"""The planner's rates on this machine: a few seconds of measuring, then a fit.

The cost model is linear: the time of a method is the sum over kinds of work of count / rate. The rates are fitted to
measured times by least squares in the logarithm, so that a method twice too slow and one twice too fast weigh the same,
whatever their times; a rate that no sample determines stays near where it started.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, fields
from typing import Any

import numpy as np
import scipy.sparse

from structmask.backends.arrays import Array
from structmask.backends.config import BackendError, get_backend
from structmask.linalg import rates
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.causal import Causal
from structmask.linalg.elementary import Sparse
from structmask.linalg.hadamard import Hadamard, masked_product
from structmask.linalg.low_rank import LowRank
from structmask.linalg.planning import Work, acting_backend
from structmask.linalg.toeplitz import Toeplitz

KINDS = tuple(field.name for field in fields(Work))
_INERTIA = 0.02  # weight of a change by the factor e of a rate, beside that of one sample's logarithmic error
_LONGEST = 0.15  # seconds that a sample may be expected to take
_PATIENCE = 0.06  # seconds spent on a sample
_SIZES = ((64, 16), (64, 64), (512, 16), (1024, 64), (4096, 16), (4096, 64), (16384, 16))


def calibrate(*, store: bool = True) -> rates.Rates:
    """Measure how fast this machine does each kind of work, so that the choice of methods fits it.

    Parameters
    ----------
    store : bool
        Whether to keep the result in the user's cache folder (the environment variable STRUCTMASK_CACHE names
        another), where this process and later ones find it. Matrices keep the choices they have made.

    Returns
    -------
    dict
        Operations a second by kind of work ("gemm", "fft", "fused", "scan"), "bytes" and "calls" a second, in single
        precision, all threads together.

    Raises
    ------
    BackendError
        If the backend in force is "cupy": rates of the host are measured.

    Notes
    -----
    Takes some seconds; compiled kernels are compiled before. The backend in force is measured: "numba", or "numpy"
    inside ``use_backend("numpy")``. A busy machine measures itself too slow, but alike for all methods.

    Examples
    --------
    >>> import structmask
    >>> rates = structmask.calibrate(store=False)  # doctest: +SKIP
    >>> rates["gemm"] > rates["scan"]  # doctest: +SKIP
    True
    """
    if get_backend() == "cupy":
        msg = "calibrate measures the host; call it inside use_backend('numba') or use_backend('numpy')"
        raise BackendError(msg)
    backend = acting_backend("numpy")
    works, seconds = zip(*_samples(), strict=True)
    found = fitted(works, seconds, Work(**rates.typical(backend)))
    measured = dict(zip(KINDS, astuple(found), strict=True))
    if store:
        rates.store(backend, measured)
    return measured


def fitted(works: Sequence[Work], seconds: Sequence[float], start: Work) -> Work:
    """Rates (operations, bytes and calls a second) that predict the times of some work best."""
    from scipy.optimize import least_squares

    counts, target, origin = np.array([astuple(work) for work in works]), np.log(seconds), np.log(astuple(start))

    def residuals(logarithms: Array) -> Array:
        return np.concatenate([np.log(counts @ np.exp(-logarithms)) - target, _INERTIA * (logarithms - origin)])

    solution = least_squares(residuals, origin, loss="soft_l1", f_scale=0.3)
    return Work(*np.exp(solution.x).tolist())


def _samples() -> Iterator[tuple[Work, float]]:
    """Work and time of every method of masks of several kinds, at lengths where each matters."""
    for L, r in _SIZES:
        rng = np.random.default_rng(L)
        F, G, X = rng.random((3, L, r), dtype=np.float32) + np.float32(0.1)
        for mask in _masks(L, rng):
            for step in Hadamard(mask, LowRank(F, G))._plan(r).steps:
                if step.seconds < _LONGEST:
                    call = _product(mask, F, G, X, step.method)
                    yield step.work, _least_time(call)


def _product(mask: StructuredMatrix, F: Array, G: Array, X: Array, method: str) -> Callable[[], Any]:
    return lambda: masked_product(mask, F, G, X, method)


def _masks(L: int, rng: np.random.Generator) -> list[StructuredMatrix]:
    """One of each kind of algorithm; values do not matter."""
    rows, columns = np.repeat(np.arange(L), 8), rng.integers(0, L, 8 * L)
    entries = scipy.sparse.csr_array((rng.random(8 * L, dtype=np.float32), (rows, columns)), shape=(L, L))
    return [
        Toeplitz(rng.random(2 * L - 1, dtype=np.float32)),
        Causal(L, decay=rng.random(L, dtype=np.float32)),
        Sparse(entries),
        LowRank(*rng.random((2, L, 4), dtype=np.float32)),
    ]


def _least_time(call: Callable[[], Any]) -> float:
    """The least time of several calls, the first of which (compilation, plans) does not count."""
    call()
    best, start = float("inf"), time.perf_counter()
    while time.perf_counter() - start < _PATIENCE:
        before = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - before)
    return best
