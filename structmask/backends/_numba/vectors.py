"""What numba has no words for: a vector that stays in a register, and asking for memory before it is needed.

A short loop along a row costs more in tests whether arrays overlap, and in sums kept in memory, than in arithmetic.
Arrays are contiguous and of one dtype; positions are those of their flat form, and are not checked.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LINE = 64  # bytes of memory that come at a time
WIDTH = 8  # numbers of a vector, unless it is a line


class Vector(types.Type):  # type: ignore[misc]  # numba has no types
    """Numbers side by side."""

    def __init__(self, dtype: Any, width: int = WIDTH) -> None:
        self.dtype, self.width = dtype, width
        super().__init__(f"Vector({dtype}, {width})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.VectorType(manager.lookup(kind.dtype).get_value_type(), kind.width))


@intrinsic
def load(_context: Any, array: Any, position: Any) -> Any:
    """The vector that begins at a position of an array."""
    return Vector(array.dtype)(array, types.int64), _loaded(1)


@intrinsic
def load_line(_context: Any, array: Any, line: Any) -> Any:
    """A whole line of an array that is taken as lines of LINE bytes."""
    width = LINE * 8 // array.dtype.bitwidth
    return Vector(array.dtype, width)(array, types.int64), _loaded(width)


@intrinsic
def zero_line(_context: Any, array: Any) -> Any:
    """A line of zeros."""
    return Vector(array.dtype, LINE * 8 // array.dtype.bitwidth)(array), _zeros


@intrinsic
def zero(_context: Any, array: Any) -> Any:
    """A vector of zeros."""
    return Vector(array.dtype)(array), _zeros


@intrinsic
def store(_context: Any, array: Any, position: Any, vector: Any) -> Any:
    """Write a vector into an array from a position on."""
    return types.void(array, types.int64, vector), _stored(1)


@intrinsic
def store_line(_context: Any, array: Any, line: Any, vector: Any) -> Any:
    """Write a whole line of an array that is taken as lines."""
    return types.void(array, types.int64, vector), _stored(vector.width)


@intrinsic
def stream(_context: Any, array: Any, position: Any, vector: Any) -> Any:
    """Write a vector that fills a line past the caches, where it will not be read soon; `settle` must follow."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, _ = _place(context, builder, signature, arguments, signature.args[2], 1)
        written = builder.store(arguments[2], place, align=vector.width * vector.dtype.bitwidth // 8)
        written.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), code


@intrinsic
def settle(_context: Any) -> Any:
    """Let all threads see what was written, past the caches too."""

    def code(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), code


@intrinsic
def scaled(_context: Any, a: Any, x: Any) -> Any:
    """The vector a x for a number a."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fmul(_spread(builder, arguments[0], arguments[1].type), arguments[1])

    return x(x.dtype, x), code


@intrinsic
def axpy(_context: Any, a: Any, x: Any, y: Any) -> Any:
    """The vector a x + y for a number a, in one instruction where there is one."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        a, x, y = arguments
        product = builder.fmul(_spread(builder, a, x.type), x, flags=("contract",))
        return builder.fadd(product, y, flags=("contract",))

    return x(x.dtype, x, y), code


@intrinsic
def times_add(_context: Any, x: Any, y: Any, z: Any) -> Any:
    """The vector x y + z, number by number."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        x, y, z = arguments
        return builder.fadd(builder.fmul(x, y, flags=("contract",)), z, flags=("contract",))

    return x(x, x, x), code


@intrinsic
def converted(_context: Any, x: Any, array: Any) -> Any:
    """The vector x in the precision of an array."""
    result = Vector(array.dtype, x.width)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        before, after = signature.args[0].dtype.bitwidth, signature.return_type.dtype.bitwidth
        if before == after:
            return arguments[0]
        change = builder.fpext if before < after else builder.fptrunc
        return change(arguments[0], context.get_value_type(signature.return_type))

    return result(x, array), code


@intrinsic
def inner(_context: Any, x: Any, y: Any) -> Any:
    """The sum of the products of two vectors, halves added to halves."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _halved(builder, builder.fmul(*arguments))

    return x.dtype(x, x), code


@intrinsic
def total_of(_context: Any, x: Any) -> Any:
    """The sum of a vector, halves added to halves."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _halved(builder, arguments[0])

    return x.dtype(x), code


@intrinsic
def prefetch(_context: Any, array: Any, position: Any) -> Any:
    """Bring the line at a position of an array, which may be anything."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        builder.call(call, [place, number(0), number(3), number(1)])  # to read, into every cache, data
        return context.get_dummy_value()

    return types.void(array, types.int64), code


def _halved(builder: Any, total: Any) -> Any:
    """The sum of a vector."""
    size, place = total.type.count, ir.IntType(32)
    while size > 1:
        size //= 2
        halves = (ir.Constant(ir.VectorType(place, size), [first + i for i in range(size)]) for first in (0, size))
        nothing = ir.Constant(total.type, ir.Undefined)
        total = builder.fadd(*(builder.shuffle_vector(total, nothing, half) for half in halves))
    return builder.extract_element(total, place(0))


def _zeros(context: Any, _builder: Any, signature: Any, _arguments: Any) -> Any:
    return ir.Constant(context.get_value_type(signature.return_type), None)


def _loaded(step: int) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, align = _place(context, builder, signature, arguments, signature.return_type, step)
        return builder.load(place, align=align)

    return code


def _stored(step: int) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, align = _place(context, builder, signature, arguments, signature.args[2], step)
        builder.store(arguments[2], place, align=align)
        return context.get_dummy_value()

    return code


def _place(context: Any, builder: Any, signature: Any, arguments: Any, vector: Vector, step: int) -> tuple[Any, int]:
    """Pointer to the vector at a number of steps from the start of an array, and the alignment of its numbers."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    kind, at = context.get_value_type(vector.dtype), arguments[1]
    place = builder.gep(array.data, [builder.mul(at, ir.Constant(at.type, step))])
    return builder.bitcast(place, context.get_value_type(vector).as_pointer()), context.get_abi_sizeof(kind)


def _spread(builder: Any, number: Any, vector: Any) -> Any:
    """A vector of one number."""
    nothing, place = ir.Constant(vector, ir.Undefined), ir.IntType(32)
    mask = ir.Constant(ir.VectorType(place, vector.count), [0] * vector.count)
    return builder.shuffle_vector(builder.insert_element(nothing, number, place(0)), nothing, mask)
