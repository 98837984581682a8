"""The central lemma: if a mask has a fast product, so has its elementwise product with a low-rank matrix.

    (M * (F G^T)) X = sum_r diag(F_r) M diag(G_r) X

Masked attention, its gradients and every `mask * LowRank` go through `masked_product`, the one place where the method
is chosen. `auto` takes the cheapest by the cost model and then checks, row by row, that rounding has not spoilt it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypeGuard

import numpy as np

from structmask.backends import arrays, kernels
from structmask.backends.arrays import Array
from structmask.backends.config import get_backend
from structmask.linalg import hadamard_methods as methods
from structmask.linalg import hadamard_parts as parts
from structmask.linalg import state_gradient
from structmask.linalg.band import Band
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.causal import Causal
from structmask.linalg.composite import Sum
from structmask.linalg.elementary import Diagonal, Sparse
from structmask.linalg.generators import Gradients, added, cast_gradients, unbroadcast, zero_gradients
from structmask.linalg.hadamard_gradients import low_rank_pullback, stream_pullback, sum_pullback
from structmask.linalg.hadamard_methods import Result, Sizes
from structmask.linalg.hadamard_sparse import diagonal_mask_gradient, sparse_features_pullback, sparse_mask_gradient
from structmask.linalg.low_rank import LowRank
from structmask.linalg.planning import Plan, Work, make_plan
from structmask.linalg.rounding import UNKNOWN, Rounding, balanced, rounding_of, rows_at_risk
from structmask.linalg.stationary import Stationary
from structmask.linalg.toeplitz import Toeplitz

METHODS = (
    "auto",
    "dense",
    "stream",
    "fused",
    "scan",
    "sparse",
    "low_rank",
    "diagonal",
    "terms",
    "blocks",
    "border",
    "band",
    "toeplitz",
)

Walk: TypeAlias = Callable[..., tuple[Gradients, Array, Array, Array]]

_TRANSFORMS = ("stream", "fused")  # methods whose rounding is that of the mask's own product


@dataclass(frozen=True, eq=False, repr=False)
class Hadamard(StructuredMatrix):
    """The elementwise product of a mask and a low-rank matrix; ``mask * LowRank(F, G)`` makes it.

    Products, gradients and plans are those of masked linear attention before its rows are normalised.
    """

    mask: StructuredMatrix
    low_rank: LowRank

    @property
    def shape(self) -> tuple[int, ...]:
        batch = np.broadcast_shapes(self.mask.shape[:-2], self.low_rank.shape[:-2])
        return (*batch, *self.mask.shape[-2:])

    def _matmat(self, X: Array) -> Array:
        if self.low_rank.rank == 0:
            zero = self.low_rank._placed(X)._matmat(X)
            batch = np.broadcast_shapes(self.mask.shape[:-2], tuple(zero.shape[:-2]))
            return arrays.namespace(X).zeros((*batch, *zero.shape[-2:]), dtype=zero.dtype)
        return masked_product(self.mask, self.low_rank.left, self.low_rank.right, X)[0]

    def transpose(self) -> Hadamard:
        return Hadamard(self.mask.transpose(), self.low_rank.transpose())

    def _pullback(self, G: Array, X: Array) -> Gradients:
        F = self.low_rank
        if F.rank == 0:
            return zero_gradients(self, X)
        if F.has_sparse_factors:
            return sparse_features_pullback(self.mask, F, G, X, masked_pullback)
        d_mask, left, right, _ = masked_pullback(self.mask, F.left, F.right, G, X)
        gradients = [
            unbroadcast(d, tuple(f.shape), complex_=arrays.is_complex(f)) for d, f in ((left, F.left), (right, F.right))
        ]
        return {"mask": d_mask, "low_rank": dict(zip(("left", "right"), gradients, strict=True))}

    @property
    def has_entries(self) -> bool:
        return self.mask.has_entries and self.low_rank.has_entries

    def _at(self, i: Array, j: Array) -> Array:
        return self.mask._at(i, j) * self.low_rank._at(i, j)

    def _plan(self, columns: int) -> Plan:
        m, n = self.shape[-2:]
        sizes = Sizes(math.prod(self.shape[:-2]), m, n, self.low_rank.rank, columns)
        left, right = self.low_rank.left, self.low_rank.right
        mask = self.mask._placed(left)
        return plan(mask, sizes, Kind.of(left, right, left))

    def _work(self, columns: int) -> Work:
        return self._plan(columns).steps[0].work

    def _rounding(self, unit: float) -> Rounding:
        return UNKNOWN

    def __repr__(self) -> str:
        return f"{self.mask!r} * {self.low_rank!r}"


def masked_product(
    mask: StructuredMatrix, F: Array, G: Array, X: Array, method: str = "auto", *, with_mass: bool = False
) -> Result:
    """(M * F G^T) X and its row sums.

    Parameters
    ----------
    mask : StructuredMatrix (..., m, n)
    F, G, X : arrays (..., m, r), (..., n, r), (..., n, k)
        Of one precision and home; nothing may be empty.
    method : str
        One of `METHODS` that applies to the mask. Only "auto" promises accuracy row by row; "stream" with a Toeplitz
        mask is accurate relative to the largest row.
    with_mass : bool
        Whether "auto" keeps the row sums accurate too.
    """
    mask = mask._placed(X)
    chosen, rounding = _decided(mask, F, G, X, method)
    if rounding.is_local:
        return _run(chosen, mask, F, G, X, with_mass=with_mass)
    F, G = balanced(F, G)
    if method != "auto":
        return _run(chosen, mask, F, G, X, with_mass=with_mass)
    return _guarded(chosen, mask, F, G, X, rounding, with_mass=with_mass)


def masked_pullback(
    mask: StructuredMatrix, F: Array, G: Array, P: Array, X: Array, *, columns: int = 0
) -> tuple[Gradients, Array, Array, Array | None]:
    """Gradients of Re <P, (M * F G^T) X> for the mask's generators, for F, for G, and for the first `columns` of X.

    They are three more masked products, dF = (conj M * P X^H) conj G, dG = (M^H * conj X P^T) conj F and
    dX = (M^H * conj G F^H) P, and dM_ij = (P X^H)_ij conj (F G^T)_ij contracted onto the mask's generators a few
    features at a time. A Toeplitz or a state-space mask has all four from one walk, a tree's from one sweep.
    O(n (r + k)) memory.
    """
    d_mask, d_left, d_right, d_operand = _all_gradients(mask._placed(X), F, G, P, X, columns)
    return d_mask, d_left, d_right, d_operand[..., :columns] if columns and d_operand is not None else None


def _all_gradients(
    mask: StructuredMatrix, F: Array, G: Array, P: Array, X: Array, columns: int
) -> tuple[Gradients, Array, Array, Array | None]:
    """The same, for some more columns of X where they come along."""
    if _scans_states(mask, F, G, P, X):
        return state_gradient.pullback(mask, F, G, P, X, columns)
    if own := parts.PULLBACKS.get(type(mask)):
        inner = partial(masked_pullback, columns=columns)
        gradients: tuple[Gradients, Array, Array, Array | None] = own(mask, F, G, P, X, inner)
        return gradients
    if isinstance(mask, LowRank) and _decided(mask, F, G, X, "auto")[0] == "low_rank":
        return low_rank_pullback(mask, F, G, P, X, columns)
    if isinstance(mask, Sum) and _decided(mask, F, G, X, "auto")[0] == "terms":
        return sum_pullback(mask, F, G, P, X, partial(masked_pullback, columns=columns))
    if isinstance(mask, Toeplitz) and (walk := _joint_pullback(mask, F, G, P, X)):
        return walk(mask, F, G, P, X)
    sweep: Walk | None = getattr(mask, "_scan_pullback", None)
    if sweep and "scan" in applicable(mask, Kind.of(F, G, X)) and _decided(mask, F, G, X, "auto")[0] != "dense":
        return sweep(F, G, P, X)
    if _streams(mask, F, G, X):
        return _stream_pullback(mask, F, G, P, X, columns)
    xp = arrays.namespace(X)
    conj = xp.conj if any(map(arrays.is_complex, (F, G, P, X))) or mask.dtype.kind == "c" else lambda a: a
    F_, G_, X_ = (conj(a) for a in (F, G, X))
    if isinstance(mask, Causal) and mask.dtype.kind != "c" and kernels.numba_runs(F, G, P, X):
        d_left, d_right, d_operand = kernels.causal_pullback(
            F, G, P, X, mask.decays(X), upper=mask.upper, columns=columns
        )
    else:
        d_left = masked_product(mask.conj(), P, X_, G_)[0]
        d_right = masked_product(mask.mH, X_, P, F_)[0]
        d_operand = masked_product(mask.mH, G_, F_, P[..., :columns])[0] if columns else None
    if _divides(mask, F, G, P, X):
        return _decay_gradient(mask, F, G, d_left, d_right), d_left, d_right, d_operand
    return mask_gradient(mask, F_, G, P, X), d_left, d_right, d_operand


def _streams(mask: StructuredMatrix, F: Array, G: Array, X: Array) -> bool:
    """Whether products with the mask are what the masked product is made of, and no row of them has to be mended."""
    method, rounding = _decided(mask, F, G, X, "auto")
    return method == "stream" and (rounding.is_local or not rounding.is_known)


def _stream_pullback(
    mask: StructuredMatrix, F: Array, G: Array, P: Array, X: Array, columns: int
) -> tuple[Gradients, Array, Array, Array | None]:
    """By products with the mask; in double precision, as the product itself, if their rounding is not known."""
    width = arrays.precision(X)
    if width == "float64" or _decided(mask, F, G, X, "auto")[1].is_known:
        return stream_pullback(mask, F, G, P, X, columns)
    f, g, p, x = (arrays.cast_precision(a, "float64") for a in (F, G, P, X))
    d_mask, *gradients = stream_pullback(mask._placed(x), f, g, p, x, columns)
    dF, dG, dX = (None if a is None else arrays.cast_precision(a, width) for a in gradients)
    return cast_gradients(d_mask, width), dF, dG, dX


def _joint_pullback(mask: Toeplitz, F: Array, G: Array, P: Array, X: Array) -> Walk | None:
    """The walk that gives all gradients at once: through the transforms, or through tiles, as for the product."""
    if any(map(arrays.is_complex, (F, G, P, X))):
        return None
    method = _decided(mask, F, G, X, "auto")[0]
    if method == "fused":
        return _fused_pullback
    return _tiled_pullback if method == "dense" and kernels.numba_runs(mask.offsets, F, G, P, X) else None


def _fused_pullback(mask: Toeplitz, F: Array, G: Array, P: Array, X: Array) -> tuple[Gradients, Array, Array, Array]:
    """By transforms; in double precision if rounding spoils a row."""
    width = arrays.precision(X)
    dF, dG, dX, table = mask._circulant.kernel.hadamard_pullback(F, G, X, P)
    rounding = _rounding("fused", mask, width)
    products = (P, X, G, dF), (X, P, F, dG), (G, F, P, dX)
    if width == "float32" and any(rows_at_risk(*product, None, rounding).shape[0] for product in products):
        wide = [arrays.cast_precision(a, "float64") for a in (F, G, P, X)]
        d_mask, *gradients = _fused_pullback(mask._placed(wide[0]), *wide)
        table, dF, dG, dX = (arrays.cast_precision(a, width) for a in (d_mask["offsets"], *gradients))
    return {"offsets": unbroadcast(table, tuple(mask.offsets.shape), complex_=False)}, dF, dG, dX


def _tiled_pullback(mask: Toeplitz, F: Array, G: Array, P: Array, X: Array) -> tuple[Gradients, Array, Array, Array]:
    """By tiles, accurate row by row."""
    dF, dG, dX, table = kernels.dense_toeplitz_pullback(mask.gather_form, mask.shape[:-2], F, G, X, P)
    table = table[..., ::-1].reshape(*table.shape[:-1], *mask.offsets.shape[-mask.levels :])
    return {"offsets": unbroadcast(table, tuple(mask.offsets.shape), complex_=False)}, dF, dG, dX


def mask_gradient(mask: StructuredMatrix, F: Array, G: Array, P: Array, X: Array) -> Gradients:
    """sum_r pullback of the mask for diag(F_r) P and diag(G_r) X, F conjugated already."""
    sizes, mask = Sizes.of(mask, F, G, X), mask._placed(X)
    if not any(True for _ in mask._leaves()):
        return {}
    if isinstance(mask, Band):
        return parts.band_gradient(mask, F, G, P, X)
    if isinstance(mask, Sparse):
        return sparse_mask_gradient(mask, F, G, P, X)
    if isinstance(mask, Diagonal):
        return diagonal_mask_gradient(mask, F, G, P, X)
    if _scans_states(mask, F, G, P, X):
        return state_gradient.pullback(mask, F, G, P, X, 0)[0]
    if _divides(mask, F, G, P, X):
        dF, dG = masked_product(mask, P, X, G)[0], masked_product(mask.T, X, P, F)[0]
        return _decay_gradient(mask, F, G, dF, dG)
    step = max(1, arrays.block_entries(X) // max(1, sizes.heads * max(sizes.m, sizes.n) * sizes.k))
    total: Gradients | None = None
    for a, b in arrays.blocks(sizes.r, step):
        part = mask._pullback(methods.lifted(F[..., a:b], P), methods.lifted(G[..., a:b], X))
        total = part if total is None else added(total, part)
    return total or {}


def _scans_states(mask: StructuredMatrix, F: Array, G: Array, P: Array, X: Array) -> TypeGuard[Stationary]:
    """Whether the states of a mask carry its products and its gradient, and everything is real."""
    if not isinstance(mask, Stationary) or mask.dtype.kind == "c" or any(map(arrays.is_complex, (F, G, P, X))):
        return False
    return _decided(mask, F, G, X, "auto")[0] == "scan"


def _divides(mask: StructuredMatrix, *operands: Array) -> bool:
    return isinstance(mask, Causal) and mask.divides and not any(map(arrays.is_complex, operands))


def _decay_gradient(mask: StructuredMatrix, F: Array, G: Array, dF: Array, dG: Array) -> Gradients:
    """The decays' from those of F and G: row i of dM * M sums to <F_i, dF_i>, and column j to <G_j, dG_j>."""
    gradients: Gradients = mask.gradient(arrays.row_products(F, dF), arrays.row_products(G, dG))  # type: ignore[attr-defined]
    return gradients


# --- choosing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """What the features and the operand are, as far as the choice of a method depends on it."""

    home: str
    precision: str
    real: bool = True
    sparse: bool = False

    @classmethod
    def of(cls, F: Array, G: Array, X: Array) -> Kind:
        """The kind of features F, G and operand X."""
        real = not any(map(arrays.is_complex, (F, G, X)))
        return cls(arrays.home(X), arrays.precision(X), real, sparse=arrays.is_sparse(F))


def applicable(mask: StructuredMatrix, kind: Kind) -> tuple[str, ...]:
    """Names of the methods that apply to a mask and operands of this kind."""
    if kind.sparse:
        return ("stream",)
    own = {Causal: "scan", Sparse: "sparse", Diagonal: "diagonal"}
    extra = own.get(type(mask))
    if isinstance(mask, LowRank) and not mask.has_sparse_factors:
        extra = "low_rank"
    if isinstance(mask, Toeplitz) and kind.real and mask._circulant.has_kernel:
        extra = "fused"
    if isinstance(mask, Stationary) or (hasattr(mask, "_scans") and mask._scans(kind)):
        extra = "scan"
    return ("dense", "stream", *(() if extra is None else (extra,)), *parts.METHODS.get(type(mask), ()))


def plan(mask: StructuredMatrix, sizes: Sizes, kind: Kind) -> Plan:
    """The methods that apply to one masked product, cheapest first."""
    works = [(name, _work(name, mask, sizes, kind)) for name in applicable(mask, kind)]
    name = f"{mask!r} * LowRank({sizes.m} x {sizes.n}, rank {sizes.r})"
    return make_plan(name, sizes.k, works, home=kind.home, precision=kind.precision)


def _decided(mask: StructuredMatrix, F: Array, G: Array, X: Array, method: str) -> tuple[str, Rounding]:
    """The method that will run and the rounding to guard against, remembered by the mask."""
    memory = mask.__dict__.setdefault("_decisions", {})
    key = (method, get_backend(), type(F), type(X), F.shape, F.dtype, G.shape, G.dtype, X.shape, X.dtype)
    if key not in memory:
        memory[key] = _decide(mask, F, G, X, method)
    decision: tuple[str, Rounding] = memory[key]
    return decision


def _decide(mask: StructuredMatrix, F: Array, G: Array, X: Array, method: str) -> tuple[str, Rounding]:
    kind = Kind.of(F, G, X)
    chosen = plan(mask, Sizes.of(mask, F, G, X), kind).method if method == "auto" else _checked(method, mask, kind)
    multiplies = chosen in _TRANSFORMS or (chosen == "dense" and not mask.has_entries)
    if kind.sparse or not multiplies:
        return chosen, Rounding()
    return chosen, _rounding(chosen, mask, kind.precision)


def _rounding(method: str, mask: StructuredMatrix, precision: str) -> Rounding:
    """That of the mask's own product, or of the transform, whatever else that product may use."""
    unit = arrays.unit_roundoff(precision)
    return mask._circulant.rounding(unit) if method == "fused" else rounding_of(mask, unit)  # type: ignore[attr-defined]


def _work(method: str, mask: StructuredMatrix, sizes: Sizes, kind: Kind) -> Work:
    if method in parts.NAMES:
        of_parts: Work = getattr(parts, f"{method}_work")(
            mask, sizes, lambda part, s: plan(part, s, kind).steps[0].work
        )
        return of_parts
    work: Work = getattr(methods, f"{method}_work")(mask, sizes)
    return work


def _checked(method: str, mask: StructuredMatrix, kind: Kind) -> str:
    if method not in METHODS:
        msg = f"unknown method {method!r}; choose one of {', '.join(map(repr, METHODS))}"
        raise ValueError(msg)
    allowed = applicable(mask, kind)
    if method not in allowed:
        msg = f"method {method!r} does not apply to {mask!r}; 'auto', {', '.join(map(repr, allowed))} do"
        raise ValueError(msg)
    return method


def _run(method: str, mask: StructuredMatrix, F: Array, G: Array, X: Array, *, with_mass: bool) -> Result:
    result: Result
    if method in parts.NAMES:
        result = getattr(parts, method)(mask, F, G, X, partial(masked_product, with_mass=with_mass))
    else:
        result = getattr(methods, method)(mask, F, G, X)
    return result


# --- accuracy row by row ----------------------------------------------------------------------------------------------


def _guarded(
    method: str, mask: StructuredMatrix, F: Array, G: Array, X: Array, rounding: Rounding, *, with_mass: bool
) -> Result:
    """The product by a transform, with the rows that rounding may have spoilt computed anew.

    A transform's rounding is absolute over a column, so rows much smaller than the largest lose digits. A few such rows
    are computed densely; if there are many, single precision is carried out in double first.
    """
    single = arrays.precision(X) == "float32"
    if single and not rounding.is_known:
        return _in_double(method, mask, F, G, X, with_mass=with_mass)
    Y, mass = _run(method, mask, F, G, X, with_mass=with_mass)
    rows = rows_at_risk(F, G, X, Y, mass if with_mass else None, rounding) if rounding.is_known else None
    if rows is None or not rows.shape[0]:
        return Y, mass
    sizes = Sizes.of(mask, F, G, X)
    if single and rows.shape[0] > 16 + sizes.m // 64:
        return _in_double(method, mask, F, G, X, with_mass=with_mass)
    return _mended(mask, F, G, X, Y, mass, rows)


def _in_double(method: str, mask: StructuredMatrix, F: Array, G: Array, X: Array, *, with_mass: bool) -> Result:
    F, G, X = (arrays.cast_precision(a, "float64") for a in (F, G, X))
    mask = mask._placed(X)
    result = _guarded(method, mask, F, G, X, _rounding(method, mask, "float64"), with_mass=with_mass)
    Y, mass = (arrays.cast_precision(a, "float32") for a in result)
    return Y, mass


def _mended(mask: StructuredMatrix, F: Array, G: Array, X: Array, Y: Array, mass: Array, rows: Array) -> Result:
    """The product with some rows computed densely, in double precision."""
    xp, width = arrays.namespace(X), arrays.precision(X)
    F, G, X = (arrays.cast_precision(a, "float64") for a in (xp.take(F, rows, axis=-2), G, X))
    exact, exact_mass = (arrays.cast_precision(a, width) for a in methods.dense_rows(mask._placed(X), F, G, X, rows))
    m = Y.shape[-2]
    source = xp.arange(m)
    place = xp.searchsorted(rows, source)
    place = xp.minimum(place, xp.asarray(rows.shape[0] - 1))
    hit = xp.take(rows, place) == source
    Y = xp.where(hit[:, None], xp.take(exact, place, axis=-2), Y)
    return Y, xp.where(hit, xp.take(exact_mass, place, axis=-1), mass)
