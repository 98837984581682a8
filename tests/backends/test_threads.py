"""Both forms of a kernel are there, give the same, and are cached apart."""

import os
import warnings

import numpy as np
import pytest
from numba import prange

from structmask.backends._numba.threads import has_lost_threads, parallel, serial_and_parallel


def _double(a):
    for i in prange(a.size):
        a[i] *= 2


def test_both_forms_do_the_same_and_have_their_own_cache():
    serial, threaded = serial_and_parallel(_double)
    a = np.arange(100.0)
    serial(a)
    threaded(a)
    np.testing.assert_array_equal(a, 4 * np.arange(100.0))
    assert threaded.threaded.targetoptions["parallel"]
    assert serial._cache._impl.filename_base != threaded.threaded._cache._impl.filename_base


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_from_running_threads_computes_on_one():
    kernel, a = parallel(_double), np.arange(100.0)
    kernel(a)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # later Pythons warn of forks with threads: the case here
        child = os.fork()
    if not child:
        kernel(a)  # a signal ends the process here where OpenMP is started anew
        os._exit(0 if a.sum() == 4 * 4950.0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert not has_lost_threads()
