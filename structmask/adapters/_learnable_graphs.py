"""Learnable masks of graphs and trees: diffusion times, filters, functions of tree distances."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse
import torch

from structmask.adapters._learnable import batch, checked_form, positive, powers
from structmask.adapters._mask_module import MaskModule
from structmask.adapters._tensors import Tensor
from structmask.graphs.diffusion import diffusion_kernel
from structmask.graphs.laplacian import Kind, laplacian
from structmask.graphs.tree_building import as_forest
from structmask.graphs.tree_decay import tree_decay
from structmask.graphs.tree_mask import tree_mask
from structmask.linalg.elementary import Sparse
from structmask.linalg.power_series import PowerSeries


class DiffusionMask(MaskModule):
    """exp(-t L) for the Laplacian L of a graph with learnable times t > 0.

    Parameters
    ----------
    graph : anything `as_adjacency` takes
        Undirected, with non-negative weights.
    heads : int, optional
        How many times there are, one a head; by default one for all heads.
    initial : float or sequence of float
        t at the start, one or one a head, in units of one over the weights.
    kind, tol
        As in `diffusion_kernel`.

    Notes
    -----
    t = exp(log_time), of which d t / d log_time = t. All heads share one recurrence of about sqrt(2 t b log(1 / tol))
    products with L, b the bound of the spectrum. The derivative is that of the polynomial, exact for what is computed.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from structmask import diffusion_kernel
    >>> from structmask.adapters.torch import DiffusionMask
    >>> cycle = np.roll(np.eye(6), 1, axis=0) + np.roll(np.eye(6), -1, axis=0)
    >>> mask = DiffusionMask(cycle, heads=2, initial=[0.5, 2.0])
    >>> mask(torch.ones(6, 1)).sum().backward()
    >>> mask.log_time.grad.shape
    torch.Size([2])
    >>> np.allclose(mask.as_matrix().to_dense(), diffusion_kernel(cycle, [0.5, 2.0]).to_dense(), atol=1e-6)
    True
    """

    def __init__(
        self,
        graph: Any,
        *,
        heads: int | None = None,
        initial: Any = 1.0,
        kind: Kind = "combinatorial",
        tol: float = 1e-8,
    ) -> None:
        start = _start(initial, heads, "a diffusion time")
        super().__init__(diffusion_kernel(graph, np.exp(start.numpy()), kind=kind, tol=tol))
        self.log_time = torch.nn.Parameter(start)

    def generators(self) -> dict[str, Tensor]:
        return {"response.time": self.log_time.exp()}


class FilterMask(MaskModule):
    """sum_l a_l P^l, P = D^-1/2 W D^-1/2, with learnable a_l > 0: a filter h(x) = sum_l a_l (1 - x)^l of the Laplacian.

    Parameters
    ----------
    graph : anything `as_adjacency` takes
        Undirected, with non-negative weights W.
    degree : int
        Largest power; nodes farther apart do not see each other.
    heads : int, optional
        How many filters there are, one a head; by default one for all heads.

    Notes
    -----
    a_l = exp(log_coefficients_l) starts at e^-1 / l!, the diffusion kernel at time 1 cut off. All entries are positive
    within `degree` steps. A product costs `degree` sparse products, whatever the number of heads. Filters of other
    forms are modules, too: ``as_module(spectral_filter(graph, responses.matern(1.5, 1.0)))``.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask.adapters.torch import FilterMask
    >>> cycle = np.roll(np.eye(6), 1, axis=0) + np.roll(np.eye(6), -1, axis=0)
    >>> mask = FilterMask(cycle, degree=2)
    >>> mask.as_matrix().to_dense()[0].round(4)
    array([0.4598, 0.1839, 0.046 , 0.    , 0.046 , 0.1839])
    """

    def __init__(self, graph: Any, *, degree: int = 4, heads: int | None = None) -> None:
        if degree < 0:
            msg = f"degree must not be negative, got {degree}"
            raise ValueError(msg)
        L = laplacian(graph, kind="symmetric")
        P = scipy.sparse.csr_array(scipy.sparse.eye_array(L.shape[0], dtype=L.dtype) - L)
        P.eliminate_zeros()
        super().__init__(PowerSeries(Sparse(P), np.ones((*batch(heads), degree + 1))))
        start = torch.tensor([-1 - math.lgamma(power + 1) for power in range(degree + 1)])
        start = start.to(torch.get_default_dtype()).expand(*batch(heads), degree + 1)
        self.log_coefficients = torch.nn.Parameter(start.clone())

    def generators(self) -> dict[str, Tensor]:
        return {"coefficients": self.log_coefficients.exp()}


class TreeDistanceMask(MaskModule):
    """M_ij = f(dist(i, j)) on a tree or forest whose lengths are whole numbers, 0 between trees, f positive.

    Parameters
    ----------
    tree : Forest or graph
        As for `as_forest`.
    degree : int, optional
        f(s) = exp(a_1 x + ... + a_T x^T), x = s over the largest distance; by default f is any table.
    heads : int, optional
        How many functions there are, one a head; by default one for all heads.
    form : {"exp", "abs"}
        Of a table, as in `RelativePositionMask`.

    Notes
    -----
    `table` (heads, D), for distances 0 ... D - 1, or `coefficients` (heads, T); at the start f = 1. O(n log^2 n) a
    column; for exponential decay alone, and for lengths that are not whole, `TreeDecayMask` is O(n).

    Examples
    --------
    >>> import torch
    >>> from structmask import as_forest
    >>> from structmask.adapters.torch import TreeDistanceMask
    >>> mask = TreeDistanceMask(as_forest(parents=[-1, 0, 0, 1]))
    >>> mask(torch.ones(4)).sum().backward()
    >>> mask.table.grad  # how many pairs are at each distance
    tensor([4., 6., 4., 2.])
    """

    powers: Tensor

    def __init__(self, tree: Any, *, degree: int | None = None, heads: int | None = None, form: str = "exp") -> None:
        forest = as_forest(tree)
        distances = np.arange(int(forest.diameter) + 1 if forest.size else 0)
        super().__init__(tree_mask(forest, np.ones((*batch(heads), distances.size))))
        self.form = checked_form(form)
        if degree is None:
            start = torch.zeros if form == "exp" else torch.ones
            self.table = torch.nn.Parameter(start(*batch(heads), distances.size))
        else:
            self.register_buffer("powers", powers(distances, degree), persistent=False)
            self.coefficients = torch.nn.Parameter(torch.zeros(*batch(heads), degree))

    def generators(self) -> dict[str, Tensor]:
        if hasattr(self, "table"):
            return {"values": positive(self.table, self.form)}
        return {"values": torch.exp(torch.tensordot(self.coefficients, self.powers, dims=1))}


class TreeDecayMask(MaskModule):
    """M_ij = exp(-rate dist(i, j)) on a tree or forest with any lengths, 0 between trees, with a learnable rate > 0.

    Parameters
    ----------
    tree : Forest or graph
        As for `as_forest`.
    heads : int, optional
        How many rates there are, one a head; by default one for all heads.
    initial : float or sequence of float
        The rate at the start, one or one a head, a unit of length.

    Notes
    -----
    rate = exp(log_rate), of which d rate / d log_rate = rate. O(n), by two sweeps.

    Examples
    --------
    >>> from structmask import as_forest
    >>> from structmask.adapters.torch import TreeDecayMask
    >>> mask = TreeDecayMask(as_forest(parents=[-1, 0, 0], lengths=[0.0, 1.0, 2.0]), initial=0.5)
    >>> mask.as_matrix().to_dense().round(4)
    array([[1.    , 0.6065, 0.3679],
           [0.6065, 1.    , 0.2231],
           [0.3679, 0.2231, 1.    ]])
    """

    def __init__(self, tree: Any, *, heads: int | None = None, initial: Any = 0.5) -> None:
        start = _start(initial, heads, "a rate")
        super().__init__(tree_decay(as_forest(tree), np.exp(start.numpy())))
        self.log_rate = torch.nn.Parameter(start)

    def generators(self) -> dict[str, Tensor]:
        return {"rate": self.log_rate.exp()}


def _start(initial: Any, heads: int | None, what: str) -> Tensor:
    """The logarithm of positive numbers, one or one a head."""
    value = np.asarray(initial, dtype=np.float64)
    if not (value > 0).all():
        msg = f"{what} must be positive, got {initial}"
        raise ValueError(msg)
    return torch.tensor(np.broadcast_to(np.log(value), batch(heads)).copy(), dtype=torch.get_default_dtype())
