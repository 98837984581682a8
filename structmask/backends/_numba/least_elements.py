"""Least elements of shortest paths, compiled from their plain form."""

from numba import njit

from structmask.backends import _standard_tree

least_elements = njit(nogil=True, cache=True)(_standard_tree.least_elements)
