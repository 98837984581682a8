"""Loops over graphs and trees, compiled from their plain form."""

from numba import njit

from structmask.backends import _standard_tree

least_elements = njit(nogil=True, cache=True)(_standard_tree.least_elements)
heavy_paths = njit(nogil=True, cache=True)(_standard_tree.heavy_paths)
