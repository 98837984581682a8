"""Feature maps of linear attention: phi with <phi(q), phi(k)> in the place of a kernel.

`elu_features` and `exp_features` are maps; `relu_features` and `positive_features` are factories of maps. A map takes
(..., L, d) to (..., L, m) and works on arrays of any library, torch tensors included.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from structmask.backends import arrays
from structmask.backends.arrays import Array

_FLOOR = 1e-6  # added to positive features so that no mass is exactly zero


def elu_features(x: Array, /) -> Array:
    """elu(x) + 1: x + 1 for x > 0, exp(x) otherwise (Katharopoulos et al. 2020); m = d.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import elu_features
    >>> elu_features(np.array([-1.0, 0.0, 1.0]))
    array([0.36787944, 1.        , 2.        ])
    """
    x = _given(x)
    xp = _functions(x)
    negative = xp.where(x > 0, xp.zeros_like(x), x)  # exp never sees a large argument
    return xp.where(x > 0, x + 1, xp.exp(negative))


def exp_features(x: Array, /) -> Array:
    """exp(x), entry by entry; m = d. Overflows where exp does (x > 88 in float32).

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import exp_features
    >>> exp_features(np.array([0.0, 1.0]))
    array([1.        , 2.71828183])
    """
    x = _given(x)
    return _functions(x).exp(x)


@dataclass(frozen=True, eq=False)
class ReluFeatures:
    """relu(W x / sqrt(m)) + 1e-3, or relu(x) + 1e-3 without projection; `relu_features` makes it."""

    projection: np.ndarray[Any, Any] | None

    def __call__(self, x: Array, /) -> Array:
        """Features (..., L, m) of x (..., L, d)."""
        x = _given(x)
        xp = _functions(x)
        if self.projection is not None:
            x = _project(x, self.projection) / math.sqrt(self.projection.shape[0])
        return xp.where(x > 0, x, xp.zeros_like(x)) + 1e-3


@dataclass(frozen=True, eq=False)
class PositiveFeatures:
    """Positive random features of the softmax kernel; `positive_features` makes it."""

    projection: np.ndarray[Any, Any]

    def query(self, x: Array, /) -> Array:
        """Features of queries: every row has its own stabiliser, which cancels when the row is normalised."""
        return self._features(x, axes=(-1,))

    def key(self, x: Array, /) -> Array:
        """Features of keys: one stabiliser for all of them, so that no key is weighed against another."""
        return self._features(x, axes=(-2, -1))

    def __call__(self, x: Array, /) -> Array:
        """Features without a stabiliser: <phi(x), phi(y)> estimates exp(<x, y> / sqrt(d)) + O(1e-6)."""
        u = self._exponent(x)
        return (_functions(u).exp(u) + _FLOOR) / math.sqrt(self.projection.shape[0])

    def _features(self, x: Array, axes: tuple[int, ...]) -> Array:
        """m^{-1/2} (exp(u - s) + 1e-6 exp(-s)): the common factor exp(-s) cancels, floor included."""
        u = self._exponent(x)
        xp = _functions(u)
        largest = getattr(xp, "amax", None) or xp.max
        s = largest(u, axis=axes, keepdims=True)
        s = xp.where(s < math.log(_FLOOR), xp.full_like(s, math.log(_FLOOR)), s)
        return (xp.exp(u - s) + _FLOOR * xp.exp(-s)) / math.sqrt(self.projection.shape[0])

    def _exponent(self, x: Array) -> Array:
        x = _given(x)
        a = x / x.shape[-1] ** 0.25
        return _project(a, self.projection) - _functions(a).sum(a * a, axis=-1)[..., None] / 2


def relu_features(d: int, m: int | None = None, *, orthogonal: bool = True, rng: Any = None) -> ReluFeatures:
    """Factory of relu(W x / sqrt(m)) + 1e-3 with a Gaussian projection W (m, d); without `m`, relu(x) + 1e-3.

    Parameters
    ----------
    d, m : int
        Sizes of the input and of the features.
    orthogonal : bool
        Draw the rows of W in orthogonal blocks of d.
    rng : None, int or numpy.random.Generator
        Source of randomness (SPEC 7).

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import relu_features
    >>> relu_features(2)(np.array([[-1.0, 1.0]])).tolist()
    [[0.001, 1.001]]
    """
    _check_sizes(d, 1 if m is None else m)
    return ReluFeatures(None if m is None else _gaussian(d, m, orthogonal=orthogonal, rng=rng))


def positive_features(d: int, m: int, *, orthogonal: bool = True, rng: Any = None) -> PositiveFeatures:
    """Factory of positive random features of the softmax kernel (Choromanski et al. 2021, FAVOR+).

    phi(x) = m^{-1/2} (exp(W a - |a|^2 / 2) + 1e-6) with a = x / d^{1/4}, so that E <phi(x), phi(y)> is
    exp(<x, y> / sqrt(d)) up to the floor. In attention queries are shifted row by row and keys by one constant; the
    common factors cancel.

    Parameters
    ----------
    d, m : int
        Sizes of the input and of the features.
    orthogonal : bool
        Draw the rows of W in orthogonal blocks of d, rescaled to Gaussian norms: lower variance, still unbiased.
    rng : None, int or numpy.random.Generator
        Source of randomness (SPEC 7).

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import positive_features
    >>> phi = positive_features(4, 4096, rng=0)
    >>> x = np.full((1, 4), 0.3)
    >>> bool(abs(phi(x) @ phi(x).T - np.exp(0.36 / 2)) < 0.05)
    True
    """
    _check_sizes(d, m)
    return PositiveFeatures(_gaussian(d, m, orthogonal=orthogonal, rng=rng))


def apply_features(features: Any, q: Array, k: Array) -> tuple[Array, Array]:
    """phi(q) and phi(k) for a callable, a pair, a map with a `query` and a `key`, or None (they are features)."""
    if features is None:
        return q, k
    if isinstance(features, tuple):
        if len(features) != 2 or not all(map(callable, features)):
            msg = f"a tuple of features must be a pair of callables (query, key), got {features!r}"
            raise TypeError(msg)
        return features[0](q), features[1](k)
    if hasattr(features, "query") and hasattr(features, "key"):
        return features.query(q), features.key(k)
    if not callable(features):
        msg = f"features must be a callable, a pair (query, key) or None, got {type(features).__name__}"
        raise TypeError(msg)
    return features(q), features(k)


def _gaussian(d: int, m: int, *, orthogonal: bool, rng: Any) -> np.ndarray[Any, Any]:
    """W (m, d) with standard normal rows, orthogonal within blocks of d rows if wanted."""
    generator = np.random.default_rng(rng)
    W = generator.standard_normal((m, d))
    if not orthogonal:
        return W
    for start in range(0, m, d):
        block = W[start : start + d]
        Q, R = np.linalg.qr(generator.standard_normal((d, d)))
        directions = (Q * np.sign(np.diagonal(R)))[: block.shape[0]]  # uniform over orthogonal matrices
        W[start : start + d] = directions * np.linalg.norm(block, axis=1, keepdims=True)
    return W


def _project(x: Array, W: np.ndarray[Any, Any]) -> Array:
    if x.shape[-1] != W.shape[1]:
        msg = (
            f"these features take inputs (..., {W.shape[1]}), got shape {tuple(x.shape)}; make them with "
            f"d={x.shape[-1]}"
        )
        raise ValueError(msg)
    xp = _functions(x)
    options = {"device": x.device} if arrays.home(x) == "torch" else {}
    return x @ xp.asarray(W.T, dtype=x.dtype, **options)


def _given(x: Any) -> Array:
    """An input of any library; what numpy takes becomes an array, integers become float64."""
    return x if arrays.home(x) == "torch" else arrays.as_array(x, "the input of features")


def _functions(x: Array) -> Any:
    return importlib.import_module("torch") if arrays.home(x) == "torch" else arrays.namespace(x)


def _check_sizes(d: int, m: int) -> None:
    if min(d, m) < 1:
        msg = f"features need sizes d >= 1 and m >= 1, got d={d}, m={m}"
        raise ValueError(msg)
