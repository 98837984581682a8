"""Diffusion kernels exp(-t L), and the differential equations on graphs that they solve.

    heat            u' = -L u + b      u(t) = exp(-t L) u_0 + int_0^t exp(-s L) ds b
    wave            u'' = -L u         u(t) = cos(t sqrt(L)) u_0 + sin(t sqrt(L)) / sqrt(L) v_0
    Schroedinger    i u' = L u         u(t) = exp(-i t L) u_0

All are entire functions of L, and all times share one recurrence.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array
from structmask.graphs.formulas import Cosine, Heat, Sine, Warming
from structmask.graphs.laplacian import Kind
from structmask.graphs.response import Response
from structmask.graphs.responses import heat, parameter
from structmask.graphs.spectral_filter import SpectralFilter, certified_filter


def diffusion_kernel(graph: Any, time: Any, /, *, kind: Kind = "combinatorial", tol: float = 1e-8) -> SpectralFilter:
    """exp(-t L), the heat kernel of a graph, as a structured matrix.

    Parameters
    ----------
    graph : anything `as_adjacency` takes
        Undirected, with non-negative weights.
    time : float or array
        t >= 0, in units of one over the weights. The shape of an array becomes leading axes of the kernel, whose
        products share one recurrence.
    kind : {"combinatorial", "symmetric", "random_walk"}
        The Laplacian L = D - W, I - D^-1/2 W D^-1/2 or I - D^-1 W.
    tol : float
        Absolute error in the 2-norm: ||(M - exp(-t L)) X|| <= tol ||X||, up to rounding of 20 u (1 + t b), u the unit
        roundoff and b the bound of the spectrum.

    Returns
    -------
    SpectralFilter (..., n, n)
        Its `error_bound` includes rounding. Gradients: for ``response["time"]``, and for ``weights``, one an edge.

    Raises
    ------
    ValueError
        If time or weights are negative, the graph is directed, or tol is not positive.

    Warns
    -----
    ConvergenceWarning
        If tol is below the rounding of double precision.

    Notes
    -----
    About sqrt(2 t b log(1 / tol)) products with L and a few blocks of memory; for long times some 30 solutions by one
    elimination, if that fills little; where hubs stretch the spectrum, Lanczos's method. `explain` tells which.
    Entry ij is the heat at i in time t from a unit at j; a node without edges keeps its own.

    Examples
    --------
    >>> import numpy as np, scipy.linalg
    >>> from structmask import diffusion_kernel, laplacian
    >>> cycle = np.roll(np.eye(6), 1, axis=0) + np.roll(np.eye(6), -1, axis=0)
    >>> M = diffusion_kernel(cycle, [0.5, 2.0], tol=1e-10)
    >>> M
    SpectralFilter(2 x 6 x 6, float64, Heat, combinatorial)
    >>> L = laplacian(cycle).toarray()
    >>> np.allclose(M.to_dense(), [scipy.linalg.expm(-0.5 * L), scipy.linalg.expm(-2.0 * L)], atol=1e-10)
    True
    """
    return certified_filter(graph, heat(time), kind, tol)


def heat_equation(
    graph: Any,
    initial: Array,
    times: Any,
    /,
    *,
    source: Array | None = None,
    kind: Kind = "combinatorial",
    tol: float = 1e-8,
) -> Array:
    """Solution u(t) of u' = -L u + b, u(0) = u_0, at all times.

    Parameters
    ----------
    graph : anything `as_adjacency` takes
        Undirected, with non-negative weights.
    initial : array (n,) or (n, k)
        u_0: one state, or one a column.
    times : float or array (...)
        t >= 0, in any order.
    source : array (n,) or (n, k), optional
        b, constant in time.
    kind, tol
        As in `diffusion_kernel`; the error of the part of the source is at most tol ||b||.

    Returns
    -------
    array (..., n) or (..., n, k)
        The state u at each time. Without a source the total heat stays, and no value leaves the range of u_0, up to
        tol.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import heat_equation
    >>> path = np.diag(np.ones(2), 1) + np.diag(np.ones(2), -1)
    >>> u = heat_equation(path, np.array([3.0, 0.0, 0.0]), [0.0, 1e3])
    >>> np.allclose(u, [[3.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    True
    """
    t = parameter(_as_times(times), "time")
    u = _applied(graph, Heat(t), initial, kind, tol)
    return u if source is None else u + _applied(graph, Warming(t), source, kind, tol)


def wave_equation(
    graph: Any,
    initial: Array,
    times: Any,
    /,
    *,
    velocity: Array | None = None,
    kind: Kind = "combinatorial",
    tol: float = 1e-8,
) -> Array:
    """Solution u(t) of u'' = -L u, u(0) = u_0, u'(0) = v_0, at all times.

    Parameters
    ----------
    graph, initial
        As in `heat_equation`.
    times : float or array (...)
        t of either sign, in units of one over the square root of the weights.
    velocity : array (n,) or (n, k), optional
        v_0, zero by default.
    kind, tol
        As in `heat_equation`; the error of the part of the velocity is at most tol ||v_0||.

    Returns
    -------
    array (..., n) or (..., n, k)
        The state u at each time. The energy |u'|^2 + <u, L u> stays.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import wave_equation
    >>> edge = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> u = wave_equation(edge, np.array([1.0, -1.0]), np.pi / np.sqrt(2))
    >>> np.allclose(u, [-1.0, 1.0])
    True
    """
    t = parameter(_as_times(times), "time", negative=True)
    u = _applied(graph, Cosine(t), initial, kind, tol)
    return u if velocity is None else u + _applied(graph, Sine(t), velocity, kind, tol)


def schrodinger_equation(
    graph: Any, initial: Array, times: Any, /, *, kind: Kind = "combinatorial", tol: float = 1e-8
) -> Array:
    """Solution u(t) = exp(-i t L) u_0 of i u' = L u, u(0) = u_0, at all times: the continuous-time quantum walk.

    Parameters
    ----------
    graph, initial
        As in `heat_equation`; states may be complex.
    times : float or array (...)
        t of either sign, in units of one over the weights.
    kind, tol
        As in `heat_equation`.

    Returns
    -------
    complex array (..., n) or (..., n, k)
        The state u at each time. For a symmetric Laplacian its 2-norm stays.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import schrodinger_equation
    >>> edge = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> u = schrodinger_equation(edge, np.array([1.0, 0.0]), np.pi / 2)
    >>> np.allclose(u, [0.0, 1.0])
    True
    """
    t = parameter(_as_times(times), "time", negative=True)
    return _applied(graph, Heat(1j * t), initial, kind, tol)


def _as_times(times: Any) -> Any:
    return np.asarray(times, dtype=np.float64) if isinstance(times, list | tuple) else times


def _applied(graph: Any, response: Response, u: Array, kind: Kind, tol: float) -> Array:
    """h(L) u at all times, for one state or a block of them."""
    M, u = certified_filter(graph, response, kind, tol), arrays.as_operand(u, "the state")
    if u.ndim not in (1, 2) or u.shape[0] != M.shape[-1]:
        msg = f"a state on this graph is an array ({M.shape[-1]},) or ({M.shape[-1]}, k), got shape {tuple(u.shape)}"
        raise ValueError(msg)
    return M @ u
