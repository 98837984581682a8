"""The backend setting: who decides, what is refused, and in which words."""

import contextvars
import importlib
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

import structmask
from structmask import BackendError, Causal, Toeplitz, get_backend, set_backend, to_numpy, use_backend
from structmask.backends import arrays, config, devices


@pytest.fixture(autouse=True)
def untouched(monkeypatch):
    """No setting at all, whatever ran before; everything is put back afterwards."""
    monkeypatch.delenv(config.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(config, "_process", [])
    monkeypatch.setattr(config, "_context", contextvars.ContextVar("backend", default=None))


# --- who decides ------------------------------------------------------------------------------------------------------


def test_arrays_decide_by_default():
    assert get_backend() == "auto"


@pytest.mark.parametrize("name", ["numpy", "numba", "auto"])
def test_environment_then_process_then_context(name, monkeypatch):
    monkeypatch.setattr(config, "_environment", "numpy")
    assert get_backend() == "numpy"
    set_backend("numba")
    assert get_backend() == "numba"
    with use_backend(name):
        assert get_backend() == name
        with use_backend("auto"):
            assert get_backend() == "auto"
        assert get_backend() == name
    assert get_backend() == "numba"


def test_environment_is_read_by_a_fresh_process():
    code = "import structmask; print(structmask.get_backend())"
    result = subprocess.run(
        [sys.executable, "-c", code], env={"STRUCTMASK_BACKEND": "numpy"}, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "numpy"


def test_empty_environment_means_nothing(monkeypatch):
    monkeypatch.setattr(config, "_environment", "")
    assert get_backend() == "auto"


def test_context_is_left_after_an_error():
    with pytest.raises(ZeroDivisionError), use_backend("numpy"):
        _ = 1 / 0
    assert get_backend() == "auto"


def test_context_belongs_to_one_thread():
    seen, inside, looked = [], threading.Event(), threading.Event()

    def other():
        inside.wait(5)
        seen.append(get_backend())
        with use_backend("numba"):
            looked.set()
            seen.append(get_backend())

    thread = threading.Thread(target=other)
    thread.start()
    with use_backend("numpy"):
        inside.set()
        assert looked.wait(5)
        assert get_backend() == "numpy"
        thread.join()
    assert seen == ["auto", "numba"]


def test_process_setting_reaches_every_thread():
    set_backend("numpy")
    seen = []
    thread = threading.Thread(target=lambda: seen.append(get_backend()))
    thread.start()
    thread.join()
    assert seen == ["numpy"]


# --- what is refused --------------------------------------------------------------------------------------------------

NAMES = "'auto', 'numba', 'numpy', 'cupy'"


@pytest.mark.parametrize("name", ["NumPy", "gpu", "", None, 3])
def test_unknown_names(name):
    for choose in (set_backend, lambda name: use_backend(name).__enter__()):
        with pytest.raises(ValueError, match=rf"unknown backend {name!r}; choose one of {NAMES}"):
            choose(name)
    assert get_backend() == "auto"


def test_unknown_name_in_the_environment_names_the_variable(monkeypatch):
    monkeypatch.setattr(config, "_environment", "gpu")
    with pytest.raises(ValueError, match=f"unknown STRUCTMASK_BACKEND 'gpu'; choose one of {NAMES}"):
        get_backend()


class Finder:
    """An import system in which importing CuPy does what a test says."""

    def __init__(self, error):
        self.error = error

    def find_spec(self, name, path=None, target=None):
        if name == "cupy":
            raise self.error


def fake_cupy(count, missing=None, version="14.2.0"):
    """A CuPy whose driver answers with a number of devices, or with an error."""

    def get_device_count():
        if isinstance(count, Exception):
            raise count
        return count

    runtime = types.SimpleNamespace(getDeviceCount=get_device_count)
    module = types.ModuleType("cupy")
    module.__version__ = version
    module.cuda = Cuda(runtime, missing)
    return module


class Cuda:
    """Its libraries are loaded when they are asked for, and one of them is missing."""

    def __init__(self, runtime, missing):
        self.runtime, self.missing = runtime, missing

    def __getattr__(self, name):
        if name == self.missing:
            msg = f'Failure finding "lib{name}.so.12":\nNo such file'
            raise ImportError(msg)
        raise AttributeError(name)


def banner(line):
    """As CuPy reports what failed at its import."""
    error = ImportError("\n=====\nFailed to import CuPy.\n")
    error.__cause__ = ImportError(line)
    return error


UNUSABLE = {
    "not installed": (ModuleNotFoundError("No module named 'cupy'", name="cupy"), "CuPy is not installed: pip install"),
    "half installed": (
        ModuleNotFoundError("No module named 'fastrlock'", name="fastrlock"),
        "'fastrlock', which it needs",
    ),
    "broken": (ImportError("libcuda.so.1: cannot open"), r"does not import \(libcuda\.so\.1.*keep exactly one"),
    "broken, at length": (banner("libcuda.so.1: gone"), r"does not import \(libcuda\.so\.1: gone\)"),
    "too old": (fake_cupy(1, version="14.0.0rc1"), r"CuPy 14\.0\.0rc1 is too old: upgrade its wheel to 14\.2"),
    "no library": (fake_cupy(1, "cufft"), r"does not find cufft.*\(Failure finding \"libcufft\.so\.12\":\)"),
    "crashing": (RuntimeError("bad wheel"), r"does not import \(bad wheel\)"),
    "no driver": (fake_cupy(RuntimeError("cudaErrorNoDevice")), r"no usable CUDA driver \(cudaErrorNoDevice\): check"),
    "no device": (fake_cupy(0), "no CUDA device: check nvidia-smi and CUDA_VISIBLE_DEVICES"),
}


@pytest.mark.parametrize("reason", UNUSABLE)
def test_unusable_gpu_fails_at_once_in_one_sentence(reason, monkeypatch):
    found, sentence = UNUSABLE[reason]
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    if isinstance(found, types.ModuleType):
        monkeypatch.setitem(sys.modules, "cupy", found)
    else:
        monkeypatch.setattr(sys, "meta_path", [Finder(found), *sys.meta_path])
    for choose in (set_backend, lambda name: use_backend(name).__enter__()):
        with pytest.raises(BackendError, match=f"backend 'cupy' cannot run here. .*{sentence}") as caught:
            choose("cupy")
        assert "\n" not in str(caught.value)
    assert get_backend() == "auto"


def test_two_wheels_of_cupy_are_one_too_many(monkeypatch):
    monkeypatch.setattr(config, "cupy_wheels", lambda: ("cupy-cuda13x", "cupy-cuda12x"))
    with pytest.raises(BackendError, match="cupy-cuda13x and cupy-cuda12x are installed over each other: uninstall"):
        set_backend("cupy")


def test_wheels_of_cupy_are_found_by_their_metadata(tmp_path, monkeypatch):
    for name in ("cupy_cuda12x", "cupy_cuda13x"):
        folder = tmp_path / f"{name}-14.2.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 14.2.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert config.cupy_wheels.__wrapped__() == ("cupy-cuda13x", "cupy-cuda12x")


def test_usable_gpu_is_accepted(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(1))
    assert config.cupy_status() is None
    set_backend("cupy")
    assert get_backend() == "cupy"


def test_backend_error_is_a_runtime_error():
    assert issubclass(BackendError, RuntimeError)


# --- arrays of other homes --------------------------------------------------------------------------------------------


class DeviceArray:
    """What a device array looks like from outside: its type's module, and numbers that cannot be reached."""

    __array_ufunc__ = None
    dtype = np.dtype("float64")
    device = types.SimpleNamespace(id=0)

    def __init__(self, *shape):
        self.shape, self.ndim = shape, len(shape)

    def __array__(self, *_, **__):
        pytest.fail("a device array was copied to the host silently")

    __float__ = __len__ = __iter__ = __array__


DeviceArray.__module__ = "cupy"


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_device_operand_under_a_host_backend(backend):
    with use_backend(backend):
        for use in (lambda x: Causal(3) @ x, lambda x: Toeplitz(np.ones(5)) @ x):
            with pytest.raises(
                BackendError, match=rf"lives on the GPU but the backend in force is '{backend}'.*to_numpy"
            ):
                use(DeviceArray(3, 2))


@pytest.fixture
def one_gpu(monkeypatch):
    """The current GPU is that of a DeviceArray."""
    for module in (devices, arrays):
        monkeypatch.setattr(module, "current_gpu", lambda: 0)


@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize("backend", ["auto", "numba", "numpy"])
def test_device_operand_with_a_host_matrix(backend):
    with use_backend(backend), pytest.raises(BackendError, match=r"to_numpy|to\('cupy'\)"):
        Toeplitz(np.ones(5)) @ DeviceArray(3, 2)


@pytest.mark.usefixtures("one_gpu")
def test_device_values_in_host_attention():
    x = np.ones((3, 2))
    with pytest.raises(BackendError, match="different places"):
        structmask.masked_attention(x, x, DeviceArray(3, 2))


def test_homes_are_told_without_importing():
    assert arrays.home(DeviceArray(3)) == "cupy"
    assert arrays.home(np.ones(3)) == arrays.home([1.0]) == arrays.home(2.0) == "numpy"
    assert "cupy" not in sys.modules or importlib.util.find_spec("cupy")


def test_to_numpy_takes_every_library():
    x = np.arange(3.0)
    assert to_numpy(x) is x
    np.testing.assert_array_equal(to_numpy([1, 2]), [1, 2])
    for library in ("torch", "array_api_strict"):
        xp = pytest.importorskip(library)
        np.testing.assert_array_equal(to_numpy(xp.asarray([0.0, 1.0, 2.0])), x)


def test_to_numpy_detaches_a_tensor_that_requires_grad():
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(to_numpy(torch.ones(2, requires_grad=True)), [1.0, 1.0])


@pytest.mark.gpu
def test_explicit_cupy_moves_host_arrays_and_keeps_results_there():
    cupy = pytest.importorskip("cupy")
    with use_backend("cupy"):
        for matrix in (Toeplitz(np.arange(5.0)), Causal(3, decay=np.ones(3)), Causal(3)):
            Y = matrix @ np.ones((3, 2))
            assert isinstance(Y, cupy.ndarray)
            assert isinstance(matrix.to_dense(), cupy.ndarray)
            np.testing.assert_allclose(to_numpy(Y), to_numpy(matrix.to_dense()) @ np.ones((3, 2)))
    assert isinstance(Toeplitz(np.arange(5.0)) @ np.ones(3), np.ndarray)
