"""Structured matrices and their algebra, one structure a file."""

from structmask.linalg.band import Band
from structmask.linalg.base import StructuredMatrix
from structmask.linalg.block import BlockDiagonal, with_global_tokens
from structmask.linalg.buckets import Buckets
from structmask.linalg.calibration import calibrate
from structmask.linalg.causal import Causal
from structmask.linalg.convergence import ConvergenceWarning
from structmask.linalg.elementary import Dense, Diagonal, Sparse
from structmask.linalg.exponential_sum import ExponentialSum
from structmask.linalg.hypercube import Hypercube
from structmask.linalg.kronecker import Kronecker, kron, kronecker_sum
from structmask.linalg.low_rank import LowRank
from structmask.linalg.matrix_function import matrix_function
from structmask.linalg.matrix_polynomial import MatrixFunction
from structmask.linalg.planning import Plan, explain
from structmask.linalg.power_series import PowerSeries
from structmask.linalg.solve import solve, solve_pullback
from structmask.linalg.state_space import StateSpace
from structmask.linalg.toeplitz import Toeplitz

__all__ = [
    "Band",
    "BlockDiagonal",
    "Buckets",
    "Causal",
    "ConvergenceWarning",
    "Dense",
    "Diagonal",
    "ExponentialSum",
    "Hypercube",
    "Kronecker",
    "LowRank",
    "MatrixFunction",
    "Plan",
    "PowerSeries",
    "Sparse",
    "StateSpace",
    "StructuredMatrix",
    "Toeplitz",
    "calibrate",
    "explain",
    "kron",
    "kronecker_sum",
    "matrix_function",
    "solve",
    "solve_pullback",
    "with_global_tokens",
]
