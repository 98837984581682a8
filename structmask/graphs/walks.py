"""Graphs to walk on, how walks are drawn, and what they leave behind."""

from __future__ import annotations

import numbers
import operator
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse

from structmask.backends import arrays, kernels, walk_kernels
from structmask.backends.arrays import Array
from structmask.graphs.adjacency import as_adjacency

_WALK_BYTES = 36  # of a walk while its step is drawn: random words, and the node


def walkable(graph: Any) -> Any:
    """Adjacency matrix with positive weights only: zeros are no edges, negative ones an error."""
    W = as_adjacency(graph)
    if W.nnz and W.data.min() < 0:
        msg = f"random walks need weights >= 0, got {W.data.min():.3g}; take absolute values if that fits"
        raise ValueError(msg)
    if W.nnz and W.data.min() == 0:
        W = W.copy()
        W.eliminate_zeros()
    with np.errstate(over="ignore"):
        d = np.asarray(W.sum(axis=1, dtype=np.float64))
    if not np.isfinite(d).all():
        msg = (
            f"the weights at node {int(np.argmin(np.isfinite(d)))} add up to more than double precision holds; "
            "divide all of them by the largest"
        )
        raise ValueError(msg)
    return W


def transition(W: Any) -> Any:
    """P = D^-1 W in the precision of W; rows without entries stay empty."""
    d = np.asarray(W.sum(axis=1, dtype=np.float64))
    data = (W.data / np.repeat(d, np.diff(W.indptr))).astype(W.dtype)
    return scipy.sparse.csr_array((data, W.indices, W.indptr), shape=W.shape)


def generator(rng: Any) -> np.random.Generator:
    """The random numbers that a seed stands for."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        msg = f"rng is a seed (None, or integers >= 0) or a numpy.random.Generator, got {rng!r}"
        raise type(error)(msg) from None


def walk_plan(
    length: int, walks: int, stop: float, rng: np.random.Generator, *, repelling: bool, draw: int = 0
) -> walk_kernels.Plan:
    """How to draw walks, with a key from a generator; `stop` on a grid of 2^-32."""
    if walks >= walk_kernels.WORD:
        msg = (
            f"walks={walks} from a node are drawn together and would need {_WALK_BYTES * walks / 2**30:,.0f} GiB; "
            "pass less than 2^32"
        )
        raise MemoryError(msg)
    threshold = min(round(stop * walk_kernels.WORD), walk_kernels.WORD - 1)
    key = int(rng.integers(0, 1 << 64, dtype=np.uint64))
    return walk_kernels.Plan(length, walks, threshold, key, draw, bool(repelling))


class Walks:
    """Walks from every node of a graph, the same whenever they are drawn: what they leave behind for any modulation."""

    def __init__(self, W: Any, gain: Array, plan: walk_kernels.Plan) -> None:
        self.W, self.gain, self.plan = W, gain, plan

    def __getstate__(self) -> dict[str, Any]:
        return {"W": self.W, "gain": self.gain, "plan": self.plan}

    def features(self, f: Array) -> Array:
        """F (n, n) in double precision, where the modulation f lives: drawn, or from D once that is known."""
        home = arrays.home(f)
        if "loads" in self.__dict__ or arrays.is_complex(f):
            return self.with_entries(self.weighted(f))
        steps, gain = walk_kernels.Steps(*arrays.placed(self, "steps", home)), arrays.placed(self, "gain", home)
        f = arrays.cast_precision(f, "float64")
        indptr, indices, data = walk_kernels.walk_features(steps, gain, f, self.plan)
        self.__dict__.setdefault("pattern", (arrays.to_numpy(indices), arrays.to_numpy(indptr)))
        return self.with_entries(data)

    def with_entries(self, data: Array) -> Array:
        """A matrix with the pattern of F, where its entries live."""
        indices, indptr = arrays.placed(self, "pattern", arrays.home(data))
        F = arrays.csr(data, indices, indptr, self.W.shape)
        F.has_canonical_format = True  # rows are sorted and without duplicates
        return F

    def weighted(self, f: Array) -> Array:
        """D f, the entries of F."""
        return _product(arrays.placed(self, "loads", arrays.home(f)), f)

    def collected(self, d: Array) -> Array:
        """D^T d for gradients d of the entries of F."""
        return _product(arrays.placed(self, "adjoint_loads", arrays.home(d)), d)

    def rows(self, like: Array) -> Array:
        """The row of every entry of F, in the home of an array."""
        rows: Array = arrays.placed(self, "_rows", arrays.home(like))
        return rows

    @cached_property
    def steps(self) -> walk_kernels.Steps:
        """Where walks go next."""
        return walk_kernels.steps(self.W)

    @cached_property
    def loads(self) -> Any:
        """D as csr_array (entries of F, steps), on the host; the walks are drawn once more for it."""
        found = walk_kernels.walk_loads(self.steps, self.gain, self.plan)
        self.__dict__["pattern"] = found.indices, found.indptr
        shape = (found.indices.size, self.plan.length)
        return scipy.sparse.csr_array((found.loads / self.plan.walks, found.steps, found.first), shape=shape)

    @cached_property
    def adjoint_loads(self) -> Any:
        """D^T."""
        return self.loads.T.tocsr()

    @cached_property
    def _rows(self) -> Array:
        return np.repeat(np.arange(self.W.shape[0]), np.diff(self.__dict__["pattern"][1]))


def inverse_power(q: Array, alpha: complex) -> Array:
    """|F_i|^-alpha for squared norms q; zero where they are zero."""
    xp = arrays.namespace(q)
    return xp.where(q == 0, xp.zeros_like(q), _nonzero(q) ** (-alpha / 2))


def inverse_power_pullback(q: Array, s: Array, alpha: complex, gradient: Array) -> tuple[Array, Array]:
    """From gradients of s = q^(-alpha / 2), those of q and, summed, of alpha."""
    safe = _nonzero(q)
    d_alpha = arrays.namespace(q).sum(gradient * arrays.conj(-0.5 * arrays.namespace(q).log(safe) * s))
    return gradient * arrays.conj(-alpha / 2 * s / safe), d_alpha


def _nonzero(q: Array) -> Array:
    xp = arrays.namespace(q)
    return xp.where(q == 0, xp.ones_like(q), q)


def check_count(value: Any, name: str, what: str) -> int:
    """An integer of at least one."""
    try:
        count = operator.index(value)
    except TypeError:
        msg = f"{name} counts {what}: it must be an integer, got {value!r}"
        raise TypeError(msg) from None
    if count < 1:
        msg = f"{name} counts {what}: it must be at least 1, got {count}"
        raise ValueError(msg)
    return count


def check_real(value: Any, name: str) -> None:
    """A real number."""
    if not isinstance(value, numbers.Real):
        msg = f"{name} must be a real number, got {value!r}"
        raise TypeError(msg)


def check_stop(stop: Any) -> None:
    """A probability in [0, 1)."""
    check_real(stop, "stop")
    if not 0 <= stop < 1:
        msg = f"stop is the probability to end before each step and must be in [0, 1), got {stop!r}"
        raise ValueError(msg)


def _product(A: Any, x: Array) -> Array:
    """A x for a real sparse A in double precision and a vector of any kind."""
    x = arrays.cast_precision(x, "float64")
    values = arrays.cast(A.data, "complex128") if arrays.is_complex(x) else A.data
    return kernels.csr_product(A, values, x[:, None])[:, 0]
