"""Every benchmark runs at tiny sizes and its own check of correctness passes; nothing here looks at a time."""

import json
import time

import numpy as np
import pytest

from benchmarks import __main__ as program
from benchmarks import contest, fit_planner, report, timing
from benchmarks.settings import Settings
from structmask import use_backend

TINY = Settings(tiny=True, budget=0.0)


@pytest.mark.parametrize("name", program.NAMES)
def test_benchmark_runs_and_checks_itself(name, tmp_path, capsys):
    program.main([name, "--tiny", "--budget", "0", "--backend", "numpy", "--output", str(tmp_path)])
    rows = json.loads((tmp_path / f"{name}.json").read_text())
    shown = capsys.readouterr().out
    assert rows
    assert all(row["case"] in shown for row in rows)
    assert (tmp_path / f"{name}.md").read_text().count("\n| ") == len(rows) + 2


def test_record_is_a_page_of_ratios(tmp_path, capsys):
    program.main(
        ["gradients", "--tiny", "--budget", "0", "--output", str(tmp_path), "--record", str(tmp_path / "pages")]
    )
    page = (tmp_path / "pages" / "gradients.md").read_text()
    assert page.startswith("# Gradients of masked attention")
    assert "`python -m benchmarks gradients --tiny`" in page
    assert "backward / forward" in page
    assert ", ms" in capsys.readouterr().out
    assert ", ms" not in page


def test_unknown_benchmark_is_refused(capsys):
    with pytest.raises(SystemExit):
        program.main(["no_such_benchmark"])
    assert "no_such_benchmark" in capsys.readouterr().err


def contest_of(ours, theirs, tolerance=1e-6):
    exact = np.arange(3.0)
    return contest.Contest("case", ours, theirs, lambda Y: contest.relative_error(Y, exact), tolerance)


def test_wrong_result_stops_the_contest():
    wrong = contest_of({"ours": lambda: np.arange(3.0)}, {"peer": lambda: np.arange(3.0) + 1e-3})
    with pytest.raises(AssertionError, match=r"peer is off by 5\.0e-04"):
        contest.run(wrong, budget=0.0)


def test_nan_stops_the_contest():
    with pytest.raises(AssertionError, match="ours is off by nan"):
        contest.run(contest_of({"ours": lambda: np.full(3, np.nan)}, {}), budget=0.0)


def test_missing_peer_is_a_word_in_the_row_and_never_called():
    row = contest.run(contest_of({"ours": lambda: np.arange(3.0)}, {"peer": "- (no torch)"}), budget=0.0)
    assert row.figures["peer"] == "- (no torch)"
    assert "peer" not in row.details


def test_ratio_is_theirs_over_ours():
    def slow():
        time.sleep(0.02)
        return np.arange(3.0)

    row = contest.run(contest_of({"ours": lambda: np.arange(3.0)}, {"peer": slow}), budget=0.0)
    times = row.details
    assert row.figures["peer"] == times["peer"]["best"] / times["ours"]["best"]
    assert row.figures["peer"] > 1


def test_timing_takes_turns():
    order = []
    calls = {name: lambda name=name: (order.append(name), time.sleep(timing.LONG * 1.05)) for name in "ab"}
    times = timing.interleaved(calls, budget=2.5 * timing.LONG, at_most=2)
    assert order == ["a", "b"] * 2
    assert {name: taken.repetitions for name, taken in times.items()} == {"a": 2, "b": 2}
    assert all(taken.best <= taken.median for taken in times.values())


def test_a_call_longer_than_the_budget_is_timed_once():
    calls = {"long": lambda: time.sleep(timing.LONG * 1.05), "short": lambda: None}
    times = timing.interleaved(calls, budget=timing.LONG / 2)
    assert times["long"].repetitions == 1
    assert times["short"].repetitions >= 1


def test_nothing_to_time():
    assert timing.interleaved({}) == {}


def test_table_is_aligned_and_has_every_column():
    rows = [report.Row("a", {"x": 1.0}), report.Row("longer", {"x": 1234.5, "y": "- (no torch)"})]
    assert report.table(rows).splitlines() == [
        "           x             y",
        "a          1",
        "longer  1234  - (no torch)",
    ]


def test_samples_of_a_sweep_are_read_back(tmp_path):
    with use_backend("numpy"):
        program.main(["planner", "--tiny", "--budget", "0", "--backend", "numpy", "--output", str(tmp_path)])
    samples = fit_planner.samples([tmp_path / "planner.json"])
    assert {sample.method for sample in samples} >= {"dense", "stream", "scan", "sparse", "low_rank"}
    assert all(sample.seconds > 0 and sample.backend == "numpy" for sample in samples)
