"""Closed forms are exponentials of Laplacians."""

import networkx as nx
import numpy as np
import pytest
import scipy.linalg
from scipy.integrate import quad
from scipy.special import ive

from structmask import (
    Hypercube,
    StructuredMatrix,
    complete_diffusion,
    grid_diffusion,
    hypercube_diffusion,
    regular_tree_diffusion,
)
from tests import naive

TIMES = np.array([0.0, 0.3, 4.0])


def expm(W, times=TIMES, kind="combinatorial"):
    return np.stack([scipy.linalg.expm(-t * naive.laplacian(W, kind)) for t in times])


@pytest.mark.parametrize("d", [0, 1, 2, 4])
def test_hypercube(d, close):
    W = np.array([[float((i ^ j).bit_count() == 1) for j in range(2**d)] for i in range(2**d)])
    M = hypercube_diffusion(d, TIMES)
    assert isinstance(M, Hypercube)
    close(M.to_dense(), expm(W), tolerance=1e-13)
    close(hypercube_diffusion(d, 0.3).to_dense(), expm(W)[1], tolerance=1e-13)


def cycle(n):
    W = np.zeros((n, n))
    for i in range(n):
        W[i, (i + 1) % n] += 1.0
        W[(i + 1) % n, i] += 1.0
    return W


@pytest.mark.parametrize("n", [1, 2, 3, 8, 13])
def test_path_and_cycle(n, close):
    close(grid_diffusion(n, TIMES).to_dense(), expm(nx.to_numpy_array(nx.path_graph(n))), tolerance=1e-13)
    close(grid_diffusion(n, TIMES, periodic=True).to_dense(), expm(cycle(n)), tolerance=1e-13)


@pytest.mark.parametrize("shape", [(3, 4), (1, 5), (2, 3, 2)])
def test_grid_and_torus(shape, close):
    for periodic, side in ((False, lambda n: nx.to_numpy_array(nx.path_graph(n))), (True, cycle)):
        W = np.zeros((1, 1))
        for n in shape:
            W = np.kron(W, np.eye(n)) + np.kron(np.eye(len(W)), side(n))
        M = grid_diffusion(shape, TIMES, periodic=periodic)
        close(M.to_dense(), expm(W), tolerance=1e-13)
        assert isinstance(M, StructuredMatrix)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_complete(n, close):
    close(complete_diffusion(n, TIMES).to_dense(), expm(np.ones((n, n)) - np.eye(n)), tolerance=1e-13)
    close(complete_diffusion(n, 0.3).to_dense(), expm(np.ones((n, n)) - np.eye(n))[1], tolerance=1e-13)


@pytest.mark.parametrize(("k", "depth"), [(2, 60), (3, 60), (5, 60)])
@pytest.mark.parametrize("t", [0.0, 0.5, 2.0])
def test_regular_tree_is_a_large_finite_one_far_from_its_leaves(k, depth, t, close):
    """The walk of the finite tree from its root, by distance: a birth-death chain."""
    P = np.zeros((depth + 1, depth + 1))
    for s in range(depth + 1):
        if s == 0:
            P[0, 1] = 1.0
        elif s == depth:
            P[s, s - 1] = 1.0
        else:
            P[s, s - 1], P[s, s + 1] = 1 / k, (k - 1) / k
    mass = scipy.linalg.expm(-t * (np.eye(depth + 1) - P))[0]
    sphere = np.r_[1.0, k * (k - 1.0) ** np.arange(depth)]
    f = regular_tree_diffusion(k, t)
    near = np.arange(depth // 2 - 1)
    escaped = mass[depth // 2 :].sum()
    close(f(near), (mass / sphere)[near], tolerance=1e-12 + escaped)
    assert escaped < 1e-12


def test_regular_tree_against_its_measure(close):
    """f(0) is the Laplace transform of the Kesten-McKay measure, and f sums to one over the tree."""
    k, t = 4, 3.0
    edge = 2 * np.sqrt(k - 1)

    def density(x):
        return k * np.sqrt(edge**2 - x**2) / (2 * np.pi * (k**2 - x**2)) * np.exp(-t * (1 - x / k))

    f = regular_tree_diffusion(k, t)
    close(f(0.0), quad(density, -edge, edge, epsabs=1e-13)[0], tolerance=1e-9)
    s = np.arange(1, 24)
    assert f(0) + np.sum(k * (k - 1.0) ** (s - 1) * f(s)) == pytest.approx(1.0, abs=1e-7)
    close(regular_tree_diffusion(2, t)(s), ive(s, t))
    assert f(np.array([[1, 2], [3, 2000]])).shape == (2, 2)
    assert f(np.array([2000]))[0] == 0.0
    assert f(np.zeros((0,))).shape == (0,)


def test_errors():
    for build, message in (
        (lambda: hypercube_diffusion(-1, 1.0), "dimension must be at least 0"),
        (lambda: grid_diffusion((3, 0), 1.0), "a side must be at least 1"),
        (lambda: grid_diffusion((), 1.0), "at least one side"),
        (lambda: complete_diffusion(0, 1.0), "n must be at least 1"),
        (lambda: complete_diffusion(3, -1.0), "time must not be negative"),
        (lambda: regular_tree_diffusion(1, 1.0), "degree must be at least 2"),
        (lambda: regular_tree_diffusion(3, TIMES), r"takes one time, got shape \(3,\)"),
        (lambda: regular_tree_diffusion(3, 1.0)(-1), "distance is a number >= 0"),
    ):
        with pytest.raises(ValueError, match=message):
            build()
