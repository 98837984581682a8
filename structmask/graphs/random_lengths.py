"""Laplace transforms E[exp(-s T)] of random edge lengths T: factors of the expected mask of a random tree.

If the lengths of the edges are independent, the expectation of exp(-s dist(i, j)) is the product of their transforms
along the path, and `tree_decay(tree, factors=...)` multiplies by the expected mask as fast as by any other. Each
function takes s >= 0 (or complex with such a real part), and parameters that broadcast with it, one an edge.
"""

from __future__ import annotations

from typing import Any

from structmask.backends import arrays
from structmask.backends.arrays import Array


def deterministic(s: Any, /, *, length: Any) -> Array:
    """Transform of a constant length: exp(-s length).

    Examples
    --------
    >>> from structmask import random_lengths
    >>> random_lengths.deterministic(0.0, length=[1.0, 2.0])
    array([1., 1.])
    """
    s, length = _both(s, length, "length")
    return arrays.namespace(s).exp(-s * length)


def exponential(s: Any, /, *, mean: Any) -> Array:
    """Transform of exponentially distributed lengths: 1 / (1 + s mean).

    Examples
    --------
    >>> from structmask import random_lengths
    >>> random_lengths.exponential(1.0, mean=[1.0, 3.0])
    array([0.5 , 0.25])
    """
    s, mean = _both(s, mean, "mean")
    return 1 / (1 + s * mean)


def gamma(s: Any, /, *, shape: Any, scale: Any) -> Array:
    """Transform of gamma distributed lengths: (1 + s scale) ** (-shape), of mean shape * scale.

    Examples
    --------
    >>> from structmask import random_lengths
    >>> random_lengths.gamma(1.0, shape=[1.0, 2.0], scale=1.0)
    array([0.5 , 0.25])
    """
    s, scale = _both(s, scale, "scale")
    shape = arrays.as_array(shape, "shape")
    return (1 + s * scale) ** (-shape)


def _both(s: Any, parameter: Any, name: str) -> tuple[Array, Array]:
    return arrays.as_array(s, "s"), arrays.as_array(parameter, name)
