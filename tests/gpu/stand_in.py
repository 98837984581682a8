"""A stand-in for CuPy: NumPy on a pretended device, as strict as CuPy about what may meet what.

Its names and the arguments of its functions are those of a real CuPy (`cupy_api.json`). Host arrays never mix with
device arrays; they cross over through `asarray` and `get` alone. Crossings and hidden synchronisations (the truth or
value of an array, shapes that depend on data) are counted, and raise inside `forbid`. There are two devices, and what
is computed with has to be on the current one. Raw kernels are the CUDA sources, run by `emulator`. `installed()` puts
all this where `import cupy` finds it.
"""

import contextlib
import inspect
import json
import sys
import types

import numpy as np
import scipy.sparse

from tests.gpu import emulator
from tests.gpu.record_api import MARKS, RECORD

API = json.loads(RECORD.read_text())
KINDS = ("to_device", "to_host", "synchronisation")

DEVICES = 2

events = dict.fromkeys(KINDS, 0)
_forbidden = set()
_current = [0]  # devices entered, the last one is current


class TransferError(RuntimeError):
    """Something crossed between host and device, or waited for the device, where that was forbidden."""


def note(kind, what):
    """Count an event, and raise where it is forbidden."""
    events[kind] += 1
    if kind in _forbidden:
        msg = f"{kind} by {what}"
        raise TransferError(msg)


@contextlib.contextmanager
def forbid(*kinds):
    """Inside, events of these kinds (all by default) raise TransferError."""
    before = set(_forbidden)
    _forbidden.update(kinds or KINDS)
    try:
        yield
    finally:
        _forbidden.clear()
        _forbidden.update(before)


# --- arrays -----------------------------------------------------------------------------------------------------------


class ndarray:
    """An array of a pretended device; `held` is where its numbers are, for the emulator and this module only."""

    __slots__ = ("held", "number")
    __module__ = "cupy"
    __hash__ = None

    def __init__(self, held, number=None):
        self.held, self.number = held, _current[-1] if number is None else number

    device = property(lambda self: Device(self.number))

    def get(self):
        note("to_host", ".get()")
        return self.held.copy()

    def item(self):
        note("synchronisation", ".item()")
        return self.held.item()

    def tolist(self):
        note("to_host", ".tolist()")
        return self.held.tolist()

    def __dlpack__(self, **options):
        return self.held.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.held.__dlpack_device__()

    def __array__(self, *_, **__):
        msg = "Implicit conversion to a NumPy array is not allowed. Please use `.get()`"
        raise TypeError(msg)

    def __array_function__(self, host, _, given, options):
        """NumPy's functions hand device arrays over to CuPy's of the same name."""
        return getattr(MODULES["cupy"], host.__name__)(*given, **options)

    def __array_ufunc__(self, ufunc, method, *given, **options):
        if method != "__call__" or options:
            return NotImplemented
        return getattr(MODULES["cupy"], ufunc.__name__)(*given)

    def __getitem__(self, index):
        return wrapped(unwrapped(self)[indices(index)])

    def __setitem__(self, index, value):
        unwrapped(self)[indices(index)] = unwrapped(value)

    def __len__(self):
        return len(self.held)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        return f"device array of shape {self.shape} and dtype {self.dtype}"


def _value(name):
    def method(self):
        note("synchronisation", name)
        return getattr(unwrapped(self), name)()

    return method


def _property(name):
    return property(lambda self: wrapped(getattr(self.held, name)))


def _operator(name):
    def method(self, *others):
        if any(isinstance(other, np.ndarray) for other in others):
            msg = f"Unsupported type numpy.ndarray: a host array met a device array in {name}"
            raise TypeError(msg)
        if any(not isinstance(other, (ndarray, int, float, complex, np.generic)) for other in others):
            return NotImplemented
        result = getattr(unwrapped(self), name)(*map(unwrapped, others))
        return self if name[2:].startswith("i") and name[3:] in _IN_PLACE else wrapped(result)

    return method


def _method(name):
    def method(self, *arguments, **options):
        if name == "nonzero" or (name == "repeat" and isinstance(arguments[0], ndarray)):
            note("synchronisation", name)
        options = {key: unwrapped(value) for key, value in options.items()}
        return wrapped(getattr(unwrapped(self), name)(*map(unwrapped, arguments), **options))

    return method


_IN_PLACE = {name[3:] for name in API["cupy.ndarray"] if name.startswith("__i") and name != "__invert__"}
for _name in API["cupy.ndarray"]:
    if hasattr(ndarray, _name) and _name not in ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"):
        continue
    if _name.startswith("__"):
        setattr(ndarray, _name, _operator(_name))
    elif hasattr(np.ndarray, _name):
        callable_ = callable(getattr(np.ndarray, _name))
        setattr(ndarray, _name, _method(_name) if callable_ else _property(_name))
for _name in ("__bool__", "__int__", "__float__", "__complex__", "__index__"):
    setattr(ndarray, _name, _value(_name))


def wrapped(x):
    """Host results as device ones: arrays and scalars, in tuples and lists too."""
    if isinstance(x, (np.ndarray, np.generic)):
        return ndarray(np.asarray(x))
    if isinstance(x, (tuple, list)) and any(isinstance(e, np.ndarray) for e in x):
        return (list if isinstance(x, list) else tuple)(map(wrapped, x))  # named tuples, too
    return x


def unwrapped(x):
    """Device arrays as what holds them; a host array in their place is an error."""
    if isinstance(x, ndarray):
        if x.number != _current[-1]:
            msg = f"Array device must be same as the current device: {x.number} is not {_current[-1]}"
            raise ValueError(msg)
        return x.held
    if isinstance(x, np.ndarray):
        msg = "Unsupported type numpy.ndarray: a host array was passed to a device function"
        raise TypeError(msg)
    return type(x)(map(unwrapped, x)) if type(x) in (tuple, list) else x


def indices(index):
    """An index of device arrays; host arrays and lists in it are uploaded, a mask makes the host wait for its count."""
    if isinstance(index, tuple):
        return tuple(map(indices, index))
    if isinstance(index, (np.ndarray, list)):
        note("to_device", "an index on the host")
        return index
    if isinstance(index, ndarray) and index.dtype == bool:
        note("synchronisation", "an index by a mask")
    return unwrapped(index) if isinstance(index, ndarray) else index


# --- modules ----------------------------------------------------------------------------------------------------------

DATA_DEPENDENT = {"allclose", "argwhere", "array_equal", "bincount", "flatnonzero", "nonzero", "unique"}
FROM_LISTS = {
    "zeros",
    "ones",
    "empty",
    "full",
    "array",
    "asarray",
    "concat",
    "concatenate",
    "stack",
    "hstack",
    "vstack",
    "meshgrid",
    "broadcast_arrays",
}


class Module(types.ModuleType):
    """NumPy's functions under CuPy's names: those that CuPy has, with the arguments that it takes."""

    def __init__(self, name, host):
        super().__init__(name)
        self._host = host

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        full = f"{self.__name__}.{name}"
        if name not in API[self.__name__]:
            msg = f"CuPy {API['version']} has no {full}"
            raise AttributeError(msg)
        thing = getattr(self._host, name)
        if not callable(thing) or isinstance(thing, type):
            return thing
        setattr(self, name, function(full, thing, API[self.__name__][name]))
        return self.__dict__[name]


def function(full, host, arguments):
    """A function of NumPy on device arrays, called as CuPy allows."""
    name, signature = full.rpartition(".")[2], arguments and as_signature(arguments)

    def call(*given, **options):
        if signature:
            try:
                signature.bind(*given, **options)
            except TypeError as error:
                msg = f"CuPy's {full}({arguments}): {error}"
                raise TypeError(msg) from None
        if given and type(given[0]) is list and name not in FROM_LISTS:
            msg = f"{full} takes no list"
            raise TypeError(msg)
        if name in DATA_DEPENDENT or (name == "where" and len(given) == 1):
            note("synchronisation", full)
        result = host(*map(unwrapped, given), **{key: unwrapped(value) for key, value in options.items()})
        if name in ("empty", "empty_like"):
            result.view(np.uint8)[...] = 255  # NaN, or -1: whoever reads it will notice
        return wrapped(result)

    call.__name__ = name
    return call


def as_signature(arguments):
    """The inverse of `record_api.arguments`."""
    kinds = {mark: kind for kind, mark in MARKS.items()}
    parameters = []
    for word in arguments.split():
        name = word.lstrip("*!")
        kind = kinds.get(word[: -len(name)], inspect.Parameter.POSITIONAL_OR_KEYWORD)
        default = None if name.endswith("=") else inspect.Parameter.empty
        parameters.append(inspect.Parameter(name.rstrip("="), kind, default=default))
    return inspect.Signature(parameters)


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    if isinstance(a, ndarray):
        if a.number != _current[-1]:
            note("to_device", "asarray of an array on another device")
            a = ndarray(a.held.copy())
        return a if dtype is None or a.dtype == dtype else a.astype(dtype)
    if not isinstance(a, (int, float, complex, np.generic)):
        note("to_device", "asarray")
    return ndarray(np.array(unwrapped(a) if isinstance(a, (list, tuple)) else a, dtype=dtype, order=order or "K"))


def from_dlpack(x):
    """The memory of what another library holds, on the device where it says that it is."""
    kind, number = x.__dlpack_device__()
    held = np.from_dlpack(types.SimpleNamespace(__dlpack__=x.__dlpack__, __dlpack_device__=lambda: (1, 0)))
    return ndarray(held, number if kind == CUDA else None)


CUDA = 2  # device type of DLPack


class Device:
    """A device, and a context in which it is current."""

    def __init__(self, number=None):
        self.id = _current[-1] if number is None else number

    def __enter__(self):
        _current.append(self.id)
        return self

    def __exit__(self, *_):
        _current.pop()


# --- sparse matrices --------------------------------------------------------------------------------------------------


class csr_matrix:
    """A CSR matrix on the device: made from another, from scipy's, or from (data, indices, indptr)."""

    __module__ = "cupyx.scipy.sparse"
    __array_ufunc__ = None
    format = "csr"

    def __init__(self, given, shape=None, dtype=None):
        if scipy.sparse.issparse(given):
            note("to_device", "csr_matrix")
            parts = given.tocsr().astype(dtype or given.dtype, copy=True)
        elif isinstance(given, tuple):
            if not all(isinstance(a, ndarray) for a in given):
                msg = "csr_matrix takes (data, indices, indptr) on the device"
                raise TypeError(msg)
            parts = scipy.sparse.csr_matrix(tuple(a.held for a in given), shape=shape, dtype=dtype)
        else:
            parts = given.held.astype(dtype or given.dtype)
        self.held, self.known_canonical = parts, False
        self.number = given[0].number if isinstance(given, tuple) else _current[-1]
        if parts.indices.dtype != np.int32:
            parts.indices, parts.indptr = parts.indices.astype(np.int32), parts.indptr.astype(np.int32)

    data = property(lambda self: ndarray(self.held.data, self.number))
    indices = property(lambda self: ndarray(self.held.indices, self.number))
    indptr = property(lambda self: ndarray(self.held.indptr, self.number))
    device = property(lambda self: Device(self.number))
    shape = property(lambda self: self.held.shape)
    ndim = property(lambda self: 2)
    dtype = property(lambda self: self.held.dtype)
    nnz = property(lambda self: self.held.nnz)
    T = property(lambda self: self.transpose())

    def transpose(self):
        return type(self)(_Held(self.held.T.tocsr()))

    def astype(self, dtype):
        return type(self)(_Held(self.held.astype(dtype)))

    @property
    def has_canonical_format(self):
        if not self.known_canonical:
            note("synchronisation", "has_canonical_format")  # a kernel looks, and the host waits for what it saw
            self.known_canonical = bool(self.held.has_canonical_format)
        return self.known_canonical

    @has_canonical_format.setter
    def has_canonical_format(self, known):
        self.known_canonical = known

    def tocsr(self):
        return self

    def copy(self):
        return type(self)(_Held(self.held.copy()))

    def conj(self):
        return type(self)(_Held(self.held.conj()))

    def toarray(self):
        return ndarray(self.held.toarray())

    def get(self):
        note("to_host", "csr_matrix.get()")
        return self.held.copy()

    real = property(lambda self: type(self)(_Held(self.held.real)))
    imag = property(lambda self: type(self)(_Held(self.held.imag)))

    def __getitem__(self, index):
        if not all(isinstance(i, slice) for i in (index if isinstance(index, tuple) else (index,))):
            msg = "the stand-in's sparse matrices have slices only"
            raise TypeError(msg)
        return type(self)(_Held(self.held[index]))

    def sum_duplicates(self):
        note("synchronisation", "sum_duplicates")
        self.held.sum_duplicates()

    def __matmul__(self, other):
        if isinstance(other, csr_matrix):
            note("synchronisation", "the pattern of a sparse product")
            return type(self)(_Held(self.held @ other.held))
        return ndarray(self.held @ unwrapped(other)) if isinstance(other, ndarray) else NotImplemented

    def __abs__(self):
        return type(self)(_Held(abs(self.held)))

    def __add__(self, other):
        return type(self)(_Held(self.held + other.held)) if isinstance(other, csr_matrix) else NotImplemented

    def __mul__(self, scalar):
        if not isinstance(scalar, (int, float, complex, np.generic)):
            return NotImplemented
        return type(self)(_Held(self.held * scalar))

    __rmul__ = __mul__


class _Held:
    """What a sparse matrix is made from without a transfer."""

    def __init__(self, held):
        self.held, self.dtype = held, held.dtype


# --- the modules as they are imported ---------------------------------------------------------------------------------


def _modules():
    cupy = Module("cupy", np)
    cupy.__version__ = API["version"]
    cupy.ndarray, cupy.RawModule = ndarray, emulator.RawModule
    cupy.array = cupy.asarray = asarray
    cupy.from_dlpack = from_dlpack
    cupy.fft, cupy.linalg = Module("cupy.fft", np.fft), Module("cupy.linalg", np.linalg)
    cupy.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(
            getDeviceCount=lambda: DEVICES,
            getDevice=lambda: _current[-1],
            getDeviceProperties=lambda _: {"name": b"stand-in", "totalGlobalMem": 3 << 30, "major": 9, "minor": 0},
            driverGetVersion=lambda: 13010,
            runtimeGetVersion=lambda: 12090,
        ),
        Device=Device,
        ExternalStream=lambda stream, device: contextlib.nullcontext((stream, device)),
    )
    sparse = types.ModuleType("cupyx.scipy.sparse")
    sparse.csr_matrix = csr_matrix
    sparse.issparse = lambda x: isinstance(x, csr_matrix)
    scipy_, cupyx = types.ModuleType("cupyx.scipy"), types.ModuleType("cupyx")
    scipy_.sparse, cupyx.scipy = sparse, scipy_
    return {
        "cupy": cupy,
        "cupy.fft": cupy.fft,
        "cupy.linalg": cupy.linalg,
        "cupyx": cupyx,
        "cupyx.scipy": scipy_,
        "cupyx.scipy.sparse": sparse,
    }


MODULES = _modules()


@contextlib.contextmanager
def installed():
    """A context in which `import cupy` finds the stand-in; what else is imported meanwhile stays."""
    before = {name: sys.modules.get(name) for name in MODULES}
    sys.modules.update(MODULES)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
