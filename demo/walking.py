"""A walk without a map: expected times over real terrain, a Markov process on its grid."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import spsolve

import structmask as sm
from demo import inputs, measure
from demo.section import Section, gallery, picture, pixels

NAME = "walking"

_METRES = 92.7, 74.5  # between grid points, southwards and eastwards
_HUTS = ((0.18, 0.82), (0.30, 0.25), (0.62, 0.55), (0.85, 0.12), (0.80, 0.90))  # places, as fractions of the map
_TOL = 1e-10


def build(*, quick: bool, say: measure.Say) -> Section:
    """Times to the nearest hut, and which hut it is, by one sparse system each."""
    every = 6 if quick else 1
    heights = inputs.heights()[::every, ::every]
    process, huts = walker(heights, every), _huts(heights.shape)
    say(f"walking times over {heights.size:,} places")
    hours, own = _timed(lambda: process.hitting_times(huts, tol=_TOL))
    say("the same by scipy's sparse LU")
    direct, theirs = _timed(lambda: _by_scipy(process, huts))
    error = float(np.max(np.abs(hours - direct)) / hours.max())
    assert error < 1e-8
    say("which hut it is")
    east = process.hitting_probabilities(huts[0], avoid=huts[1:])
    say("where the walk goes")
    chain = sm.MarkovChain(_jumps(process))
    start = _place((0.45, 0.68), heights.shape)
    visits = np.eye(1, heights.size, start)[0] @ chain.visits(huts)
    maps = _maps(heights, huts, start, hours, east, visits)
    return Section(
        NAME,
        "Walking times over terrain",
        _body(heights, maps, hours, east[start], hours[start]),
        "",
        (),
        summary=(
            f"{heights.size:,} places, {process.generator.nnz - heights.size:,} possible steps; hitting times in "
            f"{own:.2g} s, {theirs / own:.1f}× as fast as scipy.sparse.linalg.spsolve ({theirs:.2g} s), which agrees "
            f"to {error:.0e} of the longest time"
        ),
    )


def walker(heights: Any, every: int) -> sm.MarkovProcess:
    """To each of four neighbours with a pace of 6 exp(-3.5 |slope|) km/h, after Tobler's rule for hikers."""
    places = np.arange(heights.size).reshape(heights.shape)
    rows, columns, rates = [], [], []
    for axis in (0, 1):
        low, high = (np.moveaxis(a, axis, 0) for a in (places, heights))
        length = _METRES[axis] * every
        for here, there in ((np.s_[:-1], np.s_[1:]), (np.s_[1:], np.s_[:-1])):
            slope = (high[there] - high[here]) / length
            rows.append(low[here].ravel())
            columns.append(low[there].ravel())
            rates.append((6000 / length * np.exp(-3.5 * np.abs(slope)) / 4).ravel())
    entries = np.concatenate(rates), (np.concatenate(rows), np.concatenate(columns))
    return sm.MarkovProcess(scipy.sparse.csr_array(entries, shape=(heights.size, heights.size)))


def _jumps(process: sm.MarkovProcess) -> Any:
    """Where the next step leads."""
    Q = process.generator
    out = -Q.diagonal()
    return scipy.sparse.diags_array(1 / out) @ (Q + scipy.sparse.diags_array(out))


def _place(fraction: tuple[float, float], shape: tuple[int, int]) -> int:
    return int(fraction[0] * shape[0]) * shape[1] + int(fraction[1] * shape[1])


def _huts(shape: tuple[int, int]) -> Any:
    return np.array([_place(fraction, shape) for fraction in _HUTS])


def _by_scipy(process: sm.MarkovProcess, huts: Any) -> Any:
    Q = process.generator
    f = np.setdiff1d(np.arange(Q.shape[0]), huts)
    hours = np.zeros(Q.shape[0])
    hours[f] = spsolve(scipy.sparse.csc_array(-Q[f][:, f]), np.ones(f.size))
    return hours


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    run()
    start = time.perf_counter()
    return run(), time.perf_counter() - start


# --- the page ---------------------------------------------------------------------------------------------------------


def _body(heights: Any, maps: str, hours: Any, chance: float, wait: float) -> str:
    days = hours / 24
    return (
        f"<p>{heights.size:,} points of a measured landscape, {np.ptp(heights):.0f} metres from the lowest to the "
        "highest. A walker without a map goes to one of four neighbouring points at random, likelier where the ground "
        "is level and the step is quick. How long until one of five huts is found? Which one? Where does the walk "
        "lead? Each is one sparse system with as many unknowns as there are places, solved to ten digits; no matrix of "
        "all pairs is needed.</p>"
        f"{maps}"
        f'<p class="note">From the worst place it takes {days.max():,.0f} days on average, from the ring '
        f"{wait / 24:,.0f} days, and the first hut is the eastern one with probability {chance:.0%}. "
        "Crosses are huts.</p>"
    )


def _maps(heights: Any, huts: Any, start: int, hours: Any, east: Any, visits: Any) -> str:
    shown = (
        ("the terrain", heights, "gist_earth", "relief of the landscape with five huts"),
        ("days to the nearest hut", hours / 24, "viridis_r", "map of walking times, short around the huts"),
        ("the eastern hut comes first", east, "RdBu_r", "map of probabilities, a sharp border between huts"),
        ("visits from the ring", np.sqrt(visits), "magma", "map of visits, a cloud around the start"),
    )
    figures = [picture(_map(x, heights.shape, colours, huts, start), alt, title) for title, x, colours, alt in shown]
    return gallery(figures, columns=4)


def _map(values: Any, shape: tuple[int, int], colours: str, huts: Any, start: int) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.0, 3.0 * shape[0] / shape[1]))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.imshow(values.reshape(shape), cmap=colours, aspect="auto")
    rows, columns = np.divmod(huts, shape[1])
    ax.plot(columns, rows, "+", color="black", markersize=8, markeredgewidth=2)
    ax.plot(
        start % shape[1], start // shape[1], "o", color="white", markersize=7, fillstyle="none", markeredgewidth=1.5
    )
    ax.set_axis_off()
    return pixels(figure)
