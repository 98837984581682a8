"""Both forms of a kernel are there, give the same, and are cached apart."""

import numpy as np
from numba import prange

from structmask.backends._numba.threads import serial_and_parallel


def _double(a):
    for i in prange(a.size):
        a[i] *= 2


def test_both_forms_do_the_same_and_have_their_own_cache():
    serial, parallel = serial_and_parallel(_double)
    a = np.arange(100.0)
    serial(a)
    parallel(a)
    np.testing.assert_array_equal(a, 4 * np.arange(100.0))
    assert parallel.targetoptions["parallel"]
    assert serial._cache._impl.filename_base != parallel._cache._impl.filename_base
