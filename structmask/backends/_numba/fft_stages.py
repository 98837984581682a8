"""Stages of the many-column FFT, each one loop of butterflies over rows in place.

`rows` is the scratch of one worker. The first and last stages (`enter_*`, `leave_*`) have as many legs as the tuple
`legs` has elements; they are the only ones that know where data come from and go to, so another fusion is another
short body here. `half` is 0 for the cyclic and 1 for the skew product, see `fft_plan`. Data of butterfly j and leg t
are row j + stride t of the signal, scratch row `base` + j + (stride + GAP) t.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from typing import Any

from .fft_plan import GAP
from .simd import Complex, Emitter, Index, dft, inverse_dft, kernel

RADICES = (2, 3, 4, 5, 8)


@kernel
def forward_stage(
    e: Emitter, radix: Index, rows: Any, start: Index, stride: Index, twiddles: Any, table: Index
) -> None:
    """DFT of the rows start + j + stride t over t, then twiddles, for all j < stride."""
    for R in RADICES:
        with e.when(radix, R), e.loop(stride) as j:
            places = [start + j + stride * t for t in range(R)]
            factors = table + j * (2 * R - 2)
            for f, y in enumerate(dft([e.row(rows, place) for place in places])):
                e.put_row(y * e.scalars(twiddles, factors + (2 * f - 2)) if f else y, rows, places[f])


@kernel
def inverse_stage(
    e: Emitter, radix: Index, rows: Any, start: Index, stride: Index, twiddles: Any, table: Index
) -> None:
    """The conjugate transpose of `forward_stage`."""
    for R in RADICES:
        with e.when(radix, R), e.loop(stride) as j:
            places = [start + j + stride * t for t in range(R)]
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


def _enter(
    e: Emitter,
    R: int,
    half: Index,
    rows: Any,
    base: Index,
    stride: Index,
    twiddles: Any,
    read: Callable[[Index], Complex],
) -> None:
    """First stage of the rows `read(r)`; the twist exp(-i pi r / h) of the skew half is in constants and twiddles."""
    for odd in (0, 1):
        with e.when(half, odd), e.loop(stride) as j:
            factors = (stride * odd + j) * (2 * R)
            x = [read(j + stride * t) for t in range(R)]
            if odd:
                x[1:] = [z * cmath.exp(-1j * math.pi * t / R) for t, z in enumerate(x[1:], 1)]
            for f, y in enumerate(dft(x)):
                twisted = y * e.scalars(twiddles, factors + 2 * f) if f or odd else y
                e.put_row(twisted, rows, base + j + (stride + GAP) * f)


def _leave(
    e: Emitter, R: int, half: Index, rows: Any, base: Index, stride: Index, twiddles: Any,
    write: Callable[[Index, Complex, int], None],
) -> None:  # fmt: skip
    """Last stage, the conjugate transpose of `_enter`: `write(r, z, odd)` gets row r of one half of the product."""
    for odd in (0, 1):
        with e.when(half, odd), e.loop(stride) as j:
            factors = (stride * odd + j) * (2 * R)
            y = [e.row(rows, base + j + (stride + GAP) * f) for f in range(R)]
            y = [z * e.scalars(twiddles, factors + 2 * f).conjugate() if f or odd else z for f, z in enumerate(y)]
            x = inverse_dft(y)
            if odd:
                x[1:] = [z * cmath.exp(1j * math.pi * t / R) for t, z in enumerate(x[1:], 1)]
            for t, z in enumerate(x):
                write(j + stride * t, z, odd)


@kernel
def enter_columns(
    e: Emitter, legs: int, half: Index, X: Any, n: Index, k: Index, column: Index, rows: Any, base: Index,
    stride: Index, twiddles: Any, scales: Any,
) -> None:  # fmt: skip
    """Row r is X[r, column : column+V] + i X[r, column+V : column+2V] for X (n, k), times `scales`; zero outside."""

    def read(r: Index) -> Complex:
        at, exists = r * k + column, r < n
        parts = []
        for shift in (0, e.lanes):
            value = e.load_masked(X, at + shift, e.mask(exists, k - column - shift))
            parts.append(e.builder.fmul(value, e.load(scales, Index(e.builder, shift))))
        return Complex(e.builder, *parts)

    _enter(e, legs, half, rows, base, stride, twiddles, read)


@kernel
def leave_columns(
    e: Emitter, legs: int, half: Index, Y: Any, m: Index, k: Index, column: Index, rows: Any, base: Index,
    stride: Index, twiddles: Any, scales: Any,
) -> None:  # fmt: skip
    """To Y (m, k), over `scales`, as `enter_columns` reads X: half 0 stores, half 1 adds."""

    def write(r: Index, z: Complex, odd: int) -> None:
        at, exists = r * k + column, r < m
        for part, shift in ((z.real, 0), (z.imag, e.lanes)):
            mask = e.mask(exists, k - column - shift)
            own = e.builder.fmul(part, e.load(scales, Index(e.builder, 2 * e.lanes + shift)))
            total = e.builder.fadd(own, e.load_masked(Y, at + shift, mask)) if odd else own
            e.store_masked(total, Y, at + shift, mask)

    _leave(e, legs, half, rows, base, stride, twiddles, write)


@kernel
def enter_outer(
    e: Emitter, legs: int, half: Index, pairs: Any, block: Any, rows: Any, base: Index, stride: Index, twiddles: Any
) -> None:
    """Row r is pairs[r, 0] block[r, :] + i pairs[r, 1] block[r, :], with pairs (h, 2) and block (h, V)."""

    def read(r: Index) -> Complex:
        return e.scalars(pairs, r * 2).scaled(e.load(block, r * e.lanes))

    _enter(e, legs, half, rows, base, stride, twiddles, read)


def _add_to_block(e: Emitter, r: Index, z: Complex, pairs: Any, total: Any) -> None:
    factors = e.scalars(pairs, r * 2)
    partial = e.multiply_add(factors.real, z.real, e.load(total, r * e.lanes))
    e.store(e.multiply_add(factors.imag, z.imag, partial), total, r * e.lanes)


def _add_to_pairs(e: Emitter, r: Index, z: Complex, block: Any, total: Any) -> None:
    e.add_sums(z.scaled(e.load(block, r * e.lanes)), total, r * 2)


@kernel
def leave_to_block(
    e: Emitter, legs: int, half: Index, pairs: Any, total: Any, rows: Any, base: Index, stride: Index, twiddles: Any
) -> None:
    """total[r, :] += pairs[r, 0] Re z_r + pairs[r, 1] Im z_r."""

    def write(r: Index, z: Complex, odd: int) -> None:
        _add_to_block(e, r, z, pairs, total)

    _leave(e, legs, half, rows, base, stride, twiddles, write)


@kernel
def leave_to_pairs(
    e: Emitter, legs: int, half: Index, block: Any, total: Any, rows: Any, base: Index, stride: Index, twiddles: Any
) -> None:
    """total[r, :] += sum over lanes of block[r, :] (Re z_r, Im z_r)."""

    def write(r: Index, z: Complex, odd: int) -> None:
        _add_to_pairs(e, r, z, block, total)

    _leave(e, legs, half, rows, base, stride, twiddles, write)


@kernel
def leave_to_both(
    e: Emitter, legs: int, half: Index, pairs: Any, block: Any, pair_total: Any, block_total: Any, rows: Any,
    base: Index, stride: Index, twiddles: Any,
) -> None:  # fmt: skip
    """`leave_to_block` and `leave_to_pairs` of the same rows."""

    def write(r: Index, z: Complex, odd: int) -> None:
        _add_to_block(e, r, z, pairs, block_total)
        _add_to_pairs(e, r, z, block, pair_total)

    _leave(e, legs, half, rows, base, stride, twiddles, write)
