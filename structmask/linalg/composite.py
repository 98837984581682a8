"""Sums, products and multiples of structured matrices: fast because their terms are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.generators import Gradients, unbroadcast
from structmask.linalg.planning import Work
from structmask.linalg.rounding import UNKNOWN, Rounding, rounding_of


@dataclass(frozen=True, eq=False, repr=False)
class Sum(StructuredMatrix):
    """The sum of several matrices; `+` makes it. A product costs the sum of theirs."""

    terms: tuple[StructuredMatrix, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        batch = np.broadcast_shapes(*(term.shape[:-2] for term in self.terms))
        return (*batch, *self.terms[0].shape[-2:])

    def _matmat(self, X: Array) -> Array:
        first, *others = (term._matmat(X) for term in self.terms)
        for other in others:
            first = first + other
        return first

    def transpose(self) -> Sum:
        return Sum(tuple(term.transpose() for term in self.terms))

    def _pullback(self, G: Array, X: Array) -> Gradients:
        return {"terms": {index: term._pullback(G, X) for index, term in enumerate(self.terms)}}

    @property
    def has_entries(self) -> bool:
        return all(term.has_entries for term in self.terms)

    def _at(self, i: Array, j: Array) -> Array:
        first, *others = (term._at(i, j) for term in self.terms)
        for other in others:
            first = first + other
        return first

    @property
    def _entry_bytes(self) -> float:
        return sum(term._entry_bytes + 12.0 for term in self.terms)

    def _work(self, columns: int) -> Work:
        total = Work()
        for term in self.terms:
            total = total + term._work(columns)
        return total

    def _rounding(self, unit: float) -> Rounding:
        return Rounding() if all(rounding_of(term, unit).is_local for term in self.terms) else UNKNOWN

    @property
    def error_bound(self) -> float:
        return sum(term.error_bound for term in self.terms)

    @property
    def error_estimate(self) -> float:
        return sum(term.error_estimate for term in self.terms)

    def __repr__(self) -> str:
        return "(" + " + ".join(map(repr, self.terms)) + ")"


@dataclass(frozen=True, eq=False, repr=False)
class Product(StructuredMatrix):
    """left @ right, applied one after the other; `@` between matrices makes it."""

    left: StructuredMatrix
    right: StructuredMatrix

    @property
    def shape(self) -> tuple[int, ...]:
        batch = np.broadcast_shapes(self.left.shape[:-2], self.right.shape[:-2])
        return (*batch, self.left.shape[-2], self.right.shape[-1])

    def _matmat(self, X: Array) -> Array:
        return self.left._product(self.right._product(X))

    def transpose(self) -> Product:
        return Product(self.right.transpose(), self.left.transpose())

    def _pullback(self, G: Array, X: Array) -> Gradients:
        return {
            "left": self.left._pullback(G, self.right._product(X)),
            "right": self.right._pullback(self.left.mH._product(G), X),
        }

    def _work(self, columns: int) -> Work:
        return self.left._work(columns) + self.right._work(columns)

    def _rounding(self, unit: float) -> Rounding:
        return UNKNOWN  # the rounding of one factor is amplified by the other

    @property
    def error_bound(self) -> float:
        return 0.0 if self.left.error_bound == self.right.error_bound == 0 else math.nan

    def __repr__(self) -> str:
        return f"({self.left!r} @ {self.right!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Scaled(StructuredMatrix):
    """factor times a matrix, for structures that do not absorb the factor; `*` with a scalar makes it."""

    matrix: StructuredMatrix
    factor: float | complex

    def __post_init__(self) -> None:
        if getattr(self.factor, "shape", ()) != ():
            msg = f"Scaled needs a scalar factor, got an array of shape {self.factor.shape}"  # type: ignore[union-attr]
            raise ValueError(msg)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.matrix.shape

    def _matmat(self, X: Array) -> Array:
        return self.factor * self.matrix._matmat(X)

    def transpose(self) -> Scaled:
        return Scaled(self.matrix.transpose(), self.factor)

    def _pullback(self, G: Array, X: Array) -> Gradients:
        xp = arrays.namespace(X)
        Y = self.matrix._matmat(X)
        inner = xp.sum(G * (xp.conj(Y) if arrays.is_complex(Y) else Y))
        conjugate = self.factor.conjugate()
        return {
            "matrix": self.matrix._pullback(conjugate * G, X),
            "factor": unbroadcast(inner, (), complex_=arrays.is_complex(self.factor)),
        }

    @property
    def has_entries(self) -> bool:
        return self.matrix.has_entries

    def _at(self, i: Array, j: Array) -> Array:
        return self.factor * self.matrix._at(i, j)

    @property
    def _entry_bytes(self) -> float:
        return self.matrix._entry_bytes + 12.0

    def _work(self, columns: int) -> Work:
        return self.matrix._work(columns)

    def _rounding(self, unit: float) -> Rounding:
        own = rounding_of(self.matrix, unit)
        return Rounding(own.unit, abs(self.factor) * own.column)

    @property
    def error_bound(self) -> float:
        return abs(self.factor) * self.matrix.error_bound

    @property
    def error_estimate(self) -> float:
        return abs(self.factor) * self.matrix.error_estimate

    def __repr__(self) -> str:
        return f"{self.factor!r} * {self.matrix!r}"
