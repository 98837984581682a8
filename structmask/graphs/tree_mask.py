"""Masks of any function of the distance in a tree."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.graphs.crossings import DistanceMask, length_gradient
from structmask.graphs.merges import Merges
from structmask.graphs.panels import Panels
from structmask.graphs.slopes import Slope
from structmask.graphs.tree import Forest
from structmask.graphs.tree_building import as_forest
from structmask.graphs.tree_table import (
    TreeTable,
    by_entries,
    by_rows,
    folded,
    is_small,
    real_view,
    runs_merges,
    unfolded,
)
from structmask.graphs.windows import evaluate
from structmask.linalg.convergence import ConvergenceWarning
from structmask.linalg.generators import Gradients, unbroadcast
from structmask.linalg.planning import Work
from structmask.linalg.rounding import UNKNOWN, Rounding

_TOLERANCE = 1e-12  # of an entry, relative to the largest
_ROUNDING = 4e-15  # the least that a tolerance can mean, relative to the largest entry
_LONGEST_TABLE = 8  # distances a node for which a function of whole distances is tabulated


@dataclass(frozen=True, eq=False, repr=False)
class TreeFunction(DistanceMask):
    """M_ij = scale f(dist(i, j)) for a callable f, 0 between trees; `tree_mask` makes it.

    Every entry is within `tol` of its value, as far as samples of f can tell: `error_estimate` is a bound of
    max |((M' - M) X)_ij| over the largest column sum of |X|, and no `error_bound` is certified.

    Parameters
    ----------
    forest : Forest
        Trees with any lengths.
    function : callable
        f, vectorised, real.
    scale : float or complex
        A factor of all entries, the generator of the mask.
    tol : float, optional
        Largest error of an entry; 1e-12 times the largest |f| by default.
    derivative : callable, optional
        f', for the gradient of lengths; by default that of a polynomial that has `deriv`, else of series that meet f.
    lengths : array (n,), optional
        Lengths in the place of the forest's, a generator too: on the host, in double precision.
    """

    forest: Forest
    function: Callable[[Any], Any]
    scale: float | complex = 1.0
    tol: float | None = None
    derivative: Callable[[Any], Any] | None = None
    lengths: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if getattr(self.scale, "shape", ()) != ():
            msg = f"TreeFunction needs a scalar scale, got an array of shape {self.scale.shape}"  # type: ignore[union-attr]
            raise ValueError(msg)

    def _generators(self) -> Iterator[tuple[str, Any]]:
        yield "scale", self.scale  # the tolerance, though a number, generates nothing
        yield "lengths", self.lengths

    # --- products ---------------------------------------------------------------------------------------------------

    @cached_property
    def panels(self) -> Panels:
        """The plan, and the function it was made for."""
        plan: Panels = self._last("_panels", self._made)
        return plan

    def _last(self, name: str, make: Callable[[], Any]) -> Any:
        """The plan that the forest keeps under a name: that of the last function, which is enough."""
        memory = self.forest.__dict__.setdefault(name, {})
        key = (id(self.function), self.tol, id(self.derivative))
        if key not in memory:
            plan = make()
            memory.clear()
            memory[key] = plan, self.function, self.derivative  # kept, so that what they are known by stays theirs
        return memory[key][0]

    def _made(self) -> Panels:
        loose = Panels(Merges.of(self.forest), self.function, _TOLERANCE)
        return loose if self.tol is None else Panels(loose.of, self.function, self._relative(loose))

    def _relative(self, plan: Panels) -> float:
        """The tolerance relative to the largest entry; a warning if rounding is larger."""
        largest = max(abs(plan.at_zero), plan.windows.largest if len(plan.of.merges) else 0.0, 1e-300)
        asked = float(self.tol or 0.0) / largest
        if asked < _ROUNDING:
            msg = (
                f"tol={self.tol:g} is below the rounding of entries as large as {largest:.3g}; "
                f"{_ROUNDING * largest:.1e} is used, pass that or more"
            )
            warnings.warn(msg, ConvergenceWarning, stacklevel=4)
        return min(max(asked, _ROUNDING), 0.1)

    def _matmat(self, X: Array) -> Array:
        if not runs_merges(X):
            return by_rows(self, X)
        if is_small(self, math.prod(X.shape[:-2]) * X.shape[-1]):
            return by_entries(self, X)
        X, plan = self.forest.padded(X), self.panels
        x = folded(X)
        columns = real_view(x)
        Y = plan.apply(columns) if plan.exponentials is None else plan.exponentials.product(self.forest, columns)
        found = unfolded(Y.astype(columns.dtype, copy=False).view(x.dtype), X.shape)
        dtype = np.result_type(X, np.complex64) if isinstance(self.scale, complex) else X.dtype
        return self.forest.shown(np.ascontiguousarray(found if self.scale == 1 else self.scale * found, dtype))

    def _pullback(self, G: Array, X: Array) -> Gradients:
        xp = arrays.namespace(X)
        Y = dataclasses.replace(self, scale=1.0)._matmat(X)
        inner = xp.sum(G * (xp.conj(Y) if arrays.is_complex(Y) else Y))
        lengths = self._length_gradient(G if self.scale == 1 else G * self.scale.conjugate(), X)
        return {"scale": unbroadcast(inner, (), complex_=isinstance(self.scale, complex)), "lengths": lengths}

    def _length_gradient(self, G: Array, X: Array) -> Array:
        if runs_merges(X):
            return length_gradient(self.forest, self._last("_slopes", self._slopes).crossings, G, X)
        return length_gradient(self.forest, self._last("_derivative", lambda: self._derivative(X)), G, X)

    def _derivative(self, like: Array) -> TreeFunction:
        return TreeFunction(self.forest, self._slope(self.forest.diameter, like))

    def _slopes(self) -> Panels:
        return self.panels.with_function(self._slope(self.panels.outermost, self.panels.of.dist))

    def _slope(self, reach: float, like: Array) -> Callable[[Any], Any]:
        """f', on arrays like the one given."""
        if self.derivative is not None:
            return self.derivative
        if hasattr(self.function, "deriv"):  # polynomials of NumPy
            exact: Callable[[Any], Any] = self.function.deriv()
            return exact
        asarray = arrays.namespace(like).asarray
        return Slope.of(lambda d: arrays.to_numpy(self._evaluated(asarray(d))), reach or 1.0)

    # --- entries ----------------------------------------------------------------------------------------------------

    def _at(self, i: Array, j: Array) -> Array:
        xp = arrays.namespace(i)
        i, j = xp.broadcast_arrays(i, j)
        distances = self.forest.distances(i, j)
        inside = xp.isfinite(distances)
        values = self._evaluated(xp.where(inside, distances, xp.zeros_like(distances)))
        return self.scale * xp.where(inside, values, xp.zeros_like(values))

    def _evaluated(self, distances: Array) -> Array:
        if arrays.home(distances) == "numpy":
            return evaluate(self.function, distances)
        return arrays.cast(self.function(distances), "float64")

    # --- cost and accuracy ------------------------------------------------------------------------------------------

    @property
    def error_bound(self) -> float:
        return float("nan")

    @property
    def error_estimate(self) -> float:
        plan = self.panels
        largest = max(abs(plan.at_zero), plan.windows.largest if len(plan.of.merges) else 0.0)
        return abs(self.scale) * largest * (plan.tolerance + _ROUNDING)

    def _work(self, columns: int) -> Work:
        if not runs_merges(np.empty(0)) or is_small(self, columns):
            return Work(gemm=2.0 * self.forest.visible**2 * columns, calls=1)
        if (short := self.panels.exponentials) is not None:
            return short.work(self.forest.size, columns)
        return self.panels.work(columns)

    def _rounding(self, unit: float) -> Rounding:
        return UNKNOWN


def tree_mask(
    tree: Any, function: Any, /, *, tol: float | None = None, derivative: Callable[[Any], Any] | None = None
) -> TreeTable | TreeFunction:
    """Mask of any function of the distance in a tree or forest: f(dist(i, j)), 0 between trees.

    Parameters
    ----------
    tree : Forest or graph
        As for `as_forest`.
    function : callable or array (..., D)
        f. A callable takes an array of distances and returns as many real numbers; nothing is compiled for it. An array
        holds f(0), f(1), ... for trees whose lengths are whole numbers, leading axes are a batch; distances beyond its
        end give 0.
    tol : float, optional
        For a callable and lengths that are not whole: largest error of an entry, absolute; by default 1e-12 times the
        largest |f|. The function is only known by its samples, so errors are estimates: see `error_estimate`.
    derivative : callable, optional
        f', for the gradient of lengths, where a function is known better than by samples; then nothing is tabulated.

    Returns
    -------
    TreeTable or TreeFunction
        A table where lengths are whole numbers, exact up to rounding, whose values are parameters with a gradient: a
        callable is tabulated. Otherwise a function of real distances, whose lengths are parameters with a gradient:
        ``TreeFunction(forest, function)`` is one for whole lengths too.

    Warns
    -----
    ConvergenceWarning
        If `tol` is below what rounding allows.

    Notes
    -----
    O(n log^2 n) a column for a table, O(n) for a short sum of exponentials, such as a cosine, and O(n log n) for a
    function that is smooth but for a few places; one that is rough everywhere on the scale of the distances needs more,
    up to all pairs: `explain` tells.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import as_forest, tree_mask
    >>> tree = as_forest(parents=[-1, 0, 0, 1], lengths=[0.0, 1.0, 2.0, 0.5])
    >>> M = tree_mask(tree, lambda d: 1 / (1 + d))
    >>> M.entries([0], [0, 1, 2, 3]).round(3)
    array([[1.   , 0.5  , 0.333, 0.4  ]])
    >>> x = np.arange(4.0)
    >>> np.allclose(M @ x, M.to_dense() @ x)
    True
    >>> hops = as_forest(parents=[-1, 0, 0, 1])
    >>> tree_mask(hops, [1.0, 0.5]).to_dense()  # neighbours only
    array([[1. , 0.5, 0.5, 0. ],
           [0.5, 1. , 0. , 0.5],
           [0.5, 0. , 1. , 0. ],
           [0. , 0.5, 0. , 1. ]])
    """
    forest = as_forest(tree)
    if tol is not None and not tol > 0:
        msg = f"tol must be positive, got {tol}"
        raise ValueError(msg)
    if not callable(function):
        if derivative is not None:
            msg = "derivative= goes with a callable; the gradient of a table is that of its values"
            raise TypeError(msg)
        values = arrays.as_array(function, "tree_mask(values)")
        if values.ndim < 1:
            msg = "tree_mask takes a callable or an array (..., D) of f(0), f(1), ..., got a scalar"
            raise ValueError(msg)
        return TreeTable(forest, values)
    if derivative is None and forest.is_integer and forest.diameter <= _LONGEST_TABLE * forest.size:
        return TreeTable(forest, _table(function, forest))
    _checked(evaluate(function, np.zeros(2)), forest)
    return TreeFunction(forest, function, tol=tol, derivative=derivative)


def _table(function: Callable[[Any], Any], forest: Forest) -> Array:
    return _checked(evaluate(function, np.arange(forest.diameter + 1.0) if forest.size else np.zeros(0)), forest)


def _checked(values: Array, forest: Forest) -> Array:
    """Values at 0, 1, ... that are finite."""
    if not np.isfinite(values).all():
        d = int(np.argmin(np.isfinite(values)))
        msg = f"the function of the distance is {values[d]} at {d}; it must be finite up to {forest.diameter:g}"
        raise ValueError(msg)
    return values
