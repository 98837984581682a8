"""How systems are solved: digits that must not be lost, and methods by structure or by name."""

import numpy as np
import pytest
import scipy.sparse

from structmask import MarkovChain, MarkovProcess, explain
from structmask.graphs import transient
from tests import naive
from tests.cases import real
from tests.graphs.chains import IRREDUCIBLE, N, agree, blocks_coupled, uniform

# --- accuracy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coupling", [1e-2, 1e-8, 1e-12])
def test_nearly_decomposable_chains_keep_their_digits(coupling):
    P = blocks_coupled(coupling)
    chain = MarkovChain(P)
    data = chain.transition.toarray()
    np.testing.assert_allclose(chain.stationary(), naive.stationary_by_fractions(data), rtol=1e-13)
    np.testing.assert_allclose(chain.hitting_times(0), naive.hitting_times_by_fractions(data, 0), rtol=1e-13)


@pytest.mark.parametrize("coupling", [1e-8, 1e-14])
def test_absorption_in_nearly_decomposable_chains_keeps_its_digits(coupling):
    """Blocks that hardly speak to each other, and two states in which all ends, reached from two blocks."""
    n = 24
    A = np.zeros((n + 2, n + 2))
    A[:n, :n] = blocks_coupled(coupling) / 2
    A[0, n], A[n - 1, n + 1] = coupling, coupling**2
    A[:n, :n] += np.diag(1 - A[:n].sum(axis=1))
    A[n, n] = A[n + 1, n + 1] = 1
    chain = MarkovChain(A)
    data, p = chain.transition.toarray(), chain.absorption_probabilities()
    for column, (goal, other) in enumerate([(n, n + 1), (n + 1, n)]):
        want = naive.hitting_probabilities_by_fractions(data, goal, other)
        np.testing.assert_allclose(p[:, column], want, rtol=1e-13)
    np.testing.assert_allclose(chain.hitting_probabilities(n + 1, avoid=n), p[:, 1], rtol=1e-13)


def test_trees_over_many_decades_keep_their_digits():
    w = 10.0 ** np.random.default_rng(0).uniform(-8, 8, 29)
    W = np.diag(w, 1) + np.diag(w, -1)
    chain = MarkovChain.from_graph(W)
    assert transient.TransientSystem(chain._A, np.ones(30)).method() == "forest"
    want = naive.hitting_times_by_fractions(chain.transition.toarray(), 7)
    np.testing.assert_allclose(chain.hitting_times(7), want, rtol=1e-13)


def test_iterations_tell_when_they_miss():
    P = blocks_coupled(1e-13)
    system = transient.TransientSystem(MarkovChain(P)._A, np.r_[1e-9, np.zeros(23)])
    system.factor = lambda *_: None
    with pytest.warns(UserWarning, match="the residual is .* above tol"):
        system.solve(np.ones((24, 1)), tol=1e-14)


# --- methods by structure ---------------------------------------------------------------------------------------------


def grid(side):
    path = scipy.sparse.diags_array([np.ones(side - 1), np.ones(side - 1)], offsets=[-1, 1])
    return scipy.sparse.csr_array(scipy.sparse.kron(path, np.eye(side)) + scipy.sparse.kron(np.eye(side), path))


def test_large_reversible_chains_are_iterated_to_a_certified_error():
    chain = MarkovChain.from_graph(grid(80))
    h = chain.hitting_times([0, 3000])
    system = chain._passage([0, 3000])._certain_system
    assert system.method(1) == "grounded"
    assert system.method(8) == "complete"
    exact = system.solve(np.ones((system.size, 8)))[:, 0]
    assert np.abs(h[chain._passage([0, 3000]).is_free] / exact - 1).max() < 1e-10


@pytest.mark.parametrize("preconditioner", ["jacobi", "elimination", "amg"])
@pytest.mark.parametrize("name", ["random", "reversible", "tree"])
def test_preconditioners_by_name(name, preconditioner, monkeypatch):
    """Whatever is named is what runs, and what comes out is the same."""
    if preconditioner == "amg":
        pytest.importorskip("pyamg")
    for factor in ("complete_factor", "forest_factor", "dense_factor"):
        monkeypatch.setattr(transient, factor, None)
    P, tol = IRREDUCIBLE[name], 1e-12
    chain = MarkovChain(P, preconditioner=preconditioner)
    agree(chain.hitting_times([1, -1], tol=tol), naive.hitting_times(P, [1, N - 1]))
    agree(chain.hitting_probabilities(0, avoid=1, tol=tol), naive.hitting_probabilities(P, [0], [1]))
    agree(chain.stationary(tol=tol), naive.stationary_distribution(P))
    H = [naive.hitting_times(P, [j]) for j in range(N)]
    agree(chain.kemeny_constant(tol=tol), np.array(H)[:, 0] @ naive.stationary_distribution(P))
    agree(chain.commute_times([[0, N - 1], [1, 0]], tol=tol), [H[0][-1] + H[-1][0], H[0][1] + H[1][0]])
    M = chain.discounted_visits(0.9, tol=tol)
    agree(M.to_dense(), naive.visits(P, 0.9))
    agree(M.T.to_dense(), naive.visits(P, 0.9).T)


def test_preconditioners_of_graphs_and_processes():
    pytest.importorskip("pyamg")
    W = grid(30)
    want, hours = MarkovChain.from_graph(W).hitting_times(5), MarkovProcess(W).hitting_times(5)
    for preconditioner in ("jacobi", "elimination", "amg"):
        agree(MarkovChain.from_graph(W, preconditioner=preconditioner).hitting_times(5), want)
        agree(MarkovProcess(W, preconditioner=preconditioner).hitting_times(5), hours)
    with pytest.raises(ValueError, match="preconditioner must be one of 'auto', 'jacobi', 'elimination', 'amg'"):
        MarkovChain.from_graph(W, preconditioner="ilu")


def test_large_directed_chains_are_iterated(monkeypatch):
    monkeypatch.setattr(transient, "complete_factor", lambda *_: None)
    W = grid(75)
    W.data *= uniform(W.nnz) + 0.1
    chain = MarkovChain(scipy.sparse.diags_array(1 / W.sum(axis=1)) @ W)
    M = chain.discounted_visits(0.99, tol=1e-11)
    assert M.method == "directed"
    assert M.error_bound == pytest.approx(1e-9)
    x = real(chain.size)
    y = M @ x
    np.testing.assert_allclose(y - 0.99 * chain.transition @ y, x, atol=1e-10)
    z = M.T @ x
    np.testing.assert_allclose(z - 0.99 * chain.transition.T @ z, x, atol=1e-10)


def test_a_tree_of_many_nodes_costs_no_fill():
    n = 100_000
    i = np.arange(1, n)
    parents = np.random.default_rng(0).integers(0, i)
    W = scipy.sparse.coo_array((np.ones(n - 1), (i, parents)), shape=(n, n))
    chain = MarkovChain.from_graph(scipy.sparse.csr_array(W + W.T))
    h = chain.hitting_times([0])
    residual = h - chain.transition @ h - 1
    assert np.abs(residual[1:]).max() < 1e-12 * h.max()
    K, start = chain.first_passage_kernel(0.9), np.zeros(n)
    start[7] = 1
    assert explain(chain.discounted_visits(0.9)).method == "forest"
    agree(K @ start, chain.hitting_transform(7, -np.log(0.9)))


def test_explain_names_the_solver():
    M = MarkovChain(IRREDUCIBLE["tree"]).discounted_visits(0.5)
    assert explain(M).method == M.method == "forest"
