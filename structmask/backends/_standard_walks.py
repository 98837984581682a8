"""Random walks as whole arrays of walks: the reference of the compiled walker, which takes the same steps.

Each random word is a function of a key and of (step, draw, walk), by Philox4x32-10 (Salmon et al., 2011). So a walk
depends neither on threads nor on what is computed beside it, and is the same on every backend. All decisions are taken
in integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from structmask.backends._standard import sampled_product
from structmask.backends.arrays import Array, blocks, namespace

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
WORD = 1 << 32

_LOW = np.uint64(WORD - 1)
_HALF = np.uint64(32)
_BLOCK = 1 << 22  # visited nodes held at a time


class Steps(NamedTuple):
    """Where a walk goes next: CSR rows of neighbours, and an alias table where the weights of a row differ.

    In slot e of its row a walk takes edge e if a random word is below threshold[e], else edge alias[e] of the row.
    Without a table (both empty) all edges of a row are equally likely.
    """

    indptr: Array  # (n + 1,) int64
    indices: Array  # (edges,) int32
    threshold: Array  # (edges,) or (0,) uint32
    alias: Array  # (edges,) or (0,) int32

    @property
    def n(self) -> int:
        """Number of nodes."""
        return int(self.indptr.size) - 1


class Plan(NamedTuple):
    """How walks are drawn: nodes a walk, walks a start, when they stop, which random words they take.

    A walk stops if a word is below `stop`, of 2^32. With `repelling`, walks of one start that meet share one word and
    spread evenly around it: each walk is what it was, but they avoid each other.
    """

    length: int
    walks: int
    stop: int
    key: int
    draw: int = 0
    repelling: bool = False


def philox(counter: tuple[Array, Array, Array, Array], key: int) -> tuple[Array, Array, Array, Array]:
    """Four random words below 2^32 (as uint64) for four counter words and a key below 2^64."""
    c0, c1, c2, c3 = counter
    k0, k1 = key % WORD, key // WORD
    for _ in range(ROUNDS):
        p, q = np.uint64(MULTIPLIERS[0]) * c0, np.uint64(MULTIPLIERS[1]) * c2
        c0, c1, c2, c3 = (q >> _HALF) ^ c1 ^ np.uint64(k0), q & _LOW, (p >> _HALF) ^ c3 ^ np.uint64(k1), p & _LOW
        k0, k1 = (k0 + WEYL[0]) % WORD, (k1 + WEYL[1]) % WORD
    return c0, c1, c2, c3


def words(step: int, draw: int, walk: Array, key: int) -> tuple[Array, Array, Array, Array]:
    """The random words of a step of some walks (uint64 numbers): to stop, to choose a slot (two), and within it."""
    fixed = [np.full(walk.shape, c, dtype=np.uint64) for c in (step, draw)]
    return philox((fixed[0], fixed[1], walk & _LOW, walk >> _HALF), key)


def alias_tables(indptr: Array, weights: Array, threshold: Array, alias: Array) -> None:
    """Fill the alias table of every row (Walker, 1977): slots with too little weight are topped up by one with more."""
    for i in range(indptr.size - 1):
        first, d = indptr[i], indptr[i + 1] - indptr[i]
        share = weights[first : first + d] / np.sum(weights[first : first + d]) * d if d else weights[:0]
        poor, rich = np.empty(d, np.int64), np.empty(d, np.int64)
        p = r = 0
        for e in range(d):
            alias[first + e] = e
            threshold[first + e] = WORD - 1
            if share[e] < 1.0:
                poor[p] = e
                p += 1
            else:
                rich[r] = e
                r += 1
        while p > 0 and r > 0:
            e, donor = poor[p - 1], rich[r - 1]
            threshold[first + e] = np.int64(share[e] * WORD)
            alias[first + e] = donor
            share[donor] -= 1.0 - share[e]
            if share[donor] < 1.0:
                poor[p - 1] = donor
                r -= 1
            else:
                p -= 1


def random_walks(steps: Steps, starts: Array, plan: Plan, first: int = 0) -> Array:
    """Nodes (len(starts) * walks, length) of walks from each start, -1 where a walk has ended.

    Walks are numbered from `first` on. A walk ends at a node without neighbours, or where its word says stop.
    """
    nodes = np.full((starts.size * plan.walks, plan.length), -1, dtype=np.int32)
    nodes[:, 0] = np.repeat(starts, plan.walks)
    alive = np.arange(nodes.shape[0])
    for step in range(1, plan.length):
        at = nodes[alive, step - 1].astype(np.int64)
        degree = steps.indptr[at + 1] - steps.indptr[at]
        alive, at, degree = (a[degree > 0] for a in (alive, at, degree))
        w = words(step, plan.draw, alive.astype(np.uint64) + np.uint64(first), plan.key)
        stays = _spread((w[0],), alive // plan.walks, plan)[0] >= plan.stop
        alive, at, degree = alive[stays], at[stays], degree[stays]
        high, low, coin = (a[stays] for a in w[1:])
        high, low = _spread((high, low), alive // plan.walks * steps.n + at, plan)
        nodes[alive, step] = steps.indices[_edges(steps, at, degree.astype(np.uint64), (high, low, coin))]
    return nodes


def _edges(steps: Steps, at: Array, degree: Array, w: tuple[Array, Array, Array]) -> Array:
    """Positions of the edges that words choose: floor(u d) for u of 64 bits, then the alias table."""
    high, low, coin = w
    slot = (high * degree + (low * degree >> _HALF)) >> _HALF
    edge = steps.indptr[at] + slot.astype(np.int64)
    if not steps.threshold.size:
        return edge
    return np.where(coin < steps.threshold[edge], edge, steps.indptr[at] + steps.alias[edge])


def _spread(w: tuple[Array, ...], group: Array, plan: Plan) -> tuple[Array, ...]:
    """The words themselves; for repelling walks those of a group's first member, turned by rank / size of the group."""
    if not plan.repelling or not group.size:
        return w
    order = np.argsort(group, kind="stable")
    begins = np.flatnonzero(np.concatenate([[True], np.diff(group[order]) != 0]))
    sizes = np.diff(np.concatenate([begins, [group.size]]))
    leader, turn = np.empty(group.size, np.int64), np.empty(group.size, np.uint64)
    leader[order] = np.repeat(order[begins], sizes)
    rank = np.arange(group.size) - np.repeat(begins, sizes)
    turn[order] = (rank * WORD // np.repeat(sizes, sizes)).astype(np.uint64)
    high, *low = (a[leader] for a in w)
    return ((high + turn) & _LOW, *low)


def _loads(nodes: Array, gain: Array) -> Array:
    """What walks carry: one at first, multiplied by gain (n,) of every node that is left; always one without (0,)."""
    xp = namespace(nodes)
    loads = xp.ones(nodes.shape)
    if gain.size:
        loads[:, 1:] = xp.cumprod(gain[nodes[:, :-1]], axis=1)
    return loads


class Loads(NamedTuple):
    """Features F of walks as a linear function of the modulation: entry e of F is the mean sum_l D_el f_l / walks.

    `indptr` and `indices` are the pattern of F (n, n); `first`, `steps` and `loads` are D (entries of F, steps) in CSR.
    """

    indptr: Array
    indices: Array
    first: Array
    steps: Array
    loads: Array


def walk_loads(steps: Steps, gain: Array, plan: Plan, walk: Callable[..., Array] = random_walks) -> Loads:
    """The sum of loads, over the walks from i, at their l-th node where that is v."""
    n, step = steps.n, max(1, _BLOCK // (plan.walks * plan.length))
    rows, entries, places, loads = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)], [], []
    for a, b in blocks(n, step):
        nodes = walk(steps, np.arange(a, b), plan, a * plan.walks)
        load = _loads(nodes, gain)
        source = np.repeat(np.arange(b - a), plan.walks)[:, None]
        keys = ((source * n + nodes) * plan.length + np.arange(plan.length))[nodes >= 0]
        found, inverse = np.unique(keys, return_inverse=True)
        loads.append(np.bincount(inverse, weights=load[nodes >= 0], minlength=found.size))
        entry, counts = np.unique(found // plan.length, return_counts=True)
        entries.append(counts)
        rows.append(np.bincount(entry // n, minlength=b - a))
        places.append(((entry % n).astype(np.int32), (found % plan.length).astype(np.int32)))
    none = np.zeros(0, np.int32)
    indices, at = (np.concatenate([none, *(part[k] for part in places)]) for k in (0, 1))
    ends = (np.cumsum(np.concatenate(counts)) for counts in (rows, entries))
    return Loads(next(ends), indices, next(ends), at, np.concatenate([np.zeros(0), *loads]))


def walk_features(
    steps: Steps,
    gain: Array,
    modulation: Array,
    plan: Plan,
    walk: Callable[..., Array] = random_walks,
    sums: Callable[[Array, Array], Array] | None = None,
) -> tuple[Array, Array, Array]:
    """CSR arrays of F (n, n): means over the walks from i of sum_l modulation_l load_l at the l-th node.

    `walk` draws walks and `sums` adds up segments that begin at given places, where the steps live.
    """
    xp, n, step = namespace(steps.indptr), steps.n, max(1, _BLOCK // (plan.walks * plan.length))
    counts, indices, values = [xp.zeros(1, dtype=np.int64)], [xp.zeros(0, dtype=np.int32)], [xp.zeros(0)]
    for a, b in blocks(n, step):
        nodes = walk(steps, xp.arange(a, b), plan, a * plan.walks)
        shape = (b - a, plan.walks, plan.length)
        node, load = (xp.swapaxes(x.reshape(shape), 1, 2) for x in (nodes, _loads(nodes, gain) * modulation))
        keys, load = (xp.arange(b - a)[:, None, None] * n + node)[node >= 0], load[node >= 0]
        order = xp.argsort(keys, kind="stable")
        keys = keys[order]
        begins = xp.concatenate([xp.zeros(1, dtype=np.int64), xp.flatnonzero(keys[1:] != keys[:-1]) + 1])
        values.append((sums or _segment_sums)(load[order], begins) / plan.walks)
        indices.append((keys[begins] % n).astype(np.int32))
        counts.append(xp.diff(xp.searchsorted(keys[begins], xp.arange(b - a + 1) * n)))
    return xp.cumsum(xp.concatenate(counts)), xp.concatenate(indices), xp.concatenate(values)


def _segment_sums(values: Array, begins: Array) -> Array:
    """Sums in order, so that compiled walks have the same."""
    return np.bincount(np.repeat(np.arange(begins.size), np.diff(begins, append=values.size)), weights=values)


# --- exact walks: rows of powers --------------------------------------------------------------------------------------


def power_gram(P: Array, rows: range, length: int) -> Array:
    """H (rows, length, length) with H_ilm = sum_v (P^l)_iv (P^m)_iv, for a sparse P (n, n); O(rows n length) memory."""
    xp = namespace(P.data)
    R = _row_powers(P, rows, length)
    return xp.stack([xp.stack([xp.sum(a * b, axis=0) for b in R], axis=-1) for a in R], axis=-1)


def power_gram_pullback(P: Array, sources: Array, rows: range, weights: Array) -> Array:
    """Gradient (edges,) of sum_ilm weights_ilm H_ilm for the stored entries of P, whose rows are `sources`.

    With R_l = rows of P^l and Z_l = 2 sum_m weights_lm R_m + Z_{l+1} P^T it is sum_l R_{l-1}^T Z_l at these entries.
    """
    length = weights.shape[-1]
    R, Z, gradient = _row_powers(P, rows, length), None, 0.0
    for step in range(length - 1, 0, -1):
        own = sum(2 * weights[:, step, m] * R[m] for m in range(length))
        Z = own if Z is None else own + P @ Z
        gradient = gradient + sampled_product(sources, P.indices, R[step - 1], Z)
    return gradient if length > 1 else 0 * P.data


def _row_powers(P: Array, rows: range, length: int) -> list[Array]:
    """Columns (n, rows) of the powers of P^T: e_i P^l, transposed."""
    xp, adjoint = namespace(P.data), P.T
    nodes = xp.arange(P.shape[0])[:, None] == xp.arange(rows.start, rows.stop)[None, :]
    R = [xp.asarray(nodes, dtype=P.data.dtype)]
    for _ in range(1, length):
        R.append(adjoint @ R[-1])
    return R
