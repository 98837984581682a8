"""The planner's rates from measured times: python -m benchmarks.fit_planner [build/benchmarks/planner.json ...].

The fit is that of `structmask.calibrate`, on a whole sweep. The work of every sample is counted anew, by the formulas
now in the library. Prints the entries of `_TYPICAL` in structmask/linalg/rates.py to paste, and where model and
measurement differ most.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import report
from benchmarks.bench_planner import operands, plan_of
from benchmarks.report import Row
from structmask import use_backend
from structmask.backends.config import processors
from structmask.linalg.calibration import KINDS, fitted
from structmask.linalg.planning import Work
from structmask.linalg.rates import THREADED, typical


@dataclass(frozen=True)
class Sample:
    """One method at one size: what it does and how long that took."""

    label: str
    method: str
    backend: str
    work: Work
    seconds: float


def samples(files: Iterable[Path]) -> list[Sample]:
    found = (sample for file in files for row in json.loads(file.read_text()) for sample in _of_row(row))
    return list(found)


def _of_row(row: dict) -> Iterator[Sample]:
    if "sample" not in row["details"]:
        return
    size = row["details"]["sample"]
    backend = "numpy" if size["backend"] == "numpy" else "numba"
    with use_backend(backend):
        mask, *_ = operands(size["kind"], size["L"], 1, 1)
        steps = plan_of(mask, size["L"], size["m"], size["e"]).steps
    for step in steps:
        if step.method in row["details"]["seconds"] and step.method != "terms":
            yield Sample(row["case"], step.method, backend, step.work, row["details"]["seconds"][step.method])


def predicted(sample: Sample, rates: Work) -> float:
    return sum(getattr(sample.work, kind) / getattr(rates, kind) for kind in KINDS)


def misfits(chosen: list[Sample], rates: Work) -> list[Row]:
    """Prediction over measurement of every method: median, spread, and the samples that are furthest off."""
    rows = []
    groups = sorted({(sample.method, sample.label.split()[0]) for sample in chosen})
    for method, kind in groups:
        group = [sample for sample in chosen if (sample.method, sample.label.split()[0]) == (method, kind)]
        ratios = sorted((predicted(sample, rates) / sample.seconds, sample.label) for sample in group)
        values = [ratio for ratio, _ in ratios]
        figures = {
            "samples": len(group),
            "median": float(np.median(values)),
            "least": values[0],
            "at ": ratios[0][1],
            "most": values[-1],
            "at": ratios[-1][1],
        }
        rows.append(Row(f"{method}, {kind}", figures))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, default=[Path("build/benchmarks/planner.json")])
    everything = samples(parser.parse_args().files)
    for backend in sorted({sample.backend for sample in everything}):
        chosen = [sample for sample in everything if sample.backend == backend]
        works, seconds = zip(*((sample.work, sample.seconds) for sample in chosen), strict=True)
        rates = fitted(works, seconds, Work(**typical(backend)))
        print(f"\nexpected over measured time, {backend}, with the rates below\n")
        print(report.table(misfits(chosen, rates)))
        one = {kind: getattr(rates, kind) / (processors() if kind in THREADED else 1) for kind in KINDS}
        numbers = ", ".join(f"{kind}={one[kind]:.2g}" for kind in KINDS if kind != "calls")
        print(f'\n    "{backend}": dict({numbers}, calls=1 / {1e6 / rates.calls:.2g}e-6),'.replace("e+", "e"))


if __name__ == "__main__":
    main()
