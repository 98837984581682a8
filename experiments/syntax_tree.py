"""Syntax trees: guess the hidden types of nodes from the others.

Functions of Python's standard library as trees of `ast` nodes in preorder. Of each function, some nodes hide their
type, to be guessed among the most frequent ones. Masks are exp(-rate dist) with a learnt rate for every head, and
differ in whose distance it is: that of the tree, that of positions in a row (the path through all nodes), that of the
tree with its nodes in random order, and none (rates zero, all alike). Functions of a batch are one forest.
"""

from __future__ import annotations

import ast
import sysconfig
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from experiments import command
from experiments.data import MissingDataError, Packed, Split
from experiments.models import Block
from experiments.training import IGNORED, Budget, Variant
from structmask import StructuredMatrix, as_forest, tree_decay
from structmask.adapters.torch import MaskedLinearAttention, MaskModule

Tree: TypeAlias = tuple[np.ndarray, list[str]]  # parents, and the types of nodes


@dataclass(frozen=True)
class Config:
    """Sizes of the data and of the models."""

    train: int = 2000
    validation: int = 500
    test: int = 1000
    batch: int = 25
    shortest: int = 20
    longest: int = 80
    classes: int = 40
    hidden: float = 0.15
    dim: int = 32
    heads: int = 4
    layers: int = 2
    budget: Budget = Budget(epochs=5)


QUICK = Config(
    train=20, validation=10, test=10, batch=5, classes=10, dim=8, heads=2, layers=1, budget=Budget(1, (1e-2,), 1)
)


def variants(config: Config) -> list[Variant]:
    """Whose distance the mask decays with."""
    rows = {"tree": "tree", "tree with nodes shuffled": "shuffled", "positions in a row": "row", "no mask": "none"}
    return [
        Variant(name, partial(Guessing, config, decays=kind != "none"), partial(split, config, kind))
        for name, kind in rows.items()
    ]


class Guessing(nn.Module):
    """Types of nodes (the last one hidden) to scores of types; every head of every layer has its own rate."""

    def __init__(self, config: Config, *, decays: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.classes + 1, config.dim)
        self.blocks = nn.ModuleList(
            [Block(config.dim, MaskedLinearAttention(config.dim, config.heads)) for _ in range(config.layers)]
        )
        self.head = nn.Sequential(nn.LayerNorm(config.dim), nn.Linear(config.dim, config.classes))
        start = torch.linspace(-1.5, 1.0, config.heads).repeat(config.layers, 1)  # from long to short reach
        self.logarithms = nn.Parameter(start) if decays else None

    def forward(self, types: torch.Tensor, mask: StructuredMatrix) -> torch.Tensor:
        x = self.embed(types)
        for index, block in enumerate(self.blocks):
            x = block(x, mask if self.logarithms is None else Decay(mask, self.logarithms[index].exp()))
        return self.head(x)


class Decay(MaskModule):
    """The decays of a batch's forest, with rates that belong to the model."""

    def __init__(self, structure: StructuredMatrix, rates: torch.Tensor) -> None:
        super().__init__(structure)
        self.rates = rates

    def generators(self) -> dict[str, torch.Tensor]:
        return {"rate": self.rates}


def split(config: Config, kind: str, seed: int) -> Split:
    """Functions of files in an order drawn from the seed; no file is in two parts."""
    rng = np.random.default_rng(seed)
    files = sources()
    trees = (functions(files[index], config.shortest, config.longest) for index in rng.permutation(len(files)))
    parts = [list(taken(trees, n)) for n in (config.train, config.validation, config.test)]
    counts = Counter(name for _, names in parts[0] for name in names)
    known = {name: index for index, (name, _) in enumerate(counts.most_common(config.classes - 1))}
    return Split(*(_packed(part, known, config, kind, rng) for part in parts))


def sources() -> list[Path]:
    """Modules of the standard library, without its tests."""
    root = Path(sysconfig.get_paths()["stdlib"])
    left_out = {"site-packages", "dist-packages", "test", "tests", "lib2to3", "idlelib"}
    found = sorted(path for path in root.rglob("*.py") if not left_out & set(path.parts))
    if len(found) < 100:
        msg = f"{root} holds {len(found)} Python files; the standard library must be installed as source text"
        raise MissingDataError(msg)
    return found


@cache
def functions(path: Path, shortest: int, longest: int) -> tuple[Tree, ...]:
    """The functions of a module, those inside others left out, as trees of a number of nodes."""
    try:
        module = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):  # files made to be wrong, or in another encoding
        return ()
    within = [module, *(node for node in module.body if isinstance(node, ast.ClassDef))]
    found = [_tree(node) for outer in within for node in outer.body if isinstance(node, ast.FunctionDef)]
    return tuple(tree for tree in found if shortest <= len(tree[1]) <= longest)


def taken(trees: Iterator[tuple[Tree, ...]], count: int) -> Iterator[Tree]:
    """So many trees, from as many files as that takes; what is left of the last file is not used."""
    for of_file in trees:
        yield from of_file[:count]
        count -= len(of_file)
        if count <= 0:
            return


def _tree(root: ast.AST) -> Tree:
    """Parents (-1 at the root) and types in preorder; whether a name is read or written is not a node."""
    parents, names = [], []
    waiting = [(root, -1)]
    while waiting:
        node, parent = waiting.pop()
        parents.append(parent)
        names.append(type(node).__name__)
        inner = [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr_context)]
        waiting.extend((child, len(names) - 1) for child in reversed(inner))
    return np.array(parents), names


def _packed(part: list[Tree], known: dict[str, int], config: Config, kind: str, rng: np.random.Generator) -> Packed:
    batches = [part[start : start + config.batch] for start in range(0, len(part), config.batch)]
    return Packed(tuple(_batch(one, known, config, kind, rng) for one in batches))


def _batch(
    trees: list[Tree], known: dict[str, int], config: Config, kind: str, rng: np.random.Generator
) -> tuple[tuple[Any, ...], torch.Tensor]:
    types = np.array([known.get(name, config.classes - 1) for _, names in trees for name in names])
    hidden = rng.random(len(types)) < config.hidden  # drawn first: the same nodes whatever the mask
    forest = _forest(trees, kind, np.random.default_rng(len(types)))
    rates = 0.0 if kind == "none" else np.ones(config.heads, dtype=np.float32)
    targets = torch.from_numpy(np.where(hidden, types, IGNORED))
    given = torch.from_numpy(np.where(hidden, config.classes, types))
    return (given, tree_decay(forest, rates)), targets


def _forest(trees: list[Tree], kind: str, rng: np.random.Generator) -> Any:
    """The trees side by side, after what the kind does to each."""
    whole, start = [], 0
    for parents, _ in trees:
        n = len(parents)
        if kind == "row":
            own = np.arange(n) - 1
        elif kind == "shuffled":
            order = rng.permutation(n)  # node i takes the place order[i]
            own = np.empty(n, dtype=int)
            own[order] = np.where(parents < 0, -1, order[parents])
        else:
            own = parents
        whole.append(np.where(own < 0, -1, own + start))
        start += n
    return as_forest(parents=np.concatenate(whole))


def main(arguments: list[str] | None = None) -> None:
    command.main("syntax_tree", __doc__, Config(), QUICK, variants, arguments)


if __name__ == "__main__":
    main()
