"""A contest: one task, ours and the peers' ways to do it, checked against each other and timed in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.report import Row
from benchmarks.timing import interleaved

Check = Callable[[Any], float]  # the relative error of a result


@dataclass(frozen=True)
class Contest:
    """One task.

    Attributes
    ----------
    case : str
        What is computed; the label of the row.
    ours, peers : mapping from a name to a callable without arguments
        The ratio of a peer is its time over that of the first of ours; the others of ours have ratios as well. A string
        in place of a callable says why it is missing.
    check : callable
        The relative error of a result, by another route than any of the contestants'.
    tolerance : float
        Largest error allowed, for all but the `unchecked`, which compute something of the same kind but not the same.
    """

    case: str
    ours: Mapping[str, Callable[[], Any] | str]
    peers: Mapping[str, Callable[[], Any] | str]
    check: Check
    tolerance: float
    unchecked: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)


def run(contest: Contest, *, budget: float) -> Row:
    """Check every way once, time them in turns, and give the ratios."""
    ways = {**contest.ours, **contest.peers}
    missing = {name: way for name, way in ways.items() if isinstance(way, str)}
    errors: dict[str, float] = {}
    calls = {name: way for name, way in ways.items() if not isinstance(way, str)}
    for name, call in calls.items():
        result = call()
        if name not in contest.unchecked:
            errors[name] = _checked(contest, name, result)
        del result
    return _row(contest, interleaved(calls, budget=budget), missing, errors)


def _checked(contest: Contest, name: str, result: Any) -> float:
    error = contest.check(result)
    if not error <= contest.tolerance:
        msg = f"{contest.case}: {name} is off by {error:.1e}, allowed are {contest.tolerance:.0e}"
        raise AssertionError(msg)
    return error


def _row(contest: Contest, timings: Mapping[str, Any], missing: Mapping[str, str], errors: Mapping[str, float]) -> Row:
    baseline = next((name for name in contest.ours if name in timings), None)
    row = Row(contest.case, dict(contest.notes))
    if baseline is None:
        row.figures["ours"] = next(iter(missing.values()))
        return row
    own = timings[baseline].best
    row.figures["ours, ms"] = own * 1e3
    if baseline in errors:
        row.figures["error"] = f"{errors[baseline]:.0e}"
    for name in (*contest.ours, *contest.peers):
        if name != baseline:
            row.figures[name] = missing[name] if name in missing else timings[name].best / own
    row.details = {
        name: {"best": t.best, "median": t.median, "repetitions": t.repetitions, "error": errors.get(name)}
        for name, t in timings.items()
    }
    return row


def relative_error(result: Any, exact: np.ndarray) -> float:
    """Largest difference over the largest entry."""
    return float(np.max(np.abs(np.asarray(result, dtype=exact.dtype) - exact)) / np.max(np.abs(exact)))
