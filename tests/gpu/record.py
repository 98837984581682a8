"""What a run of `pytest -m gpu` on real hardware leaves behind: docs/hardware.json, shown on the page on backends."""

import datetime as dt
import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "docs" / "hardware.json"
RATIOS = [ROOT / "build" / "benchmarks" / f"{name}.json" for name in ("gpu", "gpu_kernels")]


def write(passed, failed):
    """Add this run; one of the same card and commit is replaced."""
    import cupy

    card = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
    entry = {
        "card": card,
        "cupy": cupy.__version__,
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "commit": commit(),
        "passed": passed,
        "failed": failed,
        "kernels": True,
        "ratios": ratios(),
    }
    runs = [run for run in json.loads(RECORD.read_text()) if (run["card"], run["commit"]) != (card, entry["commit"])]
    RECORD.write_text(json.dumps([*runs, entry], indent=1) + "\n")


def commit():
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def ratios():
    """Figures of the benchmarks by row, if they have run."""
    rows = [row for file in RATIOS if file.exists() for row in json.loads(file.read_text())]
    return {row["case"]: row["figures"] for row in rows}
