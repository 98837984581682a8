"""Pictures of masks: the entries, the spectrum, one row as a kernel, and how times grow with the size.

Every function draws on the axes `ax`, or on those of a new figure, and returns them, so that titles, ticks and limits
can be set afterwards. Of a batch, `head` says which matrix is drawn: one index a batch dimension, the first by default.
Large masks are sampled or multiplied, never formed; of complex entries the magnitude is drawn. Colour maps are
perceptually uniform: viridis, and coolwarm centred at zero where values are negative.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh, svds

from structmask.backends import arrays
from structmask.backends.arrays import Array, to_numpy
from structmask.linalg.base import StructuredMatrix

Axes: TypeAlias = Any  # matplotlib.axes.Axes
Head: TypeAlias = int | tuple[int, ...] | None
Shape: TypeAlias = tuple[int, ...] | None
Matrix: TypeAlias = StructuredMatrix

_BLOCK = 1 << 22  # entries formed at a time
_SMALL = 1 << 20  # entries of a matrix whose spectrum is that of the dense array
_GREY, _ORANGE = "#808080", "#e07b39"  # stand out from white, black and both colour maps


def show_mask(
    mask: Matrix, /, *, ax: Axes = None, head: Head = None, rows: int = 512, cmap: Any = None, colorbar: bool = True
) -> Axes:
    """Heat map of the entries M_ij.

    Parameters
    ----------
    mask : StructuredMatrix (..., m, n)
        What to draw.
    rows : int
        At most so many rows, and as many columns, evenly spread, are evaluated for each head of the batch; ticks show
        their true indices. What lies between them is not seen.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from structmask import Causal
    >>> from structmask.plotting import show_mask
    >>> mask = Causal(64, decay=0.9)
    >>> ax = show_mask(mask, ax=Figure().subplots())
    >>> np.array_equal(ax.images[0].get_array(), mask.to_dense())
    True
    """
    index, (m, n) = _head(mask, head), mask.shape[-2:]
    values = _magnitude(_submatrix(mask, _spread(m, rows), _spread(n, rows), index))
    aspect = "equal" if max(m, n) <= 4 * min(m, n) else "auto"
    extent = (-0.5, n - 0.5, m - 0.5, -0.5)
    ax = _image(_axes(ax), values, cmap, colorbar=colorbar, extent=extent, aspect=aspect)
    ax.set(xlabel="column $j$", ylabel="row $i$")
    return ax


def show_spectrum(mask: Matrix, /, *, ax: Axes = None, head: Head = None, values: int = 200) -> Axes:
    """Largest singular values, or eigenvalues by magnitude of a Hermitian matrix, on a logarithmic scale.

    Parameters
    ----------
    mask : StructuredMatrix (..., m, n)
        What to draw. It counts as Hermitian if M y = M^H y for a random y, to half of its digits; negative
        eigenvalues are then told apart.
    values : int
        How many to draw, or all if there are fewer.

    Notes
    -----
    In double precision. Beyond about a million entries the matrix (with its whole batch) is only multiplied, by
    ARPACK's Lanczos iterations. Singular values are then square roots of eigenvalues of M^H M, those below about 1e-8
    of the largest only rounding.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from structmask import Causal
    >>> from structmask.plotting import show_spectrum
    >>> mask = Causal(64, decay=0.9)
    >>> drawn = show_spectrum(mask, ax=Figure().subplots()).lines[0].get_ydata()
    >>> np.allclose(drawn, np.linalg.svdvals(mask.to_dense()))
    True
    """
    spectrum, name = _spectrum(mask, _head(mask, head), _positive(values, "values"))
    ax, rank, negative = _axes(ax), np.arange(1, spectrum.size + 1), spectrum < 0
    for chosen, label, marker in ((~negative, "positive", "."), (negative, "negative", "x")):
        if chosen.any():
            ax.plot(rank[chosen], np.abs(spectrum[chosen]), marker, label=label)
    if spectrum.any():
        ax.set_yscale("log")
    if negative.any():
        ax.legend()
    ax.set(xlabel="index", ylabel=f"magnitude of {name}" if negative.any() else name)
    return ax


def show_row(
    mask: Matrix,
    row: int,
    /,
    *,
    shape: Shape = None,
    graph: Any = None,
    positions: Any = None,
    ax: Axes = None,
    head: Head = None,
    colorbar: bool = True,
) -> Axes:
    """One row of a mask as a kernel on a line, a grid or a graph; in a square mask the row's own place is marked.

    Costs n entries, or one product with a unit vector, for each head of the batch.

    Parameters
    ----------
    mask : StructuredMatrix (..., m, n)
        The mask.
    row : int
        Which row.
    shape : (n,) or (h, w) with h w = n, optional
        A line, or a grid whose points in C order the columns are. By default the mask's `column_grid` if it has two
        sides, else a line.
    graph : sparse matrix (n, n) or array of int (2, E), optional
        Edges between the positions: an adjacency matrix or pairs of nodes.
    positions : array (n, 2), optional
        Where the columns are in the plane.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from structmask import Toeplitz
    >>> from structmask.plotting import show_row
    >>> mask = Toeplitz.from_function(lambda dy, dx: np.exp(-np.hypot(dy, dx)), (6, 8))
    >>> image = show_row(mask, 19, ax=Figure().subplots()).images[0].get_array()
    >>> np.array_equal(image, mask.to_dense()[19].reshape(6, 8))
    True
    """
    index, (m, n), row = _head(mask, head), mask.shape[-2:], operator.index(row)
    values = _magnitude(_submatrix(mask.T, np.arange(n), np.array([row]), index)[:, 0])
    own = row % n if m == n else None
    if positions is not None or graph is not None:
        return _on_graph(ax, values, positions, graph, own, colorbar=colorbar)
    grid = _grid(mask, shape)
    ax = _axes(ax)
    if len(grid) == 2:
        if own is not None:
            _ring(ax, own % grid[1], own // grid[1])
        return _image(ax, values.reshape(grid), None, colorbar=colorbar)
    ax.plot(values)
    if own is not None:
        ax.axvline(own, color=_GREY, linestyle=":")
    ax.set(xlabel="column $j$", ylabel=f"$M_{{ij}}$ for $i = {row}$")
    return ax


def show_scaling(
    sizes: Any,
    times: Mapping[str, Any],
    /,
    *,
    ax: Axes = None,
    labels: Sequence[str] | None = None,
    reference: bool = True,
) -> Axes:
    """Log-log curves of times over sizes; the legend has the slope of each curve, fitted by least squares.

    Parameters
    ----------
    sizes : array (k,)
        Positive sizes.
    times : mapping from name to array (k,)
        Positive times (or bytes, or operations: name the axis), nan where there is none.
    labels : sequence of str, optional
        What the legend calls the curves, in their order; their names by default.
    reference : bool
        Whether to draw slopes 1 and 2 from the smallest size and time.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from structmask.plotting import show_scaling
    >>> sizes = np.array([256, 1024, 4096])
    >>> ax = show_scaling(sizes, {"dense": 1e-9 * sizes**2, "fast": 1e-7 * sizes}, ax=Figure().subplots())
    >>> [line.get_label() for line in ax.lines[:2]]
    ['dense, slope 2.00', 'fast, slope 1.00']
    """
    names = list(times if labels is None else labels)
    n, *curves = (np.asarray(to_numpy(x), dtype=np.float64) for x in (sizes, *times.values()))
    if n.ndim != 1 or not n.size or not curves or not (n > 0).all() or len(names) != len(curves):
        msg = f"show_scaling needs positive sizes (k,), curves and a label for each; got {n}, {len(curves)}, {names}"
        raise ValueError(msg)
    if any(curve.shape != n.shape or (curve <= 0).any() for curve in curves):
        msg = f"show_scaling needs {n.size} positive times a curve, nan where there is none, got {dict(times)}"
        raise ValueError(msg)
    ax = _axes(ax)
    for name, curve in zip(names, curves, strict=True):
        x, y = n[np.isfinite(curve)], curve[np.isfinite(curve)]
        slope = f", slope {np.polyfit(np.log(x), np.log(y), 1)[0]:.2f}" if np.unique(x).size > 1 else ""
        ax.loglog(x, y, "o-", label=f"{name}{slope}")
    lowest = np.min(curves, where=np.isfinite(curves), initial=np.inf)
    if reference and np.isfinite(lowest):
        limits, ends = ax.get_ylim(), np.array([n.min(), n.max()])
        for power, style in ((1, ":"), (2, "--")):
            guide = lowest * (ends / ends[0]) ** power
            ax.loglog(ends, guide, style, color=_GREY, linewidth=1, label=f"slope {power}", zorder=1)
        ax.set_ylim(limits)
    ax.set(xlabel="size $n$", ylabel="time (s)")
    ax.legend()
    return ax


# --- what is drawn ----------------------------------------------------------------------------------------------------


def _head(mask: Any, head: Head) -> tuple[int, ...]:
    """Index of a matrix in the batch of a mask that has entries to draw."""
    if not isinstance(mask, StructuredMatrix):
        msg = f"a picture needs a StructuredMatrix, got {type(mask).__name__}; wrap an array as structmask.Dense(x)"
        raise TypeError(msg)
    if 0 in mask.shape:
        msg = f"{mask!r} has no entries to draw; give a mask with at least one head, row and column"
        raise ValueError(msg)
    batch = mask.shape[:-2]
    given = (0,) * len(batch) if head is None else head if isinstance(head, tuple) else (head,)
    index = tuple(map(operator.index, given))
    if len(index) != len(batch) or any(not -size <= k < size for k, size in zip(index, batch, strict=True)):
        msg = f"head {head} is not in {mask!r}; give one index for each of its batch dimensions {batch}"
        raise IndexError(msg)
    return index


def _positive(count: int, name: str) -> int:
    if operator.index(count) < 1:
        msg = f"{name} must be a positive integer, got {count}"
        raise ValueError(msg)
    return count


def _spread(size: int, rows: int) -> Array:
    """At most `rows` indices below `size`, each in the middle of its share of them."""
    count = min(size, _positive(rows, "rows"))
    return (2 * np.arange(count) + 1) * size // (2 * count)


def _submatrix(mask: Matrix, i: Array, j: Array, head: tuple[int, ...]) -> Array:
    """Entries of one head at rows i and columns j, on the host, a block of columns at a time."""
    height = i.size if mask.has_entries else max(mask.shape[-2:])
    step = max(1, _BLOCK // (math.prod(mask.shape[:-2]) * height))
    parts = [to_numpy(mask.entries(i, j[a:b]))[head] for a, b in arrays.blocks(j.size, step)]
    return np.concatenate(parts, axis=-1)


def _magnitude(values: Array) -> Array:
    return np.abs(values) if np.iscomplexobj(values) else values


def _spectrum(mask: Matrix, head: tuple[int, ...], count: int) -> tuple[Array, str]:
    """The `count` largest eigenvalues or singular values, by falling magnitude, and which of both they are."""
    (m, n), tolerance = mask.shape[-2:], math.sqrt(arrays.unit_roundoff(arrays.precision(mask)))
    mask = mask.astype(np.result_type(mask.dtype, np.float64))
    if m < n:  # its transpose has fewer columns to form, and the same singular values
        mask, m, n = mask.T, n, m

    def product(matrix: Matrix, x: Array) -> Array:  # of one head, on the host, wherever the mask lives
        return to_numpy(matrix @ arrays.move(x, matrix._home))[head]

    M, adjoint = partial(product, mask), partial(product, mask.mH)
    x = np.random.default_rng(0).standard_normal(n)
    size = np.linalg.norm(M(x))
    hermitian = m == n and bool(np.linalg.norm(M(x) - adjoint(x)) <= tolerance * size)
    name = "eigenvalue" if hermitian else "singular value"
    if m * n <= _SMALL or n <= count:
        dense = _submatrix(mask, np.arange(m), np.arange(n), head)
        found: Array = np.linalg.eigvalsh(dense) if hermitian else np.linalg.svdvals(dense)
    elif size == 0:  # ARPACK refuses the zero matrix
        found = np.zeros(count)
    else:
        linear = LinearOperator((m, n), matvec=M, rmatvec=adjoint, matmat=M, rmatmat=adjoint, dtype=mask.dtype)
        if hermitian:
            found = eigsh(linear, k=count, v0=x, return_eigenvectors=False)
        else:
            found = svds(linear, k=count, v0=x, return_singular_vectors=False)
    return found[np.argsort(-np.abs(found))][:count], name


def _grid(mask: Matrix, shape: Shape) -> tuple[int, ...]:
    """Sides of the line or grid that the columns of a mask are."""
    n, own = mask.shape[-1], getattr(mask, "column_grid", ())
    default = own if len(own) == 2 else (n,)
    grid = default if shape is None else tuple(map(operator.index, shape))
    if len(grid) not in (1, 2) or min(grid) < 1 or math.prod(grid) != n:
        msg = f"show_row of {mask!r} needs a shape (n,) or (h, w) of {n} points, got {shape}"
        raise ValueError(msg)
    return grid


def _edges(graph: Any, n: int) -> Array:
    """Pairs of different nodes (E, 2), each once, of an adjacency matrix or an array of edges."""
    is_sparse = arrays.is_sparse(graph)
    pairs = np.stack(to_numpy(graph).nonzero()) if is_sparse else np.asarray(to_numpy(graph))
    fits = graph.shape == (n, n) if is_sparse else pairs.shape[:1] == (2,) and pairs.ndim == 2
    if not fits or pairs.dtype.kind not in "iu" or (pairs.size and not 0 <= pairs.min() <= pairs.max() < n):
        msg = f"show_row needs a graph of {n} nodes: a sparse matrix ({n}, {n}), or integers (2, E) below {n}"
        raise ValueError(msg)
    return np.unique(np.sort(pairs[:, pairs[0] != pairs[1]], axis=0), axis=1).T


# --- drawing ----------------------------------------------------------------------------------------------------------


def _axes(ax: Axes) -> Axes:
    """The axes given, or those of a new figure."""
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot as plt
    except ModuleNotFoundError as error:
        msg = "structmask.plotting needs matplotlib: pip install '.[plot]' from a clone of structmask"
        raise ModuleNotFoundError(msg, name=error.name) from error
    return plt.subplots(layout="constrained")[1]


def _colours(values: Array, cmap: Any) -> dict[str, Any]:
    """The colour map, and limits symmetric about zero for the diverging one."""
    finite = values[np.isfinite(values)]
    if cmap is not None or not (finite < 0).any():
        return {"cmap": cmap or "viridis"}
    return {"cmap": "coolwarm", "vmin": -np.abs(finite).max(), "vmax": np.abs(finite).max()}


def _image(ax: Axes, values: Array, cmap: Any, *, colorbar: bool, **options: Any) -> Axes:
    from matplotlib.ticker import MaxNLocator

    image = ax.imshow(values, **_colours(values, cmap), **options)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    if colorbar:
        ax.figure.colorbar(image, ax=ax)
    return ax


def _on_graph(ax: Axes, values: Array, positions: Any, graph: Any, own: int | None, *, colorbar: bool) -> Axes:
    """Values at nodes in the plane, above the edges."""
    points = np.empty(0) if positions is None else np.asarray(to_numpy(positions), dtype=np.float64)
    if points.shape != (values.size, 2):
        msg = f"show_row on a graph needs positions ({values.size}, 2) of its nodes, got {points.shape}"
        raise ValueError(msg)
    edges = np.empty((0, 2), dtype=int) if graph is None else _edges(graph, values.size)
    ax = _axes(ax)
    from matplotlib.collections import LineCollection

    ax.add_collection(LineCollection(points[edges], colors=_GREY, linewidths=0.8, zorder=1))
    nodes = ax.scatter(*points.T, c=values, edgecolors=_GREY, linewidths=0.5, zorder=2, **_colours(values, None))
    if own is not None:
        _ring(ax, *points[own])
    ax.set_aspect("equal")
    ax.set_axis_off()
    if colorbar:
        ax.figure.colorbar(nodes, ax=ax)
    return ax


def _ring(ax: Axes, x: float, y: float) -> None:
    ax.plot(x, y, "o", markersize=11, markerfacecolor="none", markeredgecolor=_ORANGE, markeredgewidth=2)
