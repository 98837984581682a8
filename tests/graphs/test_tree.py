"""Forests: what makes one, the order of sweeps, common ancestors, and what is refused."""

import networkx as nx
import numpy as np
import pytest
import scipy.sparse

from structmask import NotATreeError, as_forest
from structmask.backends._standard_tree import heavy_paths
from structmask.graphs.tree import root_sums
from tests import naive, zoo

SIZES = (0, 1, 2, 3, 40)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", zoo.KINDS)
def test_parents_come_first_and_siblings_together(kind, n):
    forest = as_forest(parents=zoo.tree(kind, n))
    order, up, first = forest.order, forest.up, forest.first
    assert sorted(order) == list(range(n))
    np.testing.assert_array_equal(order[forest.position], np.arange(n))
    for i in range(n):
        parent = forest.parents[order[i]]
        assert up[i] == (i if parent < 0 else forest.position[parent])
        assert parent < 0 or up[i] < i
        assert [j for j in range(forest.roots, n) if up[j] == i] == list(range(first[i], first[i + 1]))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", zoo.KINDS)
def test_ancestors_and_path_sums_are_those_of_the_paths(kind, n):
    parents, lengths = zoo.tree(kind, n), zoo.lengths("real", n)
    forest, (i, j) = as_forest(parents=parents, lengths=lengths), np.indices((n, n))
    ancestors = forest.ancestors(i, j)
    sums = root_sums(forest.up, forest.lengths[forest.order])
    got = np.where(ancestors > 0, forest.path_sums(sums, i, j, ancestors), np.inf)
    for (a, b), path in naive.tree_paths(parents).items():
        want = np.inf if path is None else sum(lengths[v] for v in path)
        assert got[a, b] == pytest.approx(want, rel=1e-14, abs=1e-15)
    if n:
        np.testing.assert_allclose(zoo.distances(parents, lengths), got, rtol=1e-13, atol=1e-14)


def test_short_distances_far_from_the_root_keep_their_digits():
    n = 100_000
    forest = as_forest(parents=np.arange(n) - 1, lengths=np.full(n, 0.1))
    sums = root_sums(forest.up, forest.lengths[forest.order])
    i, j = np.array([n - 2]), np.array([n - 1])
    assert forest.path_sums(sums, i, j, forest.ancestors(i, j))[0] == pytest.approx(0.1, rel=1e-15)


@pytest.mark.parametrize("kind", ["path", "recursive", "forest"])
def test_graphs_of_all_kinds_give_the_same_distances(kind):
    n = 30
    parents, lengths = zoo.tree(kind, n), np.float32(zoo.lengths("real", n))
    child = np.flatnonzero(parents >= 0)
    A = scipy.sparse.coo_array((lengths[child], (child, parents[child])), shape=(n, n))
    graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_weighted_edges_from(zip(child.tolist(), parents[child].tolist(), lengths[child].tolist(), strict=True))
    want = zoo.distances(parents, lengths.astype(float))
    for given in (A, A.T, A + A.T, (A + A.T).toarray(), graph):
        forest = as_forest(given)
        np.testing.assert_allclose(zoo.distances(forest.parents, forest.lengths), want, rtol=1e-12)
        roots = np.flatnonzero(forest.parents < 0)
        assert all(np.isinf(want[root, :root]).all() for root in roots)  # the first of each component


def test_stored_zeros_are_edges_of_length_zero():
    A = scipy.sparse.coo_array(([0.0, 2.0], ([0, 1], [1, 2])), shape=(3, 3))
    forest = as_forest(A)
    assert forest.parents.tolist() == [-1, 0, 1]
    assert forest.lengths.tolist() == [0, 0, 2]


def test_lengths_replace_those_of_the_graph():
    forest = as_forest(nx.path_graph(3), lengths=[9, 2, 3])
    assert forest.lengths.tolist() == [0, 2, 3]
    assert as_forest(forest) is forest


def test_depth_does_not_matter():
    n = 1_000_000
    forest = as_forest(parents=np.arange(n) - 1)
    assert forest.heights[0][-1] == n - 1
    assert forest.is_integer


@pytest.mark.parametrize(
    "graph", [nx.cycle_graph(4), nx.disjoint_union(nx.path_graph(3), nx.complete_graph(3)), nx.cycle_graph(3)]
)
def test_cycle_in_a_graph_is_named(graph):
    with pytest.raises(NotATreeError, match="on a cycle") as caught:
        as_forest(graph)
    u, v = (int(word) for word in str(caught.value).split() if word.isdigit())
    assert (u, v) in nx.Graph(graph).edges
    assert nx.has_path(nx.restricted_view(graph, [], [(u, v)]), u, v)


def test_cycle_in_parents_is_named():
    for parents, cycle in (
        ([1, 2, 0], {(0, 1), (1, 2), (2, 0)}),
        ([-1, 0, 3, 4, 3], {(3, 4), (4, 3)}),
        ([0], {(0, 0)}),
    ):
        with pytest.raises(NotATreeError, match="on a cycle") as caught:
            as_forest(parents=parents)
        u, v = (int(word) for word in str(caught.value).replace(";", "").split() if word.isdigit())
        assert (u, v) in cycle


def test_loops_are_refused():
    with pytest.raises(NotATreeError, match="node 1 has an edge to itself"):
        as_forest(np.diag([0.0, 1.0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parents": [[-1]]}, "shape"),
        ({"parents": [-1, 0.5]}, "integers"),
        ({"parents": [-2, 0]}, "between -1 and 1"),
        ({"parents": [-1, 2]}, "between -1 and 1"),
        ({"parents": [-1, 0], "lengths": [1.0]}, "shape"),
        ({"parents": [-1, 0], "lengths": [1.0, -1.0]}, "at least 0, got -1.0 from node 1"),
        ({"parents": [-1, 0], "lengths": [1.0, np.nan]}, "finite"),
        ({"parents": [-1, 0], "lengths": [1.0, 1j]}, "real"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        as_forest(**arguments)


def test_two_lengths_of_one_edge_are_refused():
    with pytest.raises(ValueError, match="two lengths"):
        as_forest(np.array([[0.0, 1.0], [2.0, 0.0]]))


def test_tree_or_parents():
    for arguments in ((), (nx.path_graph(2),)):
        with pytest.raises(TypeError, match="one of them"):
            as_forest(*arguments, parents=[-1] if arguments else None)


def test_inputs_are_not_held_where_they_could_change():
    parents, lengths = np.array([-1, 0]), np.array([0.0, 1.0])
    forest = as_forest(parents=parents, lengths=lengths)
    parents[1], lengths[1] = -1, 7
    assert forest.parents.tolist() == [-1, 0]
    assert forest.lengths.tolist() == [0, 1]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", zoo.KINDS)
def test_heavy_paths_cover_the_tree_and_few_edges_leave_them(kind, n):
    forest = as_forest(parents=zoo.tree(kind, n))
    up, first, roots = forest.up, forest.first, forest.roots
    order, is_head, bounds = heavy_paths(up, first, roots)
    assert sorted(order) == list(range(n))
    assert (bounds[0], bounds[-1]) == (0, n)
    assert 2 ** (len(bounds) - 2) <= max(n, 1)
    for place in range(1, n):
        assert is_head[place] or up[order[place]] == order[place - 1]
    heads_above = np.zeros(n, dtype=int)  # light edges above a node, roots included as one
    for place, i in enumerate(order):
        above = 0 if i < roots else heads_above[up[i]]
        heads_above[i] = above + is_head[place]
        assert bounds[heads_above[i] - 1] <= place < bounds[heads_above[i]]
