import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from demo.__main__ import SECTIONS

ROOT = Path(__file__).parents[1]
VOID = {"meta", "img", "line", "circle", "polyline", "br"}


class Page(HTMLParser):
    """Checks that every element is closed, and keeps what the tests ask about."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.ids, self.links, self.images, self.cells = [], [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.seen.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[name] for name in ("href", "src") if name in values]
        self.images += [values] if tag == "img" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    target = tmp_path_factory.mktemp("demo") / "page.html"
    command = [sys.executable, "-W", "error", "-m", "demo", "--quick", "--output", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = Page()
    page.feed(target.read_text(encoding="utf-8"))
    return done, page


def test_page_is_well_formed_and_has_every_section(run):
    _, page = run
    assert page.open == []
    assert [name for name in page.ids if name != "measured"] == [section.NAME for section in SECTIONS]
    assert {"figure", "svg", "table", "pre", "img"} <= set(page.seen)
    assert "script" not in page.seen


def test_page_needs_nothing_else(run):
    _, page = run
    assert all(link.startswith(("#", "data:image/")) for link in page.links)
    assert all(image["alt"] for image in page.images)


def test_errors_are_those_of_single_precision(run):
    done, _ = run
    errors = [float(e) for e in re.findall(r"\d\.?\d*e-\d+$", done.stdout, flags=re.MULTILINE)]
    assert len(errors) == 2 * (len(SECTIONS) - 2)  # two have no table
    assert max(errors) < 1e-5


def test_progress_and_place_of_the_page_are_said(run):
    done, _ = run
    assert "compiling kernels" in done.stderr
    assert done.stdout.rstrip().endswith("page.html")


def test_one_section_alone(tmp_path):
    command = [sys.executable, "-m", "demo", "--quick", "--section", "causal", "--output", str(tmp_path / "page.html")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'id="causal"' in page
    assert 'id="grid"' not in page
    assert "--section causal" in page
    assert "Relative positions" not in done.stdout
