"""One page from the sections: no script, no other file, nothing from the network."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from html import escape
from importlib import resources

import structmask as sm
from demo import chart, report
from demo.measure import Row
from demo.section import Section

_METHOD = """
<p>Three computations of the same attention, in float32, heads included, features given. <b>structmask</b>:
<code>masked_attention</code> with its default method and backend. <b>Dense</b>: numpy, by blocks of 256 rows of the
masked matrix; its rows all cost the same, so at most 512 evenly spread ones are timed and the time is scaled up.
<b>Literal</b>: the paper's algorithm 1 as it is written, one head after the other: it forms the array of all
products of a key feature with a value, L × m × (e + 1) numbers, and multiplies it by the mask (by real FFTs on all
cores; by running sums for the causal mask). It is left out where it would need more than 1.5 GB.</p>
<p>Times are medians of interleaved repetitions after a warm-up, the compilation of kernels not included. Memory is
the peak of what numpy allocates beyond the inputs, as tracemalloc counts it: results included; the scratch of
compiled kernels, a few blocks a thread, not. The error is that of the worst row, relative to the row, against the
dense computation in float64, over all rows or up to 512 evenly spread ones. Ratios depend less on the machine than
times do; compare those.</p>
"""

_SOURCES = """
<p>The photograph of Grace Hopper (United States Navy, public domain) and the elevation grid around the Jacksboro
fault come with matplotlib's sample data, the text is the source of Python's standard library. Nothing was
downloaded for this page.</p>
"""


def html(sections: Sequence[Section], command: str) -> str:
    """The whole page."""
    style = resources.files("demo").joinpath("page.css").read_text(encoding="utf-8")
    parts = "".join(_section(section) for section in sections)
    contents = "".join(f'<li><a href="#{s.name}">{escape(s.title)}</a></li>' for s in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>structmask: masked attention on real inputs</title>
<style>{style}</style>
</head>
<body>
<main>
<header>
<p class="brand">structmask {escape(sm.__version__)}</p>
<h1>Attention through masks that are never formed</h1>
<p class="lead">Each token attends to the others by what they are, <em>⟨φ(q<sub>i</sub>), φ(k<sub>j</sub>)⟩</em>,
times where they are, <em>M<sub>ij</sub></em>. The matrix of these weights has L² entries. Because the mask has
structure, its products are exact, up to rounding, without them, in time close to linear.</p>
<ul class="facts">{"".join(_fact(section) for section in sections)}</ul>
<nav><ol>{contents}<li><a href="#measured">How it was measured</a></li></ol></nav>
</header>
{parts}
<section id="measured"><h2>How it was measured</h2>{_METHOD}{_SOURCES}
<p>{_versions()}. Made by <code>{escape(command)}</code>.</p></section>
</main>
</body>
</html>
"""


def _fact(section: Section) -> str:
    if not section.rows:
        return f"<li><span>{escape(section.title)}: {escape(section.summary)}</span></li>"
    row = report.longest_compared(section.rows)
    return (
        f"<li><b>{report.times(row.ratio('dense'))}</b> as fast as dense, "
        f"<b>{report.times(row.ratio('literal'))}</b> as the "
        f"literal algorithm<span>{escape(section.title)}, {row.tokens:,} tokens</span></li>"
    )


def _section(section: Section) -> str:
    if not section.rows:
        head = f'<section id="{section.name}"><h2>{escape(section.title)}</h2>{section.body}'
        return f'{head}<p class="note">{escape(section.summary)}.</p></section>'
    return (
        f'<section id="{section.name}"><h2>{escape(section.title)}</h2>{section.body}'
        "<h3>Against the definition</h3><p "
        f'class="note">{escape(section.setting)}.</p>{_charts(section.rows)}{_table(section.rows)}'
        "</section>"
    )


def _charts(rows: Sequence[Row]) -> str:
    drawn = []
    for attribute, unit, title in (("seconds", "s", "Time"), ("memory", "B", "Peak memory")):
        series = {}
        for name, field in (("structmask", "ours"), ("dense", "dense"), ("literal", "literal")):
            found = [(row.tokens, getattr(getattr(row, field), attribute)) for row in rows]
            series[name] = [(float(x), y) for x, y in found if y is not None]
        last = rows[-1]
        alt = f"{title} by number of tokens, up to {last.tokens:,}; the table below has the figures"
        drawn.append(chart.growth(series, title=f"{title} by number of tokens", alt=alt, unit=unit))
    return f'<div class="gallery of2">{"".join(drawn)}</div>'


def _table(rows: Sequence[Row]) -> str:
    heads = "".join(f"<th scope=col>{heading}</th>" for heading in report.HEADINGS)
    body = "".join(
        f"<tr><th scope=row>{first}</th>{''.join(f'<td>{cell}</td>' for cell in others)}</tr>"
        for first, *others in map(report.cells, rows)
    )
    groups = (
        "<tr class=groups><td></td><th colspan=3 scope=colgroup>time</th><th colspan=2 scope=colgroup>structmask "
        "is faster</th>"
        "<th colspan=3 scope=colgroup>peak memory</th><th scope=colgroup>error</th></tr>"
    )
    return (
        '<div class="scroll" tabindex="0" role="region" '
        f'aria-label="Measurements"><table><thead>{groups}<tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _versions() -> str:
    names = ("numpy", "scipy", "numba", "matplotlib")
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return (
        f"structmask {sm.__version__} on the {sm.get_backend()} backend, Python {platform.python_version()}, {packages}"
    )
