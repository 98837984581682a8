"""Graphs are prepared on the host: what is on a device is refused by name, in whatever form it comes."""

import numpy as np
import pytest
import scipy.sparse

from structmask import as_adjacency, as_forest, spectral_filter, tree_decay
from tests.gpu import stand_in

PATH = scipy.sparse.csr_array(np.diag(np.ones(2), 1) + np.diag(np.ones(2), -1))
GIVEN = {
    "graph": lambda cupy: as_adjacency(cupy.ones((2, 2))),
    "edges": lambda cupy: as_adjacency(nodes=2, edges=cupy.asarray(np.array([[0], [1]]))),
    "edges in a pair": lambda cupy: as_adjacency(nodes=2, edges=(np.array([0]), cupy.asarray(np.array([1])))),
    "weights": lambda cupy: as_adjacency(nodes=2, edges=[[0], [1]], weights=cupy.ones(1)),
    "parents": lambda cupy: as_forest(parents=cupy.asarray(np.array([-1, 0]))),
    "lengths": lambda cupy: as_forest(parents=[-1, 0], lengths=cupy.ones(2)),
    "lengths of a tree": lambda cupy: as_forest(as_forest(parents=[-1, 0]), lengths=cupy.ones(2)),
    "graph of a filter": lambda cupy: spectral_filter(cupy.ones((2, 2)), np.exp),
    "graph of a tree": lambda cupy: tree_decay(cupy.ones((2, 2)), 0.5),
}


@pytest.mark.parametrize("part", GIVEN)
def test_parts_on_a_device_are_refused_by_name(part):
    with stand_in.installed():
        import cupy

        with pytest.raises(TypeError, match=f"but {part.partition(' ')[0]} is on a device") as refused:
            GIVEN[part](cupy)
        assert "structmask.to_numpy" in str(refused.value)


def test_what_the_sentence_says_works():
    with stand_in.installed():
        import cupy

        from structmask import to_numpy

        W = to_numpy(cupy.asarray(PATH.toarray()))
        M = spectral_filter(as_adjacency(W), np.exp).to("cupy")
        assert isinstance(M @ cupy.ones(3), cupy.ndarray)
