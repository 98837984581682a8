"""The calls that `tests.fuzz` draws: one function a kind, each with its definition."""

import copy
import itertools
import pickle

import numpy as np
import scipy.linalg
import scipy.sparse

import structmask as sm
from tests import naive, zoo
from tests.fuzz import WrongAnswerError, call, expect, expect_product

MATRICES = []


def matrix(function):
    """A kind of matrix: it draws one and its dense form, and is a kind of call itself."""
    MATRICES.append(function)

    def checked(draw):
        check(draw, *function(draw))

    checked.__name__ = function.__name__
    call(checked)
    return function


def check(draw, M, definition, scale=None):
    """One of the things that matrices do, and the product."""
    expect(draw, M.to_dense(), definition, scale=scale)
    with np.errstate(all="ignore"):
        dense = numbers(definition())
    *batch, m, n = dense.shape
    X = draw.array(*draw.choice((), (), (), tuple(batch), (2, *batch)), n, draw.size(0, 5))
    match draw.choice("right", "right", "left", "vector", "entries", "pickle", "transposed", "sum", "attention"):
        case "right":
            expect_product(draw, M, dense, X)
        case "left":
            y = draw.raw(3, m)
            expect_product(draw, M.mT, np.swapaxes(dense, -1, -2), y.T)
        case "vector":
            expect_product(draw, M, dense, draw.array(n))
        case "entries":
            rows, columns = draw.rng.integers(-m, m, 3 * bool(m)), draw.rng.integers(0, n, 2 * bool(n))
            if M.has_entries:
                expect(draw, M.entries(rows % max(m, 1), columns), lambda: dense[..., rows[:, None], columns])
            else:
                expect(draw, M.diagonal(), lambda: np.diagonal(dense, axis1=-2, axis2=-1))
        case "pickle":
            twin = draw.choice(copy.copy, copy.deepcopy, lambda M: pickle.loads(pickle.dumps(M)))(M)
            expect_product(draw, twin, dense, X)
        case "transposed":
            expect_product(draw, M.mH, np.swapaxes(dense, -1, -2).conj(), draw.raw(m, 2))
        case "sum":
            expect(draw, (2 * M - M.T.T / 4 + 0.5).to_dense(), 1.75 * dense + 0.5)
        case "attention":
            attention(draw, M, dense)
    str(sm.explain(M, columns=draw.size(1, 9)))


def attention(draw, M, dense):
    dtype = draw.choice("f8", "f8", "f4")
    q, k = np.exp(draw.raw(dense.shape[-2], 2, dtype=dtype) / 4), np.exp(draw.raw(dense.shape[-1], 2, dtype=dtype) / 4)
    v, eps = draw.array(dense.shape[-1], 3, dtype=dtype), draw.number(draw.choice(0.0, 0.5))
    out = sm.masked_attention(q, k, v, mask=M, features=None, eps=eps, method=draw.choice("auto", "dense", "stream"))
    with np.errstate(all="ignore"):
        A = dense * (numbers(q) @ numbers(k).T) + eps
        mass, size = A.sum(axis=-1), np.abs(A).sum(axis=-1)
        if draw.damage.startswith("huge") or not np.isfinite(v).all() or not (np.abs(mass) > 1e-2 * size).all():
            return  # nothing, or next to nothing, to divide by
    expect(draw, out, lambda: A @ v / mass[..., None], tolerance=1e-8 if M.error_bound < 1e-12 else 1e-5)


# --- structures -------------------------------------------------------------------------------------------------------


@matrix
def dense(draw):
    x = draw.array(*draw.batch(), draw.size(), draw.size())
    return sm.Dense(x), lambda: np.asarray(x)


@matrix
def diagonal(draw):
    x = draw.array(*draw.batch(), draw.size())
    return sm.Diagonal(x), lambda: naive.diagonal(x)


@matrix
def sparse(draw):
    m, n = draw.size(1), draw.size(1)
    rows, columns = draw.rng.integers(0, m, 2 * n), draw.rng.integers(0, n, 2 * n)
    x = draw.raw(2 * n, dtype=draw.choice("f8", "f4", "c16", "i8"))
    kind = draw.choice("csr", "csc", "coo", "lil", "dia", "bsr")
    A = scipy.sparse.coo_array((x, (rows, columns)), shape=(m, n)).asformat(kind)
    return sm.Sparse(A), A.toarray


@matrix
def low_rank(draw):
    m, n, r = draw.size(), draw.size(), draw.size(0, 5)
    left, right = draw.array(*draw.choice((), (2, 1)), m, r), draw.array(*draw.choice((), (3,)), n, r)
    return sm.LowRank(left, right), lambda: numbers(left) @ np.swapaxes(numbers(right), -1, -2)


@matrix
def toeplitz(draw):
    levels = draw.choice(1, 1, 1, 2, 2, 3)
    sides = [(draw.size(1, 12 // levels), draw.size(1, 12 // levels)) for _ in range(levels)]
    sides = sides if levels == 1 else [(min(m, 12), min(n, 12)) for m, n in sides]
    x = draw.array(*draw.batch(), *(m + n - 1 for m, n in sides))
    columns = tuple(n for _, n in sides)
    return sm.Toeplitz(x, levels=levels, columns=columns), lambda: naive.toeplitz(x, levels, columns)


@matrix
def toeplitz_function(draw):
    shape = tuple(draw.number(draw.size(1, 5)) for _ in range(draw.choice(1, 2)))
    M = sm.Toeplitz.from_function(lambda *s: 1.0 / (1 + sum(abs(x) for x in s)), shape)
    points = list(itertools.product(*map(range, shape)))
    return M, lambda: [[1 / (1 + sum(abs(a - b) for a, b in zip(i, j, strict=True))) for j in points] for i in points]


@matrix
def toeplitz_corner(draw):
    column, row = draw.array(draw.size(1)), draw.array(draw.size(1))
    rectangular = draw.happens(0.5)
    return (
        sm.Toeplitz.from_column_row(column, row if rectangular else None),
        lambda: scipy.linalg.toeplitz(column, row if rectangular else None),
    )


@matrix
def causal(draw):
    n, upper = draw.size(), draw.happens(0.3)
    gates = draw.array(*draw.batch(), n, dtype=draw.choice("f8", "f4", "c16"))
    a = draw.number(draw.choice(0.5, 1.0, -0.9, 0.0, 1.1)) if draw.happens(0.4) else np.tanh(gates)
    n = draw.number(n)
    return sm.Causal(n, decay=a, upper=upper), lambda: naive.causal(int(n), numbers(a), upper=upper)


@matrix
def band(draw):
    side, n = draw.size(1, 9), draw.number(draw.size())
    x, upper = draw.array(*draw.batch(), side), draw.choice(None, 0) if side % 2 else draw.size(0, 9) % side
    return sm.Band(x, n, upper=upper), lambda: naive.band(x, n, upper)


@matrix
def buckets(draw):
    edges = tuple(sorted(set(draw.rng.integers(-9, 9, draw.size(0, 4)).tolist())))
    x, n = draw.array(*draw.batch(), len(edges) + 1), draw.number(draw.size())
    return sm.Buckets(x, edges, n), lambda: naive.buckets(x, edges, n)


@matrix
def exponential_sum(draw):
    r, n, causal = draw.size(1, 4), draw.number(draw.size()), draw.happens(0.5)
    weights, decays = draw.array(*draw.batch(), r), np.tanh(draw.raw(r, dtype="f8"))
    upper = causal and draw.happens(0.5)
    return (
        sm.ExponentialSum(weights, decays, n, causal=causal, upper=upper),
        lambda: naive.exponential_sum(np.asarray(weights), decays, n, causal=causal, upper=upper),
    )


@matrix
def state_space(draw):
    r, n = draw.size(1, 4), draw.number(draw.size())
    a = draw.raw(r, r, dtype="f8")
    a, b, c = 0.75 * a / max(np.linalg.norm(a, 2), 0.1), draw.array(r, dtype="f8"), draw.array(r, dtype="f8")
    near = draw.choice(None, draw.raw(draw.size(0, 3), dtype="f8"))
    return (
        sm.StateSpace(a, b, c, n, near=near),
        lambda: naive.state_space(a, np.asarray(b), np.asarray(c), n, near),
    )


@matrix
def hypercube(draw):
    x = draw.array(*draw.batch(), draw.size(1, 6) % 7 + 1)
    return sm.Hypercube(x), lambda: naive.hypercube(x)


@matrix
def kronecker(draw):
    parts = [simple(draw) for _ in range(draw.choice(1, 2, 2))]
    return sm.kron(*(M for M, _ in parts)), lambda: naive.kronecker(*(numbers(f()) for _, f in parts))


@matrix
def block_diagonal(draw):
    parts = [simple(draw) for _ in range(draw.choice(1, 2, 3))]
    return sm.BlockDiagonal([M for M, _ in parts]), lambda: naive.block_diagonal(*(np.asarray(f()) for _, f in parts))


@matrix
def global_tokens(draw):
    (M, f), count, value = simple(draw), draw.number(draw.size(0, 3)), draw.number(0.5)
    return sm.with_global_tokens(M, count, value), lambda: naive.with_global_tokens(np.asarray(f()), count, value)


@matrix
def hadamard(draw):
    (M, f), r = draw.choice(*MATRICES[:13])(draw), draw.size(0, 3)
    left, right = draw.array(M.shape[-2], r), draw.raw(M.shape[-1], r)
    return M * sm.LowRank(left, right), lambda: np.asarray(f()) * (numbers(left) @ numbers(right).T)


@matrix
def algebra(draw):
    """Terms may cancel, and transforms round absolutely, so that errors count in the largest entries."""
    n = draw.size(1)
    parts = [square(draw, n) for _ in range(3)]
    (A, f), (B, g), (C, h) = parts
    a, b, c = (np.max(np.abs(part()), initial=0) for part in (f, g, h))
    if draw.happens(0.5):
        return A @ B.T - C, lambda: np.asarray(f()) @ np.asarray(g()).T - np.asarray(h()), n * a * b + c
    return (A + 2 * B) @ C, lambda: (np.asarray(f()) + 2 * np.asarray(g())) @ np.asarray(h()), n * (a + 2 * b) * c


@matrix
def kronecker_sum(draw):
    m, n = draw.size(1, 5) % 9 + 1, draw.size(1, 5) % 9 + 1
    (A, f), (B, g) = square(draw, m), square(draw, n)
    return sm.kronecker_sum(A, B), lambda: np.kron(f(), np.eye(n)) + np.kron(np.eye(m), g())


def numbers(x):
    """An array in double precision: booleans do not add up, and small integers overflow."""
    x = np.asarray(x)
    return x.astype(np.result_type(x, "f8"))


def simple(draw):
    """A small matrix without batch."""
    m, n = draw.size(0, 5) % 9, draw.size(0, 5) % 9
    x = draw.array(m, n)
    if draw.happens(0.5):
        return sm.Dense(x), lambda: np.asarray(x)
    return sm.Causal(m, decay=0.5), lambda: naive.causal(m, 0.5)


def square(draw, n):
    """A matrix (n, n) without batch."""
    x = draw.array(2 * n - 1, dtype="f8")
    return (
        draw.choice(
            (sm.Causal(n, decay=0.5), lambda: naive.causal(n, 0.5)),
            (sm.Toeplitz(x), lambda: scipy.linalg.toeplitz(x[n - 1 :], x[n - 1 :: -1])),
            (sm.Diagonal(x[:n]), lambda: np.diag(x[:n])),
            (sm.Dense(np.multiply.outer(x[:n], x[:n])), lambda: np.multiply.outer(x[:n], x[:n])),
        )
        if draw.damage == ""
        else (sm.Causal(n), lambda: naive.causal(n))
    )


# --- graphs -----------------------------------------------------------------------------------------------------------


def weights(draw, n, *, low=0.0):
    """A symmetric matrix of a random graph, in pieces now and then."""
    W = np.triu(draw.rng.random((n, n)) + low, 1) * (draw.rng.random((n, n)) < draw.choice(0.1, 0.3, 0.9))
    return W + W.T


def graph(draw, W):
    """One of the forms in which graphs come."""
    import networkx as nx

    form = draw.choice("dense", "csr", "coo", "networkx")
    if form == "dense":
        return draw.array_like(W)
    return nx.from_numpy_array(W) if form == "networkx" else scipy.sparse.csr_array(W).asformat(form)


@call
def as_adjacency(draw):
    n = draw.size(1)
    pairs = draw.rng.integers(0, n, (2, draw.size(0, 20)))
    pairs = pairs[:, pairs[0] != pairs[1]]
    _, first = np.unique(np.sort(pairs, axis=0), axis=1, return_index=True)
    pairs, values = pairs[:, first], draw.array(len(first), dtype="f8")
    n = draw.number(n)
    W = sm.as_adjacency(nodes=n, edges=draw.harmed(pairs, ("a row more", "list")), weights=values)
    expect(
        draw,
        W.toarray(),
        lambda: naive.adjacency(
            int(n), pairs.T, np.ones(len(first)) if values is None else np.asarray(values, float), directed=True
        ),
    )


@call
def laplacian(draw):
    W, kind = weights(draw, draw.size(0)), draw.choice("combinatorial", "symmetric", "random_walk", "none")
    if kind == "none":
        draw.damage = "kind"
    given = graph(draw, W)
    expect(draw, sm.laplacian(given, kind=kind).toarray(), lambda: naive.laplacian(dense_of(given), kind))


@call
def spectral_bound(draw):
    given, kind = graph(draw, weights(draw, draw.size(1))), draw.choice("combinatorial", "symmetric")
    bound, top = sm.spectral_bound(given, kind=kind), np.linalg.eigvalsh(naive.laplacian(dense_of(given), kind))[-1]
    if not bound >= top * (1 - 1e-12):
        msg = f"bound {bound} below {top}"
        raise WrongAnswerError(msg)


def dense_of(given):
    import networkx as nx

    if isinstance(given, nx.Graph):
        return nx.to_numpy_array(given)
    return given.toarray() if scipy.sparse.issparse(given) else np.asarray(given, dtype=float)


@matrix
def diffusion(draw):
    given, time = graph(draw, weights(draw, draw.size(0))), draw.number(draw.choice(0.0, 0.1, 1.0, 30.0))
    kind = draw.choice("combinatorial", "symmetric", "random_walk")
    return (
        sm.diffusion_kernel(given, time, kind=kind, tol=1e-10),
        lambda: naive.spectral_filter(
            dense_of(given), lambda x: np.exp(-np.multiply.outer(np.minimum(time, 1e3), x)), kind
        ),
    )


@matrix
def spectral_filter(draw):
    given, a = graph(draw, weights(draw, draw.size(0))), draw.number(draw.choice(0.1, 0.5, 2.0))
    response, f = draw.choice(
        (sm.responses.regularized(a), lambda x: 1 / (1 + a * a * x)),
        (lambda x: np.exp(-a * x), lambda x: np.exp(-a * x)),
        (sm.responses.heat(a), lambda x: np.exp(-a * x)),
        (sm.responses.matern(1.5, a), lambda x: (1 + a * a * x / 3) ** -1.5),
    )
    return (
        sm.spectral_filter(given, response, kind="symmetric", tol=1e-10),
        lambda: naive.spectral_filter(dense_of(given), f, "symmetric"),
    )


@call
def equations(draw):
    n = draw.size(1)
    given, u, t = graph(draw, weights(draw, n)), draw.array(n, dtype="f8"), draw.number(draw.choice(0.0, 0.5, 4.0))
    L = naive.laplacian(dense_of(given))
    if draw.happens(0.5):
        u_t = sm.heat_equation(given, u, t, tol=1e-10)
        expect(draw, u_t, lambda: scipy.linalg.expm(-t * L) @ u)
    else:
        u_t = sm.schrodinger_equation(given, u, t, tol=1e-10)
        expect(draw, u_t, lambda: scipy.linalg.expm(-1j * t * L) @ u)


@call
def wave(draw):
    n = draw.size(1)
    given, u = graph(draw, weights(draw, n)), draw.array(n, dtype="f8")
    t = draw.number(draw.choice(0.0, 0.5, 4.0))

    def definition():
        values, V = np.linalg.eigh(naive.laplacian(dense_of(given)))
        return V @ (np.cos(t * np.sqrt(np.maximum(values, 0))) * (V.T @ u))

    expect(draw, sm.wave_equation(given, u, t, tol=1e-10), definition, tolerance=1e-7)


@matrix
def grid(draw):
    shape = tuple(draw.number(draw.size(1, 4) % 7 + 1) for _ in range(draw.choice(1, 2)))
    time, periodic = draw.number(0.7), draw.happens(0.3)

    def definition():
        import networkx as nx

        periods = [periodic and side > 2 for side in shape]
        G = nx.grid_graph(shape[::-1], periodic=periods[::-1])
        W = nx.to_numpy_array(G, nodelist=sorted(G))
        for axis, side in enumerate(shape):
            if periodic and side == 2:  # both ways round
                step = np.kron(
                    np.kron(np.eye(int(np.prod(shape[:axis]))), np.ones((2, 2)) - np.eye(2)),
                    np.eye(int(np.prod(shape[axis + 1 :]))),
                )
                W = W + step
        return naive.spectral_filter(W, lambda x: np.exp(-min(time, 1e3) * x))

    return sm.grid_diffusion(shape, time, periodic=periodic), definition


@matrix
def complete(draw):
    n, t = draw.number(draw.size(1)), draw.number(0.3)
    return sm.complete_diffusion(n, t), lambda: scipy.linalg.expm(-min(t, 1e3) * (n * np.eye(n) - np.ones((n, n))))


@matrix
def cube_diffusion(draw):
    d, t = draw.size(0, 5) % 6, draw.number(0.3)
    bits = np.bitwise_count(np.arange(2**d)[:, None] ^ np.arange(2**d))
    W = (bits == 1).astype(float)
    return sm.hypercube_diffusion(d, t), lambda: naive.spectral_filter(W, lambda x: np.exp(-min(t, 1e3) * x))


@matrix
def hop_mask(draw):
    given, hops = graph(draw, weights(draw, draw.size(1))), draw.number(draw.size(0, 4))
    return sm.hop_mask(given, hops), lambda: naive.hop_mask(dense_of(given), min(hops, 99))


@matrix
def random_walk(draw):
    given, length = graph(draw, weights(draw, draw.size(1), low=0.1)), draw.number(draw.size(1, 5) % 6 + 1)
    discount, alpha = draw.number(0.75), draw.choice(0.0, 0.5, 1.0)

    def definition():
        P = naive.transition(dense_of(given))
        return naive.random_walk_kernel(P, (1.0 * discount) ** np.arange(length), alpha)  # integers overflow

    return sm.random_walk_kernel(given, length, discount=discount, alpha=alpha), definition


@call
def sampled_kernels(draw):
    W = weights(draw, draw.size(1), low=0.1)
    given, walks = graph(draw, W / max(1.0, np.abs(W).sum(axis=1).max())), draw.size(1, 5)
    seed, stop = int(draw.rng.integers(9)), draw.number(0.25)
    K = draw.choice(
        lambda: sm.graph_random_features(given, [1.0, 0.5, 0.125], walks=walks, stop=stop, rng=seed),
        lambda: sm.random_walk_kernel(given, 3, walks=walks, stop=stop, discount=0.5, rng=seed),
    )()
    again = K.to_dense()
    if not np.isfinite(again).all():
        msg = "walks are not finite"
        raise WrongAnswerError(msg)
    X = draw.raw(K.shape[-1], 2, dtype="f8")
    expect(draw, K @ X, again @ X)


# --- trees ------------------------------------------------------------------------------------------------------------


def tree(draw, *, whole=False):
    n = draw.size(0)
    parents, lengths = zoo.tree(draw.choice(*zoo.KINDS), n, int(draw.rng.integers(99))), draw.rng.random(n) + 0.01
    return parents, np.floor(3 * lengths) if whole else lengths


@call
def as_forest(draw):
    parents, lengths = tree(draw)
    given = draw.harmed(parents, ("negative", "all zero", "list", "a row more", "half", "none"))
    forest = sm.as_forest(parents=given, lengths=draw.harmed(lengths, ("nan", "a row more", "list", "text")))
    if not np.array_equal(forest.parents, np.maximum(np.asarray(given), -1)):
        msg = "other parents"
        raise WrongAnswerError(msg)


@matrix
def tree_decay(draw):
    (parents, lengths), rate = tree(draw), draw.number(draw.choice(0.5, 0.0, -0.1))
    return (
        sm.tree_decay(sm.as_forest(parents=parents, lengths=lengths), rate),
        lambda: naive.tree_decay(parents, np.exp(-rate * np.where(parents < 0, 0, lengths))),
    )


@matrix
def tree_factors(draw):
    parents, _ = tree(draw)
    factors = draw.array(len(parents), dtype="f8")
    return (
        sm.tree_decay(sm.as_forest(parents=parents), factors=factors),
        lambda: naive.tree_decay(parents, np.asarray(factors, float)),
    )


@matrix
def tree_table(draw):
    (parents, lengths), values = tree(draw, whole=True), draw.array(draw.size(1, 9), dtype="f8")
    lengths = np.where(parents < 0, 0, lengths)

    def f(d):
        return values[int(d)] if d < len(values) else 0.0

    if np.ndim(values) != 1:
        values = np.asarray(values).reshape(-1)  # a batch of one
        return sm.tree_mask(sm.as_forest(parents=parents, lengths=lengths), values), (
            lambda: naive.tree_mask(parents, lengths, f)
        )
    return (
        sm.tree_mask(sm.as_forest(parents=parents, lengths=lengths), values),
        lambda: naive.tree_mask(parents, lengths, f),
    )


def gaussian(d):
    return np.exp(-d * d)


def rational(d):
    return 1 / (1 + d)


def nearby(d):
    return 1.0 * (d <= 1)


@matrix
def tree_function(draw):
    parents, lengths = tree(draw)
    lengths = np.where(parents < 0, 0, lengths)
    f = draw.choice(gaussian, rational, np.cos, nearby)
    return (
        sm.tree_mask(sm.as_forest(parents=parents, lengths=lengths), f, tol=1e-10),
        lambda: naive.tree_mask(parents, lengths, f),
    )


@call
def tree_metric(draw):
    W = weights(draw, draw.size(1), low=0.1)
    kind, given = draw.choice("minimum_spanning", "frt"), graph(draw, W)
    forest = sm.tree_metric(given, kind=kind, rng=int(draw.rng.integers(9)))
    n, D = len(W), zoo.distances(forest.parents, forest.lengths)[: len(W), : len(W)]
    graph_distances = scipy.sparse.csgraph.shortest_path(scipy.sparse.csr_array(W))
    if draw.damage:
        return
    connected = np.isfinite(graph_distances)
    if (
        forest.visible != n
        or (np.isfinite(D) != connected).any()
        or (graph_distances * (1 - 1e-9) > D)[connected].any()
    ):
        msg = "a tree metric that is no upper bound"
        raise WrongAnswerError(msg)
    sm.distortion(forest, given, rng=0)


# --- systems ----------------------------------------------------------------------------------------------------------


@call
def solve(draw):
    n = draw.size(1)
    (M, f), b = square(draw, n), draw.array(*draw.choice((n,), (n, 2)), dtype=draw.choice("f8", "f8", "f4"))
    D, eye = f(), np.eye(n)
    if draw.happens(0.5):
        A, D = M.T @ M + sm.Diagonal(np.ones(n)), D.T @ D + eye
    else:
        A, D = M + 9.0 * n * sm.Diagonal(np.ones(n)), D + 9.0 * n * eye
    x = sm.solve(A, b, tol=1e-12, preconditioner=draw.choice("auto", None, "jacobi"))
    with np.errstate(all="ignore"):
        residual, scale = (D @ x).astype(x.dtype), np.abs(D) @ np.abs(x)
    expect(draw, residual, lambda: np.asarray(b), tolerance=1e-6, scale=scale)


@call
def matrix_function(draw):
    n = draw.size(1)
    x = draw.array(n, dtype="f8")
    x = np.asarray(x) / (1 + n)  # tolerances are absolute: of functions of moderate size
    M = sm.Toeplitz.from_column_row(x)
    f = draw.choice(lambda x: np.exp(-x), np.cos, lambda x: x**2, lambda x: 1 / (1 + x * x))
    N = sm.matrix_function(M, f, tol=1e-10)
    X = draw.raw(n, 2, dtype="f8")
    expect(draw, N @ X, lambda: naive.matrix_function(scipy.linalg.toeplitz(x), f) @ X, tolerance=1e-6)


@call
def compress(draw):
    n = draw.size(1)
    f = draw.choice(lambda s: np.exp(-abs(s) / 3), lambda s: 1 / (1 + abs(s)), lambda s: np.exp(-s * s / 9))
    T = sm.Toeplitz.from_function(f, (draw.number(n),))
    C = T.compress(tol=draw.number(1e-6))
    gap = np.abs(C.to_dense() - T.to_dense()).sum(axis=1).max(initial=0)
    if not gap <= C.error_bound * (1 + 1e-9) + 1e-12:
        msg = f"compressed with error {gap}, certified {C.error_bound}"
        raise WrongAnswerError(msg)


# --- attention and features -------------------------------------------------------------------------------------------


@call
def masked_attention(draw):
    n, m = draw.size(1), draw.size(1)
    dtype, batch = draw.choice("f8", "f8", "f4"), draw.choice((), (2,), (2, 3))
    q, k, v = (
        draw.array(*batch, n, 3, dtype=dtype),
        draw.array(m, 3, dtype=dtype),
        draw.array(*batch, m, 2, dtype=dtype),
    )
    features = draw.choice(sm.elu_features, sm.exp_features, sm.relu_features(3, 8, rng=0))
    mask = draw.choice(None, sm.Toeplitz(draw.positive(n + m - 1), columns=(m,)))
    padding = draw.choice(None, draw.rng.random(m) < 0.3)
    eps = draw.number(draw.choice(0.0, 0.1))
    method = draw.choice("auto", "dense", "stream")
    out = sm.masked_attention(q, k, v, mask=mask, features=features, key_padding_mask=padding, eps=eps, method=method)

    def definition():
        M = 1.0 if mask is None else mask.to_dense()
        keep = slice(None) if padding is None else np.flatnonzero(~padding)
        phi_q, phi_k = (features(np.asarray(x, dtype="f8")) for x in (q, k))
        A = M * (phi_q @ np.swapaxes(phi_k, -1, -2)) + eps
        A, V = A[..., keep], np.asarray(v, dtype="f8")[..., keep, :]
        mass = A.sum(axis=-1, keepdims=True)
        return np.where(mass == 0, 0, A @ V / np.where(mass == 0, 1, mass))

    expect(draw, out, definition)


@call
def features(draw):
    x, m = draw.array(*draw.batch(), draw.size(0), 3, dtype=draw.choice("f8", "f4")), draw.number(draw.size(1, 9))
    phi = draw.choice(
        lambda: sm.elu_features,
        lambda: sm.exp_features,
        lambda: sm.relu_features(3, m, rng=1),
        lambda: sm.positive_features(3, m, rng=1),
    )()
    y = phi(x)
    if not draw.damage and not ((y >= 0).all() and y.shape[:-1] == x.shape[:-1] and y.dtype == x.dtype):
        msg = "features of another shape, precision or sign"
        raise WrongAnswerError(msg)


# --- Markov processes -------------------------------------------------------------------------------------------------


def transition(draw, *, irreducible=False):
    n = draw.size(1)
    P = draw.rng.random((n, n)) * (draw.rng.random((n, n)) < draw.choice(0.15, 0.5, 1.0))
    if irreducible:
        P += 0.1 * np.roll(np.eye(n), 1, axis=1)
    P += np.diag(P.sum(axis=1) == 0)
    return P / P.sum(axis=1, keepdims=True)


def chain(draw, P):
    return sm.MarkovChain(draw.choice(scipy.sparse.csr_array, draw.array_like)(P))


@call
def hitting(draw):
    P = transition(draw)
    targets = tuple(draw.rng.integers(0, len(P), draw.size(1, 3)).tolist())
    X, given = (
        chain(draw, P),
        draw.harmed(np.array(targets), ("negative", "list", "half", "none", "empty", "an axis more")),
    )
    with np.errstate(all="ignore"):
        h = X.hitting_times(given)
    want = naive.hitting_times(P, set(targets))
    if draw.damage:
        return
    if (np.isfinite(h) != np.isfinite(want)).any():
        msg = f"times {h}, not {want}"
        raise WrongAnswerError(msg)
    finite = np.isfinite(want)
    expect(draw, h[finite], want[finite], tolerance=1e-6)
    p = X.hitting_probabilities(given)
    expect(draw, p, lambda: naive.hitting_probabilities(P, list(targets), rounds=40_000), tolerance=1e-2)
    if not ((p >= 0) & (p <= 1)).all():
        msg = "probabilities outside [0, 1]"
        raise WrongAnswerError(msg)


@call
def stationary(draw):
    P = transition(draw, irreducible=True)
    p = chain(draw, P).stationary()
    expect(draw, p @ P, p)
    expect(draw, p.sum(), 1.0)


@call
def steps(draw):
    P, count = transition(draw), draw.size(0, 6)  # as many steps as are asked for are made
    X, n = chain(draw, P), len(P)
    f, p = draw.array(n, dtype="f8"), draw.positive(n)
    expect(draw, X.expect(f, count), lambda: np.linalg.matrix_power(P, count) @ f)
    p = p / np.sum(p)
    expect(draw, X.evolve(p, count), lambda: p @ np.linalg.matrix_power(P, count))
    path = X.simulate(0, count, rng=1)
    if not all(P[i, j] > 0 for i, j in itertools.pairwise(path)):
        msg = "a path along no edge"
        raise WrongAnswerError(msg)


@call
def discounted(draw):
    P, g = transition(draw), draw.number(draw.choice(0.01, 0.5, 0.99))
    V = chain(draw, P).discounted_visits(g)
    expect(draw, V @ np.eye(len(P)), lambda: np.linalg.inv(np.eye(len(P)) - g * P))


@call
def passage(draw):
    P, count = transition(draw), draw.number(draw.size(0, 6))
    target = int(draw.rng.integers(len(P)))

    def definition():
        met, rows = np.eye(len(P))[target], []
        for _ in range(count + 1):
            rows.append(met)
            met = P @ met
            met[target] = 1
        return np.diff(rows, axis=0, prepend=0)

    expect(draw, chain(draw, P).first_passage_distribution([target], count), definition)


@call
def process(draw):
    P, t = transition(draw), draw.number(draw.choice(0.0, 0.7, 5.0))
    n = len(P)
    Q = P - np.diag(np.diag(P))
    Q -= np.diag(Q.sum(axis=1))
    X, f = sm.MarkovProcess(draw.choice(scipy.sparse.csr_array, draw.array_like)(Q)), draw.array(n, dtype="f8")
    late = 1e6  # nothing moves any more, and the dense exponential of more steps is wrong
    expect(draw, X.expect(f, t), lambda: scipy.linalg.expm(min(t, late) * Q) @ f)
    p = np.ones(n) / n
    expect(draw, X.evolve(p, t), lambda: p @ scipy.linalg.expm(min(t, late) * Q))
    if draw.happens(0.3):
        expect(draw, X.occupation(t) @ np.eye(n), lambda: naive.occupation(Q, t), tolerance=1e-7)


@call
def graph_chain(draw):
    W = weights(draw, draw.size(1), low=0.1)
    X = sm.MarkovChain.from_graph(graph(draw, W))
    if not draw.damage:
        P = naive.transition(W) + np.diag(W.sum(axis=1) == 0)
        expect(draw, X.transition.toarray(), P)
        X.classes()
        X.is_reversible()
    connected = scipy.sparse.csgraph.connected_components(scipy.sparse.csr_array(W))[0] == 1
    if connected and len(W) > 1 and not draw.damage:
        pairs = np.array([[0, len(W) - 1]])
        R = np.linalg.pinv(naive.laplacian(W))
        expect(draw, X.effective_resistance(pairs), [R[0, 0] + R[-1, -1] - 2 * R[0, -1]], tolerance=1e-6)
        expect(draw, X.mean_first_passage([0])[-1], [naive.hitting_times(P, {0})[-1]], tolerance=1e-6)
