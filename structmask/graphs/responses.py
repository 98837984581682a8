"""Named spectral responses h: what a filter h(L) does to an eigenvector of the Laplacian with eigenvalue x >= 0.

Each is a formula with parameters, the derivatives by its parameters, and a bound of |h| on ellipses around the
spectrum, by which `spectral_filter` certifies its error. Parameters are numbers, or arrays for several filters at
once: their shape becomes leading axes of the filter.

| response | h(x) | |
| --- | --- | --- |
| `heat(time)` | exp(-t x) | diffusion kernel |
| `regularized(scale)` | 1 / (1 + s^2 x) | regularised Laplacian |
| `matern(smoothness, length)` | (2 nu / kappa^2 + x)^-nu, divided by its value at 0 | Matern kernel |
| `random_walk(steps, shift=2)` | (a - x)^p | p-step random walk |
| `inverse_cosine()` | cos(pi x / 4) | inverse cosine kernel, for normalised Laplacians |
| `pagerank(restart)` | r / (r + (1 - r) x) | personalised PageRank, for the random-walk Laplacian |
| `wavelets(scales)` | s x exp(1 - s x) | band-pass filters with their peak 1 at x = 1 / s |
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from structmask.backends import arrays
from structmask.graphs.formulas import Heat, InverseCosine, Matern, PageRank, RandomWalk, Regularized, Wavelet
from structmask.graphs.response import Response

__all__ = ["heat", "inverse_cosine", "matern", "pagerank", "random_walk", "regularized", "wavelets"]


def heat(time: Any, /) -> Response:
    """exp(-t x): how the heat equation u' = -L u damps an eigenvector in time t.

    Parameters
    ----------
    time : float or array
        t >= 0, in units of one over the edge weights.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import responses
    >>> np.allclose(responses.heat(2.0)(np.array([0.0, 1.0])), [1.0, np.exp(-2.0)])
    True
    """
    return Heat(parameter(time, "time"))


def regularized(scale: Any, /) -> Response:
    """1 / (1 + s^2 x): the regularised Laplacian kernel of Smola and Kondor (2003).

    Parameters
    ----------
    scale : float or array
        s >= 0.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import responses
    >>> np.allclose(responses.regularized(2.0)(np.array([0.0, 1.0])), [1.0, 0.2])
    True
    """
    return Regularized(parameter(scale, "scale"))


def matern(smoothness: Any, length: Any, /) -> Response:
    """(1 + kappa^2 x / (2 nu))^-nu: the graph Matern kernel of Borovitskiy et al. (2021), divided by its value at 0.

    Parameters
    ----------
    smoothness, length : float or array
        nu > 0 and kappa > 0; for large nu it is the heat kernel of time kappa^2 / 2.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import responses
    >>> np.allclose(responses.matern(1.5, 2.0)(np.array([0.0, 1.0])), [1.0, (1 + 4 / 3) ** -1.5])
    True
    """
    return Matern(parameter(smoothness, "smoothness", positive=True), parameter(length, "length", positive=True))


def random_walk(steps: int, /, shift: Any = 2.0) -> Response:
    """(a - x)^p: p steps of a lazy random walk, for normalised Laplacians and a >= 2 a kernel of non-negative type.

    Parameters
    ----------
    steps : int
        p >= 0.
    shift : float or array
        a.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import responses
    >>> np.allclose(responses.random_walk(3)(np.array([0.0, 1.0])), [8.0, 1.0])
    True
    """
    p = operator.index(steps)
    if p < 0:
        msg = f"steps must not be negative, got {p}"
        raise ValueError(msg)
    return RandomWalk(parameter(shift, "shift", negative=True), p)


def inverse_cosine() -> Response:
    """cos(pi x / 4): the inverse cosine kernel of Smola and Kondor (2003), for normalised Laplacians.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import responses
    >>> np.allclose(responses.inverse_cosine()(np.array([0.0, 2.0])), [1.0, 0.0])
    True
    """
    return InverseCosine()


def pagerank(restart: Any, /) -> Response:
    """R / (r + (1 - r) x), that is r (I - (1 - r) P)^-1 for L = I - P: personalised PageRank.

    Parameters
    ----------
    restart : float or array
        0 < r <= 1, the probability to return to the start in each step.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import responses
    >>> np.allclose(responses.pagerank(0.5)(np.array([0.0, 1.0])), [1.0, 0.5])
    True
    """
    r = parameter(restart, "restart", positive=True)
    if np.max(arrays.to_numpy(r), initial=0.0) > 1:
        msg = f"restart is a probability in (0, 1], got {r!r}"
        raise ValueError(msg)
    return PageRank(r)


def wavelets(scales: Any, /) -> Response:
    """S x exp(1 - s x): band-pass filters, one a scale; the difference quotient in time of two heat kernels.

    Parameters
    ----------
    scales : float or array
        s >= 0; the peak, of height 1, is at x = 1 / s.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import responses
    >>> np.allclose(
    ...     responses.wavelets(np.array([1.0, 2.0]))(np.array([0.0, 0.5])), [[0.0, 0.5 * np.exp(0.5)], [0.0, 1.0]]
    ... )
    True
    """
    return Wavelet(parameter(scales, "scales"))


def parameter(value: Any, name: str, *, positive: bool = False, negative: bool = False) -> Any:
    """A parameter as a Python float or an array; refuses what is not finite, or of a sign that makes no sense."""
    p = value if np.ndim(value) else float(value)
    if not isinstance(p, float):
        p = arrays.as_array(p, name)
        if arrays.is_complex(p):
            msg = f"{name} must be real, got {arrays.dtype_name(p)}"
            raise TypeError(msg)
    values = np.asarray(arrays.to_numpy(p))
    if not np.isfinite(values).all():
        msg = f"{name} must be finite, got {value!r}"
        raise ValueError(msg)
    if not negative and values.size and (values.min() < 0 or (positive and values.min() == 0)):
        msg = f"{name} must {'be positive' if positive else 'not be negative'}, got {value!r}"
        raise ValueError(msg)
    return p
