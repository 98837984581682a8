"""The few directions that the states of a mask, and those of its other side, span inside a chunk.

A block of the mask beyond the tiles is O (a^C)^(d-B) Z, with rows O_p = c a^p and columns Z_q of states. Where these
are smooth, r of them and their mirror images span only a handful of directions U, so that long products with features
and values meet U and not the states, and both sides of the diagonal at the price of one. Where they are not, or where
the mask fades so fast inside a chunk that a row would lose digits to its neighbours, O and Z serve as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from structmask.backends import arrays, state_kernels
from structmask.backends.arrays import Array
from structmask.linalg.planning import Work
from structmask.linalg.state_scan import Chunks

if TYPE_CHECKING:
    from structmask.linalg.stationary import Stationary

CHUNKS = (64, 128, 256)
_ERROR = {"float32": 3e-7, "float64": 1e-14}  # of a row of O or Z in the directions, relative to the row
_RANGE = {"float32": 20.0, "float64": 1e3}  # of the rows of O or Z, up to which they may share directions


@dataclass(frozen=True)
class Basis:
    """Directions of queries and keys (heads, C, p); a side's maps from moments to states and from states to queries."""

    chunks: Chunks
    left: np.ndarray
    right: np.ndarray
    inward: list[np.ndarray]  # (heads, r, p)
    outward: list[np.ndarray]  # (heads, p, r)

    @property
    def rank(self) -> int:
        """Number of directions p."""
        return int(self.left.shape[-1])

    def work(self, heads: int, m: int, k: int) -> Work:
        """Attention with m features and k columns."""
        C, p, r, sides = self.chunks.size, self.rank, self.chunks.mask.rank, len(self.inward)
        near = 2.0 * C * len(self.chunks.distances) * (m + k + 40)
        far = 4.0 * p * m * (k + 4) + sides * 2.4 * (2 * r * r + 2 * r * p + 8 * r) * m * (k + 1) / C
        tokens = heads * self.chunks.mask.n
        return Work(gemm=tokens * (near + far), bytes=16.0 * p * m * k / C * tokens, calls=2)


def basis(mask: Stationary, size: int, precision: str) -> Basis:
    """The directions for chunks of a size; remembered by the mask."""
    memory = mask.__dict__.setdefault("_bases", {})
    if (size, precision) not in memory:
        memory[size, precision] = _basis(Chunks(mask, size), precision)
    found: Basis = memory[size, precision]
    return found


def cheapest(mask: Stationary, precision: str, heads: int, m: int, k: int) -> tuple[Basis, Work]:
    """The chunks that cost least for attention with m features and k columns."""
    sizes = [size for size in CHUNKS if size <= max(CHUNKS[0], mask.n // 4)]
    options = [basis(mask, size, precision) for size in sizes]
    works = [option.work(heads, m, k) for option in options]
    best = min(range(len(works)), key=lambda i: works[i].flops + 10 * works[i].bytes)
    return options[best], works[best]


def hadamard(mask: Stationary, F: Array, G: Array, X: Array) -> tuple[Array, Array]:
    """(M * F G^T) X and its row sums on a host, for F, G (..., n, m) and X (..., n, k)."""
    precision = arrays.precision(X)
    heads = math.prod(np.broadcast_shapes(mask.shape[:-2], *(tuple(a.shape[:-2]) for a in (F, G, X))))
    found, _ = cheapest(mask, precision, heads, int(F.shape[-1]), int(X.shape[-1]))
    memory, key = mask.__dict__.setdefault("_chunk_scans", {}), (found.chunks.size, precision)
    if key not in memory:
        memory[key] = _compiled(found, precision)
    scan: state_kernels.ChunkScan = memory[key]
    return scan.hadamard(F, G, X)


def _compiled(found: Basis, precision: str) -> state_kernels.ChunkScan:
    """The kernel's form of a mask. A step is split into two numbers, whose sum is good to double precision."""
    chunks, mask = found.chunks, found.chunks.mask
    batch, heads = mask.shape[:-2], math.prod(mask.shape[:-2])
    tiles = [np.broadcast_to(chunks.tile(d), (*batch, chunks.size, chunks.size)) for d in chunks.distances]
    step = np.broadcast_to(mask.steps(chunks.size), (*batch, mask.rank, mask.rank)).reshape(heads, mask.rank, mask.rank)
    rounded = step.astype(precision).astype(np.float64)
    steps = [np.concatenate([rounded, step - rounded, inward], axis=-1) for inward in found.inward]
    return state_kernels.ChunkScan(
        batch,
        np.stack(tiles, axis=-3).reshape(heads, len(tiles), chunks.size, chunks.size),
        (found.left, found.right),
        (steps, found.outward),
        (chunks.reach, chunks.distances.start, mask.sides),
        precision,
    )


def _basis(chunks: Chunks, precision: str) -> Basis:
    if chunks.count <= chunks.reach or chunks.mask.rank == 0:  # tiles are all
        heads, r = math.prod(chunks.mask.shape[:-2]), chunks.mask.rank
        nothing = np.zeros((heads, chunks.size, 0))
        count = sum(chunks.mask.sides)
        return Basis(chunks, nothing, nothing, [np.zeros((heads, r, 0))] * count, [np.zeros((heads, 0, r))] * count)
    rows, columns = chunks.factors()
    batch, r = chunks.mask.shape[:-2], chunks.mask.rank
    heads = math.prod(batch)
    rows = np.broadcast_to(rows, (*batch, chunks.size, r)).reshape(heads, chunks.size, r)
    keys = np.broadcast_to(columns, (*batch, r, chunks.size)).reshape(heads, r, chunks.size).swapaxes(-1, -2)
    both = ((rows, keys), (rows[:, ::-1], keys[:, ::-1]))
    sides = [side for side, there in zip(both, chunks.mask.sides, strict=True) if there]
    exact = _exact(chunks, sides)
    return _shared(chunks, sides, exact.rank, precision) or exact


def _exact(chunks: Chunks, sides: list[tuple[np.ndarray, np.ndarray]]) -> Basis:
    """O and Z themselves, one side beside the other."""
    r = chunks.mask.rank
    place = np.eye(r * len(sides)).reshape(len(sides), r, r * len(sides))
    left, right = (np.concatenate(parts, axis=-1) for parts in zip(*sides, strict=True))
    heads = left.shape[0]
    inward = [np.broadcast_to(select, (heads, *select.shape)) for select in place]
    return Basis(chunks, left, right, inward, [x.swapaxes(-1, -2) for x in inward])


def _shared(chunks: Chunks, sides: list[tuple[np.ndarray, np.ndarray]], most: int, precision: str) -> Basis | None:
    """The same directions for queries and keys on both sides, fewer than `most`, if no row suffers."""
    scaled = []
    for rows, keys in sides:
        seen, reached = np.abs(rows).max(axis=-2, keepdims=True), np.abs(keys).max(axis=-2, keepdims=True)
        scaled += [rows * reached, keys * seen]
    sizes = [np.abs(x).sum(axis=-1) for x in scaled]
    ranges = [(x.min(axis=-1), x.max(axis=-1)) for x in sizes]
    if not all((low > 0).all() and (high <= _RANGE[precision] * low).all() for low, high in ranges):
        return None
    vectors = np.linalg.svd(np.concatenate(scaled, axis=-1), full_matrices=False)[0]
    for p in range(1, min(most, vectors.shape[-1] + 1)):
        U = vectors[..., :p]
        missed = [np.abs(x - U @ (U.swapaxes(-1, -2) @ x)).sum(axis=-1) for x in scaled]
        if all((e <= _ERROR[precision] * x).all() for e, x in zip(missed, sizes, strict=True)):
            transposed = U.swapaxes(-1, -2)
            inward = [keys.swapaxes(-1, -2) @ U for _, keys in sides]
            return Basis(chunks, U, U, inward, [transposed @ rows for rows, _ in sides])
    return None
