"""The walker: all walks from one node step by step, one task a run of nodes; see `_standard_walks` for the rules."""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from structmask.backends import _standard_walks as standard
from structmask.backends._numba.threads import serial_and_parallel
from structmask.backends._standard_walks import Plan, Steps

SERIAL_STEPS = 50_000  # steps of walks below which one thread is faster than waking others
FEW = 128  # nodes that are sorted faster by insertion than by numba's quicksort
SEGMENT = 1 << 19  # entries that a task may gather before they are taken away

_M0, _M1 = map(np.uint64, standard.MULTIPLIERS)
_W0, _W1 = map(np.uint64, standard.WEYL)
_LOW, _HALF = np.uint64(standard.WORD - 1), np.uint64(32)

alias_tables = njit(nogil=True, cache=True)(standard.alias_tables)


def random_walks(steps: Steps, starts: np.ndarray, plan: Plan, first: int) -> np.ndarray:
    """Nodes (len(starts) * walks, length) of walks from each start, -1 where a walk has ended."""
    nodes = np.full((starts.size * plan.walks, plan.length), -1, dtype=np.int32)
    run, parts = (_paths_serial, 1) if _is_small(starts.size, plan) else (_paths_parallel, 4 * get_num_threads())
    bounds = np.linspace(0, starts.size, parts + 1).astype(np.int64)
    run(*steps, starts, nodes, bounds, np.uint64(first), *_scalars(plan))
    return nodes


def walk_features(
    steps: Steps, gain: np.ndarray, modulation: np.ndarray, plan: Plan
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CSR arrays of the features: tasks fill segments, which are emptied until all rows are done."""
    n, widest = steps.n, min(steps.n, plan.walks * (plan.length - 1) + 1)
    run, parts = (_rows_serial, 1) if _is_small(n, plan) else (_rows_parallel, 4 * get_num_threads())
    bounds = np.linspace(0, n, parts + 1).astype(np.int64)
    following, counts = bounds[:-1].copy(), np.zeros(n + 1, np.int64)
    segment = max(widest, min(SEGMENT, widest * (n // parts + 1)))
    columns, entries = np.empty((parts, segment), np.int32), np.empty((parts, segment))
    pieces: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(parts)]
    while np.any(following < bounds[1:]):
        used = np.zeros(parts, np.int64)
        run(*steps, gain, modulation, bounds, following, used, counts, columns, entries, widest, *_scalars(plan))
        for part, size in enumerate(used):
            pieces[part].append((columns[part, :size].copy(), entries[part, :size].copy()))
    flat = [piece for part in pieces for piece in part]
    indices = np.concatenate([piece[0] for piece in flat]) if flat else np.zeros(0, np.int32)
    values = np.concatenate([piece[1] for piece in flat]) if flat else np.zeros(0)
    return np.cumsum(counts), indices, values


def _is_small(starts: int, plan: Plan) -> bool:
    return starts * plan.walks * plan.length < SERIAL_STEPS


def _scalars(plan: Plan) -> tuple[int, np.uint64, np.uint64, np.uint64, bool]:
    return plan.walks, np.uint64(plan.stop), np.uint64(plan.key), np.uint64(plan.draw), plan.repelling


@njit(nogil=True, cache=True)
def _words(step, draw, first, key, words):
    """Random words (4, walks) of one step of consecutive walks."""
    for r in range(words.shape[1]):
        walk = first + np.uint64(r)
        c0, c1, c2, c3 = np.uint64(step), draw, walk & _LOW, walk >> _HALF
        k0, k1 = key & _LOW, key >> _HALF
        for _ in range(standard.ROUNDS):
            p, q = _M0 * c0, _M1 * c2
            c0, c1, c2, c3 = (q >> _HALF) ^ c1 ^ k0, q & _LOW, (p >> _HALF) ^ c3 ^ k1, p & _LOW
            k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
        words[0, r], words[1, r], words[2, r], words[3, r] = c0, c1, c2, c3


@njit(nogil=True, cache=True)
def _turn(rank, size):
    """The fraction rank / size of a full turn, of 2^32."""
    return np.uint64((np.int64(rank) << 32) // np.int64(size))


@njit(nogil=True, cache=True)
def _stop(nodes, words, alive, stop, repelling):
    """End the walks whose word is below `stop`."""
    rank, leader = 0, -1
    for r in range(nodes.size):
        if nodes[r] < 0:
            continue
        word = words[0, r]
        if repelling:
            leader = r if leader < 0 else leader
            word = (words[0, leader] + _turn(rank, alive)) & _LOW
            rank += 1
        if word < stop:
            nodes[r] = -1


@njit(nogil=True, cache=True, inline="always")  # a call would count references to its arrays, at many times its cost
def _edge(indptr, threshold, alias, v, high, low, coin):
    """Position of the edge from v that words choose."""
    degree = np.uint64(indptr[v + 1] - indptr[v])
    slot = (high * degree + ((low * degree) >> _HALF)) >> _HALF
    edge = indptr[v] + np.int64(slot)
    if threshold.size and coin >= np.uint64(threshold[edge]):
        edge = indptr[v] + np.int64(alias[edge])
    return edge


@njit(nogil=True, cache=True)
def _apart(indptr, indices, threshold, alias, nodes, words):
    """Move each walk by its own words."""
    for r in range(nodes.size):
        if nodes[r] >= 0:
            nodes[r] = indices[_edge(indptr, threshold, alias, nodes[r], words[1, r], words[2, r], words[3, r])]


@njit(nogil=True, cache=True)
def _repelled(indptr, indices, threshold, alias, nodes, words, meeting):
    """Move the walks that are at one node by the words of the first of them, turned by their rank."""
    size, rank, leader = meeting
    for r in range(nodes.size):
        if nodes[r] >= 0:
            size[nodes[r]] += 1
    left = nodes.copy()
    for r in range(nodes.size):
        v = nodes[r]
        if v < 0:
            continue
        if rank[v] == 0:
            leader[v] = r
        q = leader[v]
        high = (words[1, q] + _turn(rank[v], size[v])) & _LOW
        rank[v] += 1
        nodes[r] = indices[_edge(indptr, threshold, alias, v, high, words[2, q], words[3, r])]
    for r in range(nodes.size):
        if left[r] >= 0:
            size[left[r]] = rank[left[r]] = 0


@njit(nogil=True, cache=True)
def _advance(step, first, indptr, indices, threshold, alias, stop, key, draw, repelling, nodes, words, meeting):
    """Move all walks of one start by a step, and say whether any was left; `meeting` (3, n) is zero between calls."""
    alive = 0
    for r in range(nodes.size):
        v = nodes[r]
        if v >= 0 and indptr[v + 1] == indptr[v]:
            nodes[r] = -1
        elif v >= 0:
            alive += 1
    if alive == 0:
        return False
    _words(step, draw, first, key, words)
    if stop > 0:
        _stop(nodes, words, alive, stop, repelling)
    if repelling:
        _repelled(indptr, indices, threshold, alias, nodes, words, meeting)
    else:
        _apart(indptr, indices, threshold, alias, nodes, words)
    return True


def _paths(indptr, indices, threshold, alias, starts, paths, bounds, first, walks, stop, key, draw, repelling):
    for part in prange(bounds.size - 1):
        nodes, words = np.empty(walks, np.int64), np.empty((4, walks), np.uint64)
        meeting = np.zeros((3, indptr.size - 1 if repelling else 0), np.int64)
        for s in range(bounds[part], bounds[part + 1]):
            number = first + np.uint64(s * walks)
            nodes[:] = starts[s]
            paths[s * walks : (s + 1) * walks, 0] = starts[s]
            for step in range(1, paths.shape[1]):
                if not _advance(
                    step, number, indptr, indices, threshold, alias, stop, key, draw, repelling, nodes, words, meeting
                ):
                    break
                for r in range(walks):
                    paths[s * walks + r, step] = nodes[r]


_paths_serial, _paths_parallel = serial_and_parallel(_paths)


@njit(nogil=True, cache=True)
def _load(step, modulation, gain, before, nodes, loads, visited, total, seen, count):
    """Add what the walks carry to the nodes they are at; returns how many nodes were seen so far.

    Without gains (an empty array) every load is one.
    """
    for r in range(nodes.size):
        v = nodes[r]
        if v < 0:
            continue
        if gain.size:
            if step > 0:
                loads[r] *= gain[before[r]]
            before[r] = v
        if seen[v] == 0:
            seen[v] = 1
            visited[count] = v
            count += 1
        total[v] += loads[r] * modulation[step]
    return count


@njit(nogil=True, cache=True)
def _sort(nodes):
    """Sort the nodes of a row in place."""
    if nodes.size > FEW:
        nodes.sort()
        return
    for k in range(1, nodes.size):
        v, place = nodes[k], k
        while place > 0 and nodes[place - 1] > v:
            nodes[place] = nodes[place - 1]
            place -= 1
        nodes[place] = v


def _rows(
    indptr, indices, threshold, alias, gain, modulation, bounds, following, used, counts, columns, entries, widest,
    walks, stop, key, draw, repelling,
):  # fmt: skip
    n = indptr.size - 1
    for part in prange(bounds.size - 1):
        nodes, before, words = np.empty(walks, np.int64), np.empty(walks, np.int64), np.empty((4, walks), np.uint64)
        meeting = np.zeros((3, n if repelling else 0), np.int64)
        loads, visited = np.empty(walks), np.empty(widest, np.int64)
        total, seen = np.zeros(n), np.zeros(n, np.uint8)
        row, free = following[part], 0
        while row < bounds[part + 1] and free + widest <= columns.shape[1]:
            nodes[:], loads[:] = row, 1.0
            count = _load(0, modulation, gain, before, nodes, loads, visited, total, seen, 0)
            for step in range(1, modulation.size):
                first = np.uint64(row * walks)
                if not _advance(
                    step, first, indptr, indices, threshold, alias, stop, key, draw, repelling, nodes, words, meeting
                ):
                    break
                count = _load(step, modulation, gain, before, nodes, loads, visited, total, seen, count)
            _sort(visited[:count])
            for k in range(count):
                v = visited[k]
                columns[part, free + k], entries[part, free + k] = v, total[v] / walks
                total[v] = 0.0
                seen[v] = 0
            counts[row + 1] = count
            free += count
            row += 1
        following[part], used[part] = row, free


_rows_serial, _rows_parallel = serial_and_parallel(_rows)
