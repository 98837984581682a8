"""Conventions of other code: expected values are their formulas, written out entry by entry or step by step."""

import itertools
import math

import numpy as np
import pytest
import scipy.sparse

from structmask import (
    BlockDiagonal,
    Causal,
    LowRank,
    Sparse,
    Toeplitz,
    masked_attention,
    use_backend,
    with_global_tokens,
)

HEADS = 2


@pytest.fixture(params=["numpy", "numba"], autouse=True)
def backend(request):  # instead of the one of conftest.py
    with use_backend(request.param):
        yield request.param


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def assert_same(out, wanted, dtype):
    assert out.dtype == dtype
    assert out.shape == wanted.shape
    np.testing.assert_allclose(out, wanted, rtol=0, atol={"f8": 1e-12, "f4": 1e-5}[dtype] * np.abs(wanted).max())


def in_precision(dtype, *arrays):
    return [x.astype(dtype) for x in arrays]


# --- relative positions on a line -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_log_bias_of_relative_positions(dtype):
    """M_ij = exp(b[j - i]): the bias belongs to key minus query, an offset of Toeplitz to query minus key."""
    L = 9
    q, k, v, bias = normal(HEADS, L, 4), normal(HEADS, L, 4, seed=1), normal(HEADS, L, 3), normal(HEADS, 2 * L - 1)
    b = [{s: bias[h, s + L - 1] for s in range(1 - L, L)} for h in range(HEADS)]
    F, G = np.exp(q), np.exp(k)
    wanted = np.zeros((HEADS, L, 3))
    for h in range(HEADS):
        for i in range(L):
            weight = [math.exp(b[h][j - i]) * (F[h, i] @ G[h, j]) for j in range(L)]
            wanted[h, i] = sum(w * v[h, j] for j, w in enumerate(weight)) / sum(weight)
    mask = Toeplitz(np.exp(bias[:, ::-1]))
    assert mask.to_dense()[1, 2, 6] == math.exp(b[1][4])
    q, k, v = in_precision(dtype, q, k, v)
    assert_same(masked_attention(q, k, v, mask=mask, features=np.exp), wanted, dtype)


# --- images with a class token ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_topological_vision_transformer(dtype):
    """M_ij = |p[dx, dy]| between pixels in row-major order, one in the class token's row and column; relu features."""
    height, width, d, eps = 3, 4, 5, 1e-8
    L = 1 + height * width
    p = normal(HEADS, 2 * height - 1, 2 * width - 1)
    q, k, v = normal(HEADS, L, d), normal(HEADS, L, d, seed=1), normal(HEADS, L, 3)
    pixel = [None, *((x, y) for x in range(height) for y in range(width))]
    wanted = np.zeros((HEADS, L, 3))
    for h in range(HEADS):
        for i in range(L):
            weight = np.zeros(L)
            for j in range(L):
                entry = 1.0
                if i > 0 and j > 0:
                    (x, y), (x_, y_) = pixel[i], pixel[j]
                    entry = abs(p[h, x - x_ + height - 1, y - y_ + width - 1])
                phi_q = [max(a / math.sqrt(d), 0.0) + 1e-8 for a in q[h, i]]
                phi_k = [max(a, 0.0) + 1e-8 for a in k[h, j]]
                weight[j] = entry * sum(a * b for a, b in zip(phi_q, phi_k, strict=True)) + eps
            wanted[h, i] = weight @ v[h] / weight.sum()
    mask = with_global_tokens(Toeplitz(np.abs(p), levels=2), 1)
    q, k, v = in_precision(dtype, q, k, v)
    features = (lambda q: np.maximum(q / math.sqrt(d), 0) + 1e-8, lambda k: np.maximum(k, 0) + 1e-8)
    for method in ("auto", "dense", "stream", "border"):
        assert_same(masked_attention(q, k, v, mask=mask, features=features, eps=eps, method=method), wanted, dtype)


# --- decays and gates -------------------------------------------------------------------------------------------------


def retention_decays():
    return np.array([1 - 2.0 ** (-5 - h) for h in range(HEADS)])


def recurrence(q, k, v, gates):
    """S_t = a_t S_{t-1} + k_t v_t^T and z_t = a_t z_{t-1} + k_t, one step after the other: (q_t S_t, q_t z_t)."""
    out, mass = np.zeros((*q.shape[:-1], v.shape[-1])), np.zeros(q.shape[:-1])
    for h in range(q.shape[0]):
        S, z = np.zeros((q.shape[-1], v.shape[-1])), np.zeros(q.shape[-1])
        for t in range(q.shape[1]):
            S = gates[h, t] * S + np.outer(k[h, t], v[h, t])
            z = gates[h, t] * z + k[h, t]
            out[h, t], mass[h, t] = q[h, t] @ S, q[h, t] @ z
    return out, mass


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_retention(dtype):
    """A decay 1 - 2^(-5 - h) for head h, q over sqrt d, rows not normalised: the product before attention divides."""
    L, d = 150, 4
    q, k, v = normal(HEADS, L, d) / math.sqrt(d), normal(HEADS, L, d, seed=1), normal(HEADS, L, 3)
    wanted, _ = recurrence(q, k, v, np.broadcast_to(retention_decays()[:, None], (HEADS, L)))
    mask = Causal(L, decay=retention_decays()[:, None] * np.ones(L))
    assert_same((mask * LowRank(*in_precision(dtype, q, k))) @ v.astype(dtype), wanted, dtype)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_retention_with_normalised_rows(dtype):
    """Its own normalisation: the mask's rows over the root of their sum, then scores over max(|their sum|, 1)."""
    L, d = 40, 4
    q, k, v = normal(HEADS, L, d) / math.sqrt(d), normal(HEADS, L, d, seed=1), normal(HEADS, L, 3)
    wanted = np.zeros((HEADS, L, 3))
    for h, gamma in enumerate(retention_decays()):
        for i in range(L):
            row = np.array([gamma ** (i - j) for j in range(i + 1)])
            scores = row / math.sqrt(row.sum()) * (k[h, : i + 1] @ q[h, i])
            wanted[h, i] = scores @ v[h, : i + 1] / max(abs(scores.sum()), 1.0)
    mask = Causal(L, decay=retention_decays()[:, None] * np.ones(L))
    sums = mask @ np.ones(L)
    q, k, v = in_precision(dtype, q / np.sqrt(sums)[..., None], k, v)
    product = (mask * LowRank(q, k)) @ np.concatenate([v, np.ones_like(v[..., :1])], axis=-1)
    assert_same(product[..., :-1] / np.maximum(np.abs(product[..., -1:]), 1), wanted, dtype)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_gated_linear_attention(dtype):
    """A gate in (0, 1) per position and head, forgetting what came before it; with and without normalised rows."""
    L = 150
    gates = 1 / (1 + np.exp(-3 - 2 * normal(HEADS, L)))
    q, k, v = np.exp(normal(HEADS, L, 4)), np.exp(normal(HEADS, L, 4, seed=1)), normal(HEADS, L, 3)
    wanted, mass = recurrence(q, k, v, gates)
    mask = Causal(L, decay=gates)
    q, k, v = in_precision(dtype, q, k, v)
    assert_same((mask * LowRank(q, k)) @ v, wanted, dtype)
    assert_same(masked_attention(q, k, v, mask=mask, features=None), wanted / mass[..., None], dtype)


def test_log_gates():
    """Code that stores g_t = log a_0 + ... + log a_t: M_ij = exp(g_i - g_j), hence a_t = exp(g_t - g_{t-1})."""
    L = 12
    g = np.cumsum(-np.abs(normal(HEADS, L)), axis=-1)
    decay = np.exp(np.diff(g, axis=-1, prepend=0.0))
    wanted = np.array(
        [[[math.exp(g[h, i] - g[h, j]) if i >= j else 0.0 for j in range(L)] for i in range(L)] for h in range(HEADS)]
    )
    np.testing.assert_allclose(Causal(L, decay=decay).to_dense(), wanted, rtol=1e-13)


def test_linear_attention_with_a_state():
    """Without a decay: running sums of k v^T and of k, and elu(x) + 1 as features."""
    L = 20
    q, k, v = normal(HEADS, L, 4), normal(HEADS, L, 4, seed=1), normal(HEADS, L, 3)
    phi_q, phi_k = (
        np.array([[[a + 1 if a > 0 else math.exp(a) for a in x] for x in head] for head in y]) for y in (q, k)
    )
    wanted, mass = recurrence(phi_q, phi_k, v, np.ones((HEADS, L)))
    assert_same(masked_attention(q, k, v, mask=Causal(L)), wanted / mass[..., None], "f8")


# --- packed sequences -------------------------------------------------------------------------------------------------


def test_packed_sequences():
    """Sequences one behind the other, cut at cumulative lengths: each is attention on its own."""
    cuts = [0, 3, 4, 9]
    q, k, v = normal(9, 4), normal(9, 4, seed=1), normal(9, 3)
    wanted = np.zeros((9, 3))
    for a, b in itertools.pairwise(cuts):
        for i in range(a, b):
            weight = [np.exp(q[i]) @ np.exp(k[j]) for j in range(a, i + 1)]
            wanted[i] = sum(w * v[j] for w, j in zip(weight, range(a, i + 1), strict=True)) / sum(weight)
    mask = BlockDiagonal([Causal(b - a) for a, b in itertools.pairwise(cuts)])
    assert_same(masked_attention(q, k, v, mask=mask, features=np.exp), wanted, "f8")
    starts = np.ones(9)
    starts[cuts[:-1]] = 0.0  # a gate of zero forgets everything: the same mask
    assert_same(masked_attention(q, k, v, mask=Causal(9, decay=starts), features=np.exp), wanted, "f8")


# --- softmax attention with a mask ------------------------------------------------------------------------------------


def masked_softmax_attention(q, k, v, mask, rows=4):
    """rownorm(exp(q k^T / sqrt d) * mask) v, a block of rows at a time; zeros where a row has no mass."""
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    for start in range(0, q.shape[-2], rows):
        block = slice(start, start + rows)
        logits = q[..., block, :] @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True)) * mask.entries(block, slice(None))
        mass = weights.sum(axis=-1, keepdims=True)
        out[..., block, :] = weights @ v / np.where(mass == 0, 1, mass)
    return out


def graph_kernel(n):
    """Features of the nodes of a path by two steps of a random walk, and the cosines of their rows."""
    P = np.zeros((n, n))
    for i in range(n):
        neighbours = [j for j in (i - 1, i + 1) if 0 <= j < n]
        P[i, neighbours] = 1 / len(neighbours)
    features = np.eye(n) + 0.5 * P + 0.25 * P @ P
    return features / np.linalg.norm(features, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["low_rank", "sparse", "toeplitz"])
def test_graph_kernel_attention(kind):
    """Softmax logits masked by a kernel of the nodes: nothing is linear here, the mask gives its entries."""
    n, d = 10, 4
    F = graph_kernel(n)
    kernel = [[sum(F[i, a] * F[j, a] for a in range(n)) for j in range(n)] for i in range(n)]
    if kind == "toeplitz":
        kernel = [[2.0 ** -abs(i - j) for j in range(n)] for i in range(n)]
    q, k, v = 3 * normal(HEADS, n, d), normal(HEADS, n, d, seed=1), normal(HEADS, n, 3)
    wanted = np.zeros((HEADS, n, 3))
    for h in range(HEADS):
        for i in range(n):
            weight = [math.exp(q[h, i] @ k[h, j] / math.sqrt(d)) * kernel[i][j] for j in range(n)]
            wanted[h, i] = sum(w * v[h, j] for j, w in enumerate(weight)) / sum(weight)
    mask = {
        "low_rank": lambda: LowRank(F, F),
        "sparse": lambda: Sparse(scipy.sparse.csr_array(F @ F.T)),
        "toeplitz": lambda: Toeplitz.from_function(lambda s: 2.0 ** -np.abs(s), (n,)),
    }[kind]()
    assert_same(masked_softmax_attention(q, k, v, mask), wanted, "f8")
