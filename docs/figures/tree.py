"""A tree in breadth-first order, and the path between two of its nodes."""

from matplotlib import pyplot as plt

PARENTS = [-1, 0, 0, 0, 1, 1, 3, 3, 3, 4, 4, 7]
ACROSS = [3.0, 1.0, 3.0, 5.2, 0.4, 1.8, 4.2, 5.2, 6.2, 0.0, 0.9, 5.2]


def draw():
    depth = [0] * len(PARENTS)
    for v, p in enumerate(PARENTS):
        depth[v] = 0 if p < 0 else depth[p] + 1
    path = {9, 4, 5}
    figure, axes = plt.subplots(figsize=(6.0, 2.8))
    for v, p in enumerate(PARENTS):
        if p >= 0:
            thick = v in path
            line = axes.plot([ACROSS[v], ACROSS[p]], [-depth[v], -depth[p]], color="C1" if thick else "#808080")
            line[0].set(linewidth=3 if thick else 1, zorder=0)
    axes.scatter(ACROSS, [-d for d in depth], s=260, color="C0", zorder=1)
    for v, (x, d) in enumerate(zip(ACROSS, depth, strict=True)):
        axes.text(x, -d, str(v), color="white", ha="center", va="center_baseline")
    axes.set_axis_off()
    return figure
