"""Heat kernels in closed form: hypercubes, grids and tori, complete graphs, infinite regular trees.

They are exact, need no tolerance, and test the kernels that have one. A grid is a Cartesian product of paths (or
cycles): its Laplacian is a Kronecker sum, and its kernel the Kronecker product of the factors' kernels.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from scipy.special import ive, roots_legendre

from structmask.backends.arrays import Array, blocks
from structmask.graphs.responses import parameter
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.elementary import Dense, Diagonal
from structmask.linalg.hypercube import Hypercube
from structmask.linalg.kronecker import kron
from structmask.linalg.low_rank import LowRank
from structmask.linalg.toeplitz import Toeplitz

_NODES = 80  # of the quadrature, besides what oscillation and time need
_NEGLIGIBLE = 80 * math.log(10)  # logarithm of what is zero


def hypercube_diffusion(dimension: int, time: Any, /) -> Hypercube:
    """exp(-t L) of the hypercube {0, 1}^d: ((1 + e^-2t) / 2)^d tanh(t)^h at Hamming distance h.

    Parameters
    ----------
    dimension : int
        d; the graph has 2^d nodes, numbered by their bits.
    time : float or array
        t >= 0; the shape of an array becomes leading axes.

    Returns
    -------
    Hypercube (..., 2^d, 2^d)
        With a product in O(d 2^d).

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import diffusion_kernel, hypercube_diffusion
    >>> square = np.array([[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]])
    >>> M = diffusion_kernel(square, 0.5, tol=1e-12)
    >>> np.allclose(hypercube_diffusion(2, 0.5).to_dense(), M.to_dense())
    True
    """
    d, t = _size(dimension, "dimension", least=0), np.asarray(parameter(time, "time"), dtype=np.float64)[..., None]
    stay, move = (1 + np.exp(-2 * t)) / 2, -np.expm1(-2 * t) / 2
    h = np.arange(d + 1.0)
    return Hypercube(stay ** (d - h) * move**h)


def grid_diffusion(shape: Any, time: Any, /, *, periodic: bool = False) -> StructuredMatrix:
    """exp(-t L) of a grid graph, or of a torus: the Kronecker product of kernels of paths, or of cycles.

    Parameters
    ----------
    shape : int or tuple of int
        Sides; nodes are numbered in C order. A single side is a path, or a cycle.
    time : float or array
        t >= 0; the shape of an array becomes leading axes.
    periodic : bool
        Whether opposite ends are joined. A cycle of two nodes is an edge of weight two, one of a single node nothing.

    Returns
    -------
    StructuredMatrix (..., prod(shape), prod(shape))
        A product costs O(N sum of sides) by matrix products for a grid; circulant factors multiply by FFT.

    Notes
    -----
    Path: eigenvalues 2 - 2 cos(pi j / n) with the vectors of the DCT-II. Cycle: 2 - 2 cos(2 pi j / n), circulant.

    Examples
    --------
    >>> import networkx as nx, numpy as np
    >>> from structmask import diffusion_kernel, grid_diffusion
    >>> M = diffusion_kernel(nx.grid_graph((4, 3)), 0.5, tol=1e-12)
    >>> np.allclose(grid_diffusion((3, 4), 0.5).to_dense(), M.to_dense())
    True
    """
    sides = [_size(n, "a side", least=1) for n in (shape if np.iterable(shape) else (shape,))]
    if not sides:
        msg = "a grid needs at least one side"
        raise ValueError(msg)
    t = np.asarray(parameter(time, "time"), dtype=np.float64)
    factors = [_cycle(n, t) if periodic else _path(n, t) for n in sides]
    return factors[0] if len(factors) == 1 else kron(*factors)


def complete_diffusion(n: int, time: Any, /) -> StructuredMatrix:
    """exp(-t L) of the complete graph: e^-tn I + (1 - e^-tn) / n 1 1^T.

    Parameters
    ----------
    n : int
        Number of nodes.
    time : float or array
        t >= 0; the shape of an array becomes leading axes.

    Returns
    -------
    StructuredMatrix (..., n, n)
        With a product in O(n).

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import complete_diffusion, diffusion_kernel
    >>> M = diffusion_kernel(np.ones((5, 5)) - np.eye(5), 0.1, tol=1e-12)
    >>> np.allclose(complete_diffusion(5, 0.1).to_dense(), M.to_dense())
    True
    """
    n, t = _size(n, "n", least=1), np.asarray(parameter(time, "time"), dtype=np.float64)[..., None]
    everywhere = LowRank(np.broadcast_to((-np.expm1(-n * t) / n)[..., None], (*t.shape[:-1], n, 1)), np.ones((n, 1)))
    return Diagonal(np.broadcast_to(np.exp(-n * t), (*t.shape[:-1], n))) + everywhere


def regular_tree_diffusion(degree: int, time: float, /) -> Callable[[Any], Array]:
    """The heat kernel of the infinite regular tree, a function f of the distance, for L = I - A / k.

    Parameters
    ----------
    degree : int
        k >= 2, of every node; two is the infinite path.
    time : float
        t >= 0.

    Returns
    -------
    callable
        The function f of arrays of distances s >= 0: use it in `tree_mask`.

    Notes
    -----
    With q = k - 1, the spherical functions of the tree and its Plancherel measure give

        f(s) = 2 q / pi * q^(-s/2) * int_0^pi exp(-t (1 - 2 sqrt(q) / k cos x)) sin(x)
               * (q sin((s + 1) x) - sin((s - 1) x)) / (k^2 - 4 q cos(x)^2) dx ,

    by Gauss-Legendre quadrature; for k = 2 it is exp(-t) I_s(t). The error is a few roundings of q^(-s/2), and what is
    below 1e-80 is zero.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import regular_tree_diffusion
    >>> f = regular_tree_diffusion(3, 1.0)
    >>> distance = np.arange(1, 31)
    >>> nodes = 3 * 2.0 ** (distance - 1)  # at each distance from a node
    >>> bool(np.isclose(f(0) + nodes @ f(distance), 1.0))
    True
    """
    k, t = _size(degree, "degree", least=2), parameter(time, "time")
    if np.ndim(t):
        msg = f"regular_tree_diffusion takes one time, got shape {np.shape(t)}"
        raise ValueError(msg)
    return RegularTreeKernel(k, float(t))


@dataclass(frozen=True)
class RegularTreeKernel:
    """f(s) of `regular_tree_diffusion`, for trees whose nodes have a degree k."""

    degree: int
    time: float

    def __call__(self, distance: Any, /) -> Array:
        """Values at distances (...)."""
        s = np.asarray(distance, dtype=np.float64)
        if s.size and not s.min() >= 0:
            msg = f"a distance is a number >= 0, got {s.min()}"
            raise ValueError(msg)
        if self.degree == 2:
            return ive(s, self.time)
        unique, inverse = np.unique(s, return_inverse=True)
        near = unique[unique * math.log(self.degree - 1) <= 2 * _NEGLIGIBLE]
        return np.concatenate([self._values(near), np.zeros(unique.size - near.size)])[inverse].reshape(s.shape)

    def _values(self, s: Array) -> Array:
        k, q = self.degree, self.degree - 1
        x, weights = roots_legendre(_NODES + math.ceil(9 * math.sqrt(self.time) + 1.6 * s.max(initial=0.0)))
        x, weights = np.pi / 2 * (x + 1), np.pi / 2 * weights
        rate = 2 * math.sqrt(q) / k
        density = weights * np.exp(-self.time * (1 - rate * np.cos(x))) * np.sin(x) / (k**2 - 4 * q * np.cos(x) ** 2)
        values = np.empty_like(s)
        for a, b in blocks(s.size, 256):
            r = s[a:b, None]
            values[a:b] = (q * np.sin((r + 1) * x) - np.sin((r - 1) * x)) @ density
        return 2 * q / np.pi * q ** (-s / 2) * values


# --- factors ----------------------------------------------------------------------------------------------------------


def _path(n: int, t: Array) -> StructuredMatrix:
    """The eigenvectors of a path are cosines sampled between its nodes."""
    values = 4 * np.sin(np.pi * np.arange(n) / (2 * n)) ** 2
    V = scipy.fft.idct(np.eye(n), type=2, norm="ortho", axis=0)
    return Dense((V * np.exp(-t[..., None] * values)[..., None, :]) @ V.T)


def _cycle(n: int, t: Array) -> StructuredMatrix:
    """A circulant, whose first row is the inverse transform of its eigenvalues."""
    values = 4 * np.sin(np.pi * np.arange(n // 2 + 1) / n) ** 2
    row = scipy.fft.irfft(np.exp(-t[..., None] * values), n, axis=-1)
    return Toeplitz.from_column_row(row)


def _size(value: Any, name: str, *, least: int) -> int:
    n = operator.index(value)
    if n < least:
        msg = f"{name} must be at least {least}, got {n}"
        raise ValueError(msg)
    return n
