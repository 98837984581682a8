"""Neighbourhood masks against a search from every node."""

import networkx as nx
import numpy as np
import pytest

from structmask import hop_mask
from tests import naive


@pytest.mark.parametrize("hops", [0, 1, 2, 3, 50])
@pytest.mark.parametrize(
    "graph", [nx.path_graph(7), nx.gn_graph(12, seed=0), nx.empty_graph(3), nx.empty_graph(0)], ids=str
)
def test_ones_within_so_many_edges(graph, hops):
    W = nx.to_numpy_array(graph)
    np.testing.assert_array_equal(hop_mask(graph, hops).to_dense(), naive.hop_mask(W, hops))


def test_all_nodes_within_the_diameter():
    np.testing.assert_array_equal(hop_mask(nx.star_graph(400), 2).to_dense(), 1.0)


def test_hops_are_counted_from_zero():
    with pytest.raises(ValueError, match="hops >= 0, got -1"):
        hop_mask(nx.path_graph(3), -1)
