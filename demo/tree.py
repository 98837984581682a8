"""Masks of trees, on the syntax trees of Python's standard library."""

from __future__ import annotations

import ast
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape

import numpy as np

import structmask as sm
from demo import inputs, measure
from demo.rivals import Array, Case, structured
from demo.section import Section

NAME = "tree"

RATES = np.array([2.0, 1.0, 0.5, 0.1])  # decay an edge
_FEATURES, _VALUES = 32, 32
_FINE = 512  # features for the question below
_NAMED = (ast.Name, ast.arg)
_LINES = 16  # of the passage shown


def build(*, quick: bool, say: measure.Say) -> Section:
    """Four heads read the code with different reach along its tree."""
    sizes = (256, 1024) if quick else (256, 1024, 4096, 16384, 65536)
    rows = measure.sweep(case, sizes, say)
    say("guessing names")
    return Section(
        NAME,
        "Trees: attention over code",
        _body(4096 if quick else 32768),
        "4 heads that decay by exp(−2), exp(−1), exp(−0.5) and exp(−0.1) an edge; "
        f"{_FEATURES} features, values of size {_VALUES}, float32; dense rows count steps along edges, level by level",
        rows,
    )


@dataclass(frozen=True)
class TreeCase(Case):
    """A case whose mask decays along a tree: `table` holds the parents, and the rates are those of the heads."""

    @cached_property
    def levels(self) -> list[Array]:
        """Nodes by depth, siblings together."""
        parents, levels = self.table.astype(np.int64), []
        depth = np.zeros(parents.size, np.int64)
        for v in np.flatnonzero(parents >= 0):
            depth[v] = depth[parents[v]] + 1
        for d in range(int(depth.max()) + 1):
            nodes = np.flatnonzero(depth == d)
            levels.append(nodes[np.argsort(parents[nodes], kind="stable")])
        return levels

    def mask_rows(self, h: int, rows: Array) -> Array:
        """Steps from the node of each row: upwards first, then to all others from their parents."""
        parents = self.table.astype(np.int64)
        steps = np.full((rows.size, parents.size), np.inf, dtype=self.F.dtype)
        for r, row in enumerate(rows):
            v, count = int(row), 0
            while v >= 0:
                steps[r, v], v, count = count, int(parents[v]), count + 1
        for nodes in self.levels[1:]:
            steps[:, nodes] = np.minimum(steps[:, nodes], steps[:, parents[nodes]] + 1)
        return np.exp(-RATES[h].astype(self.F.dtype) * steps)

    def masked(self, h: int, X: Array) -> Array:
        """The paper's dynamic programme, a level at a time."""
        parents, e = self.table.astype(np.int64), X.dtype.type(np.exp(-RATES[h]))
        for nodes in reversed(self.levels[1:]):
            above, first = np.unique(parents[nodes], return_index=True)
            X[above] += e * np.add.reduceat(X[nodes], first, axis=0)
        for nodes in self.levels[1:]:
            X[nodes] = e * X[parents[nodes]] + (1 - e * e) * X[nodes]
        return X

    @property
    def padded(self) -> float:
        """Half of the array again, where a level is half of the tree."""
        return self.tokens / 2


def case(tokens: int) -> Case:
    """Queries and keys: what surrounds a node, hashed. Values: a vector of signs for its name, or its kind."""
    nodes, parents = inputs.syntax_trees(tokens)
    F = _surroundings(nodes, parents, _FEATURES)
    V = np.repeat(_codes([_word(node) for node in nodes], _VALUES)[None], RATES.size, axis=0)
    mask = sm.tree_decay(sm.as_forest(parents=parents), RATES)
    return TreeCase(mask=mask, table=parents.astype(np.float64), F=F, G=F, V=V)


def _word(node: ast.AST) -> str:
    """The name that stands at a node, or what kind of node it is."""
    return str(getattr(node, "id", getattr(node, "arg", None)) or type(node).__name__)


def _surroundings(nodes: list[ast.AST], parents: Array, count: int) -> Array:
    """For each head and node its kind with one, two, three kinds above it, each hashed into one of `count` features."""
    kinds = np.array([zlib.crc32(type(node).__name__.encode()) for node in nodes], dtype=np.uint64)
    features = np.zeros((len(nodes), count), dtype=np.float32)
    above, context = np.arange(len(nodes)), kinds.copy()
    for weight in (1, 2, 3):
        above = np.where(above >= 0, parents[above], -1)
        context = context * np.uint64(1_000_003) + np.where(above >= 0, kinds[above], np.uint64(0))
        bucket = (context * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(65 - count.bit_length())
        np.add.at(features, (np.arange(len(nodes)), bucket.astype(np.intp)), weight)
    return np.repeat(features[None], RATES.size, axis=0)


def _codes(words: list[str], size: int) -> Array:
    number = np.unique(words, return_inverse=True)[1]
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(int(number.max()) + 1, size))
    return (signs[number] / np.sqrt(size)).astype(np.float32)


# --- which name stands here? ------------------------------------------------------------------------------------------


def _body(count: int) -> str:
    nodes, parents = inputs.syntax_trees(count)
    named = np.array([isinstance(node, _NAMED) for node in nodes])
    words = [_word(node) for node in nodes]
    F = _surroundings(nodes, parents, _FINE) * named[:, None].astype(np.float32)
    V = np.repeat(_codes(words, 128)[None], RATES.size, axis=0)
    tree = sm.tree_decay(sm.as_forest(parents=parents), RATES)
    itself, text = sm.Diagonal(np.ones(len(nodes))), sm.Causal(len(nodes), decay=0.99)
    everything = sm.Toeplitz(np.ones(2 * len(nodes) - 1))
    problem = Case(mask=tree - itself, table=parents, F=F, G=F, V=V)  # a node may not look at itself
    ways = [
        (f"along the tree, e<sup>−{rate:g}</sup> an edge", out)
        for rate, out in zip(RATES, structured(problem), strict=True)
    ]
    for name, mask in (("along the text, 0.99 a node", text + text.T - 2 * itself), ("no mask", everything - itself)):
        ways.append((name, structured(replace(problem, mask=mask, F=F[:1], G=F[:1], V=V[:1]))[0]))
    table = "".join(
        f"<tr><th scope=row>{name}</th><td>{_guessed(out[named], np.array(words)[named], V[0][named]):.0%}</td></tr>"
        for name, out in ways
    )
    return (
        "<p>The tokens are the nodes of the standard library's syntax trees, a tree a module. Nothing is learnt: a "
        "node is described by its kind and the kinds of the three nodes above it, hashed; its value is the name that "
        f"stands there. Every name ({int(named.sum()):,} of {len(nodes):,} nodes) asks which name stands in its place "
        "and looks at all others, not at itself: names near in the tree belong to the same expression, function, class."
        "</p>"
        f"{_passages(nodes, tree, F)}"
        '<div class="scroll"><table class="small"><caption>Names guessed right</caption>'
        f"<tbody>{table}</tbody></table></div>"
    )


def _guessed(out: Array, words: Array, codes: Array) -> float:
    """The share of names whose code is nearest to the output."""
    names, first = np.unique(words, return_index=True)
    guesses = names[(out @ codes[first].T).argmax(axis=1)]
    return float((guesses == words).mean())


def _passages(nodes: list[ast.AST], tree: sm.StructuredMatrix, F: Array) -> str:
    """One function, its names as strong as they weigh in the answer of one of them: a row of A for each head."""
    place = _telling_place(nodes)
    unit = np.zeros((len(nodes), 1), dtype=np.float32)
    unit[place] = 1
    weights = ((tree * sm.LowRank(F, F)).T @ unit)[..., 0]
    weights[:, place] = 0
    weights /= np.maximum(weights.max(axis=1, keepdims=True), 1e-30)
    blocks = [
        f'<figure><pre class="passage">{_marked(nodes, weights[h], place)}</pre>'
        f"<figcaption>e<sup>−{rate:g}</sup> an edge</figcaption></figure>"
        for h, rate in enumerate(RATES)
    ]
    lead = "Which name stands at the question mark? The stronger its colour, the more a name weighs in the answer."
    return f'<p class="lead-in">{lead}</p><div class="gallery of2">{"".join(blocks)}</div>'


def _telling_place(nodes: list[ast.AST]) -> int:
    """A name in the first function whose body is about as long as the passage, in the middle of it."""
    for v, node in enumerate(nodes):
        if isinstance(node, ast.FunctionDef) and 10 <= (node.end_lineno or 0) - node.lineno < _LINES:
            inside = [
                u
                for u, other in enumerate(nodes)
                if isinstance(other, ast.Name) and u > v and node.lineno + 4 <= other.lineno <= (node.end_lineno or 0)
            ]
            known = {_word(other) for other in nodes[:v] if isinstance(other, _NAMED)}
            inside = [u for u in inside if _word(nodes[u]) not in known] or inside
            if inside:
                return inside[len(inside) // 2]
    return int(np.flatnonzero([isinstance(node, ast.Name) for node in nodes])[0])


def _marked(nodes: list[ast.AST], weights: Array, place: int) -> str:
    """The lines around a node, names on backgrounds as strong as their weights."""
    middle = nodes[place].lineno  # type: ignore[attr-defined]  # names have one
    first, last = max(1, middle - _LINES // 2), middle + _LINES // 2
    lines = inputs.source_lines(last)
    spots: dict[int, list[tuple[int, int, int]]] = {}
    for v, node in enumerate(nodes):
        if isinstance(node, ast.Module) and v:
            break  # the next module has its own lines
        if isinstance(node, _NAMED) and first <= node.lineno <= last:
            spots.setdefault(node.lineno, []).append((node.col_offset, node.col_offset + len(_word(node)), v))
    return "\n".join(
        _line(lines[number - 1], spots.get(number, []), weights, place) for number in range(first, len(lines) + 1)
    )


def _line(text: str, spots: list[tuple[int, int, int]], weights: Array, place: int) -> str:
    parts, done = [], 0
    for begin, end, v in sorted(spots):
        name = escape(text[begin:end])
        shown = '<b class="asked">?</b>' if v == place else name
        if v != place and weights[v] >= 0.02:
            shown = f'<mark style="--w:{weights[v]:.2f}">{name}</mark>'
        parts += [escape(text[done:begin]), shown]
        done = end
    return "".join([*parts, escape(text[done:])])
