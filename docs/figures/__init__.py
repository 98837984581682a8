"""Figures of the theory pages: each module here has a ``draw()`` that returns one matplotlib figure."""

from importlib import import_module
from pathlib import Path

STYLE = {
    "figure.dpi": 100,
    "savefig.transparent": True,
    "svg.hashsalt": "structmask",
    "font.size": 10,
    "text.color": "#808080",
    "axes.labelcolor": "#808080",
    "axes.edgecolor": "#808080",
    "axes.titlecolor": "#808080",
    "axes.titlesize": 10,
    "xtick.color": "#808080",
    "ytick.color": "#808080",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def draw_all(folder: Path) -> None:
    """Write ``<stem>.svg`` into ``folder`` for every figure module that changed since it was last drawn."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    folder.mkdir(exist_ok=True)
    for script in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        target = folder / f"{script.stem}.svg"
        if target.exists() and target.stat().st_mtime > script.stat().st_mtime:
            continue
        with plt.rc_context(STYLE):
            figure = import_module(f"figures.{script.stem}").draw()
            figure.savefig(target, bbox_inches="tight", metadata={"Date": None})
            plt.close(figure)
