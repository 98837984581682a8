"""What all methods of a masked product have to give."""

import numpy as np

from structmask.linalg.hadamard import Kind, applicable, masked_product
from tests import naive


def check_methods(mask, F, G, X, close):
    """Each one that applies gives the product and its row sums; returns their names."""
    dense = mask.to_dense() * naive.low_rank(F, G)
    scale, methods = (np.abs(dense) @ np.abs(X)).max(), applicable(mask, Kind.of(F, G, X))
    for method in ("auto", *methods):
        Y, mass = masked_product(mask, F, G, X, method, with_mass=True)
        close(Y, dense @ X, scale=scale)
        close(mass, dense.sum(axis=-1), scale=np.abs(dense).sum(axis=-1).max())
    return set(methods)
