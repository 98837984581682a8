"""A pytest plugin that runs kernels in their Python form, so that their lines can be counted.

With `NUMBA_DISABLE_JIT=1 python -m pytest -p tests.python_form` kernels are what Python makes of them. What they say
in vector instructions has no Python form: the instructions are compiled one function at a time and called from Python.
Vectors, which cannot leave compiled code, are slices here. Numbers overflow as quietly as in compiled code.
"""

import functools

import numba
import numpy as np
from numba import extending

_intrinsic = extending.intrinsic


def called_from_python(function):
    """An intrinsic, compiled alone when it is first called."""
    emitted = _intrinsic(function)

    @functools.cache
    def compiled():
        disabled, numba.config.DISABLE_JIT = numba.config.DISABLE_JIT, 0
        try:
            return numba.njit(lambda *given: emitted(*given))  # noqa: PLW0108  only numba calls an intrinsic
        finally:
            numba.config.DISABLE_JIT = disabled

    def run(*given):
        return compiled()(*given)

    return SLICES.get(function.__name__) or run


def place(array, position, width=8):
    return np.reshape(array, -1)[position : position + width]


def line(array, number):
    width = 64 // array.itemsize
    return place(array, number * width, width)


def store(array, position, vector):
    place(array, position)[:] = vector


def store_line(array, number, vector):
    line(array, number)[:] = vector


SLICES = {
    "load": lambda array, position: place(array, position).copy(),
    "load_line": lambda array, number: line(array, number).copy(),
    "store": store,
    "store_line": store_line,
    "scaled": lambda a, x: a * x,
    "axpy": lambda a, x, y: a * x + y,
    "times_add": lambda x, y, z: x * y + z,
    "inner": lambda x, y: (x * y).sum(),
    "total_of": lambda x: x.sum(),
    "converted": lambda x, array: x.astype(array.dtype),
    "stream": store,
    "settle": lambda: None,
    "prefetch": lambda *_: None,
    "zero": lambda array: np.zeros(8, array.dtype),
    "zero_line": lambda array: np.zeros(64 // array.itemsize, array.dtype),
}

if numba.config.DISABLE_JIT:  # else whatever imports this, as doctests import every module, leaves kernels alone
    extending.intrinsic = called_from_python
    np.seterr(all="ignore")
