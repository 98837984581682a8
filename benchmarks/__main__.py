"""python -m benchmarks [name ...] [--tiny] [--one-thread] [--backend name] [--budget seconds] [--output folder].

--record also writes the pages of the documentation that hold every ratio of a run, `docs/measured/`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

from benchmarks import report
from benchmarks.settings import ONE_THREAD, THREAD_VARIABLES, Settings

NAMES = (
    "toeplitz",
    "block_toeplitz",
    "solve",
    "attention",
    "states",
    "grid_attention",
    "causal",
    "structures",
    "elementary",
    "gradients",
    "training",
    "roofline",
    "memory",
    "trees",
    "markov",
    "diffusion",
    "planner",
    "walks",
    "gpu",
    "gpu_kernels",
)


def main(arguments: list[str] | None = None) -> None:
    options = _parsed(arguments)
    if options.one_thread:  # the libraries look at these when they are imported, so it is done before
        os.environ.update(dict.fromkeys((*THREAD_VARIABLES, ONE_THREAD), "1"))
    from structmask import use_backend

    settings = Settings(tiny=options.tiny, budget=options.budget)
    for name in options.names or NAMES:
        topic = importlib.import_module(f"benchmarks.bench_{name}")
        title, _, explanation = topic.__doc__.partition("\n")
        print(f"\n{title}\n{explanation.rstrip()}\n")
        rows: list[report.Row] = []
        try:
            with use_backend(options.backend):
                for row in topic.rows(settings):
                    rows.append(row)
                    _progress(f"{name}: {row.case}")
        finally:  # an interrupted run shows what it has
            _progress("")
            if rows:
                print(report.table(rows), flush=True)
                report.write(options.output, name, title, rows)
        if options.record:
            command = f"python -m benchmarks {name}{_shown(options)}"
            report.record(options.record / f"{name}.md", title, explanation, command, rows)


def _parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"what to run, all by default: {', '.join(NAMES)}")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, only to see that everything runs")
    parser.add_argument("--backend", default="auto", help="the structmask backend (auto)")
    parser.add_argument("--budget", type=float, default=0.6, help="about how many seconds a row may take (0.6)")
    text = "one thread, and processor time in place of elapsed time: for a machine that is busy with other work as well"
    parser.add_argument("--one-thread", action="store_true", help=text)
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"), help="where JSON and Markdown go")
    text = "a folder for pages with all ratios, docs/measured if none is named"
    parser.add_argument("--record", type=Path, nargs="?", const=Path("docs/measured"), help=text)
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; choose among {', '.join(NAMES)}")
    return options


def _shown(options: argparse.Namespace) -> str:
    """The options that change figures."""
    backend = "" if options.backend == "auto" else f" --backend {options.backend}"
    return backend + " --tiny" * options.tiny + " --one-thread" * options.one_thread


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text[:110]}", end="", file=sys.stderr, flush=True)
    elif text:
        print(f"  done: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
