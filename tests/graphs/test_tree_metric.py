"""Trees for graphs: what they promise about distances, and masks on the nodes of the graph only."""

import itertools

import networkx as nx
import numpy as np
import pytest

from structmask import as_adjacency, as_forest, distortion, tree_decay, tree_mask, tree_metric, use_backend
from structmask.graphs import TreeFunction, TreeTable
from tests import zoo
from tests.cases import real


def weighted(graph, seed=0):
    rng = np.random.default_rng(seed)
    for u, v in graph.edges:
        graph.edges[u, v]["weight"] = float(rng.integers(1, 1000)) / 64
    return graph


GRAPHS = {
    "ring": nx.cycle_graph(30),
    "grid": weighted(nx.convert_node_labels_to_integers(nx.grid_2d_graph(6, 7))),
    "random": weighted(nx.gnm_random_graph(50, 120, seed=1)),
    "pieces": weighted(nx.disjoint_union(nx.cycle_graph(9), nx.path_graph(4))),
    "no edges": nx.empty_graph(3),
    "one node": nx.empty_graph(1),
    "nothing": nx.empty_graph(0),
}


def distances(graph):
    n = graph.number_of_nodes()
    D = np.full((n, n), np.inf)
    for u, found in nx.all_pairs_dijkstra_path_length(graph):
        D[u, list(found)] = list(found.values())
    return D


def of_tree(forest):
    n = forest.visible
    return zoo.distances(forest.parents, forest.lengths)[:n, :n]


@pytest.mark.parametrize("name", GRAPHS)
def test_minimum_spanning_tree_has_the_least_total_length(name):
    graph = GRAPHS[name]
    forest = tree_metric(graph)
    want = nx.minimum_spanning_tree(graph)
    assert forest.lengths.sum() == pytest.approx(want.size(weight="weight"))
    for v in np.flatnonzero(forest.parents >= 0):
        assert graph.edges[int(v), int(forest.parents[v])].get("weight", 1) == forest.lengths[v]
    assert int((forest.parents < 0).sum()) == nx.number_connected_components(graph) if len(graph) else True


@pytest.mark.parametrize("backend", ["numpy", "auto"])
@pytest.mark.parametrize("name", GRAPHS)
def test_random_trees_never_shorten_and_stretch_little_on_average(name, backend):
    graph, D = GRAPHS[name], distances(GRAPHS[name])
    with use_backend(backend):
        trees = [of_tree(tree_metric(graph, kind="frt", rng=seed)) for seed in range(20)]
    for T in trees:
        np.testing.assert_array_equal(np.isinf(T), np.isinf(D))
        finite = np.isfinite(D)
        assert (T[finite] >= D[finite] * (1 - 1e-12)).all()
    if len(graph) > 1 and np.isfinite(D[D > 0]).any():
        apart = np.isfinite(D) & (D > 0)
        mean = (np.mean(trees, axis=0)[apart] / D[apart]).mean()
        assert mean < 8 * np.log2(len(graph))


def test_the_seed_decides():
    graph = GRAPHS["random"]
    first, again, other = (tree_metric(graph, kind="frt", rng=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.lengths, again.lengths)
    assert first.lengths.size != other.lengths.size or (first.lengths != other.lengths).any()
    with use_backend("numpy"):
        np.testing.assert_array_equal(first.parents, tree_metric(graph, kind="frt", rng=1).parents)


def test_nodes_at_distance_zero_stay_there():
    n = 5
    A = as_adjacency(nodes=n, edges=[[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]], weights=[0.0, 0, 3, 3, 0, 0])
    for kind in ("minimum_spanning", "frt"):
        T = of_tree(tree_metric(A, kind=kind, rng=0))
        assert T[0, 1] == T[2, 3] == 0
        assert T[0, 2] >= 3
        assert np.isinf(T[0, 4])


@pytest.mark.parametrize("backend", ["numpy", "auto"])
def test_masks_show_the_nodes_of_the_graph_only(backend, close):
    forest = tree_metric(GRAPHS["random"], kind="frt", rng=3)
    D, n = of_tree(forest), forest.visible
    assert n == 50 < forest.size
    whole = as_forest(parents=forest.parents, lengths=np.ceil(forest.lengths))
    hops = type(forest)(whole.parents, whole.lengths, forest.hidden)
    H = of_tree(hops)
    X, G = real(n, 3), real(n, 3, seed=1)
    finite = np.isfinite(D)
    with use_backend(backend):
        for M, kind, want in (
            (tree_decay(forest, 0.1), None, np.where(finite, np.exp(-0.1 * np.where(finite, D, 0)), 0)),
            (tree_mask(forest, lambda d: 1 / (1 + d)), TreeFunction, np.where(finite, 1 / (1 + D), 0)),
            (tree_mask(hops, lambda d: 1 / (1 + d)), TreeTable, np.where(np.isfinite(H), 1 / (1 + H), 0)),
        ):
            assert kind is None or isinstance(M, kind)
            assert M.shape == (n, n)
            close(M @ X, want @ X)
            close(M.to_dense(), want)
            gradients = M.pullback(G, X)
            for name, value in M.parameters.items():
                if isinstance(value, np.ndarray) and value.size == forest.size:  # along one edge
                    v = int(np.argmax(forest.parents >= 0))
                    step = np.zeros(forest.size)
                    step[v] = 1e-6
                    up, down = (M.with_parameters({name: value + s * step}) for s in (1, -1))
                    close(gradients[name][v], np.vdot(G, up @ X - down @ X) / 2e-6, tolerance=1e-5)


def test_distortion_compares_with_the_graph():
    graph = GRAPHS["grid"]
    D, forest = distances(graph), tree_metric(graph)
    off = ~np.eye(len(D), dtype=bool)
    ratios = of_tree(forest)[off] / D[off]
    found = distortion(forest, graph, sources=1000)
    np.testing.assert_allclose(found, [ratios.min(), ratios.mean(), ratios.max()], rtol=1e-12)
    some = distortion(forest, graph, sources=5, rng=0)
    assert found.least <= some.least <= some.mean <= some.largest <= found.largest
    assert np.isnan(distortion(tree_metric(GRAPHS["no edges"]), GRAPHS["no edges"])).all()


def test_random_trees_beat_a_spanning_tree_on_a_ring():
    n = 256
    ring = nx.cycle_graph(n)
    spanning, trees = tree_metric(ring), [tree_metric(ring, kind="frt", rng=seed) for seed in range(10)]
    neighbours = np.arange(n), np.roll(np.arange(n), 1)
    assert of_tree(spanning)[neighbours].max() == n - 1
    assert np.mean([of_tree(tree)[neighbours] for tree in trees], axis=0).max() < n / 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tree_metric(nx.path_graph(2), kind="shortest"), "unknown kind"),
        (lambda: tree_metric(np.array([[0.0, 1], [0, 0]])), "undirected"),
        (lambda: tree_metric(np.array([[0.0, -1], [-1, 0]])), "non-negative"),
        (lambda: distortion(tree_metric(nx.path_graph(2)), nx.path_graph(3)), "2 nodes, the graph 3"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_every_pair_is_measured_by_its_own_path():
    forest = tree_metric(GRAPHS["ring"], kind="frt", rng=0)
    T = of_tree(forest)
    for i, j in itertools.combinations(range(0, 30, 7), 2):
        assert forest.distances(np.array([i]), np.array([j]))[0] == pytest.approx(T[i, j])
