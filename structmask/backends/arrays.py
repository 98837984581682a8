"""Arrays at the public boundary: where they live, their precision, and how they get elsewhere.

An array's *home* is the library that holds it ("numpy", "cupy", or another array-API namespace), told from the name
of its type's module so that no library is imported merely to look at an array. Its *precision* is "float32" or
"float64", whether it is real or complex.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse

from structmask.backends.config import BackendError, get_backend
from structmask.backends.devices import check_current, check_one, current_gpu, gpu_of, imported

Array: TypeAlias = Any  # an array of any array-API library
Namespace: TypeAlias = Any  # the module that makes such arrays

_INEXACT = ("float32", "float64", "complex64", "complex128")
_PRECISION = {"float32": "float32", "float64": "float64", "complex64": "float32", "complex128": "float64"}
_COMPLEX = {"float32": "complex64", "float64": "complex128"}


def home(x: object) -> str:
    """Name of the library an array lives in; "numpy" for data of other kinds (lists, scalars, scipy.sparse, DLPack)."""
    kind: Any = type(x)
    return _home_of(kind)


@lru_cache(maxsize=256)
def _home_of(kind: Any) -> str:
    root: str = kind.__module__.partition(".")[0]
    if root in ("cupy", "cupyx"):
        return "cupy"
    if root in ("numpy", "scipy", "builtins", "jax", "jaxlib") or not hasattr(kind, "__array_namespace__"):
        return "torch" if root == "torch" else "numpy"
    return root


def namespace(x: Array) -> Namespace:
    """The module whose functions take this array."""
    return namespace_called(home(x))


def namespace_called(name: str) -> Namespace:
    """The module of a home."""
    return np if name == "numpy" else importlib.import_module(name)


def is_sparse(x: Any) -> bool:
    """Whether x is a scipy.sparse or cupyx.scipy.sparse array or matrix."""
    return bool(scipy.sparse.issparse(x)) or (".sparse" in type(x).__module__ and home(x) == "cupy")


def dtype_name(x: Any) -> str:
    """Name of an array's dtype ("float32", "complex128", "int64", ...), the same in every library."""
    dtype = x.dtype
    return _name(dtype) if isinstance(dtype, np.dtype) else str(dtype).rpartition(".")[2]


@lru_cache(maxsize=64, typed=True)  # dtypes of two libraries may have one hash, and do not like to be compared
def _name(dtype: np.dtype[Any]) -> str:
    return dtype.name


@lru_cache(maxsize=1024)
def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """As `numpy.broadcast_shapes`, remembered: small products have no time to work it out again."""
    return np.broadcast_shapes(*shapes)


def is_complex(x: Any) -> bool:
    """Whether an array or a Python scalar is complex."""
    if type(x) is np.ndarray:  # asked often, also where a product takes no longer than the question
        return bool(x.dtype.kind == "c")
    return isinstance(x, complex) or (hasattr(x, "dtype") and dtype_name(x).startswith("complex"))


def precision(x: Any) -> str:
    """The "float32" or "float64" in which an array's numbers are held."""
    return _PRECISION[dtype_name(x)]


def dtype_of(precision: str, *, complex_: bool) -> str:
    """Name of the real or complex dtype of a precision."""
    return _COMPLEX[precision] if complex_ else precision


def unit_roundoff(precision: str) -> float:
    """Largest relative error of rounding to nearest in a precision."""
    return float(np.finfo(precision).eps) / 2


def cast(x: Array, dtype: str) -> Array:
    """An array in the dtype of that name; the array itself when it has it already."""
    if dtype_name(x) == dtype:
        return x
    if is_sparse(x):
        return x.astype(dtype)
    xp = namespace(x)
    return xp.asarray(x, dtype=getattr(xp, dtype))


def cast_precision(x: Array, precision: str) -> Array:
    """An array in another precision, real or complex as before."""
    return cast(x, dtype_of(precision, complex_=is_complex(x)))


def move(x: Array, target: str) -> Array:
    """An array (or sparse matrix) in another home, on its current device: the only place where anything is moved."""
    source = home(x)
    if source == target and (target != "cupy" or gpu_of(x) == current_gpu()):
        return x
    if target == "cupy":
        return _to_cupy(x)
    if target == "numpy":
        return to_numpy(x)
    if source == "numpy":
        return importlib.import_module(target).asarray(x)
    msg = f"cannot move an array from {source} to {target}; pass it through structmask.to_numpy first"
    raise BackendError(msg)


def placed(owner: Any, name: str, target: str) -> Any:
    """An attribute of an object, an array or a tuple of them on the host, in a home: moved once and kept."""
    copies = owner.__dict__.setdefault("_copies", {})
    key = (name, target, device_of(target))
    if key not in copies:
        own = getattr(owner, name)
        copies[key] = tuple(move(a, target) for a in own) if isinstance(own, tuple) else move(own, target)
    return copies[key]


def device_of(target: str) -> int:
    """Number of the current device of a home, 0 on the host."""
    return current_gpu() if target == "cupy" else 0


def csr(data: Array, indices: Array, indptr: Array, shape: tuple[int, int]) -> Array:
    """A sparse matrix made of arrays, in their home."""
    if home(data) == "cupy":
        import cupyx.scipy.sparse

        return cupyx.scipy.sparse.csr_matrix((data, indices, indptr), shape=shape)
    return scipy.sparse.csr_array((data, indices, indptr), shape=shape)


def _to_cupy(x: Array) -> Array:
    import cupy

    if home(x) == "numpy" and is_sparse(x):
        import cupyx.scipy.sparse

        return cupyx.scipy.sparse.csr_matrix(scipy.sparse.csr_matrix(x))
    if is_sparse(x):
        data, indices, indptr = map(cupy.asarray, (x.data, x.indices, x.indptr))
        return csr(data, indices, indptr, x.shape)
    return cupy.asarray(x)


def to_numpy(x: Array, /) -> Array:
    """An array of any library as a NumPy array on the host (scipy.sparse for a sparse one).

    Parameters
    ----------
    x : array
        NumPy, CuPy, array-API, torch or any array that exports DLPack. A NumPy array comes back as it is.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import to_numpy
    >>> to_numpy(np.arange(3))
    array([0, 1, 2])
    """
    if hasattr(x, "get") and home(x) == "cupy":
        return x.get()
    if home(x) == "torch":
        return x.detach().cpu().numpy()
    if isinstance(x, np.ndarray) or scipy.sparse.issparse(x):
        return x
    found = imported(x, "the array")
    return found.get() if home(found) == "cupy" else found


def as_array(x: Any, what: str) -> Array:
    """A dense array of a supported dtype, where it lives; integers and booleans become float64.

    Raises TypeError for tensors, sparse matrices and other dtypes; `what` names the argument in the message.
    """
    if home(x) == "torch":
        own = "cupy.from_dlpack(x.detach())" if getattr(x, "is_cuda", False) else "x.numpy()"
        msg = f"{what} is a torch tensor; use structmask.adapters.torch, which keeps gradients, or pass {own}"
        raise TypeError(msg)
    if is_sparse(x):
        msg = f"{what} is a sparse matrix; wrap it as structmask.Sparse(x), or pass x.toarray()"
        raise TypeError(msg)
    if home(x) == "numpy":
        x = imported(x, what)
    return as_inexact(x, what)


def as_operand(x: Any, what: str) -> Array:
    """As `as_array`, and where the backend in force wants it."""
    return settle(as_array(x, what), what)


def as_inexact(x: Array, what: str) -> Array:
    """A dense or sparse array as float32, float64 or complex; integers and booleans become float64."""
    name = dtype_name(x)
    if name in _INEXACT:
        return x if getattr(x.dtype, "isnative", True) else x.astype(name)  # kernels read the processor's byte order
    if name == "bool" or name.startswith(("int", "uint")):
        return cast(x, "float64")
    msg = (
        f"{what} has dtype {name}; structmask computes in float32, float64, complex64 and complex128: "
        "cast it to one of them"
    )
    raise TypeError(msg)


def settle(x: Array, what: str) -> Array:
    """An array where the backend in force wants it: host arrays move to an explicit "cupy", the reverse raises."""
    target = settled_home(home(x), what)
    if home(x) == "cupy":
        check_current([gpu_of(x)], what)
    return move(x, target)


def settled_home(own: str, what: str) -> str:
    """Where the backend in force wants what is in a home."""
    backend = get_backend()
    if backend == "cupy" and own == "numpy":
        return "cupy"
    if backend in ("numba", "numpy") and own == "cupy":
        msg = (
            f"{what} lives on the GPU but the backend in force is {backend!r}; pass "
            "structmask.to_numpy(x), or set_backend('auto')"
        )
        raise BackendError(msg)
    return own


def common_home(arrays: Iterable[Array], what: str) -> str | None:
    """The one home of several arrays, None if there are none; raises BackendError if they are mixed."""
    arrays = list(arrays)
    homes = sorted({home(x) for x in arrays})
    if len(homes) > 1:
        msg = (
            f"{what} live in different places ({' and '.join(homes)}); move them to one: "
            "matrix.to('cupy'), or structmask.to_numpy(x)"
        )
        raise BackendError(msg)
    if homes == ["cupy"]:
        check_one({gpu_of(x) for x in arrays}, what)
    return homes[0] if homes else None


def as_arrays(*named: tuple[str, Any]) -> list[Array]:
    """Several operands settled in one home and promoted to one precision."""
    if _are_alike([x for _, x in named]):
        return [x for _, x in named]
    arrays = [as_operand(x, what) for what, x in named]
    common_home(arrays, ", ".join(what for what, _ in named))
    common = max(precision(x) for x in arrays)
    return [cast_precision(x, common) for x in arrays]


def _are_alike(operands: list[Any]) -> bool:
    """Whether operands are host arrays of one supported dtype that nothing needs to be done to."""
    dtype = getattr(operands[0], "dtype", None)
    for x in operands:  # the plain loop that a small product has time for
        if type(x) is not np.ndarray or (x.dtype is not dtype and x.dtype != dtype):
            return False
    own = operands[0].dtype
    return own.isnative and _name(own) in _INEXACT and get_backend() != "cupy"


def fft_module(xp: Namespace) -> Any:
    """The FFT functions to use with a namespace; all of them keep single precision."""
    if xp is np:
        import scipy.fft

        return scipy.fft
    return xp.fft


def as_same_kind(*operands: Array) -> list[Array]:
    """Arrays of one precision, all complex if one of them is."""
    if not any(map(is_complex, operands)):
        return list(operands)
    return [cast(x, dtype_of(precision(x), complex_=True)) for x in operands]


def one_batch(*operands: Array, batch: tuple[int, ...] = ()) -> list[Array]:
    """Arrays (..., n, k) with the leading axes of all of them, and of a batch."""
    xp = namespace(operands[0])
    common = np.broadcast_shapes(batch, *(tuple(x.shape[:-2]) for x in operands))
    return [xp.broadcast_to(x, (*common, *x.shape[-2:])) for x in operands]


def conj(a: Array) -> Array:
    """The complex conjugate; the array itself where it is real."""
    return namespace(a).conj(a) if is_complex(a) else a


def row_products(A: Array, B: Array) -> Array:
    """Sums (..., n) of A_i * B_i over the rows of two arrays (..., n, k), without holding their product on a host."""
    xp = namespace(A)
    return np.einsum("...k,...k->...", A, B) if xp is np else xp.sum(A * B, axis=-1)


def block_entries(x: Array) -> int:
    """How many numbers a block of scratch may hold: the last-level cache of a host, enough to fill a GPU."""
    return 1 << 25 if home(x) == "cupy" else 1 << 21


def blocks(size: int, step: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of at most `step` that cover range(size): the standard allows no slice beyond the end."""
    for start in range(0, size, step):
        yield start, min(start + step, size)
