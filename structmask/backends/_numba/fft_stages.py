"""Stages of the many-column FFT, each one loop of butterflies over rows in place.

`rows` is the scratch of one worker. A level is transformed at all its positions at once: butterfly j, leg t of a stage
are the scratch rows `start` + (j + stride t) pitch + s for s < count, `pitch` rows being from one position to the next.
The first and last stages (`enter_*`, `leave_*`) are the only ones that know where data come from and go to, so another
fusion is another short body here; they take the row of `Plan.levels` that describes their level. The length of the
tuple `axes` is one where positions have no rows inside them (pitch = count = 1), else two. `half` is 0 for the even and
1 for the odd frequencies of a level that has both, see `fft_plan`.
"""

from __future__ import annotations

import cmath
import math
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import reduce
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
    e: Emitter,
    phases: int,
    group: int,
    radix: Index,
    rows: Any,
    start: Index,
    count: Index,
    spectrum: Any,
    table: Index,
) -> None:
    """Last forward stage, times the spectrum, first inverse stage, for `count` blocks of `radix` rows."""
    size = spectrum_numbers(phases)
    for R in RADICES:
        with e.when(radix, R), e.loop(count) as j:
            places = [start + j * R + t for t in range(R)]
            y, first = dft([e.row(rows, place) for place in places]), table + j * (R * size)
            if phases == 1:
                y = [z * e.scalars(spectrum, first + t * size) for t, z in enumerate(y)]
            else:
                for place, z in zip(places, y, strict=True):
                    e.put_row(z, rows, place)
                with e.loop(Index(e.builder, R)) as t:
                    _mix(e, phases, group, rows, start + j * R + t, spectrum, first + t * size)
                y = [e.row(rows, place) for place in places]
            for place, x in zip(places, inverse_dft(y), strict=True):
                e.put_row(x, rows, place)


def spectrum_numbers(phases: int) -> int:
    """Numbers in the spectrum at one frequency: real, then imaginary parts of t[1-p], ..., t[p-1] for p phases."""
    return 4 * phases - 2


def _mix(e: Emitter, phases: int, group: int, rows: Any, row: Index, spectrum: Any, at: Index) -> None:
    """Lanes (phase i, column c) of a row become the sum over phases j of t[i - j] times lane (j, c), see `polyphase`.

    What is loaded beyond t[p-1] is for lanes that no operand has.
    """
    x, terms = e.row(rows, row), []
    for j in range(phases):
        window = at + (phases - 1 - j)
        factors = Complex(e.builder, e.load(spectrum, window), e.load(spectrum, window + (2 * phases - 1)))
        own = factors.permuted([lane // group for lane in range(e.lanes)])
        terms.append(x.permuted([j * group + lane % group for lane in range(e.lanes)]) * own)
    e.put_row(reduce(operator.add, terms), rows, row)


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
    def _butterflies(self, R: int, half: Index | None, t: int, run: Index, side: Index) -> Iterator[Any]:
        """Loop over them: the legs in an operand, the scratch row of the first leg, and where its factors are."""
        e = self.e
        here = nullcontext() if half is None else e.when(half, t)
        with e.when(self.radix, R), here, e.loop(self.stride) as j:
            factors = self.table + self.stride * (t * 2 * R) + j * (2 * R)
            if self.axes == 1:
                yield self._places(R, j, j, side), self.base + j, factors
            else:
                with e.loop(self.count) as s:
                    origin = j * run + self.begin + s
                    yield self._places(R, j, origin, side, run), self.base + j * self.pitch + s, factors

    def _places(self, R: int, j: Index, origin: Index, side: Index, run: Index | int = 1) -> list[_Place]:
        return [_Place(origin, self.stride * run * t, j + self.stride * t < side) for t in range(R)]

    def enter(self, legs: int, half: Index | None, twiddles: Any, read: Callable[[_Place], Complex]) -> None:
        """First stage of the rows `read(place)`; the twist of leg t is in constants, the rest of it in twiddles."""
        e = self.e
        for R, (t, turn) in product(first_radices(legs), enumerate(_turns(half))):
            with self._butterflies(R, half, t, self.run_in, self.n) as (places, first, factors):
                x = [_turned(read(place), -turn * leg / R) for leg, place in enumerate(places)]
                for f, y in enumerate(dft(x)):
                    twisted = y * e.scalars(twiddles, factors + 2 * f) if f or turn else y
                    e.put_row(twisted, self.rows, first + self.step * f)

    def leave(
        self, legs: int, half: Index | None, twiddles: Any, write: Callable[[_Place, Complex, int], None]
    ) -> None:
        """Last stage, the conjugate transpose of `enter`: `write(place, z, half)` gets the rows."""
        e = self.e
        for R, (t, turn) in product(first_radices(legs), enumerate(_turns(half))):
            with self._butterflies(R, half, t, self.run_out, self.m) as (places, first, factors):
                y = [e.row(self.rows, first + self.step * f) for f in range(R)]
                y = [z * e.scalars(twiddles, factors + 2 * f).conjugate() if f or turn else z for f, z in enumerate(y)]
                for leg, (place, z) in enumerate(zip(places, inverse_dft(y), strict=True)):
                    write(place, _turned(z, turn * leg / R), t)


def _turns(half: Index | None) -> tuple[float, ...]:
    """Of a level with two halves, and of the first one, see `fft_plan.Level`."""
    return (0.25,) if half is None else (0.0, 0.5)


def _turned(z: Complex, turn: float) -> Complex:
    return z * cmath.exp(2j * math.pi * turn) if turn else z


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


def _columns_mask(e: Emitter, at: Index, step: Index, column: Index, total: Index) -> Any:
    """Lanes inside the row and inside the operand."""
    return e.lanes_below((total - at).clamped(step - column))


@kernel
def enter_columns(
    e: Emitter, axes: int, legs: int, level: Any, rows: Any, base: Index, begin: Index, count: Index,
    X: Any, step: Index, column: Index, total: Index, twiddles: Any,
) -> None:  # fmt: skip
    """Row r is V of the `total` numbers X, from step r + column on, but none of the next row; zero outside."""

    def read(place: _Place) -> Complex:
        at = place * step + column
        return e.real(e.load_masked(X, at, _columns_mask(e, at, step, column, total)))

    _Ends(e, axes, level, rows, base, begin, count).enter(legs, None, twiddles, read)


@kernel
def leave_columns(
    e: Emitter, axes: int, legs: int, level: Any, rows: Any, base: Index, begin: Index, count: Index,
    Y: Any, step: Index, column: Index, total: Index, twiddles: Any,
) -> None:  # fmt: skip
    """To Y, as `enter_columns` reads X."""

    def write(place: _Place, z: Complex, _half: int) -> None:
        at = place * step + column
        e.store_masked(z.real, Y, at, _columns_mask(e, at, step, column, total))

    _Ends(e, axes, level, rows, base, begin, count).leave(legs, None, twiddles, write)


@kernel
def enter_outer(
    e: Emitter, axes: int, legs: int, level: Any, rows: Any, base: Index, begin: Index, count: Index,
    single: Any, block: Any, twiddles: Any,
) -> None:  # fmt: skip
    """Row r is single[r] block[r, :], with padded single (n,) and block (n, V)."""

    def read(place: _Place) -> Complex:
        return e.real(e.builder.fmul(e.scalar(single, place * 1), e.load(block, place * e.lanes)))

    _Ends(e, axes, level, rows, base, begin, count).enter(legs, None, twiddles, read)


def _add_to_block(e: Emitter, place: _Place, z: Complex, single: Any, total: Any) -> None:
    at = place * e.lanes
    e.store(e.multiply_add(e.scalar(single, place * 1), z.real, e.load(total, at)), total, at)


def _add_to_single(e: Emitter, place: _Place, z: Complex, block: Any, total: Any) -> None:
    e.add_sum(e.builder.fmul(z.real, e.load(block, place * e.lanes)), total, place * 1)


@kernel
def leave_to_block(
    e: Emitter, axes: int, legs: int, level: Any, rows: Any, base: Index, begin: Index, count: Index,
    single: Any, total: Any, twiddles: Any,
) -> None:  # fmt: skip
    """total[r, :] += single[r] z_r."""

    def write(place: _Place, z: Complex, _half: int) -> None:
        _add_to_block(e, place, z, single, total)

    _Ends(e, axes, level, rows, base, begin, count).leave(legs, None, twiddles, write)


@kernel
def leave_to_single(
    e: Emitter, axes: int, legs: int, level: Any, rows: Any, base: Index, begin: Index, count: Index,
    block: Any, total: Any, twiddles: Any,
) -> None:  # fmt: skip
    """total[r] += sum over lanes of block[r, :] z_r."""

    def write(place: _Place, z: Complex, _half: int) -> None:
        _add_to_single(e, place, z, block, total)

    _Ends(e, axes, level, rows, base, begin, count).leave(legs, None, twiddles, write)


@kernel
def leave_to_both(
    e: Emitter, axes: int, legs: int, level: Any, rows: Any, base: Index, begin: Index, count: Index,
    single: Any, block: Any, single_total: Any, block_total: Any, twiddles: Any,
) -> None:  # fmt: skip
    """`leave_to_block` and `leave_to_single` of the same rows."""

    def write(place: _Place, z: Complex, _half: int) -> None:
        _add_to_block(e, place, z, single, block_total)
        _add_to_single(e, place, z, block, single_total)

    _Ends(e, axes, level, rows, base, begin, count).leave(legs, None, twiddles, write)
