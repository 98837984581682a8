"""Every Python example of the README and of the other pages runs and shows what it says.

The README starts from nothing; pages below docs/ may use `np` and `sm` without importing them.
"""

import doctest
import re
from pathlib import Path

import numpy as np
import pytest

import structmask as sm

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
FENCE = re.compile(
    r"^```(?:python|\{doctest\}|\{code-block\} python)\n(?::[^\n]*\n)*(.*?)^```$", re.MULTILINE | re.DOTALL
)
PROMPT = re.compile(r"^ *>>> ", re.MULTILINE)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def pages_with_examples():
    written = [page for page in sorted(DOCS.glob("**/*.md")) if "generated" not in page.parts]
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *written]
    return [page for page in pages if PROMPT.search(page.read_text(encoding="utf-8"))]


def page_examples(page):
    """One doctest for the whole page: later blocks go on with the names of earlier ones."""
    text = page.read_text(encoding="utf-8")
    # Blank lines in place of the prose keep the line numbers of failures right.
    lines = [""] * (text.count("\n") + 1)
    for match in FENCE.finditer(text):
        start = text.count("\n", 0, match.start(1))
        block = match[1].splitlines()
        lines[start : start + len(block)] = block
    names = {"np": np, "sm": sm} if DOCS in page.parents else {}
    return doctest.DocTestParser().get_doctest("\n".join(lines), names, page.name, str(page), 0)


def run_examples(page):
    """Number of failures, and the report of them."""
    report = []
    results = doctest.DocTestRunner(optionflags=FLAGS).run(page_examples(page), out=report.append)
    return results.failed, "".join(report)


def test_readme_is_among_the_pages():
    assert ROOT / "README.md" in pages_with_examples()


@pytest.mark.parametrize("page", pages_with_examples(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_example_of_the_page_is_found(page):
    assert len(page_examples(page).examples) == len(PROMPT.findall(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", pages_with_examples(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_examples_of_the_page(page):
    failures, report = run_examples(page)
    assert failures == 0, report


def test_a_wrong_example_fails_at_its_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```python\n>>> 1 + 1\n3\n```\n")
    failures, report = run_examples(page)
    assert failures == 1
    assert "line 4" in report
