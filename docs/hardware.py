"""The page on backends shows what has run on hardware: a table of runs, and the ratios of the last one."""

import json
from pathlib import Path

RUNS = Path(__file__).with_name("hardware.json")


def substitutions():
    """Markdown for `{{ hardware_runs }}` and `{{ hardware_ratios }}`."""
    runs = json.loads(RUNS.read_text())
    return {"hardware_runs": table_of_runs(runs), "hardware_ratios": table_of_ratios(runs[-1]["ratios"])}


def table_of_runs(runs):
    head = ("card", "CuPy", "date", "commit", "passed", "failed", "CUDA kernels")
    rows = [
        [run[key] for key in ("card", "cupy", "date", "commit", "passed", "failed")]
        + ["yes" if run["kernels"] else "there were none yet"]
        for run in runs
    ]
    never = "" if any(run["kernels"] for run in runs) else "\n\n**Last run of the CUDA kernels on hardware: never.**"
    return table([head, *rows]) + never


def table_of_ratios(ratios):
    columns = list(dict.fromkeys(column for figures in ratios.values() for column in figures))
    return table([["", *columns], *([case, *(f.get(column, "") for column in columns)] for case, f in ratios.items())])


def table(rows):
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])
