"""Scratch for kernels: kept for the next call, since new pages cost as much as a sweep, and aligned to cache lines."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

import numpy as np

_LINE = 64  # bytes of a cache line
_MOST_KEPT = 1 << 26  # bytes
_KEPT: deque[np.ndarray] = deque(maxlen=1)


@contextmanager
def borrowed(size: int, dtype: np.dtype) -> Iterator[np.ndarray]:
    """An array of some size, with no values yet; one moderate buffer is kept for the next call."""
    try:
        kept = _KEPT.pop()
    except IndexError:
        kept = _bytes(0)
    wanted = size * dtype.itemsize
    buffer = kept if kept.nbytes >= wanted else _bytes(wanted)
    try:
        yield buffer[:wanted].view(dtype)
    finally:
        if buffer.nbytes <= _MOST_KEPT:
            _KEPT.append(buffer)


@contextmanager
def borrowed_arrays(dtype: np.dtype, shapes: Sequence[tuple[int, ...]]) -> Iterator[list[np.ndarray]]:
    """Arrays of some shapes, with no values yet, out of one borrowed buffer; each starts on a cache line."""
    line = _LINE // dtype.itemsize
    sizes = [math.prod(shape) for shape in shapes]
    ends = list(accumulate(-(-size // line) * line for size in sizes))
    with borrowed(ends[-1], dtype) as buffer:
        starts = (0, *ends[:-1])
        yield [buffer[i : i + size].reshape(shape) for i, size, shape in zip(starts, sizes, shapes, strict=True)]


def lines(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A new array with no values yet, aligned to cache lines; a large one gets large pages where there are any."""
    return _bytes(math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)


def _bytes(size: int) -> np.ndarray:
    raw = np.empty(size + _LINE, np.uint8)
    skip = -raw.ctypes.data % _LINE
    return raw[skip : skip + size]
