"""Random-walk kernels, exact and sampled, as the mask of attention over the modules of Python's standard library."""

from __future__ import annotations

import time
from html import escape
from typing import Any

import numpy as np

import structmask as sm
from demo import inputs, measure
from demo.section import Section, gallery, picture, pixels

NAME = "imports"

_LENGTH = 4  # nodes of a walk
_FEATURES, _VALUES = 32, 16
_SHOWN = ("json", "asyncio", "pathlib", "unittest", "email", "statistics")


def build(*, quick: bool, say: measure.Say) -> Section:
    """Attention over the import graph under the exact kernel, and how far sampled kernels are from it."""
    say("reading imports")
    names, edges, texts = inputs.import_graph()
    W = sm.as_adjacency(nodes=len(names), edges=np.concatenate([edges, edges[::-1]], axis=1))
    start = time.perf_counter()
    exact = sm.random_walk_kernel(W, _LENGTH)
    F, V = _hashed(texts), np.random.default_rng(0).standard_normal((len(names), _VALUES))
    want = sm.masked_attention(F, F, V, mask=exact, features=None)
    seconds = time.perf_counter() - start
    say("sampling walks")
    walks = 4 ** np.arange(1, 5 if quick else 7)
    errors = {repelling: [_error(W, F, V, want, m, repelling=repelling) for m in walks] for repelling in (False, True)}
    slope = np.polyfit(np.log(walks), np.log(errors[False]), 1)[0]
    assert -0.7 < slope < -0.3
    return Section(
        NAME,
        "Random walks on an import graph",
        _body(names, exact, walks, errors),
        "",
        (),
        summary=(
            f"{len(names)} modules, {edges.shape[1]:,} imports; attention under the exact kernel in {seconds:.1g} s, "
            f"set-up included; with {walks[-1]:,} sampled walks a module it is off by {errors[False][-1]:.1%} "
            f"({errors[True][-1]:.1%} if they repel), and errors fall as walks to the power {slope:.2f}"
        ),
    )


def _error(W: Any, F: Any, V: Any, want: Any, walks: int, *, repelling: bool) -> float:
    """Error of attention under sampled kernels, in root mean square and relative; three seeds."""
    found = []
    for seed in range(3):
        mask = sm.random_walk_kernel(W, _LENGTH, walks=int(walks), repelling=repelling, rng=seed)
        found.append(np.linalg.norm(sm.masked_attention(F, F, V, mask=mask, features=None) - want))
    return float(np.sqrt(np.mean(np.square(found))) / np.linalg.norm(want))


def _hashed(texts: list[list[str]]) -> Any:
    """Which words a module uses, each counted in one of a few features by its length and first letter."""
    F = np.full((len(texts), _FEATURES), 0.01)
    for row, words in zip(F, texts, strict=True):
        for word in words:
            row[(7 * len(word) + ord(word[0])) % _FEATURES] += 1
    return F / np.linalg.norm(F, axis=1, keepdims=True)


def _body(names: list[str], exact: Any, walks: Any, errors: dict[bool, list[float]]) -> str:
    shown = [names.index(name) for name in _SHOWN if name in names]
    kernel = exact.entries(shown, slice(None))
    rows = "".join(
        f"<tr><th scope=row>{escape(names[i])}</th><td>{', '.join(escape(names[j]) for j in _alike(row, i))}</td></tr>"
        for i, row in zip(shown, kernel, strict=True)
    )
    return (
        "<p>Modules are nodes, imports are edges. Two modules are alike if walks of "
        f"{_LENGTH} modules from them meet the same modules: the mask of the graph kernel attention Transformer, here "
        "without noise, by products with a sparse matrix. Published code samples it.</p>"
        f"{gallery([_drawing(walks, errors)], columns=1)}"
        '<div class="scroll"><table class="small"><caption>Modules most alike by the exact kernel</caption>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _alike(row: Any, own: int) -> list[int]:
    return [int(j) for j in np.argsort(-row, kind="stable") if j != own][:5]


def _drawing(walks: Any, errors: dict[bool, list[float]]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3), layout="constrained")
    ax = figure.subplots()
    for repelling, label in ((False, "independent walks"), (True, "repelling walks")):
        ax.loglog(walks, errors[repelling], "o-", label=label)
    ax.loglog(walks, errors[False][0] * (walks / walks[0]) ** -0.5, color="0.6", label="walks to the power −1/2")
    ax.set(xlabel="walks from a module", ylabel="relative error of attention")
    ax.legend()
    alt = "The error of attention under sampled kernels falls as one over the root of the number of walks"
    return picture(pixels(figure), alt, "Attention under sampled kernels against the exact one.")
