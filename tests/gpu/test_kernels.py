"""The CUDA kernels, run on the CPU: schedules at random, sanitizers, every barrier needed, what a GPU compiler says."""

import os
import re
import subprocess
import sys
from unittest import mock

import pytest

from structmask.backends import _cupy
from tests.gpu import exercise, nvrtc

BARRIER = re.compile(r"__syncthreads\(\);")
BARRIERS = [(source, place.start()) for source in exercise.SOURCES for place in BARRIER.finditer(_cupy.code_of(source))]


@pytest.mark.parametrize("seed", range(3))
def test_kernels_are_right_under_any_schedule(seed):
    exercise.run(seed)


@pytest.fixture
def fresh():
    """Kernels compiled by a test are forgotten before and after it."""
    _cupy._compiled.cache_clear()
    yield
    _cupy._compiled.cache_clear()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("source", "place"), BARRIERS)
def test_no_barrier_can_be_left_out(source, place):
    codes = {name: _cupy.code_of(name) for name in exercise.SOURCES}
    codes[source] = codes[source][:place] + BARRIER.sub("", codes[source][place:], count=1)
    with mock.patch.object(_cupy, "code_of", codes.get):
        assert any(map(goes_wrong, range(4)))


def goes_wrong(seed):
    try:
        exercise.run(seed, sizes=(20, 300), columns=(3, 33), precisions=("float64",))
    except (AssertionError, RuntimeError):
        return True
    return False


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_kernels_are_clean_under_sanitizers(sanitizer):
    runtime = {"address": "libasan.so", "thread": "libtsan.so"}[sanitizer]
    found = subprocess.run(["g++", f"-print-file-name={runtime}"], capture_output=True, text=True, check=True)
    options = {
        "LD_PRELOAD": found.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "TSAN_OPTIONS": "exitcode=66:report_bugs=1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.exercise", sanitizer],
        env={**os.environ, **options},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.skipif(nvrtc.library() is None, reason="the wheel of NVIDIA's compiler is not installed")
@pytest.mark.parametrize("source", exercise.SOURCES)
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_kernels_compile_for_real_gpus(source, architecture):
    for width in ("float32", "float64"):
        log, binary = nvrtc.compiled(_cupy.code_of(source), architecture, _cupy.options(width))
        spills = [int(size) for size in re.findall(r"(\d+) bytes spill", log)]
        shared = [int(size) for size in re.findall(r"(\d+) bytes smem", log)]
        assert binary.startswith(b"\x7fELF")
        assert spills
        assert max(spills) == 0
        assert max(shared, default=0) <= 16 << 10
