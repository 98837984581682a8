"""What every structured matrix is made of: a frozen dataclass whose fields generate it.

Fields that hold numbers (arrays, sparse matrices, Python floats, matrices again), and are not computed from others,
are its *generators*. They can be read, replaced, cast, moved and conjugated alike, whatever the structure; everything
else in a field is an option.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, Self, TypeAlias

import numpy as np

from structmask.backends import arrays, devices
from structmask.backends.arrays import Array
from structmask.backends.config import BackendError, get_backend

Gradients: TypeAlias = dict[Any, Any]  # from field name (or position) to an array or again Gradients


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Generated:
    """A frozen dataclass of generators."""

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Precision of the widest generator, complex if any is; float64 where there are only Python scalars."""
        leaves = list(self._leaves())
        width = max((arrays.precision(x) for x in leaves if hasattr(x, "dtype")), default="float64")
        return np.dtype(arrays.dtype_of(width, complex_=any(map(arrays.is_complex, leaves))))

    def _generators(self) -> Iterator[tuple[str, Any]]:
        """Fields that hold numbers, if they are given: arrays, Python floats, matrices, tuples of matrices."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not field.init:  # computed from the others
                continue
            if _is_leaf(value) or isinstance(value, Generated) or _is_matrices(value):
                yield field.name, value

    def _leaves(self) -> Iterator[Any]:
        for _, value in self._generators():
            if _is_leaf(value):
                yield value
            else:
                for matrix in (value,) if isinstance(value, Generated) else value:
                    yield from matrix._leaves()

    def _map(self, function: Callable[[Any], Any]) -> Self:
        """The same structure with a function applied to every array or scalar that generates it."""

        def mapped(value: Any) -> Any:
            if isinstance(value, Generated):
                return value._map(function)
            return tuple(map(mapped, value)) if isinstance(value, tuple) else function(value)

        return dataclasses.replace(self, **{name: mapped(value) for name, value in self._generators()})

    @property
    def parameters(self) -> dict[str, Any]:
        """Generators by field name: arrays, scalars, the stored entries of sparse ones, nested dicts for matrices."""
        return {name: _parameter(value) for name, value in self._generators()}

    def with_parameters(self, parameters: Mapping[Any, Any] | None = None, /, **changes: Any) -> Self:
        """The same structure with other generators, given as in `parameters`; those not given stay.

        Raises
        ------
        ValueError
            If a name is not a parameter of this matrix.
        """
        new = {**(parameters or {}), **changes}
        own = dict(self._generators())
        if unknown := set(new) - set(own):
            msg = f"{type(self).__name__} has no parameters {sorted(map(str, unknown))}; it has {sorted(own)}"
            raise ValueError(msg)
        return dataclasses.replace(self, **{name: _with_parameter(own[name], value) for name, value in new.items()})

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def conj(self) -> Self:
        """The complex conjugate: every structure is a real polynomial in its generators."""
        if self.dtype.kind != "c":
            return self
        return self._map(lambda x: x.conjugate() if isinstance(x, complex | float) else _conjugated(x))

    def astype(self, dtype: Any, /) -> Self:
        """The matrix with generators of another precision (or complex)."""
        target = np.dtype(dtype)
        if target.name not in arrays._PRECISION:
            msg = f"cannot hold a structured matrix in {target}; choose float32, float64, complex64 or complex128"
            raise TypeError(msg)
        if self.dtype.kind == "c" and target.kind != "c":
            msg = f"cannot cast {self!r} to {target} without losing its imaginary part"
            raise TypeError(msg)
        if target.kind == "c":
            return self._map(lambda x: arrays.cast(x, target.name) if hasattr(x, "dtype") else complex(x))
        return self._map(lambda x: arrays.cast(x, target.name) if hasattr(x, "dtype") else x)

    def to(self, backend: str, /) -> Self:
        """The matrix with generators moved: "cupy" for the current GPU, "numpy" or "numba" for the host."""
        if backend not in ("cupy", "numpy", "numba"):
            msg = f"unknown place {backend!r}; choose 'numpy' (or 'numba') for the host, 'cupy' for the GPU"
            raise ValueError(msg)
        target = "cupy" if backend == "cupy" else "numpy"
        return self._map(lambda x: arrays.move(x, target) if hasattr(x, "dtype") else x)

    def _placed(self, X: Array) -> Self:
        """The matrix with generators in the precision and home of an operand; remembered, plans included."""
        width, target = arrays.precision(X), arrays.home(X)
        if target == "cupy":
            devices.check_current(self._gpus, self)
        if not self._places or self._places == {(width, target)}:
            return self
        self._check_home(target)
        memory, key = self.__dict__.setdefault("_copies", {}), (width, target, arrays.device_of(target))
        if key not in memory:
            memory[key] = self._place(width, target)
        copy: Self = memory[key]
        return copy

    def _place(self, width: str, target: str) -> Self:
        """The structure with its generators cast and moved; one that needs them exact in double leaves the cast out."""

        def placed(value: Any) -> Any:
            if isinstance(value, Generated):
                return value._place(width, target)
            if isinstance(value, tuple):
                return tuple(map(placed, value))
            return arrays.cast_precision(arrays.move(value, target), width) if hasattr(value, "dtype") else value

        return dataclasses.replace(self, **{name: placed(value) for name, value in self._generators()})

    def _settled(self) -> Self:
        """The matrix where the backend in force wants it, generators of several precisions in the widest of them."""
        if self._home == "cupy":
            devices.check_current(self._gpus, self)
        target = "cupy" if get_backend() == "cupy" and self._home == "numpy" else self._home
        is_mixed = len({width for width, _ in self._places}) > 1
        if target == self._home and not is_mixed:
            return self
        memory, key = self.__dict__.setdefault("_copies", {}), ("as it is", target, arrays.device_of(target))
        if key not in memory:
            memory[key] = self._place(arrays.precision(self), target) if is_mixed else self.to(target)
        copy: Self = memory[key]
        return copy

    def _check_home(self, target: str) -> None:
        strangers = {place for _, place in self._places} - {target}
        if strangers and not (target == "cupy" and get_backend() == "cupy"):
            msg = (
                f"the operand lives in {target} but {self!r} lives in {' and '.join(sorted(strangers))}; "
                "move one of them: matrix.to('cupy') or structmask.to_numpy(x)"
            )
            raise BackendError(msg)

    @cached_property
    def _places(self) -> frozenset[tuple[str, str]]:
        return frozenset((arrays.precision(x), arrays.home(x)) for x in self._leaves() if hasattr(x, "dtype"))

    @cached_property
    def _gpus(self) -> frozenset[int]:
        """Which GPUs generators are on."""
        leaves = (x for x in self._leaves() if hasattr(x, "dtype"))
        return frozenset(devices.gpu_of(x) for x in leaves if arrays.home(x) == "cupy")

    @property
    def _home(self) -> str:
        """Where the generators live; where the backend in force computes if there are none."""
        return next((place for _, place in self._places), "cupy" if get_backend() == "cupy" else "numpy")


def _is_leaf(value: Any) -> bool:
    return isinstance(value, float | complex) or (hasattr(value, "dtype") and not isinstance(value, Generated))


def _is_matrices(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) > 0 and all(isinstance(x, Generated) for x in value)


def _conjugated(x: Array) -> Array:
    return x.conj() if arrays.is_sparse(x) else arrays.namespace(x).conj(x)


def _parameter(value: Any) -> Any:
    if isinstance(value, Generated):
        return value.parameters
    if isinstance(value, tuple):
        return {index: matrix.parameters for index, matrix in enumerate(value)}
    return value.data if arrays.is_sparse(value) else value


def _with_parameter(old: Any, new: Any) -> Any:
    if isinstance(old, Generated):
        return old.with_parameters(new)
    if isinstance(old, tuple):
        return tuple(matrix.with_parameters(new.get(index, {})) for index, matrix in enumerate(old))
    return with_data(old, new) if arrays.is_sparse(old) and not arrays.is_sparse(new) else new


def added(a: Gradients, b: Gradients) -> Gradients:
    """Gradients of one structure, generator by generator."""
    return {key: added(a[key], b[key]) if isinstance(a[key], dict) else a[key] + b[key] for key in a}


def cast_gradients(gradients: Gradients, width: str) -> Gradients:
    """Gradients in a precision."""
    return {
        key: cast_gradients(g, width) if isinstance(g, dict) else arrays.cast_precision(g, width)
        for key, g in gradients.items()
    }


def zero_gradients(matrix: Generated, like: Array) -> Gradients:
    """Zero gradients for all generators of a matrix."""
    zeros: Gradients = _zeros_like(matrix.parameters, like)
    return zeros


def _zeros_like(parameter: Any, like: Array) -> Any:
    """Zeros in the shape of a parameter, or of every parameter in a nested dict."""
    if isinstance(parameter, dict):
        return {name: _zeros_like(value, like) for name, value in parameter.items()}
    xp = arrays.namespace(like)
    name = arrays.dtype_of(arrays.precision(like), complex_=arrays.is_complex(parameter))
    return xp.zeros(tuple(getattr(parameter, "shape", ())), dtype=getattr(xp, name))


def with_data(csr: Array, data: Array) -> Array:
    """A sparse matrix with the same pattern and other stored entries."""
    if tuple(data.shape) != tuple(csr.data.shape):
        msg = f"a sparse generator with {csr.data.shape[0]} stored entries needs as many, got shape {tuple(data.shape)}"
        raise ValueError(msg)
    return type(csr)((data, csr.indices, csr.indptr), shape=csr.shape)


def unbroadcast(gradient: Array, shape: tuple[int, ...], *, complex_: bool) -> Array:
    """A gradient summed over the dimensions along which its parameter was broadcast; real for a real parameter."""
    xp = arrays.namespace(gradient)
    if extra := gradient.ndim - len(shape):
        gradient = xp.sum(gradient, axis=tuple(range(extra)))
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1 and gradient.shape[axis] != 1)
    if axes:
        gradient = xp.sum(gradient, axis=axes, keepdims=True)
    return xp.real(gradient) if arrays.is_complex(gradient) and not complex_ else gradient
