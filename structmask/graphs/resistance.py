"""Resistances, commute times and Kemeny's constant, from the Laplacian grounded at one state.

With conductances C = diag(m) A a walk is an electrical network. The potential of a unit current from i to j is, with
the ground at j, a positive solution:

    R_ij = (L_C grounded at j)^-1_ii,        commute time C_ij = R_ij sum_k m_k for m_k counted in visits

Kemeny's constant sum_j p_j E_i[T_j] is the same from every i. With N the visits before a state g, h its hitting times:

    K = trace(N) - p h
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from structmask.backends.arrays import Array
from structmask.graphs.first_passage import FirstPassage
from structmask.graphs.transient import TransientSystem


class Estimate(NamedTuple):
    """A mean over random samples and its standard error."""

    value: float
    standard_error: float


def pair_hits(pairs: Array, solve: Callable[[int, Array], Array]) -> Array:
    """solve(j, sources) for every pair (i, j), each second state once."""
    result = np.zeros(pairs.shape[0])
    for j in np.unique(pairs[:, 1]):
        rows = np.flatnonzero(pairs[:, 1] == j)
        result[rows] = solve(int(j), pairs[rows, 0])
    return result


def arranged(pairs: Array) -> Array:
    """Pairs turned so that their second states are few: those that occur most."""
    often = np.bincount(pairs.ravel())[pairs] if pairs.size else pairs
    turned: Array = np.where(often[:, :1] > often[:, 1:], pairs[:, ::-1], pairs)
    return turned


def resistances(
    A: Any, measure: Array, component: Array, pairs: Array, tol: float, preconditioner: str = "auto"
) -> Array:
    """R_ij (pairs,) for conductances diag(measure) A; infinite between components."""

    def grounded(j: int, sources: Array) -> Array:
        is_own = component == component[j]
        is_own[j] = False
        own = np.flatnonzero(is_own)
        r = np.full(sources.size, np.inf)
        r[sources == j] = 0
        position: Array = np.searchsorted(own, sources)
        inside = np.isin(sources, own)
        if inside.any():
            system = TransientSystem(A, np.zeros(component.size), measure, is_own, preconditioner)
            rows, columns = position[inside], np.arange(int(inside.sum()))
            B = np.zeros((own.size, columns.size))
            B[rows, columns] = 1 / measure[own[rows]]
            r[inside] = system.solve(B, tol=tol)[rows, columns]
        return r

    return pair_hits(arranged(pairs), grounded)


def kemeny_exact(A: Any, p: Array, tol: float, preconditioner: str) -> float:
    """sum_j p_j E_i[T_j], T_j = 0 at once for i = j; A irreducible."""
    system, h, f = _grounded(A, p, tol, preconditioner)
    return float(system.inverse_diagonal(tol).sum() - p[f] @ h) if f.size else 0.0


def kemeny_estimate(
    A: Any, p: Array, samples: int, rng: np.random.Generator, tol: float, preconditioner: str
) -> Estimate:
    """The same with Hutchinson's estimate of the trace: z N z for random signs z."""
    system, h, f = _grounded(A, p, tol, preconditioner)
    if not f.size:
        return Estimate(0.0, 0.0)
    z = rng.choice((-1.0, 1.0), size=(f.size, samples))
    values = np.einsum("ic,ic->c", z, system.solve(z, tol=tol))
    error = float(values.std(ddof=1) / np.sqrt(samples)) if samples > 1 else float("nan")
    return Estimate(float(values.mean() - p[f] @ h), error)


def _grounded(A: Any, p: Array, tol: float, preconditioner: str) -> tuple[TransientSystem, Array, Array]:
    """The walk killed at its most visited state, the times until then, and the other states."""
    ground, none = np.array([int(np.argmax(p))]), np.zeros(0, np.int64)
    way = FirstPassage(A, ground, none, is_irreducible=True, preconditioner=preconditioner)
    system = way._certain_system
    return system, system.solve(np.ones((system.size, 1)), tol=tol)[:, 0], np.flatnonzero(way.is_certain)
