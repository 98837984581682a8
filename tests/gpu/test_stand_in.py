"""The stand-in is as strict as it says, and scripts run on it by the setting alone."""

import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import structmask as sm
from structmask.backends import config
from tests.gpu import emulator, record_api, stand_in


@pytest.fixture
def cupy():
    with stand_in.installed():
        import cupy

        yield cupy


def test_the_record_is_that_of_the_installed_wheel():
    pytest.importorskip("cupy")
    recorded, found = json.loads(record_api.RECORD.read_text()), record_api.record()
    if recorded["version"] != found["version"]:
        pytest.skip(f"CuPy {found['version']} is installed, the record is of {recorded['version']}")
    assert recorded == found


def test_the_oldest_cupy_allowed_is_that_of_the_record():
    extras = tomllib.loads((Path(sm.__file__).parents[1] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    oldest = ".".join(map(str, config._OLDEST))
    assert stand_in.API["version"].startswith(f"{oldest}.")
    assert extras["cuda12"] == [f"cupy-cuda12x>={oldest}"]
    assert extras["cuda13"] == [f"cupy-cuda13x>={oldest}"]


@pytest.mark.parametrize(
    "mistake",
    [
        lambda cp, x: x + np.ones(3),
        lambda cp, x: np.ones(3) + x,
        lambda cp, x: np.asarray(x),
        lambda cp, x: cp.sum([1.0, 2.0]),
        lambda cp, x: cp.take(x, np.array([0])),
        lambda cp, x: cp.sum(x, where=True),
        lambda cp, x: cp.vecdot(x, x),
    ],
    ids=["plus-host", "host-plus", "asarray", "list", "host-index", "argument", "name"],
)
def test_what_cupy_refuses_is_refused(cupy, mistake):
    with pytest.raises((TypeError, AttributeError)):
        mistake(cupy, cupy.ones(3))


@pytest.mark.parametrize(
    "slip",
    [
        lambda cp, x: float(cp.sum(x)),
        lambda cp, x: bool(cp.any(x > 0)),
        lambda cp, x: x[x > 0],
        lambda cp, x: x[[0, 1]],
        lambda cp, x: x.get(),
        lambda cp, x: cp.asarray(np.ones(2)),
        lambda cp, x: cp.nonzero(x),
    ],
    ids=["float", "bool", "mask", "list", "get", "asarray", "nonzero"],
)
def test_transfers_and_hidden_synchronisations_are_seen(cupy, slip):
    x = cupy.ones(3)
    slip(cupy, x)
    with stand_in.forbid(), pytest.raises(stand_in.TransferError):
        slip(cupy, x)


def test_arguments_of_kernels_are_checked(cupy):
    code = 'extern "C" __global__ void twice(REAL* x, int n) { if (threadIdx.x < n) x[threadIdx.x] *= 2; }'
    twice = emulator.RawModule(code=code, options=("-DREAL=float",)).get_function("twice")
    x = cupy.ones(4, dtype=np.float32)
    twice((1,), (32,), (x, np.int32(3)))
    assert x.get().tolist() == [2, 2, 2, 1]
    for arguments, error in (
        ((x, 3), TypeError),
        ((x, np.int64(3)), TypeError),
        ((cupy.ones(4), np.int32(3)), TypeError),
        ((cupy.ones((4, 2), dtype=np.float32)[:, 0], np.int32(3)), ValueError),
        ((x,), TypeError),
    ):
        with pytest.raises(error):
            twice((1,), (32,), arguments)
    with pytest.raises(ValueError, match="beyond"):
        twice((1,), (2048,), (x, np.int32(3)))


def test_a_barrier_that_some_threads_miss_is_an_error(cupy):
    code = 'extern "C" __global__ void early(float* x) { if (threadIdx.x < 7) return; __syncthreads(); x[0] = 1; }'
    early = emulator.RawModule(code=code).get_function("early")
    with pytest.raises(RuntimeError, match="never reach"):
        early((1,), (32,), (cupy.ones(1, dtype=np.float32),))


def test_a_numpy_script_moves_to_the_device_by_the_setting_alone(rng, cupy):
    def script():
        q, k, v = (rng_.standard_normal((2, 40, 4)) for _ in range(3))
        mask = sm.Toeplitz.from_function(lambda s: np.exp(-np.abs(s) / 9.0), 40) * sm.Causal(40, decay=0.9)
        return sm.masked_attention(q, k, v, mask=mask)

    rng_ = np.random.default_rng(1)
    want = script()
    with sm.use_backend("cupy"):
        rng_ = np.random.default_rng(1)
        got = script()
    assert isinstance(got, cupy.ndarray)
    np.testing.assert_allclose(sm.to_numpy(got), want, rtol=1e-12)


def test_what_is_imported_beside_the_stand_in_stays():
    sys.modules.pop("this_is_imported", None)
    with stand_in.installed():
        sys.modules["this_is_imported"] = sys
        assert sys.modules["cupy"] is stand_in.MODULES["cupy"]
    assert sys.modules.pop("this_is_imported") is sys
    assert sys.modules.get("cupy") is not stand_in.MODULES["cupy"]
