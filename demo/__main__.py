"""Masked attention on real inputs: a table on the terminal and a page that explains itself."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structmask as sm
from demo import causal, grid, heat, imports, page, relative, report, tree, walking
from demo.section import Builder, Section

SECTIONS: tuple[Builder, ...] = (causal, relative, grid, tree, heat, walking, imports)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the sections asked for and write the page."""
    options = _parser().parse_args(arguments)
    chosen = [section for section in SECTIONS if options.section in (None, section.NAME)]
    built = []
    for number, section in enumerate(chosen, start=1):
        say = _progress(f"[{number}/{len(chosen)}] {section.NAME}")
        built.append(section.build(quick=options.quick, say=say))
        _print(built[-1])
    command = shlex.join(["python", "-m", "demo", *(sys.argv[1:] if arguments is None else arguments)])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page.html(built, command), encoding="utf-8")
    print(f"structmask {sm.__version__}: the page is {options.output}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--section", choices=[section.NAME for section in SECTIONS], help="run this one only")
    parser.add_argument("--quick", action="store_true", help="short inputs: some seconds instead of a minute or two")
    parser.add_argument("--output", type=Path, default=Path("build/demo.html"), help="the page (default: %(default)s)")
    return parser


def _print(section: Section) -> None:
    shown = f"{section.setting}\n{report.plain(section.rows)}" if section.rows else f"{section.summary}."
    print(f"{section.title}\n{shown}\n", flush=True)


def _progress(head: str) -> Callable[[str], None]:
    """Says what is being done, on one line that changes where there is a terminal."""
    start, live = time.perf_counter(), sys.stderr.isatty()

    def say(what: str) -> None:
        line = f"{head}, {time.perf_counter() - start:.0f} s: {what}"
        print(f"\r\033[K{line}" if live else line, end="" if live else "\n", file=sys.stderr, flush=True)

    return say


if __name__ == "__main__":
    main()
