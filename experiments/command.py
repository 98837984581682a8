"""The command line that the experiments share: [--seeds N] [--quick] [--output folder]."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments import report
from experiments.data import MissingDataError
from experiments.training import Variant, compare

RESULTS = Path(__file__).parent / "results"
QUICK = Path("build/experiments")


def options(text: str, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked for; quick runs do not write where the committed results are."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, help="how many seeds")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, only to see that everything runs")
    parser.add_argument("--output", type=Path, help=f"where csv and svg go ({RESULTS.parent.name}/{RESULTS.name})")
    found = parser.parse_args(arguments)
    found.output = found.output or (QUICK if found.quick else RESULTS)
    return found


def main(
    name: str,
    text: str,
    config: Any,
    quick: Any,
    variants: Callable[[Any], list[Variant]],
    arguments: Sequence[str] | None = None,
) -> None:
    """Train all variants; write `name`.csv, .md and .svg; print the table."""
    asked = options(text, arguments)
    chosen = quick if asked.quick else config
    budget = dataclasses.replace(chosen.budget, seeds=asked.seeds or chosen.budget.seeds)
    try:
        runs = list(compare(variants(chosen), budget))
    except MissingDataError as error:
        sys.exit(str(error))
    report.write(asked.output, name, runs, report.table(runs), report.plot)
