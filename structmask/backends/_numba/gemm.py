"""Register tiles: the small matrix product all masked products by tiles are made of.

A *tile* is ``ROWS`` rows of ``2 V`` columns of a product ``C = A @ B``, ``V`` numbers being one vector register. It is
kept in registers while the inner dimension is run through, so that a step of 2 ROWS multiply-adds costs two vector
loads of ``B`` and ROWS scalar loads of ``A``. Operands are flat scratch arrays with offsets; the row stride of ``B`` is
always ``2 V`` (a *panel*), and everything is padded with zeros to whole tiles, so that there are no edges here.
"""

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_WIDE = bool(binding.get_host_cpu_features().get("avx512f", False))
LANE_BYTES = 64 if _WIDE else 32
ROWS = 8 if _WIDE else 6  # 16 accumulators of 32 registers, or 12 of 16

_FUSED = ("contract",)
_I64, _I32 = ir.IntType(64), ir.IntType(32)


class _Emitter:
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

    def spread(self, base: Any, offset: Any) -> Any:
        """One number of memory in every lane."""
        return self.spread_value(self.builder.load(self.builder.gep(base, [offset])))

    def spread_value(self, value: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, _I32(0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes))

    def multiply_add(self, left: Any, right: Any, total: Any) -> Any:
        return self.builder.fadd(total, self.builder.fmul(left, right, flags=_FUSED), flags=_FUSED)


def _emitted(context: Any, builder: Any, signature: Any, values: Any) -> tuple[_Emitter, list[Any]]:
    """The emitter and the arguments, arrays as pointers to their first number."""
    arguments = [
        context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
        for kind, value in zip(signature.args, values, strict=True)
    ]
    return _Emitter(builder, signature.args[0].dtype), arguments


def _accumulate(emit: _Emitter, sums: list[list[Any]], A: Any, a: Any, row: Any, step: Any, B: Any, b: Any, count: Any) -> None:
    """``sums[i][v] += A[i, p] * B[p, v]`` over the ``count`` values of p."""
    builder, vectors = emit.builder, len(sums[0])
    with cgutils.for_range(builder, count, intp=_I64) as loop:
        start = emit.offset(b, loop.index, 2 * emit.lanes)
        across = [emit.load(B, emit.offset(start, v, emit.lanes)) for v in range(vectors)]
        here = emit.offset(a, loop.index, step)
        for i in range(ROWS):
            scalar = emit.spread(A, emit.offset(here, i, row))
            for v in range(vectors):
                builder.store(emit.multiply_add(scalar, across[v], builder.load(sums[i][v])), sums[i][v])


def _registers(emit: _Emitter, vectors: int) -> list[list[Any]]:
    return [[cgutils.alloca_once(emit.builder, emit.vector) for _ in range(vectors)] for _ in range(ROWS)]


def _tile_of(vectors: int) -> Any:
    """The intrinsic that computes ``ROWS`` rows of ``vectors`` vectors."""

    @intrinsic
    def tile(typing, A, a, row, step, B, b, C, c, width, count, fresh):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            emit, (A, a, row, step, B, b, C, c, width, count, fresh) = _emitted(context, builder, signature, values)
            sums = _registers(emit, vectors)
            places = [[emit.offset(emit.offset(c, i, width), v, emit.lanes) for v in range(vectors)] for i in range(ROWS)]
            with builder.if_else(fresh) as (start, resume):
                with start:
                    for i in range(ROWS):
                        for v in range(vectors):
                            builder.store(emit.zero, sums[i][v])
                with resume:
                    for i in range(ROWS):
                        for v in range(vectors):
                            builder.store(emit.load(C, places[i][v]), sums[i][v])
            _accumulate(emit, sums, A, a, row, step, B, b, count)
            for i in range(ROWS):
                for v in range(vectors):
                    emit.store(builder.load(sums[i][v]), C, places[i][v])
            return context.get_dummy_value()

        i8 = types.int64
        return types.void(A, i8, i8, i8, B, i8, C, i8, i8, i8, types.boolean), generate

    return tile


_tile = _tile_of(2)
_narrow_tile = _tile_of(1)


@intrinsic
def _masked_tile(typing, A, a, row, step, B, b, M, m, S, s, width, totals, t, count):  # type: ignore[no-untyped-def]
    """``S = M * (A @ B)``, and ``totals`` grows by the sums of its vectors."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit, (A, a, row, step, B, b, M, m, S, s, width, totals, t, count) = _emitted(context, builder, signature, values)
        sums = _registers(emit, 2)
        for line in sums:
            for register in line:
                builder.store(emit.zero, register)
        _accumulate(emit, sums, A, a, row, step, B, b, count)
        for i in range(ROWS):
            place = emit.offset(t, i, emit.lanes)
            total = emit.load(totals, place)
            for v in range(2):
                offset = emit.offset(emit.number(v * emit.lanes), i, width)
                mask = emit.load(M, builder.add(m, offset))
                value = builder.fmul(builder.load(sums[i][v]), mask)
                emit.store(value, S, builder.add(s, offset))
                total = builder.fadd(total, value)
            emit.store(total, totals, place)
        return context.get_dummy_value()

    i8 = types.int64
    return types.void(A, i8, i8, i8, B, i8, M, i8, S, i8, i8, totals, i8, i8), generate


@intrinsic
def _transposed_square(typing, A, a, width, B, b):  # type: ignore[no-untyped-def]
    """``V`` rows of ``V`` columns of A, transposed, to panel B."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit, (A, a, width, B, b) = _emitted(context, builder, signature, values)
        V = emit.lanes
        rows = [emit.load(A, emit.offset(a, i, width)) for i in range(V)]
        half = 1
        while half < V:
            # exchange the off-diagonal half x half blocks of every 2 half x 2 half block
            low = [lane if not lane & half else V + lane - half for lane in range(V)]
            high = [lane + half if not lane & half else V + lane for lane in range(V)]
            indices = [ir.Constant(ir.VectorType(_I32, V), lanes) for lanes in (low, high)]
            for i in range(V):
                if not i & half:
                    pair = rows[i], rows[i + half]
                    rows[i], rows[i + half] = (builder.shuffle_vector(*pair, index) for index in indices)
            half *= 2
        for i, value in enumerate(rows):
            emit.store(value, B, emit.offset(b, i, 2 * V))
        return context.get_dummy_value()

    i8 = types.int64
    return types.void(A, i8, i8, B, i8), generate


@intrinsic
def scale_row(typing, A, a, B, b, count, factor):  # type: ignore[no-untyped-def]
    """``B[b + j] = factor * A[a + j]`` for ``count`` values of j."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit, (A, a, B, b, count, factor) = _emitted(context, builder, signature, values)
        V = emit.lanes
        factors = emit.spread_value(factor)
        whole = builder.and_(count, emit.number(-V))
        with cgutils.for_range_slice(builder, emit.number(0), whole, emit.number(V), intp=_I64) as (j, _):
            value = builder.fmul(factors, emit.load(A, builder.add(a, j)))
            emit.store(value, B, builder.add(b, j))
        with cgutils.for_range_slice(builder, whole, count, emit.number(1), intp=_I64) as (j, _):
            value = builder.fmul(factor, builder.load(builder.gep(A, [builder.add(a, j)])))
            builder.store(value, builder.gep(B, [builder.add(b, j)]))
        return context.get_dummy_value()

    i8 = types.int64
    return types.void(A, i8, B, i8, i8, A.dtype), generate


@intrinsic
def dot_rows(typing, A, a, row, z, start, sums, count):  # type: ignore[no-untyped-def]
    """``sums`` grows by ``A[a + i * row + p] * z[start + p]`` for ROWS rows i; ``count`` is a multiple of V."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit, (A, a, row, z, start, sums, count) = _emitted(context, builder, signature, values)
        V = emit.lanes
        registers = _registers(emit, 1)
        for i in range(ROWS):
            builder.store(emit.load(sums, emit.number(i * V)), registers[i][0])
        with cgutils.for_range_slice(builder, emit.number(0), count, emit.number(V), intp=_I64) as (p, _):
            weights = emit.load(z, builder.add(start, p))
            for i in range(ROWS):
                value = emit.load(A, emit.offset(builder.add(a, p), i, row))
                builder.store(emit.multiply_add(value, weights, builder.load(registers[i][0])), registers[i][0])
        for i in range(ROWS):
            emit.store(builder.load(registers[i][0]), sums, emit.number(i * V))
        return context.get_dummy_value()

    i8 = types.int64
    return types.void(A, i8, i8, z, i8, sums, i8), generate


@intrinsic
def _horizontal_sum(typing, A, a):  # type: ignore[no-untyped-def]
    """The sum of V numbers, by halves."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit, (A, a) = _emitted(context, builder, signature, values)
        value, lanes = emit.load(A, a), emit.lanes
        while lanes > 1:
            lanes //= 2
            halves = [ir.Constant(ir.VectorType(_I32, lanes), list(range(o, o + lanes))) for o in (0, lanes)]
            low, high = (builder.shuffle_vector(value, value, half) for half in halves)
            value = builder.fadd(low, high)
        return builder.extract_element(value, _I32(0))

    return A.dtype(A, types.int64), generate


@njit(nogil=True, cache=True)
def scratch(size, like):  # type: ignore[no-untyped-def]
    """Zeros, starting on a cache line, of the dtype of ``like``."""
    spare = LANE_BYTES // like.itemsize
    block = np.zeros(size + spare, like.dtype)
    skip = (-block.ctypes.data // like.itemsize) % spare
    return block[skip : skip + size]


@njit(nogil=True, cache=True)
def lanes_of(like):  # type: ignore[no-untyped-def]
    """V, the numbers in one vector register."""
    return LANE_BYTES // like.itemsize


@njit(nogil=True, cache=True)
def rounded(count, unit):  # type: ignore[no-untyped-def]
    """The smallest multiple of ``unit`` that holds ``count``."""
    return (count + unit - 1) // unit * unit


@njit(nogil=True, cache=True)
def padded_rank(rank, V):  # type: ignore[no-untyped-def]
    """Row length of packed features: whole tiles both ways, and an odd number of vectors, which spreads columns over cache sets."""
    vectors = rounded(rounded(rank, ROWS), V) // V
    return (vectors + 1 - vectors % 2) * V


@njit(nogil=True, cache=True)
def pack_rows(source, first, count, packed, width, rows):  # type: ignore[no-untyped-def]
    """Rows ``first ...`` of ``source``, ``width`` numbers apart, then zero rows up to ``rows``."""
    columns = source.shape[1]
    for i in range(count):
        scale_row(source, (first + i) * columns, packed, i * width, columns, 1)
    packed[count * width : rows * width] = 0


@njit(nogil=True, cache=True)
def pack_panels(source, first, count, packed, rows):  # type: ignore[no-untyped-def]
    """The same rows as panels of 2 V columns, each with ``rows`` rows."""
    columns, W = source.shape[1], 2 * lanes_of(source)
    for q in range(0, columns, W):
        width = min(W, columns - q)
        for i in range(count):
            scale_row(source, (first + i) * columns + q, packed, q * rows + i * W, width, 1)
        packed[q * rows + count * W : q * rows + rows * W] = 0


@njit(nogil=True, cache=True)
def transpose_panels(packed, width, columns, count, panels):  # type: ignore[no-untyped-def]
    """Panels of the transpose of packed rows: ``width`` rows in each panel, ``count`` columns altogether."""
    V = lanes_of(packed)
    for i in range(0, rounded(count, 2 * V), V):
        start = i // (2 * V) * 2 * V * width + i % (2 * V)
        for j in range(0, columns, V):
            _transposed_square(packed, i * width + j, width, panels, start + j * 2 * V)


@njit(nogil=True, cache=True)
def multiply(A, a, row, step, B, b, height, C, c, width, stride, columns, count, fresh):  # type: ignore[no-untyped-def]
    """ROWS rows of ``C = A @ B`` (``fresh``) or ``C += A @ B``.

    A_ip is ``A[a + i * row + p * step]``. Panels of B start at b and are ``height`` rows tall; rows of C are ``width``
    apart and its panels ``stride``.
    """
    W = 2 * lanes_of(A)
    for q in range(0, columns, W):
        panel, place = b + q * height, c + q // W * stride
        if columns - q > W // 2:
            _tile(A, a, row, step, B, panel, C, place, width, count, fresh)
        else:
            _narrow_tile(A, a, row, step, B, panel, C, place, width, count, fresh)


@njit(nogil=True, cache=True)
def multiply_masked(A, a, row, B, height, M, m, S, width, sums, first, last, count):  # type: ignore[no-untyped-def]
    """ROWS rows of ``S = M * (A @ B)``, in the panels that hold the columns ``first ... last``; ``sums`` grows by row sums."""
    W = 2 * lanes_of(A)
    for q in range(first // W * W, last, W):
        _masked_tile(A, a, row, 1, B, q * height, M, m + q, S, q, width, sums, 0, count)


@njit(nogil=True, cache=True)
def total(sums, i):  # type: ignore[no-untyped-def]
    """The sum of the lanes kept for row i."""
    return _horizontal_sum(sums, i * lanes_of(sums))
