"""Every definition as slow, obvious loops: the oracle of all other tests.

Arrays may have batch axes in front; the loops run over what the definition indexes.
"""

import itertools
from fractions import Fraction

import numpy as np


def toeplitz(offsets, levels=1, columns=None):
    """M_ij = f(i - j) for grid points i, j in C order; f(i - j) is at index i - j + n_l - 1 on axis l."""
    offsets = np.asarray(offsets)
    sides = offsets.shape[offsets.ndim - levels :]
    columns = tuple((side + 1) // 2 for side in sides) if columns is None else tuple(columns)
    rows = tuple(side - n + 1 for side, n in zip(sides, columns, strict=True))
    row_points = list(itertools.product(*map(range, rows)))
    column_points = list(itertools.product(*map(range, columns)))
    M = np.zeros((*offsets.shape[: offsets.ndim - levels], len(row_points), len(column_points)), offsets.dtype)
    for a, i in enumerate(row_points):
        for b, j in enumerate(column_points):
            index = tuple(i[level] - j[level] + columns[level] - 1 for level in range(levels))
            M[..., a, b] = offsets[(..., *index)]
    return M


def causal(n, decay=1.0, *, upper=False):
    """M_ij = prod_{t=j+1..i} decay_t for i >= j, else 0; transposed if `upper`."""
    decay = np.asarray(decay)
    decay = np.broadcast_to(decay, (*decay.shape[:-1], n))
    M = np.zeros((*decay.shape[:-1], n, n), np.result_type(decay.dtype, float))
    for i in range(n):
        for j in range(i + 1):
            product = 1.0
            for t in range(j + 1, i + 1):
                product = product * decay[..., t]
            M[..., i, j] = product
    return np.swapaxes(M, -1, -2) if upper else M


def diagonal(d):
    """M_ii = d_i, zero elsewhere."""
    d = np.asarray(d)
    M = np.zeros((*d.shape, d.shape[-1]), d.dtype)
    for i in range(d.shape[-1]):
        M[..., i, i] = d[..., i]
    return M


def low_rank(left, right):
    """M_ij = sum_r left_ir right_jr."""
    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    M = np.zeros((*batch, left.shape[-2], right.shape[-2]), np.result_type(left, right))
    for i in range(left.shape[-2]):
        for j in range(right.shape[-2]):
            for r in range(left.shape[-1]):
                M[..., i, j] += left[..., i, r] * right[..., j, r]
    return M


def sparse(rows, columns, values, shape):
    """Zeros, and each value added at its place."""
    M = np.zeros(shape, np.asarray(values).dtype)
    for i, j, value in zip(rows, columns, values, strict=True):
        M[i, j] += value
    return M


def stationary(value, n, *, causal=False, upper=False):
    """M_ij = value(|i - j|), on one side of the diagonal only if causal (below) or upper as well (above)."""
    zero = 0 * value(0)
    M = np.zeros((*zero.shape, n, n), zero.dtype)
    for i in range(n):
        for j in range(n):
            if not causal or (j >= i if upper else i >= j):
                M[..., i, j] = value(abs(i - j))
    return M


def exponential_sum(weights, decays, n, **sides):
    """M_ij = sum_r weights_r decays_r^|i-j|."""

    def value(s):
        total = 0.0
        for r in range(decays.shape[-1]):
            power = weights[..., r] + 0 * decays[..., r]
            for _ in range(s):
                power = power * decays[..., r]
            total = total + power
        return np.asarray(total)

    return stationary(value, n, **sides)


def state_space(a, b, c, n, near=None, **sides):
    """M_ij = near[|i - j|] where that exists, else c a^(|i-j|-w) b with w the length of near."""
    w = 0 if near is None else near.shape[-1]

    def value(s):
        if s < w:
            return np.asarray(near[..., s]) + 0 * np.sum(c * b, axis=-1)
        x = b[..., None]
        for _ in range(s - w):
            x = a @ x
        return np.asarray(np.sum(c * x[..., 0], axis=-1)) + (0 if near is None else 0 * np.sum(near, axis=-1))

    return stationary(value, n, **sides)


def band(offsets, n, upper=None):
    """M_ij = offsets[i - j + upper] where that exists, else 0."""
    offsets = np.asarray(offsets)
    upper = offsets.shape[-1] // 2 if upper is None else upper
    M = np.zeros((*offsets.shape[:-1], n, n), offsets.dtype)
    for i in range(n):
        for j in range(n):
            if 0 <= i - j + upper < offsets.shape[-1]:
                M[..., i, j] = offsets[..., i - j + upper]
    return M


def buckets(values, edges, n, order=None):
    """M_ij = values[order[number of edges that are at most i - j]]."""
    values = np.asarray(values)
    order = range(len(edges) + 1) if order is None else order
    M = np.zeros((*values.shape[:-1], n, n), values.dtype)
    for i in range(n):
        for j in range(n):
            M[..., i, j] = values[..., order[sum(edge <= i - j for edge in edges)]]
    return M


def hypercube(values):
    """M_ij = values[number of bits in which i and j differ]."""
    values = np.asarray(values)
    n = 2 ** (values.shape[-1] - 1)
    M = np.zeros((*values.shape[:-1], n, n), values.dtype)
    for i in range(n):
        for j in range(n):
            M[..., i, j] = values[..., (i ^ j).bit_count()]
    return M


def kronecker(*factors):
    """M_ij = prod_l A_l[i_l, j_l], where i and j are the C-order indices of (i_1, i_2, ...) and (j_1, j_2, ...)."""
    batch = np.broadcast_shapes(*(factor.shape[:-2] for factor in factors))
    row_points = list(itertools.product(*(range(factor.shape[-2]) for factor in factors)))
    column_points = list(itertools.product(*(range(factor.shape[-1]) for factor in factors)))
    M = np.ones((*batch, len(row_points), len(column_points)), np.result_type(*factors))
    for a, i in enumerate(row_points):
        for b, j in enumerate(column_points):
            for level, factor in enumerate(factors):
                M[..., a, b] = M[..., a, b] * factor[..., i[level], j[level]]
    return M


def block_diagonal(*blocks):
    """Each block behind the others, zeros elsewhere."""
    batch = np.broadcast_shapes(*(block.shape[:-2] for block in blocks))
    m, n = (sum(block.shape[axis] for block in blocks) for axis in (-2, -1))
    M, i, j = np.zeros((*batch, m, n), np.result_type(*blocks)), 0, 0
    for block in blocks:
        for p in range(block.shape[-2]):
            for q in range(block.shape[-1]):
                M[..., i + p, j + q] = block[..., p, q]
        i, j = i + block.shape[-2], j + block.shape[-1]
    return M


def with_global_tokens(mask, count=1, value=1.0):
    """1 among the first `count` tokens, `value` between them and the others, the mask among the others."""
    value = np.asarray(value)
    batch = np.broadcast_shapes(mask.shape[:-2], value.shape)
    M = np.ones((*batch, mask.shape[-2] + count, mask.shape[-1] + count), np.result_type(mask, value))
    for i in range(M.shape[-2]):
        for j in range(M.shape[-1]):
            if i >= count and j >= count:
                M[..., i, j] = mask[..., i - count, j - count]
            elif i >= count or j >= count:
                M[..., i, j] = value
    return M


def matrix_function(A, f):
    """f(A) = sum_i f(lambda_i) v_i v_i^H over the eigenpairs of a Hermitian A."""
    values, V = np.linalg.eigh(A)
    return np.einsum("...ik,...k,...jk->...ij", V, f(values), V.conj())


def tree_paths(parents):
    """For every pair of nodes the nodes whose edges to their parents make the path between them; None between trees."""
    ancestors = [[i] for i in range(len(parents))]
    for climb in ancestors:
        while parents[climb[-1]] >= 0:
            climb.append(parents[climb[-1]])
    paths = {}
    for i, j in itertools.product(range(len(parents)), repeat=2):
        common = next((v for v in ancestors[i] if v in ancestors[j]), None)
        paths[i, j] = None
        if common is not None:
            up, down = ancestors[i], ancestors[j]
            paths[i, j] = up[: up.index(common)] + down[: down.index(common)]
    return paths


def subtrees(parents):
    """inside[v, i]: whether node i is v, or has it among its ancestors."""
    inside = np.zeros((len(parents), len(parents)), bool)
    for i in range(len(parents)):
        v = i
        while v >= 0:
            inside[v, i] = True
            v = parents[v]
    return inside


def tree_decay(parents, factors):
    """M_ij = product of the factors of the edges between i and j, 0 between trees."""
    factors, n = np.asarray(factors), len(parents)
    M = np.zeros((*factors.shape[:-1], n, n), factors.dtype)
    for (i, j), path in tree_paths(parents).items():
        if path is not None:
            M[..., i, j] = 1
            for v in path:
                M[..., i, j] *= factors[..., v]
    return M


def tree_mask(parents, lengths, f):
    """M_ij = f(sum of the lengths of the edges between i and j), 0 between trees."""
    n = len(parents)
    M = np.zeros((n, n), np.result_type(f(0.0), float))
    for (i, j), path in tree_paths(parents).items():
        if path is not None:
            M[i, j] = f(sum(lengths[v] for v in path))
    return M


def masked_attention(phi_q, phi_k, v, mask=None, eps=0.0):
    """Rows of A = mask * (phi_q phi_k^T) + eps, divided by their sum, times v; a row that sums to zero gives zeros."""
    L, S = phi_q.shape[-2], phi_k.shape[-2]
    mask = np.ones((L, S)) if mask is None else mask
    A = mask * low_rank(phi_q, phi_k) + eps
    batch = np.broadcast_shapes(A.shape[:-2], v.shape[:-2])
    A, v = np.broadcast_to(A, (*batch, L, S)), np.broadcast_to(v, (*batch, *v.shape[-2:]))
    out = np.zeros((*batch, L, v.shape[-1]), np.result_type(A, v))
    for head in np.ndindex(batch):
        for i in range(L):
            mass = A[head][i].sum()
            if mass != 0:
                out[head][i] = sum(A[head][i, j] * v[head][j] for j in range(S)) / mass
    return out


def directional_derivative(f, step=1e-3):
    """f'(0) by the central difference of fourth order, for a smooth f of one real variable."""
    return (8 * (f(step) - f(-step)) - (f(2 * step) - f(-2 * step))) / (12 * step)


def adjacency(nodes, edges, weights, *, directed=False):
    """W_ij is the sum of the weights of all edges from i to j; an undirected edge goes both ways, a loop once."""
    W = np.zeros((nodes, nodes))
    for (i, j), w in zip(edges, weights, strict=True):
        W[i, j] += w
        if not directed and i != j:
            W[j, i] += w
    return W


def laplacian(W, kind="combinatorial"):
    """D - W, I - D^-1/2 W D^-1/2 or I - D^-1 W, with zero rows for nodes without edges."""
    n = len(W)
    d = [sum(W[i, j] for j in range(n)) for i in range(n)]
    L = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if d[i] == 0 or d[j] == 0:
                continue
            scale = {"combinatorial": 1.0, "symmetric": np.sqrt(d[i] * d[j]), "random_walk": d[i]}[kind]
            L[i, j] = ((d[i] if i == j else 0.0) - W[i, j]) / scale
    return L


def circulant_eigenvalues(table, lengths, window):
    """sum_k w(k) f(k) exp(-2 pi i j k / N), w the product of one weight a level."""
    grid = [(side + 1) // 2 for side in np.shape(table)]
    values = np.zeros(lengths, dtype=complex)
    for j in np.ndindex(*lengths):
        for index, f in np.ndenumerate(table):
            term = f
            for frequency, position, n, N in zip(j, index, grid, lengths, strict=True):
                k = position - (n - 1)
                term = term * window_weight(window, abs(k), n, N) * np.exp(-2j * np.pi * frequency * k / N)
            values[j] += term
    return values


def window_weight(window, k, n, N):
    """The weight of an offset of size k."""
    if window == "strang":
        return 1.0 if 2 * k < N else 0.5 if 2 * k == N else 0.0
    if window == "chan":
        return (n - k) / n
    return 1 - 6 * (k / n) ** 2 + 6 * (k / n) ** 3 if 2 * k < n else 2 * (1 - k / n) ** 3


def circulant(eigenvalues):
    """The matrix with these eigenvalues for the plane waves on a grid."""
    lengths = np.shape(eigenvalues)
    points = list(np.ndindex(*lengths))

    def wave(i, j):
        return np.exp(2j * np.pi * sum(a * b / N for a, b, N in zip(i, j, lengths, strict=True)))

    waves = np.array([[wave(i, j) for j in points] for i in points])
    return waves @ np.diag(np.ravel(eigenvalues)) @ waves.conj().T / len(points)


def power_series(A, coefficients):
    """sum_l c_l A^l, the powers by repeated products."""
    coefficients = np.asarray(coefficients)
    total, power = 0.0, np.eye(A.shape[-1])
    for step in range(coefficients.shape[-1]):
        total = total + coefficients[..., step, None, None] * power
        power = power @ A
    return total


def transition(W):
    """Probabilities W_ij / sum_j W_ij of the next node; a node without edges has none."""
    P = np.zeros(W.shape)
    for i, weights in enumerate(W):
        if sum(weights):
            P[i] = weights / sum(weights)
    return P


def random_walk_kernel(P, coefficients, alpha=1.0):
    """<F_i, F_j> / (|F_i| |F_j|)^alpha for the rows of F = sum_l c_l P^l."""
    F = power_series(np.asarray(P), coefficients)
    M = np.zeros(F.shape)
    for head in np.ndindex(F.shape[:-2]):
        rows = F[head]
        for i, j in np.ndindex(M.shape[-2:]):
            M[(*head, i, j)] = rows[i] @ rows[j] / (np.linalg.norm(rows[i]) * np.linalg.norm(rows[j])) ** alpha
    return M


def hop_mask(W, hops):
    """1 where a path of at most so many edges leads from i to j."""
    n = len(W)
    M = np.eye(n)
    for i in range(n):
        reached = {i}
        for _ in range(hops):
            reached |= {j for v in reached for j in range(n) if W[v, j]}
        M[i, list(reached)] = 1
    return M


def heat_kernel(W, t):
    """exp(-t (D - W)) in extended precision, by squaring a Taylor sum; rows are made to sum to one each time."""
    W = np.asarray(W, dtype=np.longdouble)
    L = np.diag(W.sum(axis=1)) - W
    steps = max(0, int(np.ceil(np.log2(max(1.0, float(8 * t * L.diagonal().max(initial=0)))))))
    term = power = np.eye(len(W), dtype=np.longdouble)
    for k in range(1, 20):
        term = -(t / np.longdouble(2) ** steps / k) * (L @ term)
        power = power + term
    for _ in range(steps):
        power = power @ power
        power = power / power.sum(axis=1, keepdims=True)
    return power.astype(float)


def spectral_filter(W, h, kind="combinatorial"):
    """h(L) on eigenvectors; the random-walk Laplacian is D^-1/2 times the symmetric one times D^1/2."""
    n = len(W)
    if kind != "random_walk":
        return matrix_function(laplacian(W, kind), h)
    M = matrix_function(laplacian(W, "symmetric"), h)
    for i in range(n):
        for j in range(n):
            if sum(W[i]) > 0 and sum(W[j]) > 0:
                M[..., i, j] = M[..., i, j] * np.sqrt(sum(W[j]) / sum(W[i]))
    return M


# --- Markov processes -------------------------------------------------------------------------------------------------


def visits(P, discount=1.0, targets=()):
    """(I - discount P_ff)^-1 for the states f that are no targets, zero elsewhere."""
    f = [i for i in range(len(P)) if i not in targets]
    M = np.zeros(P.shape, np.result_type(P, discount))
    for row, i in zip(np.linalg.inv(np.eye(len(f)) - discount * P[np.ix_(f, f)]), f, strict=True):
        M[i, f] = row
    return M


def hitting_times(P, targets):
    """(I - P_ff) h = 1 where the targets are met for sure, by dense elimination; infinite elsewhere."""
    certain = certain_states(P, targets)
    f = [i for i in certain if i not in targets]
    h = np.full(len(P), np.inf)
    h[list(targets)] = 0.0
    h[f] = np.linalg.solve(np.eye(len(f)) - P[np.ix_(f, f)], np.ones(len(f)))
    return h


def certain_states(P, targets):
    """States from which no path that meets no target leads to where no target can be reached."""
    n = len(P)

    def reach(start):
        seen, stack = {start}, [start]
        while stack:
            i = stack.pop()
            if i in targets:
                continue
            for j in range(n):
                if P[i, j] > 0 and j not in seen:
                    seen.add(j)
                    stack.append(j)
        return seen

    reached = [reach(i) for i in range(n)]
    lost = {i for i in range(n) if not reached[i] & set(targets)}
    return [i for i in range(n) if not reached[i] & lost]


def hitting_probabilities(P, targets, avoid=(), rounds=20000):
    """The smallest non-negative solution, as the limit of p <- P p from below."""
    p = np.zeros(len(P))
    for _ in range(rounds):
        p = P @ p
        p[list(targets)], p[list(avoid)] = 1.0, 0.0
    return p


def stationary_distribution(P):
    """p P = p with p 1 = 1, by least squares."""
    n = len(P)
    return np.linalg.lstsq(np.vstack([P.T - np.eye(n), np.ones(n)]), np.append(np.zeros(n), 1.0), rcond=None)[0]


def markov_exponential(Q, time):
    """exp(tQ) by squaring a long Taylor series of a short time; Q with its diagonal."""
    halvings = max(0, int(np.ceil(np.log2(max(1.0, time * np.abs(Q).sum(axis=1).max())))))
    step, term, total = time * Q / 2**halvings, np.eye(len(Q)), np.eye(len(Q))
    for k in range(1, 40):
        term = term @ step / k
        total = total + term
    for _ in range(halvings):
        total = total @ total
    return total


def occupation(Q, time):
    """The integral of exp(sQ) from 0 to a time: a block of the exponential of a matrix twice as large."""
    n = len(Q)
    both = np.block([[Q, np.eye(n)], [np.zeros((n, 2 * n))]])
    return markov_exponential(both, time)[:n, n:]


def stationary_by_fractions(P):
    """The stationary distribution in exact arithmetic: states are censored one by one."""
    A = [[Fraction(float(x)) for x in row] for row in P]
    n, out = len(A), {}
    for k in range(n - 1, 0, -1):
        out[k] = sum(A[k][:k])
        for i in range(k):
            for j in range(k):
                A[i][j] += A[i][k] * A[k][j] / out[k]
    p = [Fraction(1)]
    for k in range(1, n):
        p.append(sum(p[i] * A[i][k] for i in range(k)) / out[k])
    return np.array([float(x / sum(p)) for x in p])


def hitting_times_by_fractions(P, target):
    """Hitting times in exact arithmetic; off-diagonal entries are the data."""
    states = [i for i in range(len(P)) if i != target]
    h = np.zeros(len(P))
    h[states] = _censored(P, states, [Fraction(1)] * len(states))
    return h


def hitting_probabilities_by_fractions(P, target, avoid):
    """Probabilities to meet a target before another state is met, in exact arithmetic."""
    states = [i for i in range(len(P)) if i not in (target, avoid)]
    p = np.zeros(len(P))
    p[target], p[states] = 1, _censored(P, states, [Fraction(float(P[i][target])) for i in states])
    return p


def _censored(P, states, b):
    """L_ff x = b by exact elimination on some states: what flows through one is sent on to where it flows."""
    n = len(states)
    A = [[Fraction(float(P[i][j])) for j in states] for i in states]
    others = [j for j in range(len(P)) if j not in states]
    leak, b, out = [sum(Fraction(float(P[i][j])) for j in others) for i in states], list(b), {}
    for k in range(n - 1, -1, -1):
        out[k] = sum(A[k][:k]) + leak[k]
        for i in range(k):
            share = A[i][k] / out[k]
            for j in range(k):
                A[i][j] += share * A[k][j]
            leak[i] += share * leak[k]
            b[i] += share * b[k]
    x = []
    for k in range(n):
        x.append((b[k] + sum(A[k][j] * x[j] for j in range(k))) / out[k])
    return [float(value) for value in x]
