"""Structured matrices and their algebra, one structure a file."""

from structmask.linalg.base import StructuredMatrix
from structmask.linalg.causal import Causal
from structmask.linalg.elementary import Dense, Diagonal, Sparse
from structmask.linalg.kronecker import Kronecker, kron, kronecker_sum
from structmask.linalg.low_rank import LowRank
from structmask.linalg.planning import Plan, explain
from structmask.linalg.toeplitz import Toeplitz

__all__ = [
    "Causal",
    "Dense",
    "Diagonal",
    "Kronecker",
    "LowRank",
    "Plan",
    "Sparse",
    "StructuredMatrix",
    "Toeplitz",
    "explain",
    "kron",
    "kronecker_sum",
]
