"""Stationary distributions: what a walk forgets its start for.

Reversible: m_i A_ij = m_j A_ji is enough. Otherwise watch the walk between two visits of one state g: the expected
visits y of the others form, with y_g = 1, a stationary measure,

    y_f (diag(A 1) - A)_ff = A_gf

again a transient system, transposed, and again without a subtraction where it is solved by elimination. The result
solves p L = 0 for L = diag(A 1) - A, that is p P = p for a chain.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.graphs.markov_classes import Classes, reversing_measure
from structmask.graphs.transient import TransientSystem, completed


def stationary_distribution(
    A: Any, classes: Classes, measure: Array | None, tol: float, preconditioner: str = "auto", home: str = "numpy"
) -> Array:
    """The distribution p (n,) with p (diag(A 1) - A) = 0; zero on transient states.

    It lives where it is made; what iterates does so in `home`. Raises ValueError where there is more than one.
    """
    recurrent = classes.recurrent
    if len(recurrent) != 1:
        names = ", ".join(str(int(states[0])) for states in recurrent[:5])
        msg = (
            f"the stationary distribution is not unique: the chain has {len(recurrent)} recurrent classes (those of "
            f"states {names}{', ...' if len(recurrent) > 5 else ''}); take one of them, or see classes() and "
            "absorption_probabilities()"
        )
        raise ValueError(msg)
    states = recurrent[0]
    own = A if states.size == A.shape[0] else A[states][:, states]
    y = measure[states] if measure is not None else _visits(own, tol, preconditioner, home)
    return completed(np.zeros(A.shape[0]), states, y / arrays.namespace(y).sum(y))


def _visits(A: Any, tol: float, preconditioner: str, home: str) -> Array:
    """A stationary measure of an irreducible walk."""
    if (m := reversing_measure(A)) is not None and m.min() > 0:
        return m
    g = int(np.argmax(np.diff(A.indptr)))  # a state that is left in many ways is seldom far
    f = np.arange(A.shape[0]) != g
    out = A[[g]].toarray()[0, f]
    system = TransientSystem(A, np.zeros(f.size), is_kept=f, preconditioner=preconditioner)
    b = arrays.move(out[:, None], system.home(home))
    return completed(np.ones(A.shape[0]), f, system.solve(b, transposed=True, tol=tol)[:, 0])
