"""Forests in pieces that stay in cache: what a sweep needs of each, and what passes between them.

Pieces are stretches of a walk in depth-first order, in which the largest subtree of a node comes last. So at most
log2 n + 1 nodes before a stretch have children in it or behind: *open* nodes, all of them above its first node. Inside
a piece nodes are breadth first again. An open node of an earlier piece is there as a root, and where an open node has
children in later pieces, these are there as one leaf with factor 1: on the way up the leaf has what the root of the
next piece has collected, on the way down the root has what the leaf was left. Beside these a piece is a forest like
any other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

SIZE = 384  # nodes of a piece
_MOST_OPEN = 64  # nodes: one more than log2 of how many there are
_LATER = -2  # the position of leaves for later pieces
WHOLE = 8192  # nodes up to which a forest is one piece: what is swept twice costs more than its way to a farther cache


class Pieces(NamedTuple):
    """A forest in pieces, one behind the other.

    Attributes
    ----------
    position : (N,) array
        Positions of the nodes in the forest; -1 at open nodes of earlier pieces, -2 at leaves for later ones.
    first : (N + pieces,) array
        Pointers to children, inside a piece and one more than it has nodes: those of i are first[i] ... first[i + 1].
    start : (pieces + 1,) array
        Where pieces begin.
    opens : (pieces + 1,) array
        Where open nodes of earlier pieces, the first nodes of a piece, begin in a list of all.
    roots : (pieces,) array
        Nodes without a parent in their piece, open ones included; they come first.
    leaf : (open nodes,) array
        For each open node, in the list of all, its leaf in the piece before.
    """

    position: np.ndarray
    first: np.ndarray
    start: np.ndarray
    opens: np.ndarray
    roots: np.ndarray
    leaf: np.ndarray


def pieces(first: np.ndarray, up: np.ndarray, roots: int) -> Pieces:
    """A forest (n nodes, breadth first) in pieces; a small one in one."""
    n = up.size
    if n <= WHOLE:
        return Pieces(np.arange(n), first, np.array([0, n]), np.zeros(2, np.int64), np.array([roots]), np.arange(0))
    place, children = _walk(first, up, roots)
    count = -(-n // SIZE)
    most = count * n.bit_length()  # open nodes
    position, pointers = np.empty(n + 2 * most, np.int64), np.empty(n + 2 * most + count, np.int64)
    start, opens, tops, leaf = (np.zeros(size, np.int64) for size in (count + 1, count + 1, count, most))
    _cut(SIZE, first, up, roots, place, children, position, pointers, start, opens, tops, leaf)
    used = start[-1]
    return Pieces(position[:used], pointers[: used + count], start, opens, tops, leaf[: opens[-1]])


@njit(nogil=True, cache=True)
def _walk(first, up, roots):
    """Places of nodes in depth-first order, and all children in this order, those of a node side by side."""
    n = up.size
    size, place, children = np.ones(n, np.int64), np.empty(n, np.int64), np.empty(n - roots, np.int64)
    for i in range(n - 1, roots - 1, -1):
        size[up[i]] += size[i]
    here = 0
    for i in range(roots):
        place[i] = here
        here += size[i]
    for i in range(n):
        begin, end = first[i], first[i + 1]
        largest = begin
        for j in range(begin, end):
            if size[j] > size[largest]:
                largest = j
        here, at = place[i] + 1, begin - roots
        for j in range(begin, end):
            if j != largest:
                place[j], children[at] = here, j
                here, at = here + size[j], at + 1
        if begin < end:
            place[largest], children[at] = here, largest
    return place, children


@njit(nogil=True, cache=True)
def _cut(size, first, up, roots, place, children, position, pointers, start, opens, tops, leaf):
    """Fill in the pieces, one after the other."""
    n, at, following, slot = up.size, np.empty_like(up), first[:-1] - roots, np.empty_like(up)
    for i in range(n):
        at[place[i]] = i
    node = np.empty(size + 2 * _MOST_OPEN, np.int64)  # of the forest, also where it is open
    here, later, known = np.empty(_MOST_OPEN, np.int64), np.empty(_MOST_OPEN, np.int64), 0
    for b in range(tops.size):
        begin, end = b * size, min(n, (b + 1) * size)
        base, opens[b + 1] = start[b], opens[b] + known
        waiting = _left_open(first, roots, place, children, end, here[:known], at[begin:end], later)
        for k in range(waiting):
            slot[later[k]] = opens[b + 1] + k
        tops[b] = _topmost(roots, here[:known], at[begin:end], node, position[base:])
        links = pointers[base + b :]
        used = _below(first, roots, place, children, end, following, slot, leaf, tops[b], node, position[base:], links)
        start[b + 1], known = base + used, waiting
        here[:known] = later[:known]


@njit(nogil=True, cache=True)
def _left_open(first, roots, place, children, end, here, own, later):
    """How many nodes, open before or in a piece, have children from place `end` on; which ones goes to `later`."""
    waiting = 0
    for k in range(here.size + own.size):
        i = here[k] if k < here.size else own[k - here.size]
        if first[i] < first[i + 1] and place[children[first[i + 1] - 1 - roots]] >= end:
            later[waiting] = i
            waiting += 1
    return waiting


@njit(nogil=True, cache=True)
def _topmost(roots, here, own, node, position):
    """Open nodes and roots begin a piece; how many."""
    used = here.size
    node[:used], position[:used] = here, -1
    for i in own:
        if i < roots:
            node[used], position[used] = i, i
            used += 1
    return used


@njit(nogil=True, cache=True)
def _below(first, roots, place, children, end, following, slot, leaf, used, node, position, links):
    """All the rest of a piece, breadth first; how many nodes it has. `following` are the next children of nodes."""
    current = 0
    while current < used:
        links[current] = used
        if position[current] != _LATER:
            i, last = node[current], first[node[current] + 1] - roots
            while following[i] < last and place[children[following[i]]] < end:
                node[used] = position[used] = children[following[i]]
                used, following[i] = used + 1, following[i] + 1
            if following[i] < last:
                leaf[slot[i]], position[used] = used, _LATER
                used += 1
        current += 1
    links[used] = used
    return used
