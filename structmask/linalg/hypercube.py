"""Functions of the Hamming distance on a hypercube: diagonal in the Walsh-Hadamard basis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from structmask.backends import arrays, kernels
from structmask.backends.arrays import Array
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.elementary import gather
from structmask.linalg.generators import Gradients, unbroadcast
from structmask.linalg.planning import Work
from structmask.linalg.rounding import Rounding

_SAFETY = 4.0  # largest over typical rounding error of a transform, with room to spare
_MOST_BITS = 40


@dataclass(frozen=True, eq=False, repr=False)
class Hypercube(StructuredMatrix):
    """M_ij = values[number of bits in which i and j differ], on the 2^d points of a hypercube.

    Parameters
    ----------
    values : array (..., d + 1)
        The entry for every Hamming distance 0, ..., d; leading axes are a batch.

    Notes
    -----
    A product costs two Walsh-Hadamard transforms, 2 n log2(n) additions a column for n = 2^d. Rounding is absolute over
    a column: an entry of y = M x is off by about u sqrt(d / n) (|M_:0|_2 |x|_2 + |y|_2), u the unit roundoff.

    Examples
    --------
    >>> from structmask import Hypercube
    >>> Hypercube([1.0, 0.5, 0.25]).to_dense()
    array([[1.  , 0.5 , 0.5 , 0.25],
           [0.5 , 1.  , 0.25, 0.5 ],
           [0.5 , 0.25, 1.  , 0.5 ],
           [0.25, 0.5 , 0.5 , 1.  ]])
    """

    values: Array

    def __post_init__(self) -> None:
        values = arrays.as_array(self.values, "Hypercube(values)")
        if values.ndim < 1 or not 1 <= values.shape[-1] <= _MOST_BITS + 1:
            msg = (
                f"Hypercube needs values (..., d + 1), one a Hamming distance 0, ..., d <= {_MOST_BITS}, got shape "
                f"{tuple(values.shape)}"
            )
            raise ValueError(msg)
        object.__setattr__(self, "values", values)

    @property
    def dimension(self) -> int:
        """Number d of bits of an index."""
        return int(self.values.shape[-1]) - 1

    @property
    def shape(self) -> tuple[int, ...]:
        n = 2**self.dimension
        return (*self.values.shape[:-1], n, n)

    @cached_property
    def _krawtchouk(self) -> Array:
        """The matrix (d + 1, d + 1) of Krawtchouk polynomials in double precision."""
        return arrays.namespace(self.values).asarray(krawtchouk(self.dimension))

    @cached_property
    def _weights(self) -> Array:
        """Number of bits of every index (n,)."""
        xp = arrays.namespace(self.values)
        return _bit_count(xp.arange(2**self.dimension), self.dimension)

    @cached_property
    def eigenvalues(self) -> Array:
        """Eigenvalues (..., d + 1); the one at w belongs to the characters with w bits, of which there are C(d, w)."""
        exact = arrays.cast_precision(self.values, "float64")
        exact, K = arrays.as_same_kind(exact, self._krawtchouk)
        return arrays.cast_precision((exact[..., None, :] @ K)[..., 0, :], arrays.precision(self.values))

    @cached_property
    def _multiplier(self) -> Array:
        """Eigenvalue over n of every character, (..., n, 1)."""
        return gather(self.eigenvalues, self._weights)[..., None] / 2**self.dimension

    def _matmat(self, X: Array) -> Array:
        return kernels.walsh_hadamard(self._multiplier * kernels.walsh_hadamard(X))

    def transpose(self) -> Hypercube:
        return self

    def _pullback(self, G: Array, X: Array) -> Gradients:
        """The correlation of G and X, summed over characters of one weight, and one Krawtchouk transform."""
        xp, d = arrays.namespace(X), self.dimension
        g, x = kernels.walsh_hadamard(G), kernels.walsh_hadamard(X)
        power = xp.sum(g * (xp.conj(x) if arrays.is_complex(x) else x), axis=-1)[..., None] / 2**d
        same = self._weights[None, :] == xp.arange(d + 1)[:, None]
        chosen, K, power = arrays.as_same_kind(
            *(arrays.cast(a, arrays.precision(power)) for a in (same, self._krawtchouk)), power
        )
        gradient = (K @ (chosen @ power))[..., 0]
        return {"values": unbroadcast(gradient, tuple(self.values.shape), complex_=arrays.is_complex(self.values))}

    def _at(self, i: Array, j: Array) -> Array:
        return gather(self.values, _bit_count(i ^ j, self.dimension))

    @property
    def _entry_bytes(self) -> float:
        return 50.0 + 30.0 * self.dimension

    def _work(self, columns: int) -> Work:
        size = float(math.prod(self.shape[:-1])) * columns
        return Work(scan=2 * size * self.dimension, bytes=6.0 * self.dtype.itemsize * size, calls=2)

    @cached_property
    def _norm(self) -> float:
        """Largest 2-norm of a column of the batch."""
        xp, d = arrays.namespace(self.values), self.dimension
        counts = xp.asarray([float(math.comb(d, h)) for h in range(d + 1)])
        squares = xp.sum(counts * arrays.cast(xp.abs(self.values), "float64") ** 2, axis=-1)
        return math.sqrt(float(xp.max(squares)))

    def _rounding(self, unit: float) -> Rounding:
        level = _SAFETY * unit * math.sqrt(max(1, self.dimension))
        return Rounding(level, level * self._norm / math.sqrt(2**self.dimension))


def krawtchouk(d: int) -> np.ndarray:
    """The matrix K (d + 1, d + 1) with K[h, w] = sum_t (-1)^t C(w, t) C(d - w, h - t), in double precision.

    It is the sum of a character of weight w over the points of weight h, so that eigenvalues are values @ K.
    """
    signed = [[(-1) ** t * math.comb(w, t) for t in range(w + 1)] for w in range(d + 1)]
    entries = [
        [sum(c * math.comb(d - w, h - t) for t, c in enumerate(signed[w]) if t <= h) for w in range(d + 1)]
        for h in range(d + 1)
    ]
    return np.asarray(entries, dtype=np.float64)


def _bit_count(index: Array, bits: int) -> Array:
    """Number of ones among the lowest bits of integers."""
    count = 0 * index
    for bit in range(bits):
        count = count + (index // 2**bit) % 2
    return count
