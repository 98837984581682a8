"""Ways through the stages of a plan between the first stage of its first level and the last one.

Inside a level the stages run depth first: a wide stage when its block is entered or left, the stages of a block that
fits the L1 cache one after the other. Levels run depth first too: a position of one level is a grid of the next ones;
it is entered into both halves of the next level, treated there, and left back to where it was. So every level but
the first, which has no halves, needs the scratch of one grid of its own and later levels twice.
"""

from __future__ import annotations

from numba import njit

from .fft_plan import (
    BASE,
    CHUNK_ROWS,
    GAP_ROWS,
    HALF,
    LENGTH,
    LINES,
    PITCH,
    RADIX,
    RUN_IN,
    RUN_OUT,
    STAGE,
    STOP,
    STRIDE,
)
from .fft_stages import (
    correlate_multiply_stage,
    correlate_stage,
    enter_rows,
    forward_stage,
    inverse_stage,
    leave_rows,
    multiply_stage,
)

LEAF_BYTES = 32 * 1024

# Compiled anew in every job: as functions of their own their machine code would be made once more a layer.
part = njit(nogil=True, cache=True, inline="always")


# --- one level --------------------------------------------------------------------------------------------------------


@part
def _leaf_stage(lanes, rows, stages, count):
    """The first stage whose blocks fit the L1 cache (the last one if none does)."""
    leaf = LEAF_BYTES // (2 * len(lanes) * rows.itemsize * count)
    stage = 1
    while stage < len(stages) - 1 and stages[stage, 1] > leaf:
        stage += 1
    return stage


@part
def _descend(lanes, axes, rows, base, pitch, count, start, low, last, stages, twiddles):
    """Forward stages before `last` of the leaf at `start` of a leg; wide ones where it begins their block."""
    for t in range(1, last):
        size, end = stages[t, 1], start + stages[low, 1]
        if t < low:
            end = start + 1 if start % size == 0 else start
        for r in range(start, end, size):
            radix = stages[t, 0]
            forward_stage(
                lanes, axes, radix, rows, base + r * pitch, size // radix, pitch, count, twiddles, stages[t, 2]
            )


@part
def _ascend(lanes, axes, rows, base, pitch, count, start, low, last, stages, twiddles):
    """The inverse of `_descend`; wide stages where the leaf ends their block."""
    for t in range(last - 1, 0, -1):
        size, begin, end = stages[t, 1], start, start + stages[low, 1]
        if t < low:
            begin = end - size if end % size == 0 else end
        for r in range(begin, end, size):
            radix = stages[t, 0]
            inverse_stage(
                lanes, axes, radix, rows, base + r * pitch, size // radix, pitch, count, twiddles, stages[t, 2]
            )


@njit(nogil=True, cache=True)
def forward(lanes, axes, level, stages, twiddles, rows, base, count):
    """All stages but the first of a level with others inside, for `count` rows of every position."""
    own = stages[level[STAGE] : level[STOP]]
    if len(axes) > 1 and len(own) > 1 and level[LINES] > 1:
        low, stride, pitch = _leaf_stage(lanes, rows, own, count), level[STRIDE], level[PITCH]
        for leg in range(level[RADIX]):
            for start in range(0, stride, own[low, 1]):
                block = base + leg * stride * pitch
                _descend(lanes, (0, 0), rows, block, pitch, count, start, low, len(own), own, twiddles)


@njit(nogil=True, cache=True)
def backward(lanes, axes, level, stages, twiddles, rows, base, count):
    """The conjugate transpose of `forward`."""
    own = stages[level[STAGE] : level[STOP]]
    if len(axes) > 1 and len(own) > 1 and level[LINES] > 1:
        low, stride, pitch = _leaf_stage(lanes, rows, own, count), level[STRIDE], level[PITCH]
        for leg in range(level[RADIX]):
            for start in range(0, stride, own[low, 1]):
                block = base + leg * stride * pitch
                _ascend(lanes, (0, 0), rows, block, pitch, count, start, low, len(own), own, twiddles)


@part
def _multiply(lanes, phases, group, level, stages, twiddles, rows, base, spectrum, table, numbers):
    """The last level between its first and last stage: forward, times the spectrum, `numbers` a frequency, back."""
    own, stride = stages[level[STAGE] : level[STOP]], level[STRIDE]
    low, last, radix = _leaf_stage(lanes, rows, own, 1), len(own) - 1, own[-1, 0]
    leaf = own[low, 1]
    for leg in range(level[RADIX]):
        block = base + leg * (stride + level[GAP_ROWS])
        for start in range(0, stride, leaf):
            place = table + numbers * (leg * stride + start)
            if last > 1:
                _descend(lanes, (0,), rows, block, 1, 1, start, low, last, own, twiddles)
            multiply_stage(lanes, phases, group, radix, rows, block + start, leaf // radix, spectrum, place)
            if last > 1:
                _ascend(lanes, (0,), rows, block, 1, 1, start, low, last, own, twiddles)


@part
def _correlate(lanes, level, stages, twiddles, rows, base, signal, total, table):
    """Forward stages of F (at `base`) and E (`signal` rows on); total += sum over lanes of E conj F."""
    own, stride = stages[level[STAGE] : level[STOP]], level[STRIDE]
    low, last, radix = _leaf_stage(lanes, rows, own, 1), len(own) - 1, own[-1, 0]
    leaf = own[low, 1]
    for leg in range(level[RADIX]):
        block = base + leg * (stride + level[GAP_ROWS])
        for start in range(0, stride, leaf):
            place = table + 2 * (leg * stride + start)
            for shift in (0, signal):
                _descend(lanes, (0,), rows, shift + block, 1, 1, start, low, last, own, twiddles)
            first = block + start
            correlate_stage(lanes, radix, rows, first, signal + first, leaf // radix, total, place)


@part
def _correlate_multiply(lanes, level, stages, twiddles, rows, base, signal, spectrum, total, table):
    """`_correlate`, and both signals back: F times the spectrum, E times its conjugate (the transposed matrix)."""
    own, stride = stages[level[STAGE] : level[STOP]], level[STRIDE]
    low, last, radix = _leaf_stage(lanes, rows, own, 1), len(own) - 1, own[-1, 0]
    leaf = own[low, 1]
    for leg in range(level[RADIX]):
        block = base + leg * (stride + level[GAP_ROWS])
        for start in range(0, stride, leaf):
            place = table + 2 * (leg * stride + start)
            for shift in (0, signal):
                _descend(lanes, (0,), rows, shift + block, 1, 1, start, low, last, own, twiddles)
            first = block + start
            correlate_multiply_stage(lanes, radix, rows, first, signal + first, leaf // radix, spectrum, total, place)
            for shift in (0, signal):
                _ascend(lanes, (0,), rows, shift + block, 1, 1, start, low, last, own, twiddles)


# --- all levels -------------------------------------------------------------------------------------------------------


@part
def _position(level, index):
    """Scratch row of a position of a level, counted through its two halves."""
    return level[BASE] + index // level[LENGTH] * level[HALF] + index % level[LENGTH] * level[PITCH]


@part
def chunk_rows(level):
    """How many rows of each position to transform together."""
    return max(1, CHUNK_ROWS // level[LENGTH])


@part
def _open(lanes, axes, legs, levels, stages, twiddles, rows, signal, line):
    """Enter all levels but the first whose grid begins with this line of the last one."""
    for index in range(1, len(levels) if len(axes) > 1 else 1):
        level = levels[index]
        if line % level[LINES] == 0:
            source = signal + _position(levels[index - 1], line // level[LINES] % (2 * levels[index - 1, LENGTH]))
            chunk = chunk_rows(level)
            for half in range(2):
                base = signal + level[BASE] + half * level[HALF]
                for begin in range(0, level[RUN_IN], chunk):
                    count = min(chunk, level[RUN_IN] - begin)
                    enter_rows(lanes, axes, legs, level, half, rows, base + begin, begin, count, source, twiddles)
                    forward(lanes, axes, level, stages, twiddles, rows, base + begin, count)


@part
def _close(lanes, axes, legs, levels, stages, twiddles, rows, signal, line):
    """Leave all levels but the first whose grid ends with this line."""
    for index in range(len(levels) - 1 if len(axes) > 1 else 0, 0, -1):
        level = levels[index]
        if (line + 1) % level[LINES] == 0:
            target = signal + _position(levels[index - 1], line // level[LINES] % (2 * levels[index - 1, LENGTH]))
            chunk = chunk_rows(level)
            for half in range(2):
                base = signal + level[BASE] + half * level[HALF]
                for begin in range(0, level[RUN_OUT], chunk):
                    count = min(chunk, level[RUN_OUT] - begin)
                    backward(lanes, axes, level, stages, twiddles, rows, base + begin, count)
                    leave_rows(lanes, axes, legs, level, half, rows, base + begin, begin, count, target, twiddles)


@part
def multiply(lanes, phases, group, axes, legs, levels, stages, twiddles, rows, spectrum):
    """After the first level: all later levels forward, times the spectrum, back."""
    last = levels[-1]
    halves, lines = min(2, len(levels)), levels[0, LINES]
    numbers = 4 * len(phases) - 2  # `spectrum_numbers`
    for line in range(lines):
        _open(lanes, axes, legs, levels, stages, twiddles, rows, 0, line)
        for half in range(halves):
            base, table = last[BASE] + half * last[HALF], numbers * last[LENGTH] * (halves * line + half)
            _multiply(lanes, phases, group, last, stages, twiddles, rows, base, spectrum, table, numbers)
        _close(lanes, axes, legs, levels, stages, twiddles, rows, 0, line)


@part
def correlate(lanes, axes, legs, sides, stages, twiddles, rows, signal, total):
    """Both signals forward, F on the grid of columns and E on that of rows; total += sum over lanes of E conj F."""
    last = sides[0, -1]
    halves = min(2, sides.shape[1])
    for line in range(sides[0, 0, LINES]):
        for side in range(2):
            _open(lanes, axes, legs, sides[side], stages, twiddles, rows, side * signal, line)
        for half in range(halves):
            base, table = last[BASE] + half * last[HALF], 2 * last[LENGTH] * (halves * line + half)
            _correlate(lanes, last, stages, twiddles, rows, base, signal, total, table)


@part
def correlate_multiply(lanes, axes, legs, sides, stages, twiddles, rows, signal, spectrum, total):
    """`correlate`, then F through the matrix to the grid of rows, and E through its transpose to that of columns."""
    last = sides[0, -1]
    halves = min(2, sides.shape[1])
    for line in range(sides[0, 0, LINES]):
        for side in range(2):
            _open(lanes, axes, legs, sides[side], stages, twiddles, rows, side * signal, line)
        for half in range(halves):
            base, table = last[BASE] + half * last[HALF], 2 * last[LENGTH] * (halves * line + half)
            _correlate_multiply(lanes, last, stages, twiddles, rows, base, signal, spectrum, total, table)
        for side in range(2):
            _close(lanes, axes, legs, sides[side], stages, twiddles, rows, side * signal, line)
