"""Stages of the many-column FFT, each one loop of butterflies over rows in place.

`rows` is the scratch of one worker. A level is transformed at all its positions at once: butterfly j, leg t of a stage
are the scratch rows `start` + (j + stride t) pitch + s for s < count, `pitch` rows being from one position to the next.
The first and last stages (`enter_*`, `leave_*`) are the only ones that know where data come from and go to, so another
fusion is another short body here; they take the row of `Plan.levels` that describes their level. The length of the
tuple `axes` is one where positions have no rows inside them (pitch = count = 1), else two. `half` is 0 for the cyclic
and 1 for the skew product, see `fft_plan`.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

from .fft_plan import (
    ENTERING,
    GAP_ROWS,
    LEAVING,
    PITCH,
    RADIX,
    RUN_IN,
    RUN_OUT,
    STRIDE,
    TABLE,
    first_radices,
)
from .simd import Complex, Emitter, Index, dft, inverse_dft, kernel

RADICES = (2, 3, 4, 5, 8)


@contextmanager
def _rows(
    e: Emitter, axes: int, start: Index, stride: Index, pitch: Index, count: Index
) -> Iterator[tuple[Index, Index, Index]]:
    """Loop over butterflies: j, the row of the first leg, and how far apart legs are."""
    if axes == 1:
        with e.loop(stride) as j:
            yield j, start + j, stride
    else:
        step = stride * pitch
        with e.loop(stride) as j, e.loop(count) as s:
            yield j, start + j * pitch + s, step


@kernel
def forward_stage(
    e: Emitter, axes: int, radix: Index, rows: Any, start: Index, stride: Index, pitch: Index, count: Index,
    twiddles: Any, table: Index,
) -> None:  # fmt: skip
    """DFT of the rows over t, then twiddles."""
    for R in RADICES:
        with e.when(radix, R), _rows(e, axes, start, stride, pitch, count) as (j, first, step):
            places = [first + step * t for t in range(R)]
            factors = table + j * (2 * R - 2)
            for f, y in enumerate(dft([e.row(rows, place) for place in places])):
                e.put_row(y * e.scalars(twiddles, factors + (2 * f - 2)) if f else y, rows, places[f])


@kernel
def inverse_stage(
    e: Emitter, axes: int, radix: Index, rows: Any, start: Index, stride: Index, pitch: Index, count: Index,
    twiddles: Any, table: Index,
) -> None:  # fmt: skip
    """The conjugate transpose of `forward_stage`."""
    for R in RADICES:
        with e.when(radix, R), _rows(e, axes, start, stride, pitch, count) as (j, first, step):
            places = [first + step * t for t in range(R)]
            factors = table + j * (2 * R - 2)
            y = [e.row(rows, place) for place in places]
            y[1:] = [z * e.scalars(twiddles, factors + (2 * f)).conjugate() for f, z in enumerate(y[1:])]
            for place, x in zip(places, inverse_dft(y), strict=True):
                e.put_row(x, rows, place)


@kernel
def multiply_stage(
    e: Emitter, radix: Index, rows: Any, start: Index, count: Index, spectrum: Any, table: Index
) -> None:
    """Last forward stage, times the spectrum, first inverse stage, for `count` blocks of `radix` rows."""
    for R in RADICES:
        with e.when(radix, R), e.loop(count) as j:
            places = [start + j * R + t for t in range(R)]
            y = dft([e.row(rows, place) for place in places])
            y = [z * e.scalars(spectrum, table + (j * (2 * R) + 2 * t)) for t, z in enumerate(y)]
            for place, x in zip(places, inverse_dft(y), strict=True):
                e.put_row(x, rows, place)


@kernel
def correlate_stage(
    e: Emitter, radix: Index, rows: Any, start: Index, other: Index, count: Index, total: Any, table: Index
) -> None:
    """Last forward stage of F (rows start..) and E (rows other..); total += sum over lanes of E conj F."""
    for R in RADICES:
        with e.when(radix, R), e.loop(count) as j:
            f, g = (dft([e.row(rows, s + j * R + t) for t in range(R)]) for s in (start, other))
            for t in range(R):
                e.add_sums(g[t] * f[t].conjugate(), total, table + (j * (2 * R) + 2 * t))


@kernel
def correlate_multiply_stage(
    e: Emitter, radix: Index, rows: Any, start: Index, other: Index, count: Index, spectrum: Any, total: Any,
    table: Index,
) -> None:  # fmt: skip
    """`correlate_stage`, then F times the spectrum, E times its conjugate, and the first inverse stage of both."""
    for R in RADICES:
        with e.when(radix, R), e.loop(count) as j:
            places = [[s + j * R + t for t in range(R)] for s in (start, other)]
            f, g = (dft([e.row(rows, r) for r in side]) for side in places)
            for t in range(R):
                at = table + (j * (2 * R) + 2 * t)
                e.add_sums(g[t] * f[t].conjugate(), total, at)
                factor = e.scalars(spectrum, at)
                f[t], g[t] = f[t] * factor, g[t] * factor.conjugate()
            for side, y in zip(places, (f, g), strict=True):
                for r, x in zip(side, inverse_dft(y), strict=True):
                    e.put_row(x, rows, r)


class _Place:
    """A row r = origin + leg of an operand, `origin` changing from butterfly to butterfly and `leg` with the leg only.

    Products distribute over the sum, so that all but one are the same for all butterflies and leave the loop.
    """

    def __init__(self, origin: Index, leg: Index, exists: Any) -> None:
        self.origin, self.leg, self.exists = origin, leg, exists

    def __mul__(self, width: Index | int) -> Index:
        return self.origin * width + self.leg * width

    def after(self, start: Index) -> Index:
        return start + self.origin + self.leg


class _Ends:
    """Where the first and last stages of a level find their rows, read from a row of `Plan.levels`."""

    def __init__(self, e: Emitter, axes: int, level: Any, rows: Any, base: Index, begin: Index, count: Index) -> None:
        self.e, self.axes, self.rows, self.base, self.begin, self.count = e, axes, rows, base, begin, count
        fields = (RADIX, STRIDE, TABLE, ENTERING, LEAVING, RUN_IN, RUN_OUT, PITCH)
        self.radix, self.stride, self.table, self.n, self.m, self.run_in, self.run_out, self.pitch = (
            e.integer(level, field) for field in fields
        )
        self.step = (self.stride + e.integer(level, GAP_ROWS)) * self.pitch

    @contextmanager
    def _butterflies(self, R: int, half: Index, odd: int, run: Index, side: Index) -> Iterator[Any]:
        """Loop over them: the legs in an operand, the scratch row of the first leg, and where its factors are."""
        e = self.e
        with e.when(self.radix, R), e.when(half, odd), e.loop(self.stride) as j:
            factors = self.table + self.stride * (odd * 2 * R) + j * (2 * R)
            if self.axes == 1:
                yield self._places(R, j, j, side), self.base + j, factors
            else:
                with e.loop(self.count) as s:
                    origin = j * run + self.begin + s
                    yield self._places(R, j, origin, side, run), self.base + j * self.pitch + s, factors

    def _places(self, R: int, j: Index, origin: Index, side: Index, run: Index | int = 1) -> list[_Place]:
        return [_Place(origin, self.stride * run * t, j + self.stride * t < side) for t in range(R)]

    def enter(self, legs: int, half: Index, twiddles: Any, read: Callable[[_Place], Complex]) -> None:
        """First stage of the rows `read(place)`; the skew twist exp(-i pi r / h) is in constants and twiddles."""
        e = self.e
        for R, odd in product(first_radices(legs), (0, 1)):
            with self._butterflies(R, half, odd, self.run_in, self.n) as (places, first, factors):
                x = [read(place) for place in places]
                if odd:
                    x[1:] = [z * cmath.exp(-1j * math.pi * t / R) for t, z in enumerate(x[1:], 1)]
                for f, y in enumerate(dft(x)):
                    twisted = y * e.scalars(twiddles, factors + 2 * f) if f or odd else y
                    e.put_row(twisted, self.rows, first + self.step * f)

    def leave(self, legs: int, half: Index, twiddles: Any, write: Callable[[_Place, Complex, int], None]) -> None:
        """Last stage, the conjugate transpose of `enter`: `write(place, z, odd)` gets the rows of one half."""
        e = self.e
        for R, odd in product(first_radices(legs), (0, 1)):
            with self._butterflies(R, half, odd, self.run_out, self.m) as (places, first, factors):
                y = [e.row(self.rows, first + self.step * f) for f in range(R)]
                y = [z * e.scalars(twiddles, factors + 2 * f).conjugate() if f or odd else z for f, z in enumerate(y)]
                x = inverse_dft(y)
                if odd:
                    x[1:] = [z * cmath.exp(1j * math.pi * t / R) for t, z in enumerate(x[1:], 1)]
                for place, z in zip(places, x, strict=True):
                    write(place, z, odd)


@kernel
def enter_rows(
    e: Emitter, axes: int, legs: int, level: Any, half: Index, rows: Any, base: Index, begin: Index, count: Index,
    source: Index, twiddles: Any,
) -> None:  # fmt: skip
    """From scratch rows `source` + r; those past the grid read as zero."""

    def read(place: _Place) -> Complex:
        return e.row_if(place.exists, rows, place.after(source))

    _Ends(e, axes, level, rows, base, begin, count).enter(legs, half, twiddles, read)


@kernel
def leave_rows(
    e: Emitter, axes: int, legs: int, level: Any, half: Index, rows: Any, base: Index, begin: Index, count: Index,
    target: Index, twiddles: Any,
) -> None:  # fmt: skip
    """To scratch rows `target` + r: half 0 stores, half 1 adds."""

    def write(place: _Place, z: Complex, odd: int) -> None:
        with e.builder.if_then(place.exists, likely=True):
            r = place.after(target)
            e.put_row(e.row(rows, r) + z if odd else z, rows, r)

    _Ends(e, axes, level, rows, base, begin, count).leave(legs, half, twiddles, write)


@kernel
def enter_columns(
    e: Emitter, axes: int, legs: int, level: Any, half: Index, rows: Any, base: Index, begin: Index, count: Index,
    X: Any, k: Index, column: Index, twiddles: Any, scales: Any,
) -> None:  # fmt: skip
    """Row r is X[r, column : column+V] + i X[r, column+V : column+2V] for X (n, k), times `scales`; zero outside.

    A column whose scale is zero is not read: whatever is in it, it counts as zero.
    """
    sides = []
    for shift in (0, e.lanes):
        scale = e.load(scales, Index(e.builder, shift))
        sides.append((shift, scale, e.where_nonzero(e.lanes_below(k - column - shift), scale)))

    def read(place: _Place) -> Complex:
        at = place * k + column
        parts = []
        for shift, scale, mask in sides:
            value = e.load_masked(X, at + shift, e.only_if(place.exists, mask))
            parts.append(e.builder.fmul(value, scale))
        return Complex(e.builder, *parts)

    _Ends(e, axes, level, rows, base, begin, count).enter(legs, half, twiddles, read)


@kernel
def leave_columns(
    e: Emitter, axes: int, legs: int, level: Any, half: Index, rows: Any, base: Index, begin: Index, count: Index,
    Y: Any, k: Index, column: Index, twiddles: Any, scales: Any,
) -> None:  # fmt: skip
    """To Y (m, k), over `scales`, as `enter_columns` reads X: half 0 stores, half 1 adds."""

    def write(place: _Place, z: Complex, odd: int) -> None:
        at = place * k + column
        for part, shift in ((z.real, 0), (z.imag, e.lanes)):
            mask = e.mask(place.exists, k - column - shift)
            own = e.builder.fmul(part, e.load(scales, Index(e.builder, 2 * e.lanes + shift)))
            total = e.builder.fadd(own, e.load_masked(Y, at + shift, mask)) if odd else own
            e.store_masked(total, Y, at + shift, mask)

    _Ends(e, axes, level, rows, base, begin, count).leave(legs, half, twiddles, write)


@kernel
def enter_outer(
    e: Emitter, axes: int, legs: int, level: Any, half: Index, rows: Any, base: Index, begin: Index, count: Index,
    pairs: Any, block: Any, twiddles: Any,
) -> None:  # fmt: skip
    """Row r is pairs[r, 0] block[r, :] + i pairs[r, 1] block[r, :], with padded pairs (n, 2) and block (n, V)."""

    def read(place: _Place) -> Complex:
        return e.scalars(pairs, place * 2).scaled(e.load(block, place * e.lanes))

    _Ends(e, axes, level, rows, base, begin, count).enter(legs, half, twiddles, read)


def _add_to_block(e: Emitter, place: _Place, z: Complex, pairs: Any, total: Any) -> None:
    factors, at = e.scalars(pairs, place * 2), place * e.lanes
    partial = e.multiply_add(factors.real, z.real, e.load(total, at))
    e.store(e.multiply_add(factors.imag, z.imag, partial), total, at)


def _add_to_pairs(e: Emitter, place: _Place, z: Complex, block: Any, total: Any) -> None:
    e.add_sums(z.scaled(e.load(block, place * e.lanes)), total, place * 2)


@kernel
def leave_to_block(
    e: Emitter, axes: int, legs: int, level: Any, half: Index, rows: Any, base: Index, begin: Index, count: Index,
    pairs: Any, total: Any, twiddles: Any,
) -> None:  # fmt: skip
    """total[r, :] += pairs[r, 0] Re z_r + pairs[r, 1] Im z_r."""

    def write(place: _Place, z: Complex, _odd: int) -> None:
        _add_to_block(e, place, z, pairs, total)

    _Ends(e, axes, level, rows, base, begin, count).leave(legs, half, twiddles, write)


@kernel
def leave_to_pairs(
    e: Emitter, axes: int, legs: int, level: Any, half: Index, rows: Any, base: Index, begin: Index, count: Index,
    block: Any, total: Any, twiddles: Any,
) -> None:  # fmt: skip
    """total[r, :] += sum over lanes of block[r, :] (Re z_r, Im z_r)."""

    def write(place: _Place, z: Complex, _odd: int) -> None:
        _add_to_pairs(e, place, z, block, total)

    _Ends(e, axes, level, rows, base, begin, count).leave(legs, half, twiddles, write)


@kernel
def leave_to_both(
    e: Emitter, axes: int, legs: int, level: Any, half: Index, rows: Any, base: Index, begin: Index, count: Index,
    pairs: Any, block: Any, pair_total: Any, block_total: Any, twiddles: Any,
) -> None:  # fmt: skip
    """`leave_to_block` and `leave_to_pairs` of the same rows."""

    def write(place: _Place, z: Complex, _odd: int) -> None:
        _add_to_block(e, place, z, pairs, block_total)
        _add_to_pairs(e, place, z, block, pair_total)

    _Ends(e, axes, level, rows, base, begin, count).leave(legs, half, twiddles, write)
