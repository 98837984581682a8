"""Random-walk kernels: powers written out, sampled means, gradients through norms, attention, what is refused."""

import networkx as nx
import numpy as np
import pytest
import scipy.sparse

from structmask import (
    BlockDiagonal,
    LowRank,
    Sparse,
    Toeplitz,
    hop_mask,
    masked_attention,
    random_walk_kernel,
    use_backend,
)
from structmask.attention import attend, attend_pullback
from structmask.features import elu_features
from structmask.graphs import RandomWalkKernel, random_walk
from structmask.linalg import PowerSeries
from tests import naive
from tests.cases import real


def weighted(graph, seed=0):
    """Adjacency matrix with random weights."""
    W = nx.to_numpy_array(graph)
    return W * np.triu(np.abs(real(*W.shape, seed=seed)) + 0.1) if graph.is_directed() else symmetric(W, seed)


def symmetric(W, seed):
    U = np.triu(W * (np.abs(real(*W.shape, seed=seed)) + 0.1), 1)
    return U + U.T


GRAPHS = {
    "path": nx.to_numpy_array(nx.path_graph(9)),
    "star": nx.to_numpy_array(nx.star_graph(12)),
    "communities": nx.to_numpy_array(nx.connected_caveman_graph(4, 5)),
    "weighted": weighted(nx.gnp_random_graph(20, 0.2, seed=1)),
    "isolated": weighted(nx.gnp_random_graph(14, 0.08, seed=2)),
    "directed": nx.to_numpy_array(nx.gn_graph(15, seed=3)),  # walks end at the root
    "loops": np.eye(4) + nx.to_numpy_array(nx.cycle_graph(4)),
}


def powers(W, length, stop, discount):
    return naive.power_series(naive.transition(W), (discount * (1 - stop)) ** np.arange(length))


# --- exact ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("name", GRAPHS)
def test_exact_kernel_is_sums_of_powers(name, backend):
    W = GRAPHS[name]
    for length, stop, discount, alpha in (
        (1, 0.0, 1.0, 1.0),
        (2, 0.0, 1.0, 0.0),
        (4, 0.3, 0.9, 1.0),
        (7, 0.1, 1.0, 0.5),
    ):
        c = (discount * (1 - stop)) ** np.arange(length)
        want = naive.random_walk_kernel(naive.transition(W), c, alpha)
        with use_backend(backend):
            kernel = random_walk_kernel(W, length, stop=stop, discount=discount, alpha=alpha)
            got = kernel.to_dense()
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-13 * want.max())


def test_every_kind_of_graph_is_taken():
    G = nx.karate_club_graph()
    want = random_walk_kernel(G, 3).to_dense()
    for same in (nx.to_scipy_sparse_array(G), scipy.sparse.coo_matrix(nx.to_numpy_array(G)), nx.to_numpy_array(G)):
        np.testing.assert_array_equal(random_walk_kernel(same, 3).to_dense(), want)


def test_cosines_have_a_diagonal_of_ones():
    np.testing.assert_allclose(random_walk_kernel(GRAPHS["isolated"], 5).diagonal(), 1.0, rtol=1e-14)
    sampled = random_walk_kernel(GRAPHS["isolated"], 5, walks=10, rng=0)
    np.testing.assert_allclose(sampled.diagonal(), 1.0, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("walks", [None, 20])
def test_precision_is_that_of_the_weights(dtype, walks):
    W = scipy.sparse.csr_array(GRAPHS["weighted"].astype(dtype))
    kernel, exact = (
        random_walk_kernel(W, 4, walks=walks, rng=0),
        random_walk_kernel(GRAPHS["weighted"], 4, walks=walks, rng=0),
    )
    assert kernel.dtype == dtype
    np.testing.assert_allclose(kernel.to_dense(), exact.to_dense(), atol=1e-6 if dtype == "float32" else 1e-13)


def test_blocks_of_rows_give_the_same_norms_and_gradients(monkeypatch, close):
    W, X, G = GRAPHS["weighted"], real(20, 2), real(20, 2, seed=1)
    whole, parts = random_walk_kernel(W, 4), random_walk_kernel(W, 4)
    gradients = [whole.pullback(G, X)]
    monkeypatch.setattr(random_walk, "_GRAM_ENTRIES", 3 * 16)
    assert len(list(parts._grams())) == 7
    gradients.append(parts.pullback(G, X))
    close(parts @ X, whole @ X)
    close(gradients[1]["series"]["matrix"]["csr"], gradients[0]["series"]["matrix"]["csr"])
    close(gradients[1]["series"]["coefficients"], gradients[0]["series"]["coefficients"])


def test_rows_of_zero_norm_are_zero():
    P = Sparse(scipy.sparse.csr_array(np.diag([1.0, 0.0, 2.0])))
    kernel = RandomWalkKernel(PowerSeries(P, [0.0, 1.0]), 1.0)
    np.testing.assert_array_equal(kernel.to_dense(), np.diag([1.0, 0.0, 1.0]))
    gradients = kernel.pullback(np.ones((3, 1)), np.ones((3, 1)))
    assert all(np.isfinite(g).all() for g in gradients["series"].values() if not isinstance(g, dict))
    assert np.isfinite(gradients["series"]["matrix"]["csr"]).all()


def test_heads_have_coefficients_of_their_own(close):
    c = np.abs(real(3, 1, 4)) + 0.1
    P = naive.transition(GRAPHS["communities"])
    kernel = RandomWalkKernel(PowerSeries(Sparse(scipy.sparse.csr_array(P)), c), 1.0)
    close(kernel.to_dense(), naive.random_walk_kernel(P, c))


def test_graphs_of_a_batch_are_blocks(close):
    names = ("path", "star", "weighted")
    for walks in (None, 5):
        kernel = random_walk_kernel([GRAPHS[name] for name in names], 3, walks=walks, rng=1)
        assert isinstance(kernel, BlockDiagonal)
        assert kernel.block_shapes == ((9, 9), (13, 13), (20, 20))
        rng = np.random.default_rng(1)
        for block, name in zip(kernel.blocks, names, strict=True):
            close(block.to_dense(), random_walk_kernel(GRAPHS[name], 3, walks=walks, rng=rng).to_dense())
    assert random_walk_kernel([[0.0, 1.0], [1.0, 0.0]], 3).shape == (2, 2)  # rows of one graph


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("walks", [None, 3])
def test_graphs_without_edges_give_the_identity(n, walks):
    np.testing.assert_array_equal(random_walk_kernel(np.zeros((n, n)), 3, walks=walks).to_dense(), np.eye(n))


# --- sampled ----------------------------------------------------------------------------------------------------------

ENSEMBLES = 300


@pytest.mark.parametrize("repelling", [False, True], ids=["independent", "repelling"])
@pytest.mark.parametrize(("length", "stop", "discount"), [(4, 0.0, 1.0), (6, 0.25, 0.8)])
@pytest.mark.parametrize("name", GRAPHS)
def test_sampled_means_are_within_five_standard_errors(name, length, stop, discount, repelling):
    """Of F, and of F F^T off the diagonal, over ensembles of a few walks, in random directions."""
    W, rng, Z = GRAPHS[name], np.random.default_rng(5), real(len(GRAPHS[name]), 3)
    F = powers(W, length, stop, discount)
    off = 1 - np.eye(len(W))
    options = dict(stop=stop, discount=discount, alpha=0.0, repelling=repelling, rng=rng)
    samples = [random_walk_kernel(W, length, walks=6, **options) for _ in range(ENSEMBLES)]
    for got, want in (
        (np.array([kernel.left @ Z for kernel in samples]), F @ Z),
        (np.array([(off * kernel.to_dense()) @ Z for kernel in samples]), (off * (F @ F.T)) @ Z),
    ):
        standard_error = got.std(axis=0, ddof=1) / np.sqrt(ENSEMBLES)
        assert (np.abs(got.mean(axis=0) - want) <= 5 * standard_error + 1e-12).all()


def test_error_falls_as_the_root_of_the_number_of_walks():
    W = GRAPHS["communities"]
    exact = random_walk_kernel(W, 4).to_dense()

    def error(walks):
        kernels = [random_walk_kernel(W, 4, walks=walks, rng=seed).to_dense() for seed in range(20)]
        return np.sqrt(np.mean([(kernel - exact) ** 2 for kernel in kernels]))

    assert error(6400) / error(100) == pytest.approx(1 / 8, rel=0.25)


def test_repelling_walks_vary_less():
    spread = []
    for repelling in (False, True):
        options = dict(walks=8, stop=0.2, alpha=0, repelling=repelling)
        samples = [random_walk_kernel(GRAPHS["communities"], 4, rng=seed, **options) for seed in range(60)]
        spread.append(np.var([kernel.left.toarray() for kernel in samples], axis=0).sum())
    assert spread[1] < 0.6 * spread[0]


def test_same_seed_same_walks_other_seed_others():
    W = GRAPHS["weighted"]
    kernels = [random_walk_kernel(W, 4, walks=9, rng=rng) for rng in (1, 1, 2, np.random.default_rng(1))]
    with use_backend("numpy"):
        kernels.append(random_walk_kernel(W, 4, walks=9, rng=1))
    same = [np.array_equal(kernels[0].left.toarray(), other.left.toarray()) for other in kernels]
    assert same == [True, True, False, True, True]


# --- attention --------------------------------------------------------------------------------------------------------


def masks():
    W = GRAPHS["weighted"]
    return {
        "exact": random_walk_kernel(W, 4),
        "sampled": random_walk_kernel(W, 4, walks=10, rng=0),
        "adjacency": Sparse(scipy.sparse.csr_array(W)),
        "hops": hop_mask(W, 2),
        "batch": random_walk_kernel([W[:10, :10], W[10:, 10:]], 3),
    }


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("name", masks())
def test_attention_through_the_mask(name, backend, close):
    mask, (q, k), v = masks()[name], real(2, 3, 20, 4), real(3, 20, 2, seed=1)
    want = naive.masked_attention(elu_features(q), elu_features(k), v, mask.to_dense())
    with use_backend(backend):
        close(masked_attention(q, k, v, mask=mask), want)
        for method in ("dense", "stream") if name != "batch" else ("blocks",):
            close(masked_attention(q, k, v, mask=mask, method=method), want)


def leaves(gradients):
    for value in gradients.values():
        yield from leaves(value) if isinstance(value, dict) else [value]


@pytest.mark.parametrize("name", masks())
def test_gradients_of_attention_for_queries_keys_values_and_the_mask(name):
    mask, F, G, V, g = (
        masks()[name],
        *(abs(real(20, 3, seed=s)) + 0.1 for s in range(2)),
        real(20, 2),
        real(20, 2, seed=3),
    )
    out, mass = attend(F, G, V, mask)
    dF, dG, dV, d_mask = attend_pullback(F, G, V, mask, out, mass, g)
    names = list(leaves(mask.parameters))

    def moved(parameters, directions, t):
        return {
            key: moved(value, directions, t) if isinstance(value, dict) else value + t * next(directions)
            for key, value in parameters.items()
        }

    steps = [real(20, 3, seed=7), real(20, 3, seed=8), real(20, 2, seed=9)]
    directions = [real(*np.shape(value), seed=11) if np.shape(value) else 1.0 for value in names]

    def loss(t):
        new = mask.with_parameters(moved(mask.parameters, iter(directions), t))
        f, h, v = (a + t * d for a, d in zip((F, G, V), steps, strict=True))
        return np.sum(g * attend(f, h, v, new)[0])

    got = sum(np.sum(a * d) for a, d in zip((dF, dG, dV, *leaves(d_mask)), (*steps, *directions), strict=True))
    assert got == pytest.approx(naive.directional_derivative(loss, 1e-4), rel=1e-6)


def test_attention_is_linear_in_the_stored_entries():
    """Its work, as planned, grows as the nodes of a ring do, exact or sampled."""
    from structmask import explain

    def flops(n, walks):
        mask = random_walk_kernel(nx.to_scipy_sparse_array(nx.circulant_graph(n, [1, 2])), 4, walks=walks, rng=0)
        return explain(mask * LowRank(np.ones((n, 4)), np.ones((n, 4))), columns=4).flops / n

    for walks in (None, 10):
        assert flops(8000, walks) == pytest.approx(flops(2000, walks), rel=0.1)


def test_two_sampled_masks_multiply_and_have_gradients(close):
    a, b = (random_walk_kernel(GRAPHS["weighted"], 3, walks=8, rng=seed) for seed in (0, 1))
    X = real(20, 3)
    close((a * b) @ X, (a.to_dense() * b.to_dense()) @ X)
    close((Toeplitz(real(39)) * a) @ X, (naive.toeplitz(real(39)) * a.to_dense()) @ X)
    assert set((a * b).pullback(X, X)) == {"mask", "low_rank"}


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"length": 0}, "length counts nodes of a walk, the start included: it must be at least 1, got 0"),
        ({"walks": 0}, "walks counts walks from every node: it must be at least 1, got 0"),
        ({"stop": 1.0}, r"must be in \[0, 1\), got 1.0"),
        ({"stop": -0.1}, r"must be in \[0, 1\), got -0.1"),
        ({"stop": float("nan")}, r"must be in \[0, 1\), got nan"),
        ({"discount": float("inf")}, "discount must be a finite number"),
        ({"alpha": float("nan")}, "alpha must be a finite number"),
        ({"graph": -GRAPHS["path"]}, "weights >= 0, got -1; take absolute values"),
        ({"graph": np.ones((2, 3))}, "square"),
        ({"graph": np.full((2, 2), np.nan)}, "edge weights must be finite, got nan"),
        ({"graph": np.full((2, 2), 1e308)}, "weights at node 0 add up to more than double precision holds; divide"),
        ({"rng": -1}, "rng is a seed .* got -1"),
    ],
)
def test_arguments_that_make_no_walk(options, sentence):
    options = {"graph": GRAPHS["path"], "length": 3, **options}
    with pytest.raises(ValueError, match=sentence):
        random_walk_kernel(options.pop("graph"), options.pop("length"), **options)


def test_counts_are_integers_and_weights_are_numbers():
    with pytest.raises(
        TypeError, match="length counts nodes of a walk, the start included: it must be an integer, got 2"
    ):
        random_walk_kernel(GRAPHS["path"], 2.5)
    with pytest.raises(TypeError, match="alpha must be a real number, got 'a'"):
        random_walk_kernel(GRAPHS["path"], 3, alpha="a")
    with pytest.raises(TypeError, match="stop must be a real number, got None"):
        random_walk_kernel(GRAPHS["path"], 3, stop=None)
    with pytest.raises(TypeError, match="rng is a seed"):
        random_walk_kernel(GRAPHS["path"], 3, walks=2, rng="seed")


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_smallest_weights_keep_their_proportions(backend):
    """Where a division by their sum would overflow."""
    W = GRAPHS["weighted"]
    with use_backend(backend):
        tiny, usual = (random_walk_kernel(scale * W, 4, walks=5, rng=0) for scale in (2.0**-1030, 1.0))
        np.testing.assert_allclose(tiny.to_dense(), usual.to_dense(), rtol=1e-12)


def test_given_graphs_are_not_modified():
    W = scipy.sparse.csr_array(np.array([[0.0, 2.0], [1.0, 0.0]]))
    W.data[1] = 0.0
    W.data.setflags(write=False)
    for walks in (None, 3):
        assert random_walk_kernel(W, 3, walks=walks).shape == (2, 2)
    np.testing.assert_array_equal(W.data, [2.0, 0.0])
