"""What the experiments write: rows as csv, means and spreads as a Markdown table, and a plot with every seed."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.training import Run


def write(folder: Path, name: str, rows: Sequence[Any], table: str, plot: Callable[[Path, Any], None]) -> None:
    """`name`.csv, `name`.md with the table, which is printed as well, and `name`.svg."""
    write_rows(folder / f"{name}.csv", rows)
    (folder / f"{name}.md").write_text(table + "\n", encoding="utf-8")
    plot(folder / f"{name}.svg", rows)
    print(table)


def write_rows(path: Path, rows: Sequence[Any]) -> None:
    """Dataclasses as csv, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = [asdict(row) for row in rows]
        writer = csv.DictWriter(file, fieldnames=list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{x:.4g}" if isinstance(x, float) else x for k, x in line.items()} for line in lines)


def by_variant(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs that are reported, those that only tuned left out."""
    names = dict.fromkeys(run.variant for run in runs)
    return {name: [run for run in runs if run.variant == name and run.reported] for name in names}


def table(runs: Sequence[Run]) -> str:
    """Markdown: test accuracy in per cent, its mean, standard deviation and range over seeds."""
    lines = ["| model | test accuracy, % | range | rate | parameters |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, reported in by_variant(runs).items():
        found = [100 * run.test for run in reported]
        spread = statistics.stdev(found) if len(found) > 1 else float("nan")
        line = (
            name,
            f"{statistics.mean(found):.1f} ± {spread:.1f}",
            f"{min(found):.1f} – {max(found):.1f}",
            f"{reported[0].rate:g}",
            f"{reported[0].parameters:,}",
        )
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines)


def plot(path: Path, runs: Sequence[Run]) -> None:
    """A dot for every seed, a bar at the mean."""
    groups = by_variant(runs)
    figure, axes = canvas(height=0.6 + 0.3 * len(groups))
    for place, reported in enumerate(groups.values()):
        found = [100 * run.test for run in reported]
        axes.plot(found, [place] * len(found), "o", color="C0", alpha=0.7)
        axes.plot([statistics.mean(found)], [place], "|", color="k", markersize=14)
    axes.set_yticks(range(len(groups)), list(groups))
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy, %")
    axes.grid(axis="x", alpha=0.3)
    save(figure, path)


def canvas(height: float, columns: int = 1) -> tuple[Any, Any]:
    """A figure for the docs, with letters as text so that files are small and the same every time."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "structmask"})
    figure = Figure(figsize=(6.4, height), layout="constrained")
    return figure, figure.subplots(1, columns)


def save(figure: Any, path: Path) -> None:
    """As svg, without a date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
