"""Matrices to test every law on: one line a case, `case(id, build, dense)`.

`build(a)` makes the matrix from the arrays `a(x)`, where `a` brings a NumPy array x to the library and precision under
test (integers stay integers); `dense` is the matrix written out by `tests.naive`. Data are representable in float32, so
that a matrix in single precision is the same matrix. A case that is not `portable` needs scipy.sparse; one that is not
`differentiable` has no pullback; one that `waits` asks a device for residuals on the way.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from structmask import (
    Band,
    BlockDiagonal,
    Buckets,
    Causal,
    Dense,
    Diagonal,
    ExponentialSum,
    Hypercube,
    Kronecker,
    LowRank,
    Sparse,
    StateSpace,
    StructuredMatrix,
    Toeplitz,
    as_forest,
    diffusion_kernel,
    graph_random_features,
    kron,
    kronecker_sum,
    matrix_function,
    random_walk_kernel,
    responses,
    spectral_filter,
    tree_decay,
    tree_mask,
    with_global_tokens,
)
from structmask.backends import arrays
from structmask.graphs import Occupation, RandomWalkKernel, Visits
from structmask.graphs.occupation import Rates
from structmask.linalg import PowerSeries
from structmask.linalg.direct import Inverse
from tests import naive

SIZES = (1, 2, 17, 65)


@dataclass(frozen=True)
class Case:
    id: str
    build: Callable[..., StructuredMatrix]
    dense: np.ndarray
    portable: bool = True
    differentiable: bool = True
    waits: bool = False


CASES: list[Case] = []


def case(name, build, dense, **flags):
    CASES.append(Case(name, build, np.asarray(dense), **flags))


def real(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32).astype(np.float64)


def complex_(*shape, seed=0):
    return real(*shape, seed=seed) + 1j * real(*shape, seed=seed + 1000)


def gates(*shape, seed=0):
    """Decays in (-1, 1) with a few zeros and ones, which reset and pass on."""
    a = np.tanh(real(*shape, seed=seed)).astype(np.float32).astype(np.float64)
    a[..., 3::7] = 0.0
    a[..., 5::7] = 1.0
    return a


def random_sparse(m, n, *, seed=0, data=real):
    """Rows, columns, values of a third of the entries, with an empty row and column, duplicates and stored zeros."""
    rng = np.random.default_rng([seed, m, n])
    count = m * n // 3
    rows, columns = rng.integers(0, m, count), rng.integers(0, n, count)
    rows[rows == m // 2] = 0
    columns[columns == n // 2] = 0
    values = data(count, seed=seed)
    values[:: max(1, count // 3)] = 0
    return rows, columns, values, (m, n)


def coo(rows, columns, values, shape):
    return scipy.sparse.coo_array((values, (rows, columns)), shape=shape)


# --- plain structures -------------------------------------------------------------------------------------------------

for m, n in ((1, 1), (17, 5), (0, 3), (3, 0)):
    x = real(m, n)
    case(f"dense-{m}x{n}", lambda a, x=x: Dense(a(x)), x)
case("dense-batch", lambda a: Dense(a(real(2, 3, 4, 5))), real(2, 3, 4, 5))
case("dense-complex", lambda a: Dense(a(complex_(4, 3))), complex_(4, 3))

for n in (0, 17):
    x = real(n)
    case(f"diagonal-{n}", lambda a, x=x: Diagonal(a(x)), naive.diagonal(x))
case("dense-empty-batch", lambda a: Dense(a(real(0, 4, 5))), real(0, 4, 5))
case("diagonal-batch-complex", lambda a: Diagonal(a(complex_(2, 3))), naive.diagonal(complex_(2, 3)))

for m, n in ((9, 14), (40, 17), (3, 0)):
    triplets = random_sparse(m, n)
    case(f"sparse-{m}x{n}", lambda a, t=triplets: Sparse(a(coo(*t))), naive.sparse(*triplets), portable=False)
triplets = random_sparse(8, 8, data=complex_)
case("sparse-complex", lambda a, t=triplets: Sparse(a(coo(*t))), naive.sparse(*triplets), portable=False)
triplets = (np.array([2, 0, 2]), np.array([1, 3, 1]), np.array([4, 5, 6]), (4, 4))
case("sparse-integers", lambda a, t=triplets: Sparse(a(coo(*t))), naive.sparse(*triplets), portable=False)

for m, n, r in ((1, 2, 1), (17, 12, 5), (4, 3, 0), (0, 3, 2)):
    factors = real(m, r), real(n, r, seed=1)
    case(f"low_rank-{m}x{n}-{r}", lambda a, f=factors: LowRank(*map(a, f)), naive.low_rank(*factors))
factors = real(3, 1, 5, 2), real(2, 4, 2, seed=1)
case("low_rank-batch", lambda a, f=factors: LowRank(*map(a, f)), naive.low_rank(*factors))
factors = complex_(5, 2), real(4, 2)
case("low_rank-complex", lambda a, f=factors: LowRank(*map(a, f)), naive.low_rank(*factors))
factors = random_sparse(9, 6), random_sparse(7, 6, seed=1)
SPARSE_FACTORS = naive.low_rank(naive.sparse(*factors[0]), naive.sparse(*factors[1]))
case("low_rank-sparse", lambda a, f=factors: LowRank(*(a(coo(*t)) for t in f)), SPARSE_FACTORS, portable=False)

# --- Toeplitz ---------------------------------------------------------------------------------------------------------

for n in SIZES:
    x = real(2 * n - 1)
    case(f"toeplitz-{n}", lambda a, x=x: Toeplitz(a(x)), naive.toeplitz(x))
for columns in (1, 4, 10):
    x = real(10)
    case(
        f"toeplitz-{11 - columns}x{columns}",
        lambda a, x=x, c=columns: Toeplitz(a(x), columns=(c,)),
        naive.toeplitz(x, 1, (columns,)),
    )
case("toeplitz-heads", lambda a: Toeplitz(a(real(2, 3, 9))), naive.toeplitz(real(2, 3, 9)))
case("toeplitz-empty-batch", lambda a: Toeplitz(a(real(0, 9))), np.zeros((0, 5, 5)))
case("toeplitz-complex", lambda a: Toeplitz(a(complex_(13))), naive.toeplitz(complex_(13)))
case("toeplitz-3x5", lambda a: Toeplitz(a(real(5, 9)), levels=2), naive.toeplitz(real(5, 9), 2))
case("toeplitz-1x4", lambda a: Toeplitz(a(real(1, 7)), levels=2), naive.toeplitz(real(1, 7), 2))
case("toeplitz-3x5x7", lambda a: Toeplitz(a(real(5, 9, 13)), levels=3), naive.toeplitz(real(5, 9, 13), 3))
case("toeplitz-complex-2x3", lambda a: Toeplitz(a(complex_(3, 5)), levels=2), naive.toeplitz(complex_(3, 5), 2))
case(
    "toeplitz-rectangular-2",
    lambda a: Toeplitz(a(real(6, 8)), levels=2, columns=(2, 6)),
    naive.toeplitz(real(6, 8), 2, (2, 6)),
)
case(
    "toeplitz-column-row",
    lambda a: Toeplitz.from_column_row(a(real(4)), a(real(6, seed=1))),
    naive.toeplitz(np.concatenate([real(6, seed=1)[:0:-1], real(4)]), 1, (6,)),
)
case(
    "toeplitz-function",
    lambda a: Toeplitz.from_function(lambda s, t: a(1.0 / (1 + s * s + 2.0 * abs(t - 1))), (3, 4)),
    naive.toeplitz([[1.0 / (1 + s * s + 2.0 * abs(t - 1)) for t in range(-3, 4)] for s in range(-2, 3)], 2),
)
x = np.exp(-np.square(np.arange(-7.0, 8.0)) / 8).astype(np.float32).astype(np.float64)
case(
    "toeplitz-separable",
    lambda a, x=x: Toeplitz(a(np.multiply.outer(x, x)), levels=2),
    naive.toeplitz(x[:, None] * x, 2),
)
case("toeplitz-constant", lambda a: Toeplitz(a(np.full((2, 129), 0.75))), np.full((2, 65, 65), 0.75))

# --- Causal -----------------------------------------------------------------------------------------------------------

for n in (0, 1, 2, 17, 130):
    x = gates(n)
    case(f"causal-{n}", lambda _, n=n: Causal(n, decay=0.75), naive.causal(n, 0.75))
    case(f"causal-gates-{n}", lambda a, x=x: Causal(x.size, decay=a(x)), naive.causal(n, x))
case("causal-sums", lambda _: Causal(17), naive.causal(17))
case("causal-upper", lambda a: Causal(9, decay=a(gates(9)), upper=True), naive.causal(9, gates(9), upper=True))
case("causal-negative-upper", lambda _: Causal(9, decay=-0.5, upper=True), naive.causal(9, -0.5, upper=True))
case("causal-heads", lambda a: Causal(9, decay=a(gates(2, 3, 9))), naive.causal(9, gates(2, 3, 9)))
case("causal-heads-constant", lambda a: Causal(9, decay=a(gates(3, 1))), naive.causal(9, gates(3, 1)))
case("causal-complex", lambda _: Causal(7, decay=0.5 + 0.5j), naive.causal(7, 0.5 + 0.5j))
case("causal-complex-gates", lambda a: Causal(7, decay=a(complex_(7) / 4)), naive.causal(7, complex_(7) / 4))

# --- the algebra ------------------------------------------------------------------------------------------------------

N = 15
T, C, F, G, D = real(2 * N - 1), gates(N), real(N, 3), real(N, 3, seed=1), real(N, seed=2)
S = random_sparse(N, N)
dT, dC, dR, dD, dS = naive.toeplitz(T), naive.causal(N, C), naive.low_rank(F, G), naive.diagonal(D), naive.sparse(*S)
d2 = naive.toeplitz(real(5, 9), 2)


def t(a):
    return Toeplitz(a(T))


def t2(a):
    return Toeplitz(a(real(5, 9)), levels=2)


def c(a):
    return Causal(N, decay=a(C))


def r(a):
    return LowRank(a(F), a(G))


def d(a):
    return Diagonal(a(D))


def s(a):
    return Sparse(a(coo(*S)))


def densely(M, X):
    """M^-1 X by elimination."""
    xp, dense = arrays.namespace(X), M._placed(X).to_dense()
    return xp.linalg.solve(*arrays.as_same_kind(dense, X))


case("inverse", lambda a: Inverse(t2(a) + 9.0 * Diagonal(a(np.ones(15))), densely), np.linalg.inv(d2 + 9 * np.eye(15)))
case("sum", lambda a: t(a) + c(a), dT + dC)
case("sum-many", lambda a: t(a) + c(a) - d(a) + r(a) + t2(a) - r(a), dT + dC - dD + d2)
case("sum-batch", lambda a: t(a) + Toeplitz(a(real(3, 5, 9)), levels=2), dT + naive.toeplitz(real(3, 5, 9), 2))
case("sum-sparse", lambda a: s(a) + t(a), dS + dT, portable=False)
case("plus-scalar", lambda a: c(a) + 0.5, dC + 0.5)
case("plus-complex", lambda a: c(a) + (0.5 - 2j), dC + (0.5 - 2j))
case("multiple", lambda a: 3 * c(a), 3 * dC)
case("multiple-complex", lambda a: -2j * c(a), -2j * dC)
case("multiple-of-sum", lambda a: (t(a) + c(a)) / 4, (dT + dC) / 4)
case("product", lambda a: t(a) @ c(a), dT @ dC)
case("product-three", lambda a: t(a) @ (c(a) @ t2(a)).T, dT @ (dC @ d2).T)
case(
    "product-rectangular", lambda a: Toeplitz(a(real(19)), columns=(N,)) @ c(a), naive.toeplitz(real(19), 1, (N,)) @ dC
)
case("product-sparse", lambda a: s(a) @ t(a), dS @ dT, portable=False)
case("hadamard-toeplitz", lambda a: t(a) * r(a), dT * dR)
case("hadamard-toeplitz-2", lambda a: t2(a) * r(a), d2 * dR)
case(
    "hadamard-toeplitz-complex",
    lambda a: Toeplitz(a(complex_(2 * N - 1))) * r(a),
    naive.toeplitz(complex_(2 * N - 1)) * dR,
)
case("hadamard-causal", lambda a: c(a) * r(a), dC * dR)
case("hadamard-causal-upper", lambda a: c(a).T * r(a), dC.T * dR)
case(
    "hadamard-causal-long",
    lambda a: Causal(130, decay=0.9) * LowRank(a(real(130, 2)), a(real(130, 2, seed=1))),
    naive.causal(130, 0.9) * naive.low_rank(real(130, 2), real(130, 2, seed=1)),
)
case("hadamard-causal-complex", lambda a: Causal(N, decay=0.9j) * r(a), naive.causal(N, 0.9j) * dR)
case(
    "hadamard-complex-features",
    lambda a: c(a) * LowRank(a(complex_(N, 3)), a(G)),
    dC * naive.low_rank(complex_(N, 3), G),
)
case(
    "hadamard-heads",
    lambda a: Causal(5, decay=a(gates(3, 5))) * LowRank(a(real(2, 1, 5, 2)), a(real(5, 2))),
    naive.causal(5, gates(3, 5)) * naive.low_rank(real(2, 1, 5, 2), real(5, 2)),
)
case(
    "hadamard-rectangular",
    lambda a: Toeplitz(a(real(9)), columns=(4,)) * LowRank(a(real(6, 2)), a(real(4, 2))),
    naive.toeplitz(real(9), 1, (4,)) * naive.low_rank(real(6, 2), real(4, 2)),
)
case(
    "hadamard-dense-rank",
    lambda a: r(a) * LowRank(a(real(N, 7)), a(real(N, 7, seed=3))),
    dR * naive.low_rank(real(N, 7), real(N, 7, seed=3)),
)
case("hadamard-sum", lambda a: (t(a) + c(a)) * r(a), (dT + dC) * dR)
case("hadamard-product-mask", lambda a: (t(a) @ c(a)) * r(a), (dT @ dC) * dR)
case("hadamard-rank-0", lambda a: t(a) * LowRank(a(real(N, 0)), a(real(N, 0))), np.zeros((N, N)))
case(
    "hadamard-rank-0-heads",
    lambda a: Toeplitz(a(real(2, 2 * N - 1))) * LowRank(a(real(N, 0)), a(real(N, 0))),
    np.zeros((2, N, N)),
)
case("hadamard-sparse", lambda a: s(a) * t(a), dS * dT, portable=False)
case(
    "hadamard-sparse-factors",
    lambda a: Toeplitz(a(real(15)), columns=(7,)) * LowRank(*(a(coo(*f)) for f in factors)),
    naive.toeplitz(real(15), 1, (7,)) * SPARSE_FACTORS,
    portable=False,
)
case("nested", lambda a: ((t(a) * r(a) + 2 * c(a)) @ d(a)) * r(a) + 1, ((dT * dR + 2 * dC) @ dD) * dR + 1)
case("nested-transposed", lambda a: ((c(a) * r(a)) @ (t2(a) - 1j * d(a))).T, ((dC * dR) @ (d2 - 1j * dD)).T)

# --- Kronecker --------------------------------------------------------------------------------------------------------

A, B, E = real(2, 3), complex_(3, 2), real(2, 1, 3, 2)
case("kronecker-one", lambda a: Kronecker([Dense(a(A))]), A)
case("kronecker-two", lambda a: kron(Dense(a(A)), c(a)), naive.kronecker(A, dC))
case(
    "kronecker-three",
    lambda a: kron(Dense(a(A)), kron(Toeplitz(a(real(19)), columns=(N,)), Dense(a(A)).T)),
    naive.kronecker(A, naive.toeplitz(real(19), 1, (N,)), A.T),
)
case("kronecker-complex", lambda a: kron(Dense(a(B)), Dense(a(A))), naive.kronecker(B, A))
case(
    "kronecker-heads",
    lambda a: kron(Dense(a(real(3, 1, 2))), Dense(a(E)), d(a)),
    naive.kronecker(real(3, 1, 2), E, dD),
)
case("kronecker-sparse", lambda a: kron(s(a), Causal(2)), naive.kronecker(dS, naive.causal(2)), portable=False)
case("kronecker-empty", lambda a: kron(Dense(a(real(0, 3))), Dense(a(A))), np.zeros((0, 9)))
case("kronecker-1", lambda a: kron(Diagonal(a(real(1))), Causal(1)), naive.diagonal(real(1)))
case(
    "kronecker-sum",
    lambda a: kronecker_sum(c(a), t2(a)),
    naive.kronecker(dC, np.eye(N)) + naive.kronecker(np.eye(N), d2),
)
case(
    "hadamard-kronecker",
    lambda a: kron(Causal(3), Toeplitz(a(real(9)))) * r(a),
    naive.kronecker(naive.causal(3), naive.toeplitz(real(9))) * dR,
)

# --- blocks and global tokens -----------------------------------------------------------------------------------------

HEADS = naive.toeplitz(real(2, 9))
case("block", lambda a: BlockDiagonal([c(a), Dense(a(A)), d(a)]), naive.block_diagonal(dC, A, dD))
case("block-one", lambda a: BlockDiagonal([t(a)]), dT)
case(
    "block-empty",
    lambda a: BlockDiagonal([Causal(0), Dense(a(real(0, 3))), Causal(2)]),
    naive.block_diagonal(np.zeros((0, 3)), naive.causal(2)),
)
case("block-nothing", lambda a: BlockDiagonal([Dense(a(real(3, 0)))]), np.zeros((3, 0)))
case(
    "block-heads",
    lambda a: BlockDiagonal([Toeplitz(a(real(2, 9))), Causal(2), Dense(a(B))]),
    naive.block_diagonal(HEADS, naive.causal(2), B),
)
case(
    "block-nested",
    lambda a: BlockDiagonal([r(a), BlockDiagonal([Causal(1), t2(a)])]),
    naive.block_diagonal(dR, np.ones((1, 1)), d2),
)
case(
    "block-sparse",
    lambda a: BlockDiagonal([s(a), Causal(3), s(a)]),
    naive.block_diagonal(dS, naive.causal(3), dS),
    portable=False,
)
case(
    "block-many",
    lambda _: BlockDiagonal([Causal(n) for n in range(8)]),
    naive.block_diagonal(*(naive.causal(n) for n in range(8))),
)
case(
    "hadamard-block",
    lambda a: BlockDiagonal([Causal(5), Toeplitz(a(real(19)))]) * r(a),
    naive.block_diagonal(naive.causal(5), naive.toeplitz(real(19))) * dR,
)
case("tokens", lambda a: with_global_tokens(t2(a)), naive.with_global_tokens(d2))
case("tokens-value", lambda a: with_global_tokens(c(a), 3, 0.5), naive.with_global_tokens(dC, 3, 0.5))
case(
    "tokens-rectangular",
    lambda a: with_global_tokens(Dense(a(A)), 2, a(np.array(0.25))),
    naive.with_global_tokens(A, 2, 0.25),
)
case("tokens-heads", lambda a: with_global_tokens(c(a), 1, a(real(2, 1))), naive.with_global_tokens(dC, 1, real(2, 1)))
case(
    "tokens-heads-both",
    lambda a: with_global_tokens(Toeplitz(a(real(2, 9))), 1, a(complex_(2))),
    naive.with_global_tokens(HEADS, 1, complex_(2)),
)
case("tokens-none", lambda a: with_global_tokens(c(a), 0, 1j), naive.with_global_tokens(dC, 0, 1j))
case("tokens-only", lambda _: with_global_tokens(Causal(0), 2), np.ones((2, 2)))
case(
    "tokens-empty-columns",
    lambda a: with_global_tokens(Dense(a(real(3, 0))), 1, 0.5),
    naive.with_global_tokens(real(3, 0), 1, 0.5),
)
case(
    "hadamard-tokens",
    lambda a: with_global_tokens(Toeplitz(a(real(27))), 1, 0.5) * r(a),
    naive.with_global_tokens(naive.toeplitz(real(27)), 1, 0.5) * dR,
)

# --- functions of Hermitian matrices ----------------------------------------------------------------------------------


def hermitian(A):
    """The Hermitian matrix with the lower triangle of A."""
    lower = np.tril(A, -1)
    return lower + np.swapaxes(lower, -1, -2).conj() + np.eye(A.shape[-1]) * A.real


def decay(x):
    return np.exp(-x / 4)


def wave(x):
    return np.exp(-1j * x / 4)


EVEN, HERMITIAN, POTENTIAL = hermitian(real(2, 9, 9)), hermitian(complex_(7, 7)), abs(real(17))
LAPLACIAN = naive.toeplitz(np.concatenate([np.zeros(15), [-1.0, 2.0, -1.0], np.zeros(15)]))
case(
    "function-toeplitz",
    lambda a: matrix_function(Toeplitz.from_column_row(a(LAPLACIAN[0])), decay, tol=1e-13),
    naive.matrix_function(LAPLACIAN, decay),
)
case(
    "function-heads",
    lambda a: matrix_function(Dense(a(EVEN)), decay, tol=1e-12),
    naive.matrix_function(EVEN, decay),
)
case(
    "function-complex",
    lambda a: matrix_function(Dense(a(HERMITIAN)), wave, tol=1e-12),
    naive.matrix_function(HERMITIAN, wave),
)
case(
    "function-many",
    lambda a: matrix_function(Toeplitz.from_column_row(a(LAPLACIAN[0])), lambda x: np.stack([x**2 / 8, 1 + 0 * x])),
    np.stack([LAPLACIAN @ LAPLACIAN / 8, np.eye(17)]),
)
case(
    "function-sparse",
    lambda a: matrix_function(Sparse(a(scipy.sparse.coo_array(LAPLACIAN))) + Diagonal(a(POTENTIAL)), decay, tol=1e-13),
    naive.matrix_function(LAPLACIAN + np.diag(POTENTIAL), decay),
    portable=False,
)
for x in (real(0), real(1), real(2)):
    case(
        f"function-{x.size}",
        lambda a, x=x: matrix_function(Diagonal(a(x)), decay, tol=1e-13),
        naive.diagonal(decay(x)),
    )

# --- walks ------------------------------------------------------------------------------------------------------------

c4, c24 = real(4), real(2, 4)
case("series", lambda a: PowerSeries(c(a) * 0.5, a(c4)), naive.power_series(dC / 2, c4))
case("series-heads", lambda a: PowerSeries(Dense(a(real(7, 7))), a(c24)), naive.power_series(real(7, 7), c24))
case("series-constant", lambda a: PowerSeries(d(a), a(real(3, 1))), naive.power_series(dD, real(3, 1)))
case("series-complex", lambda a: PowerSeries(Dense(a(B @ A)), a(complex_(3))), naive.power_series(B @ A, complex_(3)))
W = np.triu(np.abs(real(12, 12)) * (real(12, 12, seed=1) > 0.7), 1)
W = W + W.T
W[4] = W[:, 4] = 0
WALK = coo(*np.nonzero(W), W[np.nonzero(W)], W.shape)
case(
    "walk",
    lambda a: random_walk_kernel(a(WALK), 4, stop=0.25, discount=0.5),
    naive.random_walk_kernel(naive.transition(W), 0.375 ** np.arange(4)),
    portable=False,
)
case(
    "walk-heads",
    lambda a: RandomWalkKernel(PowerSeries(Sparse(a(WALK)), a(abs(real(2, 3)))), 0.5),
    naive.random_walk_kernel(W, abs(real(2, 3)), 0.5),
    portable=False,
)
case(
    "walk-attention",
    lambda a: random_walk_kernel(a(WALK), 2, alpha=0.0) * LowRank(a(real(12, 2)), a(real(12, 2, seed=1))),
    naive.random_walk_kernel(naive.transition(W), [1, 1], 0) * naive.low_rank(real(12, 2), real(12, 2, seed=1)),
    portable=False,
)

# --- functions of graph Laplacians ------------------------------------------------------------------------------------


def graph(n, *, seed=0):
    """Weights of a random graph with a loop, and an isolated node if it has three or more."""
    half = np.triu(np.abs(real(n, n, seed=seed)) * (np.random.default_rng(seed).random((n, n)) < 0.4), 1)
    half[:1, :1] = 0.75
    if n > 2:
        half[n // 2] = half[:, n // 2] = 0
    return half + np.triu(half, 1).T


def edges(W):
    return scipy.sparse.coo_array(W)


TIMES = np.array([0.25, 1.5])
GRAPH = graph(11)
for W in (graph(0), graph(2)):
    case(
        f"diffusion-{len(W)}",
        lambda a, W=W: diffusion_kernel(a(edges(W)), 0.5, tol=1e-13),
        naive.spectral_filter(W, lambda x: np.exp(-0.5 * x)),
        portable=False,
    )
case(
    "diffusion-times",
    lambda a: diffusion_kernel(a(edges(GRAPH)), a(TIMES), tol=1e-13),
    np.stack([naive.spectral_filter(GRAPH, lambda x, t=t: np.exp(-t * x)) for t in TIMES]),
    portable=False,
)
case(
    "filter-random-walk",
    lambda a: spectral_filter(a(edges(GRAPH)), responses.matern(1.5, 1.25), kind="random_walk", tol=1e-13),
    naive.spectral_filter(GRAPH, lambda x: (1 + 1.25**2 * x / 3) ** -1.5, "random_walk"),
    portable=False,
)
case(
    "filter-callable",
    lambda a: spectral_filter(a(edges(GRAPH)), wave, kind="symmetric", tol=1e-13),
    naive.spectral_filter(GRAPH, wave, "symmetric"),
    portable=False,
)

CHAIN = np.diag(np.r_[np.linspace(1, 1.5, 23), 0], 1)
CHAIN = CHAIN + CHAIN.T
case(
    "diffusion-long",  # long enough for a resolvent
    lambda a: diffusion_kernel(a(edges(CHAIN)), a(np.array([64.0, 70.0])), kind="random_walk", tol=1e-12),
    np.stack([naive.spectral_filter(CHAIN, lambda x, t=t: np.exp(-t * x), "random_walk") for t in (64, 70)]),
    portable=False,
)

# --- Hypercube --------------------------------------------------------------------------------------------------------

for n in (1, 2, 5, 8):
    x = real(n)
    case(f"hypercube-{n - 1}", lambda a, x=x: Hypercube(a(x)), naive.hypercube(x))
case("hypercube-heads", lambda a: Hypercube(a(real(2, 1, 4))), naive.hypercube(real(2, 1, 4)))
case("hypercube-complex", lambda a: Hypercube(a(complex_(4))), naive.hypercube(complex_(4)))
x = real(5)
case(
    "hadamard-hypercube",
    lambda a, x=x: Hypercube(a(x)) * LowRank(a(real(16, 2)), a(real(16, 2, seed=1))),
    naive.hypercube(x) * naive.low_rank(real(16, 2), real(16, 2, seed=1)),
)

# --- bands and buckets ------------------------------------------------------------------------------------------------

for n in (0, 1, 2, 17, 150):
    x = real(5)
    case(f"band-{n}", lambda a, x=x, n=n: Band(a(x), n), naive.band(x, n))
case("band-lower", lambda a: Band(a(real(4)), 9, upper=0), naive.band(real(4), 9, 0))
case("band-upper", lambda a: Band(a(real(6)), 9, upper=4), naive.band(real(6), 9, 4))
case("band-wide", lambda a: Band(a(real(200)), 70, upper=150), naive.band(real(200), 70, 150))
case("band-heads", lambda a: Band(a(real(2, 1, 3)), 8), naive.band(real(2, 1, 3), 8))
case("band-complex", lambda a: Band(a(complex_(7)), 5), naive.band(complex_(7), 5))
case("hadamard-band", lambda a: Band(a(real(5)), N) * r(a), naive.band(real(5), N) * dR)
for n in (0, 1, 2, 17):
    x = real(4)
    case(f"buckets-{n}", lambda a, x=x, n=n: Buckets(a(x), (-3, 0, 5), n), naive.buckets(x, (-3, 0, 5), n))
case("buckets-one", lambda a: Buckets(a(real(1)), (), 4), naive.buckets(real(1), (), 4))
case("buckets-far", lambda a: Buckets(a(real(3)), (-90, 90), 4), naive.buckets(real(3), (-90, 90), 4))
ORDER = (2, 0, 1, 0, 2)
case(
    "buckets-shared",
    lambda a: Buckets(a(complex_(2, 4)), (-5, -1, 2, 6), 9, order=ORDER),
    naive.buckets(complex_(2, 4), (-5, -1, 2, 6), 9, ORDER),
)
case("hadamard-buckets", lambda a: Buckets(a(real(3)), (0, 2), N) * r(a), naive.buckets(real(3), (0, 2), N) * dR)

# --- trees ------------------------------------------------------------------------------------------------------------


def random_forest(n, *, trees=1, seed=0):
    """Parents of random recursive trees whose nodes are numbered at random."""
    rng = np.random.default_rng([seed, n])
    parents = [-1 if i < trees else int(rng.integers(i)) for i in range(n)]
    names = rng.permutation(n)
    shuffled = np.full(n, -1)
    for i, p in enumerate(parents):
        shuffled[names[i]] = names[p] if p >= 0 else -1
    return shuffled


RATES = np.array([0.25, 0.5])
for n in (0, 1, 2, 17, 150):
    P, lengths = random_forest(n), abs(real(n))
    case(
        f"tree_decay-{n}",
        lambda a, P=P, w=lengths: tree_decay(as_forest(parents=P, lengths=w), a(RATES[:1])),
        naive.tree_decay(P, np.exp(-RATES[:1, None] * lengths)),
    )
P, lengths = random_forest(12, trees=3), abs(real(12))
case(
    "tree_decay-heads",
    lambda a, P=P, w=lengths: tree_decay(as_forest(parents=P, lengths=w), a(RATES)),
    naive.tree_decay(P, np.exp(-RATES[:, None] * lengths)),
)
case(
    "tree_decay-growth",
    lambda a, P=P, w=lengths: tree_decay(as_forest(parents=P, lengths=w), a(np.array(-0.5))),
    naive.tree_decay(P, np.exp(0.5 * lengths)),
)
P_FOREST = as_forest(parents=P)
case("tree_decay-factors", lambda a: tree_decay(P_FOREST, factors=a(gates(2, 12))), naive.tree_decay(P, gates(2, 12)))
case(
    "tree_decay-complex",
    lambda a: tree_decay(P_FOREST, factors=a(complex_(12) / 2)),
    naive.tree_decay(P, complex_(12) / 2),
)
for n in (1, 60):
    P, w, x = random_forest(n), abs(real(n)), real(3)
    case(
        f"tree_decay-polynomial-{n}",
        lambda a, P=P, w=w, x=x: tree_decay(as_forest(parents=P, lengths=w), 0.75, polynomial=a(x)),
        naive.tree_mask(P, w, lambda d, x=x: np.polyval(x[::-1], d) * np.exp(-0.75 * d)),
    )
P, w = random_forest(12, trees=3), abs(real(12))
case(
    "tree_decay-polynomial-complex",
    lambda a, P=P, w=w: tree_decay(as_forest(parents=P, lengths=w), 0.25 + 1j, polynomial=a(complex_(2))),
    naive.tree_mask(P, w, lambda d: np.polyval(complex_(2)[::-1], d) * np.exp(-(0.25 + 1j) * d)),
)
case(
    "hadamard-tree_decay",
    lambda a: tree_decay(P_FOREST, a(np.array(0.5))) * LowRank(a(real(12, 2)), a(real(12, 2, seed=1))),
    naive.tree_decay(P, np.full(12, np.exp(-0.5))) * naive.low_rank(real(12, 2), real(12, 2, seed=1)),
)

# --- exponential sums and state space ---------------------------------------------------------------------------------

for n in (0, 1, 2, 17, 150):
    x = real(3), gates(3)
    case(f"exponential_sum-{n}", lambda a, x=x, n=n: ExponentialSum(*map(a, x), n), naive.exponential_sum(*x, n))
case(
    "exponential_sum-heads-causal",
    lambda a: ExponentialSum(a(real(2, 1, 3)), a(gates(3)), 9, causal=True),
    naive.exponential_sum(real(2, 1, 3), gates(3), 9, causal=True),
)
case(
    "exponential_sum-complex-upper",
    lambda a: ExponentialSum(a(complex_(2)), a(complex_(2) / 4), 9, causal=True, upper=True),
    naive.exponential_sum(complex_(2), complex_(2) / 4, 9, causal=True, upper=True),
)
x = real(3), gates(3)
case(
    "hadamard-exponential_sum",
    lambda a, x=x: ExponentialSum(*map(a, x), N) * r(a),
    naive.exponential_sum(*x, N) * dR,
)


def states(*batch, rank=3, data=real):
    """A transition of norm at most 3/4, what enters and what is seen."""
    a = data(*batch, rank, rank)
    size = np.linalg.svd(a, compute_uv=False).max(axis=-1, initial=0)  # NumPy 2.1 has no norm of an empty matrix
    a = (0.75 * a / size[..., None, None]).astype(np.complex64 if data is complex_ else "f4")
    return a.astype(complex if data is complex_ else float), data(*batch, rank, seed=1), data(rank, seed=2)


for n in (0, 1, 17, 150):
    x, y = states(), real(4)
    case(
        f"state_space-{n}",
        lambda a, x=x, y=y, n=n: StateSpace(*map(a, x), n, near=a(y)),
        naive.state_space(*x, n, y),
    )
case(
    "state_space-heads-causal",
    lambda a: StateSpace(*map(a, states(2, 1)), 9, near=a(real(3, 2)), causal=True),
    naive.state_space(*states(2, 1), 9, real(3, 2), causal=True),
)
case(
    "state_space-complex-upper",
    lambda a: StateSpace(*map(a, states(data=complex_)), 9, causal=True, upper=True),
    naive.state_space(*states(data=complex_), 9, causal=True, upper=True),
)
x = states()
case(
    "hadamard-state_space",
    lambda a, x=x: StateSpace(*map(a, x), N, near=a(real(2)), causal=True) * r(a),
    naive.state_space(*x, N, real(2), causal=True) * dR,
)

# --- functions of the distance in a tree ------------------------------------------------------------------------------


def table(values):
    """Values as a function of whole distances, 0 beyond."""
    return lambda d: values[..., int(d)] if d < values.shape[-1] else 0 * values[..., 0]


for n in (0, 1, 2, 17, 150):
    P, w, f = random_forest(n), np.round(2 * abs(real(n))), real(9)
    case(
        f"tree_mask-{n}",
        lambda a, P=P, w=w, f=f: tree_mask(as_forest(parents=P, lengths=w), a(f)),
        naive.tree_mask(P, w, table(f)),
    )
P = random_forest(60, trees=3)
case(
    "tree_mask-heads",
    lambda a, P=P: tree_mask(as_forest(parents=P), a(real(2, 5))),
    np.stack([naive.tree_mask(P, np.ones(60), table(f)) for f in real(2, 5)]),
)
case(
    "tree_mask-complex",
    lambda a, P=P: tree_mask(as_forest(parents=P), a(complex_(30))),
    naive.tree_mask(P, np.ones(60), table(complex_(30))),
)
case("tree_mask-nothing", lambda a, P=P: tree_mask(as_forest(parents=P), a(real(0))), np.zeros((60, 60)))


def bell(d):
    return np.exp(-d * d / 4)


for n in (1, 120):
    P, w = random_forest(n), abs(real(n))
    case(
        f"tree_mask-function-{n}",
        lambda _, P=P, w=w: tree_mask(as_forest(parents=P, lengths=w), bell),
        naive.tree_mask(P, w, bell),
        portable=False,
    )

# --- visits of Markov chains ------------------------------------------------------------------------------------------


def random_chain(n, *, seed=0):
    """Rows, columns and values of a transition matrix whose entries are multiples of 1 / 64, all states in a ring."""
    rng = np.random.default_rng([seed, n])
    counts = np.zeros((n, n))
    for i in range(n):
        counts[i, (i + 1) % n] = 16
        np.add.at(counts[i], rng.integers(0, n, 3), 16)
    rows, columns = counts.nonzero()
    return rows, columns, counts[rows, columns] / 64, (n, n)


def jumps(A):
    """Without the diagonal."""
    return scipy.sparse.csr_array(A - np.diag(np.diag(A)))


for n, g, targets in (
    (1, 0.125, ()),
    (2, 0.5, ()),
    (17, 0.75, ()),
    (17, 0.75, (3, 8)),
    (2, 1.0, (1,)),
    (3, 1.0, (0, 1, 2)),
):
    triplets = random_chain(n)
    case(
        f"visits-{n}-{len(targets)}",
        lambda a, t=triplets, g=g, f=targets: Visits(a(coo(*t)), g, targets=f),
        naive.visits(naive.sparse(*triplets), g, targets),
        portable=False,
        waits=True,
    )
triplets = random_chain(6)
case(
    "visits-complex",
    lambda a, t=triplets: Visits(a(coo(*t)).astype("complex128"), 0.5 + 0.25j),
    naive.visits(naive.sparse(*triplets), 0.5 + 0.25j),
    portable=False,
    waits=True,
)
triplets = random_chain(N)
case(
    "hadamard-visits",
    lambda a, t=triplets: Visits(a(coo(*t)), 0.75) * r(a),
    naive.visits(naive.sparse(*triplets), 0.75) * dR,
    portable=False,
    waits=True,
)

for n in (1, 2, 17):
    steps = jumps(naive.sparse(*random_chain(n)))
    for side, place in ("rows", lambda M: M), ("columns", lambda M: M.T):
        case(
            f"occupation-{side}-{n}",
            lambda _, steps=steps, place=place: place(Occupation(3.0, rates=Rates(steps, 1e-15))),
            place(naive.occupation(steps.toarray() - np.diag(steps.sum(axis=1)), 3.0)),
            portable=False,
            waits=True,
        )


def sampled_in(a, kernel):
    """A kernel with its modulations in the library and precision under test."""
    return kernel.with_parameters({name: a(f) for name, f in kernel.parameters.items() if name != "alpha"})


# Walks of a seed are what they are: their features are tested against loops in tests/graphs.
SAMPLED = {
    "walks-cosine": lambda W: random_walk_kernel(W, 3, walks=4, discount=0.5, alpha=0.75, rng=5),
    "walks-series": lambda W: graph_random_features(W, [1.0, 0.5, 0.0625], walks=4, stop=0.25, rng=5),
    "walks-odd": lambda W: graph_random_features(W, [0.0, -1.0, 0.5], walks=3, stop=0.25, rng=5),
}


def case_of_walks(name, sampled, W):
    kernel = sampled(W)
    dense = kernel.left.toarray() @ kernel.right.toarray().T
    case(name, lambda a: sampled_in(a, sampled(W)), dense, portable=False)


for name, sampled in SAMPLED.items():
    case_of_walks(name, sampled, naive.sparse(*random_chain(9)))
