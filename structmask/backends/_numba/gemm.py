"""Register tiles: the small matrix product all masked products by tiles are made of.

A *tile* is ``ROWS`` rows of ``2 V`` columns of a product ``C = A @ B``, ``V`` numbers being one vector register. It is
kept in registers while the inner dimension is run through, so that a step of 2 ROWS multiply-adds costs two vector
loads of ``B`` and ROWS scalar loads of ``A``. Operands are flat scratch arrays with offsets; the row stride of ``B`` is
always ``2 V`` (a *panel*), and everything is padded with zeros to whole tiles, so that there are no edges here.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils

from .emit import LANE_BYTES, Emitter, kernel

ROWS = 8 if LANE_BYTES == 64 else 6  # 16 accumulators of 32 registers, or 12 of 16


def _accumulate(emit: Emitter, sums: list[list[Any]], rows: list[Any], step: Any, B: Any, count: Any) -> None:
    """``sums[i][v] += rows[i][p * step] * B[p, v]`` over the ``count`` values of p."""
    vectors = range(len(sums[0]))
    with emit.steps(0, count, 1) as p:
        start, along = emit.offset(0, p, 2 * emit.lanes), emit.offset(0, p, step)
        across = [emit.load(B, emit.offset(start, v, emit.lanes)) for v in vectors]
        for i, row in enumerate(rows):
            scalar = emit.spread(row, along)
            for v in vectors:
                emit.set(sums[i][v], emit.multiply_add(scalar, across[v], emit.get(sums[i][v])))


def _zeros(emit: Emitter, vectors: int) -> list[list[Any]]:
    """Accumulators, which the compiler keeps in registers."""
    sums = [[cgutils.alloca_once(emit.builder, emit.vector) for _ in range(vectors)] for _ in range(ROWS)]
    for line in sums:
        for register in line:
            emit.set(register, emit.zero)
    return sums


def _rows(emit: Emitter, A: Any, stride: Any) -> list[Any]:
    return [emit.builder.gep(A, [emit.offset(0, i, stride)]) for i in range(ROWS)]


def _finish(emit: Emitter, sums: list[list[Any]], C: Any, width: Any, fresh: Any) -> None:
    tile = [
        (register, emit.offset(v * emit.lanes, i, width)) for i in range(ROWS) for v, register in enumerate(sums[i])
    ]
    with emit.builder.if_then(emit.builder.not_(fresh)):
        # a partial sum of its own, added at the end, keeps long sums accurate
        for register, place in tile:
            emit.set(register, emit.builder.fadd(emit.get(register), emit.load(C, place)))
    for register, place in tile:
        emit.store(emit.get(register), C, place)


def _tile_of(vectors: int, transposed: bool) -> Any:
    """A tile of ``C = A @ B`` (fresh) or ``C += A @ B``; rows, or columns if transposed, of A are ``stride`` apart."""

    def body(emit: Emitter, A: Any, stride: Any, B: Any, C: Any, width: Any, count: Any, fresh: Any) -> None:
        sums = _zeros(emit, vectors)
        rows = _rows(emit, A, 1 if transposed else stride)
        _accumulate(emit, sums, rows, stride if transposed else 1, B, count)
        _finish(emit, sums, C, width, fresh)

    body.__name__ = f"tile_{vectors}{'_transposed' if transposed else ''}"
    return kernel("poipopoiib")(body)


_tile, _narrow_tile = _tile_of(2, False), _tile_of(1, False)
_transposed_tile, _narrow_transposed_tile = _tile_of(2, True), _tile_of(1, True)


@kernel("poipopopoipoi")
def _masked_tile(
    emit: Emitter, A: Any, stride: Any, B: Any, M: Any, S: Any, width: Any, totals: Any, count: Any
) -> None:
    """A tile of ``S = M * (A @ B)``; ``totals`` grows by its vectors."""
    sums = _zeros(emit, 2)
    _accumulate(emit, sums, _rows(emit, A, stride), 1, B, count)
    for i in range(ROWS):
        total = emit.load(totals, emit.number(i * emit.lanes))
        for v in range(2):
            place = emit.offset(v * emit.lanes, i, width)
            value = emit.builder.fmul(emit.get(sums[i][v]), emit.load(M, place))
            emit.store(value, S, place)
            total = emit.builder.fadd(total, value)
        emit.store(total, totals, emit.number(i * emit.lanes))


@kernel("poipo")
def _transposed_square(emit: Emitter, A: Any, width: Any, B: Any) -> None:
    """V rows of V columns of A, transposed, to panel B."""
    V = emit.lanes
    rows = [emit.load(A, emit.offset(0, i, width)) for i in range(V)]
    half = 1
    while half < V:
        # exchange the off-diagonal blocks of every square of side 2 half
        low = [V + lane - half if lane & half else lane for lane in range(V)]
        high = [V + lane if lane & half else lane + half for lane in range(V)]
        for i in range(V):
            if not i & half:
                pair = rows[i], rows[i + half]
                rows[i], rows[i + half] = emit.shuffle(*pair, low), emit.shuffle(*pair, high)
        half *= 2
    for i, value in enumerate(rows):
        emit.store(value, B, emit.number(2 * V * i))


@kernel("popoix")
def scale_row(emit: Emitter, A: Any, B: Any, count: Any, factor: Any) -> None:
    """``B[j] = factor * A[j]`` for ``count`` values of j."""
    builder, factors = emit.builder, emit.everywhere(factor)
    whole = builder.and_(count, emit.number(-emit.lanes))
    with emit.steps(0, whole, emit.lanes) as j:
        emit.store(builder.fmul(factors, emit.load(A, j)), B, j)
    with emit.steps(whole, count, 1) as j:
        builder.store(builder.fmul(factor, builder.load(builder.gep(A, [j]))), builder.gep(B, [j]))


@kernel("popoix")
def add_row(emit: Emitter, A: Any, B: Any, count: Any, factor: Any) -> None:
    """``B[j] += factor * A[j]`` for ``count`` values of j, a multiple of V."""
    factors = emit.everywhere(factor)
    with emit.steps(0, count, emit.lanes) as j:
        emit.store(emit.multiply_add(factors, emit.load(A, j), emit.load(B, j)), B, j)


@kernel("popopoi")
def add_dot(emit: Emitter, A: Any, B: Any, total: Any, count: Any) -> None:
    """``total[0] += sum A[j] * B[j]`` over ``count`` values of j, a multiple of V."""
    sums = cgutils.alloca_once(emit.builder, emit.vector)
    emit.set(sums, emit.zero)
    with emit.steps(0, count, emit.lanes) as j:
        emit.set(sums, emit.multiply_add(emit.load(A, j), emit.load(B, j), emit.get(sums)))
    emit.builder.store(emit.builder.fadd(emit.builder.load(total), emit.total(emit.get(sums))), total)


@kernel("popopopoix")
def add_row_and_dot(emit: Emitter, A: Any, B: Any, C: Any, total: Any, count: Any, factor: Any) -> None:
    """``C[j] += factor * A[j]`` for ``count`` values of j, and ``total[0] += sum A[j] * B[j]``."""
    builder, factors = emit.builder, emit.everywhere(factor)
    sums, rest = cgutils.alloca_once(builder, emit.vector), cgutils.alloca_once(builder, emit.element)
    emit.set(sums, emit.zero)
    emit.set(rest, builder.load(total))
    whole = builder.and_(count, emit.number(-emit.lanes))
    with emit.steps(0, whole, emit.lanes) as j:
        a = emit.load(A, j)
        emit.set(sums, emit.multiply_add(a, emit.load(B, j), emit.get(sums)))
        emit.store(emit.multiply_add(factors, a, emit.load(C, j)), C, j)
    with emit.steps(whole, count, 1) as j:
        a, place = builder.load(builder.gep(A, [j])), builder.gep(C, [j])
        emit.set(rest, emit.multiply_add(a, builder.load(builder.gep(B, [j])), emit.get(rest)))
        builder.store(emit.multiply_add(factor, a, builder.load(place)), place)
    builder.store(builder.fadd(emit.get(rest), emit.total(emit.get(sums))), total)


@kernel("popopopoi")
def correlate_row(emit: Emitter, R: Any, Q: Any, mask: Any, total: Any, count: Any) -> None:
    """``total[j] += R[j] * Q[j]``, then ``R[j] *= mask[j]`` and ``Q[j] *= mask[j]``, for ``count`` values of j."""
    builder = emit.builder

    def element(base: Any, j: Any) -> Any:
        return builder.gep(base, [j])

    whole = builder.and_(count, emit.number(-emit.lanes))
    with emit.steps(0, whole, emit.lanes) as j:
        r, q, m = (emit.load(base, j) for base in (R, Q, mask))
        emit.store(emit.multiply_add(r, q, emit.load(total, j)), total, j)
        emit.store(builder.fmul(r, m), R, j)
        emit.store(builder.fmul(q, m), Q, j)
    with emit.steps(whole, count, 1) as j:
        r, q, m = (builder.load(element(base, j)) for base in (R, Q, mask))
        builder.store(emit.multiply_add(r, q, builder.load(element(total, j))), element(total, j))
        builder.store(builder.fmul(r, m), element(R, j))
        builder.store(builder.fmul(q, m), element(Q, j))


@kernel("poipopoi")
def dot_rows(emit: Emitter, A: Any, stride: Any, z: Any, sums: Any, count: Any) -> None:
    """``sums`` grows by the vectors of ``A[i, p] * z[p]``, ROWS rows i; ``count`` is a multiple of V."""
    totals, rows = _zeros(emit, 1), _rows(emit, A, stride)
    with emit.steps(0, count, emit.lanes) as p:
        weights = emit.load(z, p)
        for row, (total,) in zip(rows, totals, strict=True):
            emit.set(total, emit.multiply_add(emit.load(row, p), weights, emit.get(total)))
    _finish(emit, totals, sums, emit.lanes, ir.Constant(ir.IntType(1), 0))


@kernel("popo")
def horizontal_sum(emit: Emitter, sums: Any, result: Any) -> None:
    """The sum of V numbers, by halves."""
    emit.builder.store(emit.total(emit.load(sums, emit.number(0))), result)


@njit(nogil=True, cache=True)
def scratch(size, like):
    """Zeros, starting on a cache line, of the dtype of ``like``."""
    spare = LANE_BYTES // like.itemsize
    block = np.zeros(size + spare, like.dtype)
    skip = (-block.ctypes.data // like.itemsize) % spare
    return block[skip : skip + size]


@njit(nogil=True, cache=True, forceinline=True)
def lanes_of(like):
    """V, the numbers in one vector register."""
    return LANE_BYTES // like.itemsize


@njit(nogil=True, cache=True, forceinline=True)
def rounded(count, unit):
    """The smallest multiple of ``unit`` that holds ``count``."""
    return (count + unit - 1) // unit * unit


@njit(nogil=True, cache=True, forceinline=True)
def padded_rank(rank, V):
    """Row length of packed features: whole tiles, an odd number of vectors to spread over cache sets."""
    vectors = rounded(rounded(rank, ROWS), V) // V
    return (vectors + 1 - vectors % 2) * V


@njit(nogil=True, cache=True)
def pack_rows(source, first, count, packed, width, rows):
    """Rows ``first ...`` of ``source``, ``width`` numbers apart, then zero rows up to ``rows``."""
    columns = source.shape[1]
    for i in range(count):
        scale_row(source, (first + i) * columns, packed, i * width, columns, 1)
    packed[count * width : rows * width] = 0


@njit(nogil=True, cache=True)
def pack_panels(source, first, count, packed, rows):
    """The same rows as panels of 2 V columns, each with ``rows`` rows."""
    columns, W = source.shape[1], 2 * lanes_of(source)
    for q in range(0, columns, W):
        width = min(W, columns - q)
        for i in range(count):
            scale_row(source, (first + i) * columns + q, packed, q * rows + i * W, width, 1)
        packed[q * rows + count * W : q * rows + rows * W] = 0


@njit(nogil=True, cache=True)
def transpose_panels(packed, width, columns, count, panels):
    """Panels of the transpose of packed rows: ``width`` rows in each panel, ``count`` columns altogether."""
    V = lanes_of(packed)
    for i in range(0, rounded(count, 2 * V), V):
        start = i // (2 * V) * 2 * V * width + i % (2 * V)
        for j in range(0, columns, V):
            _transposed_square(packed, i * width + j, width, panels, start + j * 2 * V)


@njit(nogil=True, cache=True)
def transposed_panels(source, height, columns, count, panels, rows):
    """Panels, ``rows`` tall, of the transpose of panels ``height`` tall: of ``count`` rows of all their columns."""
    V = lanes_of(source)
    W = 2 * V
    for i in range(0, count, V):
        for j in range(0, columns, V):
            place = j // W * W * height + i * W + j % W
            _transposed_square(source, place, W, panels, i // W * W * rows + j * W + i % W)


@njit(nogil=True, cache=True, forceinline=True)
def multiply(A, a, stride, B, b, height, C, c, width, spacing, columns, count, fresh):
    """ROWS rows of ``C = A @ B`` (``fresh``) or ``C += A @ B``.

    Rows of A are ``stride`` apart; panels of B start at b and are ``height`` rows tall; rows of C are ``width`` apart,
    its panels ``spacing``.
    """
    W = 2 * lanes_of(A)
    for q in range(0, columns, W):
        panel, place = b + q * height, c + q // W * spacing
        if columns - q > W // 2:
            _tile(A, a, stride, B, panel, C, place, width, count, fresh)
        else:
            _narrow_tile(A, a, stride, B, panel, C, place, width, count, fresh)


@njit(nogil=True, cache=True, forceinline=True)
def add_transposed(A, a, stride, B, b, height, C, c, width, spacing, columns, count):
    """ROWS rows of ``C += A.T @ B``; otherwise as `multiply`."""
    W = 2 * lanes_of(A)
    for q in range(0, columns, W):
        panel, place = b + q * height, c + q // W * spacing
        if columns - q > W // 2:
            _transposed_tile(A, a, stride, B, panel, C, place, width, count, False)
        else:
            _narrow_transposed_tile(A, a, stride, B, panel, C, place, width, count, False)


@njit(nogil=True, cache=True, forceinline=True)
def multiply_transposed(A, a, stride, B, height, C, c, width, spacing, columns, count):
    """ROWS rows of ``C = A.T @ B``; otherwise as `multiply`."""
    W = 2 * lanes_of(A)
    for q in range(0, columns, W):
        place = c + q // W * spacing
        if columns - q > W // 2:
            _transposed_tile(A, a, stride, B, q * height, C, place, width, count, True)
        else:
            _narrow_transposed_tile(A, a, stride, B, q * height, C, place, width, count, True)


@njit(nogil=True, cache=True, forceinline=True)
def multiply_masked(A, a, stride, B, height, M, m, S, width, sums, t, first, last, count):
    """ROWS rows of ``S = M * (A @ B)`` in the panels of columns ``first ... last``; ``sums`` grows by rows."""
    W = 2 * lanes_of(A)
    for q in range(first // W * W, last, W):
        _masked_tile(A, a, stride, B, q * height, M, m + q, S, q, width, sums, t, count)
