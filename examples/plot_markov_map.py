r"""
Lost on a mountain
==================

*How long until someone who walks at random meets a hut? One sparse system answers for every place of a map.*

Steps that depend only on where one is make a Markov process. Its expected hitting times :math:`h` solve :math:`-Q h =
1` away from the targets, and :class:`structmask.MarkovProcess` solves that without subtractions or with a
preconditioned iteration, and checks the result (:doc:`/theory/first_passage`).
"""

import numpy as np
import scipy.sparse
from matplotlib import cbook, colors
from matplotlib import pyplot as plt

import structmask as sm

# %%
# **Real terrain**: elevations about the Jacksboro fault, which matplotlib brings along, every third point.

with np.load(cbook.get_sample_data("jacksboro_fault_dem.npz", asfileobj=False)) as data:
    heights = data["elevation"][::3, ::3].astype(np.float64)
steps = np.array([278.0, 224.0])  # metres between points, southwards and eastwards
places = np.arange(heights.size).reshape(heights.shape)

# %%
# **A pace that depends on the slope**: 6 exp(-3.5 \|slope\|) km/h, to each of the four neighbours alike.


def walker(places, heights):
    """Rates (an hour) of steps to each neighbour, as a Markov process."""
    rows, columns, rates = [], [], []
    for axis in (0, 1):
        low, high = np.moveaxis(places, axis, 0), np.moveaxis(heights, axis, 0)
        for here, there in ((np.s_[:-1], np.s_[1:]), (np.s_[1:], np.s_[:-1])):
            slope = np.abs(high[there] - high[here]) / steps[axis]
            rows.append(low[here].ravel())
            columns.append(low[there].ravel())
            rates.append((6000 / steps[axis] * np.exp(-3.5 * slope) / 4).ravel())
    size = (places.size, places.size)
    entries = np.concatenate(rates), (np.concatenate(rows), np.concatenate(columns))
    return sm.MarkovProcess(scipy.sparse.csr_array(entries, shape=size))


process = walker(places, heights)
huts = np.array([places[20, 110], places[35, 33], places[70, 74], places[98, 16]])
hours = process.hitting_times(huts)
print(f"{heights.size} places; the longest expected walk takes {hours.max():.0f} hours")

# %%
# Contours of the expected time over the shaded map, and the probability that the first hut met is the eastern one.

shade = colors.LightSource(azdeg=315, altdeg=45).hillshade(heights, vert_exag=3, dx=steps[1], dy=steps[0])
east = process.hitting_probabilities(huts[0], avoid=huts[1:])
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
for ax, values, name in zip(axes, (hours, east), ("hours until a hut", "probability of the eastern hut"), strict=True):
    ax.imshow(shade, cmap="gray")
    image = ax.imshow(values.reshape(heights.shape), cmap="viridis", alpha=0.6)
    contours = ax.contour(values.reshape(heights.shape), 7, colors="white", linewidths=0.7)
    ax.clabel(contours, fontsize=7)
    ax.plot(huts % heights.shape[1], huts // heights.shape[1], "^", color="#e07b39", markersize=7)
    ax.set(title=name, xticks=[], yticks=[])
    figure.colorbar(image, ax=ax, shrink=0.8)

# %%
# **The same by the definition**, on a part of the map: the system as a dense matrix.

part = walker(np.arange(30 * 30).reshape(30, 30), heights[:30, :30])
target = 465
Q = part.generator.toarray()
others = np.arange(900) != target
expected = np.linalg.solve(-Q[np.ix_(others, others)], np.ones(899))
times = part.hitting_times(target)
assert np.allclose(times[others], expected, rtol=1e-7)
print(f"largest relative difference: {np.abs(times[others] / expected - 1).max():.0e}")
