"""Vectors of the processor in numba: complex numbers whose lanes are columns.

A *row* is 2V numbers: V real parts, then V imaginary parts. Lane c of a row belongs to column c, so one butterfly on
rows is the same butterfly on V columns, without shuffles. numba has no vector type; the functions marked `@kernel`
write LLVM instructions themselves. They are called from compiled code like any other function.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from llvmlite import binding, ir
from numba import config
from numba.core import cgutils, types
from numba.extending import intrinsic

RELAXED = ("contract", "nsz", "arcp")
INT64, INT32, BIT = ir.IntType(64), ir.IntType(32), ir.IntType(1)


@cache
def host_lane_bytes() -> int:
    """Bytes of the widest vector register numba may use on this host: 64 (AVX-512), 32 (AVX) or 16."""
    features = config.CPU_FEATURES
    if features is None:
        features = binding.get_host_cpu_features().flatten()
    if "+avx512f" in features:
        return 64
    return 32 if "+avx" in features else 16


class Index:
    """A 64-bit integer known at run time, with the arithmetic of integers."""

    def __init__(self, builder: ir.IRBuilder, value: Any) -> None:
        self.builder = builder
        self.value = ir.Constant(INT64, value) if isinstance(value, int) else value

    def _other(self, other: Index | int) -> Any:
        return other.value if isinstance(other, Index) else ir.Constant(INT64, other)

    def __add__(self, other: Index | int) -> Index:
        return Index(self.builder, self.builder.add(self.value, self._other(other)))

    def __sub__(self, other: Index | int) -> Index:
        return Index(self.builder, self.builder.sub(self.value, self._other(other)))

    def __mul__(self, other: Index | int) -> Index:
        return Index(self.builder, self.builder.mul(self.value, self._other(other)))

    def clamped(self, most: Index) -> Index:
        """The nearest number in [0, most]."""
        least = self.builder.select(self < 0, ir.Constant(INT64, 0), self.value)
        inside = self.builder.icmp_signed("<", least, most.value)
        return Index(self.builder, self.builder.select(inside, least, most.value))

    def __lt__(self, other: Index | int) -> Any:
        return self.builder.icmp_signed("<", self.value, self._other(other))


class Complex:
    """One complex number per lane: a vector of real and a vector of imaginary parts."""

    def __init__(self, builder: ir.IRBuilder, real: Any, imag: Any) -> None:
        self.builder, self.real, self.imag = builder, real, imag

    def __add__(self, other: Complex) -> Complex:
        add = self.builder.fadd
        return Complex(
            self.builder, add(self.real, other.real, flags=RELAXED), add(self.imag, other.imag, flags=RELAXED)
        )

    def __sub__(self, other: Complex) -> Complex:
        sub = self.builder.fsub
        return Complex(
            self.builder, sub(self.real, other.real, flags=RELAXED), sub(self.imag, other.imag, flags=RELAXED)
        )

    def __mul__(self, other: Complex | complex) -> Complex:
        build, kind = self.builder, self.real.type
        if isinstance(other, float):
            return self.scaled(ir.Constant(kind, [other] * kind.count))
        if not isinstance(other, Complex):
            parts = (ir.Constant(kind, [part] * kind.count) for part in (other.real, other.imag))
            other = Complex(build, *parts)
        rr, ii = build.fmul(self.real, other.real, flags=RELAXED), build.fmul(self.imag, other.imag, flags=RELAXED)
        ri, ir_ = build.fmul(self.real, other.imag, flags=RELAXED), build.fmul(self.imag, other.real, flags=RELAXED)
        return Complex(build, build.fsub(rr, ii, flags=RELAXED), build.fadd(ri, ir_, flags=RELAXED))

    def scaled(self, factor: Any) -> Complex:
        """Times a vector of real numbers."""
        mul = self.builder.fmul
        return Complex(self.builder, mul(self.real, factor, flags=RELAXED), mul(self.imag, factor, flags=RELAXED))

    def conjugate(self) -> Complex:
        return Complex(self.builder, self.real, self.builder.fneg(self.imag))

    def times_minus_i(self) -> Complex:
        return Complex(self.builder, self.imag, self.builder.fneg(self.real))

    def permuted(self, order: list[int]) -> Complex:
        """Lane i becomes lane order[i]."""
        mask = ir.Constant(ir.VectorType(INT32, len(order)), order)
        shuffle = self.builder.shuffle_vector
        return Complex(self.builder, shuffle(self.real, self.real, mask), shuffle(self.imag, self.imag, mask))

    def exchanged(self) -> Complex:
        """Real and imaginary parts exchanged: i times the conjugate."""
        return Complex(self.builder, self.imag, self.real)


def dft(x: list[Complex]) -> list[Complex]:
    """X_f = sum_t x_t exp(-2 pi i f t / R) for R = 1, 2, 3, 4, 5 or 8 values, in natural order."""
    R = len(x)
    if R == 1:
        return x
    if R == 2:
        return [x[0] + x[1], x[0] - x[1]]
    if R == 3:
        total, difference = x[1] + x[2], ((x[1] - x[2]) * math.sqrt(0.75)).times_minus_i()
        middle = x[0] - total * 0.5
        return [x[0] + total, middle + difference, middle - difference]
    if R == 5:
        return _dft5(x)
    half = R // 2
    even, odd = dft(x[::2]), dft(x[1::2])
    if R == 4:
        odd = [odd[0], odd[1].times_minus_i()]
    else:
        root = math.sqrt(0.5)
        quarter = odd[3].times_minus_i()
        odd = [odd[0], (odd[1] + odd[1].times_minus_i()) * root, odd[2].times_minus_i(), (quarter - odd[3]) * root]
    return [even[f] + odd[f] for f in range(half)] + [even[f] - odd[f] for f in range(half)]


def _dft5(x: list[Complex]) -> list[Complex]:
    (c1, s1), (c2, s2) = ((math.cos(a), math.sin(a)) for a in (0.4 * math.pi, 0.8 * math.pi))
    p, q, u, v = x[1] + x[4], x[2] + x[3], x[1] - x[4], x[2] - x[3]
    a, b = x[0] + p * c1 + q * c2, x[0] + p * c2 + q * c1
    d, e = (u * s1 + v * s2).times_minus_i(), (u * s2 - v * s1).times_minus_i()
    return [x[0] + p + q, a + d, b + e, b - e, a - d]


def inverse_dft(x: list[Complex]) -> list[Complex]:
    """R times the inverse of `dft`: exchanging real and imaginary parts conjugates the roots of unity."""
    return [y.exchanged() for y in dft([z.exchanged() for z in x])]


class Emitter:
    """Writes instructions on rows of V lanes; an array is a pointer, positions count its numbers."""

    def __init__(self, builder: ir.IRBuilder, lanes: int, number: Any) -> None:
        self.builder, self.lanes, self.number = builder, lanes, number
        self.vector = ir.VectorType(number, lanes)
        self.bytes = 4 if isinstance(number, ir.FloatType) else 8

    @contextmanager
    def loop(self, stop: Index) -> Iterator[Index]:
        with cgutils.for_range(self.builder, stop.value) as state:
            yield Index(self.builder, state.index)

    @contextmanager
    def when(self, index: Index, value: int) -> Iterator[None]:
        with self.builder.if_then(self.builder.icmp_signed("==", index.value, ir.Constant(INT64, value))):
            yield

    def _pointer(self, array: Any, at: Index) -> Any:
        return self.builder.bitcast(self.builder.gep(array, [at.value]), self.vector.as_pointer())

    def load(self, array: Any, at: Index) -> Any:
        value = self.builder.load(self._pointer(array, at))
        value.align = self.bytes
        return value

    def store(self, value: Any, array: Any, at: Index) -> None:
        self.builder.store(value, self._pointer(array, at)).align = self.bytes

    def row(self, rows: Any, r: Index) -> Complex:
        at = r * (2 * self.lanes)
        return Complex(self.builder, self.load(rows, at), self.load(rows, at + self.lanes))

    def row_if(self, exists: Any, rows: Any, r: Index) -> Complex:
        """A row, or zeros, whose memory is not touched."""
        on = ir.Constant(ir.VectorType(BIT, self.lanes), [1] * self.lanes)
        mask, at = self.only_if(exists, on), r * (2 * self.lanes)
        return Complex(self.builder, self.load_masked(rows, at, mask), self.load_masked(rows, at + self.lanes, mask))

    def put_row(self, z: Complex, rows: Any, r: Index) -> None:
        at = r * (2 * self.lanes)
        self.store(z.real, rows, at)
        self.store(z.imag, rows, at + self.lanes)

    def real(self, value: Any) -> Complex:
        """Real numbers; the compiler drops what is done to the zeros."""
        return Complex(self.builder, value, ir.Constant(self.vector, [0.0] * self.lanes))

    def _broadcast(self, value: Any) -> Any:
        kind = ir.VectorType(value.type, self.lanes)
        empty = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(empty, value, ir.Constant(INT32, 0))
        return self.builder.shuffle_vector(
            first, empty, ir.Constant(ir.VectorType(INT32, self.lanes), [0] * self.lanes)
        )

    def integer(self, array: Any, at: int) -> Index:
        """A number of an integer array."""
        return Index(self.builder, self.builder.load(self.builder.gep(array, [ir.Constant(INT64, at)])))

    def scalar(self, array: Any, at: Index) -> Any:
        """One number in every lane."""
        return self._broadcast(self.builder.load(self.builder.gep(array, [at.value])))

    def scalars(self, array: Any, at: Index) -> Complex:
        """Two neighbouring numbers, as real and imaginary part in every lane."""
        return Complex(self.builder, self.scalar(array, at), self.scalar(array, at + 1))

    def multiply_add(self, x: Any, y: Any, total: Any) -> Any:
        return self.builder.fadd(total, self.builder.fmul(x, y, flags=RELAXED), flags=RELAXED)

    def lanes_below(self, count: Index) -> Any:
        """The mask of lanes [0, count)."""
        numbers = ir.Constant(ir.VectorType(INT32, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", numbers, self._broadcast(self.builder.trunc(count.value, INT32)))

    def only_if(self, exists: Any, mask: Any) -> Any:
        """A mask, all off unless `exists`."""
        return self.builder.select(exists, mask, ir.Constant(ir.VectorType(BIT, self.lanes), [0] * self.lanes))

    def mask(self, exists: Any, count: Index) -> Any:
        """Lanes [0, count), all off unless `exists`."""
        return self.only_if(exists, self.lanes_below(count))

    def where_nonzero(self, mask: Any, value: Any) -> Any:
        """A mask without the lanes where a vector is zero."""
        zero = ir.Constant(self.vector, [0.0] * self.lanes)
        return self.builder.and_(mask, self.builder.fcmp_unordered("!=", value, zero))

    def _call(self, name: str, result: Any, arguments: list[Any]) -> Any:
        kind = f"v{self.lanes}f{8 * self.bytes}"
        signature = ir.FunctionType(result, [argument.type for argument in arguments])
        function = self.builder.module.declare_intrinsic(name.format(kind), (), signature)
        return self.builder.call(function, arguments, fastmath=() if isinstance(result, ir.VoidType) else RELAXED)

    def load_masked(self, array: Any, at: Index, mask: Any) -> Any:
        """Lanes that are off read as zero, and their memory is not touched."""
        zero = ir.Constant(self.vector, [0.0] * self.lanes)
        arguments = [self._pointer(array, at), ir.Constant(INT32, self.bytes), mask, zero]
        return self._call("llvm.masked.load.{}.p0", self.vector, arguments)

    def store_masked(self, value: Any, array: Any, at: Index, mask: Any) -> None:
        arguments = [value, self._pointer(array, at), ir.Constant(INT32, self.bytes), mask]
        self._call("llvm.masked.store.{}.p0", ir.VoidType(), arguments)

    def add_sums(self, z: Complex, array: Any, at: Index) -> None:
        """Add the sums over lanes of the real and imaginary parts to two neighbouring numbers."""
        self.add_sum(z.real, array, at)
        self.add_sum(z.imag, array, at + 1)

    def add_sum(self, value: Any, array: Any, at: Index) -> None:
        """Add the sum over lanes to a number."""
        pointer, total = self.builder.gep(array, [at.value]), self._sum(value)
        self.builder.store(self.builder.fadd(self.builder.load(pointer), total), pointer)

    def _sum(self, value: Any) -> Any:
        """Sum over lanes, by halves."""
        count = self.lanes
        while count > 1:
            count //= 2
            halves = [
                self.builder.shuffle_vector(
                    value, value, ir.Constant(ir.VectorType(INT32, count), list(range(s, s + count)))
                )
                for s in (0, count)
            ]
            value = self.builder.fadd(*halves, flags=RELAXED)
        return self.builder.extract_element(value, ir.Constant(INT32, 0))


def kernel(body: Callable[..., None]) -> Any:
    """Make `body(emitter, *arguments)` callable from compiled code as `body(lanes, *arguments)`.

    `lanes` is a tuple of V zeros: its length is part of its type, so numba compiles, and caches, one version per V.
    In the body an array is a pointer to its first number, an integer an `Index`, and a tuple its length as a Python
    int.
    """

    def typed(typing_context: Any, *kinds: Any) -> Any:
        dtype = next(kind.dtype for kind in kinds if isinstance(kind, types.Array) and kind.dtype != types.int64)
        number = ir.FloatType() if dtype == types.float32 else ir.DoubleType()

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
            def passed(kind: Any, value: Any) -> Any:
                if isinstance(kind, types.UniTuple):
                    return kind.count
                if isinstance(kind, types.Array):
                    return context.make_array(kind)(context, builder, value).data
                return Index(builder, value)

            lanes, *arguments = (passed(kind, value) for kind, value in zip(signature.args, values, strict=True))
            body(Emitter(builder, lanes, number), *arguments)
            return context.get_dummy_value()

        return types.void(*kinds), generate

    # numba reads the names of the arguments from the signature: the typing context, then the kernel's own.
    names = ["typing_context", "lanes", *list(inspect.signature(body).parameters)[1:]]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in names]
    typed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    typed.__name__, typed.__doc__ = body.__name__, body.__doc__
    return intrinsic(typed)
