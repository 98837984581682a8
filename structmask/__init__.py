"""Fast products with structured mask matrices, and what is built on them.

A `StructuredMatrix` holds its generators and multiplies; ``+ - * @ .T`` combine them; functions build one from data;
`masked_attention` is linear attention under one; `set_backend` chooses where it runs.
"""

from structmask._show_versions import show_versions
from structmask.attention import masked_attention
from structmask.backends import BackendError, get_backend, set_backend, to_numpy, use_backend
from structmask.features import elu_features, exp_features, positive_features, relu_features
from structmask.graphs import (
    NotATreeError,
    as_adjacency,
    as_forest,
    distortion,
    laplacian,
    random_lengths,
    spectral_bound,
    tree_decay,
    tree_mask,
    tree_metric,
)
from structmask.linalg import (
    Band,
    BlockDiagonal,
    Buckets,
    Causal,
    ConvergenceWarning,
    Dense,
    Diagonal,
    ExponentialSum,
    Hypercube,
    Kronecker,
    LowRank,
    Plan,
    Sparse,
    StateSpace,
    StructuredMatrix,
    Toeplitz,
    explain,
    kron,
    kronecker_sum,
    matrix_function,
    solve,
    solve_pullback,
    with_global_tokens,
)

__version__ = "0.1.0"

__all__ = [
    "BackendError",
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
    "NotATreeError",
    "Plan",
    "Sparse",
    "StateSpace",
    "StructuredMatrix",
    "Toeplitz",
    "as_adjacency",
    "as_forest",
    "distortion",
    "elu_features",
    "exp_features",
    "explain",
    "get_backend",
    "kron",
    "kronecker_sum",
    "laplacian",
    "masked_attention",
    "matrix_function",
    "positive_features",
    "random_lengths",
    "relu_features",
    "set_backend",
    "show_versions",
    "solve",
    "solve_pullback",
    "spectral_bound",
    "to_numpy",
    "tree_decay",
    "tree_mask",
    "tree_metric",
    "use_backend",
    "with_global_tokens",
]
