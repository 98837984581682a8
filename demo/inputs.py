"""The real inputs: files that matplotlib and Python's standard library bring along."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

_WORD = re.compile(r"([ \t]*)(\n *|[A-Za-z_]+|\d+|[^\w\s])")
_IMPORT = re.compile(r"^[ \t]*(?:from|import)[ \t]+([a-zA-Z_]\w*)", re.MULTILINE)


def words(count: int) -> tuple[list[str], list[str]]:
    """The first words of the standard library's source, from argparse.py on, and the blanks before each.

    Numbers and signs count as words, and so does the end of a line with the indentation of the next.
    """
    found: list[tuple[str, str]] = []
    for text in _sources():
        found += _WORD.findall(text)
        if len(found) >= count:
            break
    blanks, text_words = zip(*found[:count], strict=True)
    return list(text_words), list(blanks)


def _sources() -> Iterator[str]:
    folder = Path(os.__file__).parent
    names = sorted(path.name for path in folder.glob("[a-z]*.py"))
    start = names.index("argparse.py")
    for name in names[start:] + names[:start]:
        yield (folder / name).read_text(encoding="utf-8")


def syntax_trees(count: int) -> tuple[list[ast.AST], np.ndarray[Any, Any]]:
    """The first nodes of the standard library's syntax trees, from argparse.py on, in preorder; their parents, or -1.

    Only nodes that stand somewhere in the text count, and the modules at the roots.
    """
    nodes: list[ast.AST] = []
    parents: list[int] = []
    for text in _sources():
        stack: list[tuple[ast.AST, int]] = [(ast.parse(text), -1)]
        while stack and len(nodes) < count:
            node, parent = stack.pop()
            if isinstance(node, ast.Module) or hasattr(node, "lineno") or isinstance(node, ast.arguments):
                nodes.append(node)
                parents.append(parent)
                parent = len(nodes) - 1
            stack += [(child, parent) for child in reversed(list(ast.iter_child_nodes(node)))]
    return nodes, np.array(parents)


def source_lines(count: int) -> list[str]:
    """The first lines of argparse.py."""
    return next(_sources()).splitlines()[:count]


@cache
def heights() -> np.ndarray[Any, Any]:
    """Elevations in metres, 344 x 403 points around the Jacksboro fault."""
    with np.load(_sample("jacksboro_fault_dem.npz")) as data:
        return data["elevation"].astype(np.float64)


def survey_path(count: int) -> np.ndarray[Any, Any]:
    """Heights along the grid's rows, read to and fro as one line; it begins in the middle of the map."""
    grid = heights().copy()
    grid[1::2] = grid[1::2, ::-1]
    line = np.roll(grid.ravel(), -200 * grid.shape[1])
    return line[:count]


def photograph(height: int, width: int) -> np.ndarray[Any, Any]:
    """Rear Admiral Grace Hopper, red, green and blue in [0, 1], cropped about the middle to a shape (height, width)."""
    from PIL import Image, ImageOps

    with Image.open(_sample("grace_hopper.jpg")) as file:
        image = ImageOps.fit(file.convert("RGB"), (width, height), Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.float64) / 255


def _sample(name: str) -> str:
    from matplotlib import cbook

    return str(cbook.get_sample_data(name, asfileobj=False))


@cache
def import_graph() -> tuple[list[str], np.ndarray[Any, Any], list[list[str]]]:
    """Modules of the standard library, the imports among them (2, E), each pair once, and the words of each module.

    A package is one module, with the imports of all its files. Tests are left out.
    """
    folder = Path(os.__file__).parent
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        if not {"test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3"} & set(parts):
            files.setdefault(parts[0], []).append(path)
    texts = {
        name: "\n".join(p.read_text(encoding="utf-8", errors="replace") for p in own) for name, own in files.items()
    }
    names = list(texts)
    index = {name: i for i, name in enumerate(names)}
    pairs = {
        (index[name], index[target])
        for name, text in texts.items()
        for target in _IMPORT.findall(text)
        if target in index and target != name
    }
    return names, np.array(sorted(pairs)).T, [re.findall(r"[A-Za-z]+", text[:20_000]) for text in texts.values()]
