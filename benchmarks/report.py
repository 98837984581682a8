"""Rows of figures as an aligned table, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Row:
    """A label, its figures by column (numbers or words), and details that only the JSON file keeps."""

    case: str
    figures: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


def table(rows: Sequence[Row]) -> str:
    """Aligned text; a column for every figure that occurs."""
    lines = _cells(rows)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(rows: Sequence[Row]) -> str:
    """The same as a Markdown table."""
    head, *body = _cells(rows)
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *body))


def write(folder: Path, name: str, title: str, rows: Sequence[Row]) -> None:
    """`name`.json and `name`.md in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
    (folder / f"{name}.md").write_text(f"# {title}\n\n{markdown(rows)}\n", encoding="utf-8")


def record(page: Path, title: str, explanation: str, command: str, rows: Sequence[Row]) -> None:
    """A page of the documentation: what was run, and ratios; columns of times belong to one machine."""
    kept = [Row(row.case, {key: value for key, value in row.figures.items() if not _is_time(key)}) for row in rows]
    page.parent.mkdir(parents=True, exist_ok=True)
    text = f"# {title.rstrip('.')}\n\n{explanation.strip()}\n\nWritten by `{command}`.\n\n{markdown(kept)}\n"
    page.write_text(text, encoding="utf-8")


def _is_time(column: str) -> bool:
    return column.endswith((", ms", ", s"))


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    columns = _columns(rows)
    return [["", *columns], *([row.case, *(number(row.figures.get(column)) for column in columns)] for row in rows)]


def _columns(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row.figures))


def number(value: Any) -> str:
    """Three digits, without an exponent where that reads well."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
