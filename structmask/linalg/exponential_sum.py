"""Exponential sums: masks sum_r w_r rho_r^|i-j|, several decays at once, seen from both sides or from one."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.generators import Gradients
from structmask.linalg.stationary import Errors, Stationary


@dataclass(frozen=True, eq=False, repr=False)
class ExponentialSum(Stationary):
    """M_ij = f(``|i - j|``) with f(s) = sum_r weights_r decays_r^s.

    Parameters
    ----------
    weights, decays : arrays (..., r)
        Real or complex; leading axes are a batch (heads). Powers of the decays are taken in double precision, whatever
        the operand's.
    n : int
        Size.
    causal : bool
        Whether entries above the diagonal are zero.
    upper : bool
        The transpose of a causal one: entries below the diagonal are zero.
    errors : Errors, optional
        Measured errors, set by `Toeplitz.compress`.

    Notes
    -----
    A product costs O(n (r + C)) operations a column, in chunks of C, accurate row by row. Complex generators make a
    complex matrix; conjugate pairs are a real one as a `StateSpace` with a block ((x, y), (-y, x)) for a pair of decays
    x + iy and x - iy.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import ExponentialSum
    >>> M = ExponentialSum([1.0, 1.0], [0.5, 0.0], 3)
    >>> M.to_dense()
    array([[2.  , 0.5 , 0.25],
           [0.5 , 2.  , 0.5 ],
           [0.25, 0.5 , 2.  ]])
    >>> x = np.arange(3.0)
    >>> np.allclose(M @ x, M.to_dense() @ x)
    True
    """

    weights: Array
    decays: Array
    n: int
    causal: bool = field(default=False, kw_only=True)
    upper: bool = field(default=False, kw_only=True)
    errors: Errors | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("weights", "decays"):
            object.__setattr__(self, name, arrays.as_array(getattr(self, name), f"ExponentialSum({name})"))
        shapes = tuple(self.weights.shape), tuple(self.decays.shape)
        if not all(shapes) or shapes[0][-1] != shapes[1][-1]:
            msg = (
                f"ExponentialSum needs as many weights (..., r) as decays (..., r), got shapes {shapes[0]}, {shapes[1]}"
            )
            raise ValueError(msg)
        self._check()
        _ = self.shape  # raises where batches do not broadcast

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Batch dimensions, rows, columns."""
        return (*np.broadcast_shapes(tuple(self.weights.shape[:-1]), tuple(self.decays.shape[:-1])), self.n, self.n)

    @property
    def rank(self) -> int:
        return int(self.decays.shape[-1])

    def leaving(self, count: int) -> Array:
        decays = arrays.cast_precision(self.decays, "float64")
        exponents = arrays.cast(arrays.namespace(decays).arange(count), arrays.dtype_name(decays))
        return decays[..., :, None] ** exponents

    def entering(self, count: int) -> Array:
        powers, weights = arrays.as_same_kind(self.leaving(count), arrays.cast_precision(self.weights, "float64"))
        return arrays.namespace(powers).matrix_transpose(powers) * weights[..., None, :]

    def steps(self, count: int) -> Array:
        xp = arrays.namespace(self.decays)
        power = arrays.cast_precision(self.decays, "float64") ** count
        return power[..., :, None] * xp.eye(self.rank, dtype=power.dtype)

    def far(self, count: int) -> Array:
        return arrays.namespace(self.decays).sum(self.entering(count), axis=-1)

    def _chain(self, d: Array) -> Gradients:
        """Sums of d_s rho^s for the weights, of w s d_s rho^(s-1) for the decays."""
        xp, count = arrays.namespace(d), int(d.shape[-1])
        decays, weights = (arrays.cast_precision(x, "float64") for x in (self.decays, self.weights))
        s = arrays.cast(xp.arange(count), arrays.dtype_name(decays))
        decays, weights, d, powers = arrays.as_same_kind(decays, weights, d, decays[..., :, None] ** s)
        conj = xp.conj if arrays.is_complex(d) else lambda x: x
        powers, slopes = conj(powers), d[..., 1:] * arrays.cast(s[1:], arrays.dtype_name(d))
        d_weights, d_powers = ((P @ x[..., :, None])[..., 0] for P, x in ((powers, d), (powers[..., :-1], slopes)))
        return {"weights": d_weights, "decays": conj(weights) * d_powers}

    def _far_chain(self, first: int, rows: Array, columns: Array, step: Array) -> Gradients:
        """Rows are w rho^p, columns rho^(first + q), first > 0 without a near band, and a step rho^C: their slopes."""
        xp, count = arrays.namespace(step), int(rows.shape[-2])
        decays, weights = (arrays.cast_precision(x, "float64") for x in (self.decays, self.weights))
        powers, s = self.leaving(first + count), xp.astype(xp.arange(1, first + count + 1), xp.float64)
        seen = xp.matrix_transpose(rows)
        slopes = s * powers  # of rho^s at s - 1
        d_decays = weights * xp.sum(seen[..., 1:] * slopes[..., : count - 1], axis=-1)
        d_decays = d_decays + count * decays ** (count - 1) * xp.linalg.diagonal(step)
        d_decays = d_decays + xp.sum(columns * slopes[..., first - 1 : -1], axis=-1)
        return {"weights": xp.sum(seen * powers[..., :count], axis=-1), "decays": d_decays}
