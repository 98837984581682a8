"""Sphinx configuration. Build with ``make docs``; warnings are errors, and no step needs the network."""

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))
sys.path.insert(0, str(DOCS))

from figures import draw_all  # noqa: E402  (needs the path set above)
from gallery_style import SETTINGS  # noqa: E402
from hardware import substitutions  # noqa: E402

import structmask  # noqa: E402

project = "structmask"
author = "the structmask developers"
copyright = "the structmask developers"
release = structmask.__version__
version = release

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",  # ships MathJax and copies it into the site
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "sphinx_proof",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["**/__pycache__"]
templates_path = ["_templates"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "substitution"]
myst_substitutions = substitutions()
myst_heading_anchors = 3
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"
proof_minimal_theme = True
proof_uniform_numbering = True

sphinx_gallery_conf = SETTINGS

default_role = "literal"  # single backticks in docstrings are names
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
# Every check except: optional sections, written where they help; what a one-line function says in its line; types and
# descriptions that would only repeat each other; formulas, which begin with small letters; inherited docstrings.
not_checked = "ES01 SA01 EX01 PR01 PR07 RT01 YD01 PR04 RT03 PR08 SS02 GL08"
numpydoc_validation_checks = {"all", *not_checked.split()}

doctest_global_setup = """
import numpy as np
import structmask as sm
"""

# The Python and NumPy manuals are not read at build time, so names that live in them cannot be resolved.
nitpick_ignore_regex = [
    (r"py:.*", r"(numpy|np|scipy|torch|dask|collections|typing|abc|dataclasses|functools)\..*"),  # other libraries
    (r"py:class", r"(Any|array_like|callable|optional|ndarray|csr_array|LinearOperator|Ellipsis)"),  # prose types
    (r"py:class", r"structmask\.linalg\.generators\.Generated"),  # what every matrix is made of; not public
    (r"py:class", r"structmask\.linalg\.stationary\.Stationary"),  # what both state-space masks share; not public
    (r"py:class", r"structmask\.graphs\.crossings\.DistanceMask"),  # what functions of tree distance share
]

mathjax_path = "mathjax/tex-chtml.js"  # below _static, put there by sphinx-mathjax-offline
mathjax3_config = {"chtml": {"displayOverflow": "scroll", "mtextInheritFont": True}}

html_theme = "pydata_sphinx_theme"
html_title = "structmask"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
single_pages = "start conventions map accuracy plotting backends scaling notation contributing changelog references"
html_sidebars = {page: [] for page in single_pages.split()}  # no section to navigate
html_theme_options = {
    "show_prev_next": True,
    "navbar_align": "left",
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def escape_prose(app, what, name, obj, options, lines):
    """Escape, before numpydoc reads them, what docstrings mean as plain mathematics: |x| and (*batch, n).

    Formulas of a module, which are indented, stand as they are written, line by line.
    """
    found, in_example, in_formula = [], False, False
    for line in lines:
        in_example = bool(line.strip()) and (in_example or line.lstrip().startswith(">>>"))
        indented = what == "module" and line.startswith("    ")
        if indented and not in_formula:
            found += ["::", ""]
        in_formula = indented or (in_formula and not line.strip())
        found.append(line if in_example or indented else escaped(line))
    lines[:] = found


def escaped(line):
    """A line of prose; code in backticks and words with emphasis stay as they are."""
    parts = re.split(r"(`+[^`]*`+|(?<!\w)\*\w+\*(?!\w))", line)
    return "".join(part if kept % 2 else re.sub(r"[|*]", r"\\\g<0>", part) for kept, part in enumerate(parts))


def setup(app):
    """Draw the figures before the pages are read."""
    app.connect("builder-inited", lambda app: draw_all(DOCS / "figures" / "drawn"))
    app.connect("autodoc-process-docstring", escape_prose, priority=400)
