"""The gallery: scripts of ``examples/``, run when the docs are built; figures look as those of the theory pages."""

from pathlib import Path

import sphinx_gallery.gen_rst
from figures import STYLE
from sphinx_gallery.scrapers import matplotlib_scraper

ORDER = ("image", "sequence", "tree", "graph", "random", "markov", "solve", "backends", "torch")


def order(file_name):
    """Where a script stands in the gallery: images and sequences before graphs, then systems and settings."""
    return ORDER.index(Path(file_name).stem.split("_")[1])


def style(gallery_conf, script):
    """Begin every script with the colours that suit a light and a dark page."""
    from matplotlib import pyplot as plt

    plt.close("all")
    plt.rcdefaults()
    plt.rcParams.update(STYLE)


def scrape(block, block_vars, gallery_conf):
    """Keep figures as SVG without a date: the same bytes from the same script."""
    return matplotlib_scraper(
        block, block_vars, gallery_conf, format="svg", bbox_inches="tight", metadata={"Date": None}
    )


sphinx_gallery.gen_rst.ZIP_DOWNLOAD = ""  # a script is one file: no archive of it

SETTINGS = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": "/plot_",
    "ignore_pattern": "heads_over_processes",  # needs processes of its own; shown on the page on scaling
    "within_subsection_order": "gallery_style.order",
    "image_scrapers": ("gallery_style.scrape",),
    "reset_modules": ("gallery_style.style",),
    "capture_repr": ("__repr__",),
    "ignore_repr_types": r"matplotlib\..*|builtins\.NoneType",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "notebook_extensions": set(),
    "show_signature": False,
    "write_computation_times": False,
    "min_reported_time": 1e9,  # times would differ from build to build
}
