"""Diffusion kernels: heat over real terrain, and attention over the import graph of Python's standard library."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import expm_multiply

import structmask as sm
from demo import inputs, measure
from demo.rivals import Array, Case
from demo.section import Section, gallery, picture, pixels

NAME = "heat"

TIMES = np.array([0.5, 2.0])
_STEEP = 4.0  # metres between neighbours across which a third of the heat gets
_BANDS, _VALUES = 8, 4
_SHOWN = ("json", "email", "asyncio", "sqlite3")


def build(*, quick: bool, say: measure.Say) -> Section:
    """Two heads, one a time."""
    sizes = (256, 1024) if quick else (256, 1024, 4096)
    rows = measure.sweep(case, sizes, say)
    say("heat over the terrain")
    return Section(
        NAME,
        "Graphs: heat over terrain, attention over imports",
        f"{_terrain(86 if quick else 344)}{_imports()}",
        f"2 heads, heat kernels of times 0.5 and 2; {_BANDS} features, values of size {_VALUES}, float32; the rivals "
        "use scipy's expm_multiply",
        rows,
    )


def terrain(heights: Array) -> Any:
    """Grid graph whose edges conduct less the steeper they are: exp(-difference / 4 m)."""
    index = np.arange(heights.size).reshape(heights.shape)
    pairs = [(index[:, :-1], index[:, 1:]), (index[:-1], index[1:])]
    ends = np.concatenate([np.stack([a.ravel(), b.ravel()]) for a, b in pairs], axis=1)
    weights = np.exp(-np.abs(np.diff(heights.ravel()[ends], axis=0)[0]) / _STEEP)
    both = np.concatenate([ends, ends[::-1]], axis=1)
    return sm.as_adjacency(nodes=heights.size, edges=both, weights=np.tile(weights, 2))


@dataclass(frozen=True)
class HeatCase(Case):
    """A case whose masks are heat kernels; `table` holds the heights."""

    @cached_property
    def laplacian(self) -> Any:
        """L of the terrain."""
        return scipy.sparse.csc_array(sm.laplacian(terrain(self.table[0].astype(np.float64))))

    def mask_rows(self, h: int, rows: Array) -> Array:
        """Heat from unit sources: the kernel is symmetric."""
        unit = np.zeros((self.tokens, rows.size))
        unit[rows, np.arange(rows.size)] = 1
        return expm_multiply(-TIMES[h] * self.laplacian, unit).T.astype(self.F.dtype)

    def masked(self, h: int, X: Array) -> Array:
        """The kernel times all columns."""
        return expm_multiply(-TIMES[h] * self.laplacian, X).astype(X.dtype)

    @property
    def padded(self) -> float:
        """A few blocks more."""
        return 4.0 * self.tokens


def case(tokens: int) -> Case:
    """Queries and keys: bands of height. Values: heights and slopes."""
    side = round(tokens**0.5)
    h = inputs.heights()[:side, :side]
    scale = (h - h.min()) / max(1.0, float(np.ptp(h)))
    F = np.exp(-(((scale.reshape(-1, 1) - np.linspace(0, 1, _BANDS)) * _BANDS) ** 2) / 2)
    slopes = np.gradient(h)
    V = np.stack([scale, *slopes, np.hypot(*slopes)], axis=-1).reshape(-1, _VALUES)
    F, V = (np.repeat(a[None], TIMES.size, axis=0).astype(np.float32) for a in (F, V))
    return HeatCase(mask=sm.diffusion_kernel(terrain(h), TIMES), table=h[None], F=F, G=F, V=V)


# --- pictures ---------------------------------------------------------------------------------------------------------


def _terrain(side: int) -> str:
    from matplotlib.figure import Figure

    h = inputs.heights()[:side, :side]
    W, start = terrain(h), (side // 2, side // 2)
    initial = np.zeros(h.shape)
    initial[start] = 1.0
    times = np.array([side, 10.0 * side, 100.0 * side])
    u = sm.heat_equation(W, initial.ravel(), times, tol=1e-8)
    shown = []
    for t, heat in zip(times, u, strict=True):
        figure = Figure(figsize=(2.56, 2.56))
        ax = figure.add_axes((0, 0, 1, 1))
        ax.imshow(h, cmap="gray")
        ax.imshow(np.cbrt(np.maximum(heat.reshape(h.shape), 0)), cmap="inferno", alpha=0.7)
        ax.set_axis_off()
        shown.append(picture(pixels(figure), f"heat on the terrain at time {t:g}", f"<b>time {t:,.0f}</b>"))
    lost = abs(float(u.sum(axis=1).max()) - 1)
    return (
        "<p>The nodes are the points of an elevation map, joined to their neighbours; an edge conducts less the "
        "steeper it is. Heat from one point flows along the valley floor and hardly over the ridge. A mask made of it "
        "looks along paths, not distances.</p>"
        f"{gallery(shown, columns=3)}"
        f'<p class="note">Brightness is the cube root of the heat; {h.size:,} nodes, all times from one recurrence, '
        f"error at most 10<sup>−8</sup> by certificate; heat lost: {lost:.0e}.</p>"
    )


def _imports() -> str:
    names, pairs, words = inputs.import_graph()
    W = sm.as_adjacency(nodes=len(names), edges=np.concatenate([pairs, pairs[::-1]], axis=1))
    W.data[:] = 1.0
    F = np.zeros((len(names), 256))
    for i, text in enumerate(words):
        for word in text:
            F[i, zlib.crc32(word.encode()) % 256] += 1
    F /= np.maximum(np.linalg.norm(F, axis=1, keepdims=True), 1e-30)
    mask = sm.diffusion_kernel(W, 1.0, kind="symmetric")
    rows = []
    for name in (n for n in _SHOWN if n in names):
        i = names.index(name)
        unit = np.zeros(len(names))
        unit[i] = 1.0
        alone, masked = F @ F[i], (mask * sm.LowRank(F, F)).T @ unit
        rows.append((name, *(_strongest(names, w, i) for w in (alone, masked))))
    body = "".join(
        f"<tr><th scope=row>{escape(a)}</th><td>{escape(b)}</td><td>{escape(c)}</td></tr>" for a, b, c in rows
    )
    return (
        f"<p>The nodes are the {len(names)} modules of the standard library, and each of the {W.nnz // 2:,} edges an "
        "import. A module is described by the words in its source, hashed. Attention without a mask knows only which "
        "sources use like words; under the mask it finds modules that work together.</p>"
        '<div class="scroll"><table class="small"><caption>What a module attends to</caption>'
        "<thead><tr><th>module</th><th>without a mask</th><th>heat kernel of the imports</th></tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _strongest(names: list[str], weights: Array, itself: int, count: int = 4) -> str:
    order = [j for j in np.argsort(-weights) if j != itself]
    return ", ".join(names[j] for j in order[:count])
