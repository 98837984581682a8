"""The measurements as cells, for the terminal and for the page alike."""

from __future__ import annotations

from demo.measure import Measured, Row

HEADINGS = (
    "tokens",
    "structmask",
    "dense",
    "literal",
    "than dense",
    "than literal",
    "structmask",
    "dense",
    "literal",
    "worst row",
)
SHORT = ("tokens", "ours", "dense", "literal", "/dense", "/literal", "memory", "dense", "literal", "error")


def cells(row: Row) -> tuple[str, ...]:
    """One measured length as text."""
    return (
        f"{row.tokens:,}",
        *(_seconds(m) for m in (row.ours, row.dense, row.literal)),
        *(_times(row.ratio(rival)) for rival in ("dense", "literal")),
        *(_bytes(m) for m in (row.ours, row.dense, row.literal)),
        f"{row.error:.0e}",
    )


def plain(rows: tuple[Row, ...]) -> str:
    """A table for the terminal."""
    lines = [SHORT, *(cells(row) for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(SHORT))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def longest_compared(rows: tuple[Row, ...]) -> Row:
    """The greatest length at which both rivals ran."""
    return max((row for row in rows if row.ratio("dense") and row.ratio("literal")), key=lambda row: row.tokens)


def times(ratio: float | None) -> str:
    """How many times as fast, in two digits."""
    return _times(ratio)


def _times(ratio: float | None) -> str:
    if ratio is None:
        return "–"
    return f"{ratio:,.1f}×" if ratio < 9.95 else f"{ratio:,.0f}×"


def _seconds(measured: Measured) -> str:
    if measured.seconds is None:
        return measured.why_not
    if measured.seconds < 1:
        return f"{_two(measured.seconds * 1000)} ms"
    return f"{_two(measured.seconds)} s"


def _bytes(measured: Measured) -> str:
    if measured.memory is None:
        return "–"
    if measured.memory < 1e6:
        return f"{_two(measured.memory / 1e3)} kB"
    if measured.memory < 1e9:
        return f"{_two(measured.memory / 1e6)} MB"
    return f"{measured.memory / 1e9:.1f} GB"


def _two(x: float) -> str:
    return f"{x:.0f}" if x >= 9.95 else f"{x:.1f}"
