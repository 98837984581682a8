"""Kernels written in vector instructions: what numba would have to guess from loops, said directly.

The decorator `kernel` makes of a function that writes LLVM code an intrinsic that numba code calls.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .simd import host_lane_bytes

LANE_BYTES = host_lane_bytes()

_FUSED = ("contract",)
_I64, _I32 = ir.IntType(64), ir.IntType(32)


class Emitter:
    """Loads, stores and arithmetic on vectors; offsets count numbers."""

    def __init__(self, builder: Any, dtype: Any):
        self.builder = builder
        self.element = ir.FloatType() if dtype == types.float32 else ir.DoubleType()
        self.bytes = dtype.bitwidth // 8
        self.lanes = LANE_BYTES // self.bytes
        self.vector = ir.VectorType(self.element, self.lanes)
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)

    def number(self, value: Any) -> Any:
        return ir.Constant(_I64, value) if isinstance(value, int) else value

    def offset(self, start: Any, index: Any, stride: Any = 1) -> Any:
        """``start + index * stride``."""
        step = self.builder.mul(self.number(index), self.number(stride))
        return self.builder.add(self.number(start), step)

    def pointer(self, base: Any, offset: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(base, [offset]), self.vector.as_pointer())

    def load(self, base: Any, offset: Any) -> Any:
        value = self.builder.load(self.pointer(base, offset))
        value.align = self.bytes
        return value

    def store(self, value: Any, base: Any, offset: Any) -> None:
        self.builder.store(value, self.pointer(base, offset)).align = self.bytes

    def shuffle(self, left: Any, right: Any, lanes: list[int]) -> Any:
        return self.builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(_I32, len(lanes)), lanes))

    def everywhere(self, value: Any) -> Any:
        """One number in every lane."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, _I32(0))
        return self.shuffle(first, undefined, [0] * self.lanes)

    def spread(self, base: Any, offset: Any) -> Any:
        """One number of memory in every lane."""
        return self.everywhere(self.builder.load(self.builder.gep(base, [offset])))

    def total(self, value: Any) -> Any:
        """The sum of a vector, by halves."""
        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            low, high = list(range(lanes)), list(range(lanes, 2 * lanes))
            value = self.builder.fadd(self.shuffle(value, value, low), self.shuffle(value, value, high))
        return self.builder.extract_element(value, _I32(0))

    def set(self, register: Any, value: Any) -> None:
        self.builder.store(value, register)

    def get(self, register: Any) -> Any:
        return self.builder.load(register)

    @contextmanager
    def steps(self, start: Any, stop: Any, step: int) -> Iterator[Any]:
        """A loop."""
        bounds = self.number(start), self.number(stop), self.number(step)
        with cgutils.for_range_slice(self.builder, *bounds, intp=_I64) as (index, _):
            yield index

    def multiply_add(self, left: Any, right: Any, total: Any) -> Any:
        return self.builder.fadd(total, self.builder.fmul(left, right, flags=_FUSED), flags=_FUSED)


def kernel(layout: str) -> Any:
    """Make the decorated body an intrinsic that numba code calls.

    ``layout`` has one letter an argument of the intrinsic: ``p`` an array, followed by ``o``, the offset to start from
    (the body gets one pointer for the two), ``i`` an integer, ``b`` a boolean, ``x`` a number of the arrays' dtype. The
    body becomes one function that is not inlined, however many callers it has: they compile fast.
    """

    def declare(body: Any) -> Any:
        def typed(typing: Any, *kinds: Any) -> Any:
            dtype = kinds[0].dtype
            fixed = {"o": types.int64, "i": types.int64, "b": types.boolean, "x": dtype}
            name = f"structmask_{body.__name__}_{dtype}"

            def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                arguments: list[Any] = []
                for letter, kind, value in zip(layout, signature.args, values, strict=True):
                    if letter == "p":
                        arguments.append(context.make_array(kind)(context, builder, value).data)
                    elif letter == "o":
                        arguments[-1] = builder.gep(arguments[-1], [value])
                    else:
                        arguments.append(value)
                builder.call(_defined(builder.module, name, body, dtype, arguments), arguments)
                return context.get_dummy_value()

            return types.void(*(fixed.get(letter, kind) for letter, kind in zip(layout, kinds, strict=True))), generate

        names = ["typing", *(f"{letter}{i}" for i, letter in enumerate(layout))]
        positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
        typed.__signature__ = inspect.Signature([inspect.Parameter(name, positional) for name in names])  # type: ignore[attr-defined]
        typed.__name__, typed.__doc__ = body.__name__, body.__doc__
        return intrinsic(typed)

    return declare


def _defined(module: Any, name: str, body: Any, dtype: Any, arguments: list[Any]) -> Any:
    """The LLVM function of this name, written on its first use in a module."""
    kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(module, kind, name)
    if function.is_declaration:
        function.linkage = "linkonce_odr"
        function.attributes.add("noinline")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        body(Emitter(builder, dtype), *function.args)
        builder.ret_void()
    return function
