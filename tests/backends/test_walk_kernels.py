"""Random words with known answers, walks that are the same everywhere, and rows of matrix powers."""

import numba
import numpy as np
import pytest
import scipy.sparse
import scipy.stats

from structmask import use_backend
from structmask.backends import _standard_walks, walk_kernels
from structmask.backends.walk_kernels import WORD, Plan
from tests import naive
from tests.cases import real

ANSWERS = (  # of the authors of the generator: counter, key, words
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
)


def numbers(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "words"), ANSWERS)
def test_known_answers(counter, key, words):
    step, draw, low, high = numbers(counter)
    key = sum(word << 32 * place for place, word in enumerate(numbers(key)))
    got = _standard_walks.philox(tuple(np.array([c], np.uint64) for c in (step, draw, low, high)), key)
    assert [int(word[0]) for word in got] == numbers(words)
    from structmask.backends._numba.walks import _words

    compiled = np.zeros((4, 1), np.uint64)
    _words(np.uint64(step), np.uint64(draw), np.uint64(low | high << 32), np.uint64(key), compiled)
    assert [int(word) for word in compiled[:, 0]] == numbers(words)


def graph(n, seed=0, *, weighted):
    """A random graph with a dead end, on which walks are long."""
    A = scipy.sparse.random_array((n, n), density=4 / n, rng=seed, format="csr")
    A = (A + A.T).tolil()
    A[n // 2, :] = 0
    A = scipy.sparse.csr_array(A)
    A.eliminate_zeros()
    A.data = np.abs(real(A.nnz, seed=seed)) + 0.1 if weighted else np.ones(A.nnz)
    return A


PLANS = [
    Plan(7, 9, 0, 12345678901234567890),
    Plan(6, 40, WORD // 10, 3, 1),
    Plan(6, 40, WORD // 10, 3, 1, repelling=True),
]


@pytest.mark.parametrize("weighted", [False, True], ids=["uniform", "weighted"])
@pytest.mark.parametrize("plan", PLANS, ids=["no-stop", "stop", "repelling"])
def test_walks_are_the_same_on_every_backend(plan, weighted):
    W, starts = graph(60, weighted=weighted), np.array([3, 0, 59, 3])
    gain, modulation = np.abs(real(60)) + 0.5, np.abs(real(plan.length))
    found = []
    for backend in ("numba", "numpy"):
        with use_backend(backend):
            steps = walk_kernels.steps(W)
            features = walk_kernels.walk_features(steps, gain, modulation, plan)
            found.append([*steps, walk_kernels.random_walks(steps, starts, plan, 5), *features])
    for compiled, plain in zip(*found, strict=True):
        assert compiled.dtype == plain.dtype
        np.testing.assert_array_equal(compiled, plain)


def test_walks_are_the_same_for_every_number_of_threads_and_segment(monkeypatch):
    from structmask.backends._numba import walks

    monkeypatch.setattr(walks, "SERIAL_STEPS", 0)
    steps, plan = walk_kernels.steps(graph(60, weighted=True)), PLANS[2]
    threads, found = numba.get_num_threads(), []
    for count, segment in ((1, 1 << 19), (threads, 1 << 19), (threads, 1)):
        monkeypatch.setattr(walks, "SEGMENT", segment)
        numba.set_num_threads(count)
        found.append([walk_kernels.random_walks(steps, np.arange(60), plan)])
        found[-1] += walk_kernels.walk_features(steps, np.ones(60), np.ones(6), plan)
    numba.set_num_threads(threads)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_features_are_sums_over_the_walks():
    plan = PLANS[1]
    W, gain, modulation = graph(30, weighted=True), np.abs(real(30)) + 0.5, real(plan.length)
    steps, F = walk_kernels.steps(W), np.zeros((30, 30))
    for i, paths in enumerate(walk_kernels.random_walks(steps, np.arange(30), plan).reshape(30, plan.walks, -1)):
        for path in paths:
            load = 1.0
            for step, v in enumerate(path[path >= 0]):
                F[i, v] += modulation[step] * load / plan.walks
                load *= gain[v]
    indptr, indices, data = walk_kernels.walk_features(steps, gain, modulation, plan)
    got = scipy.sparse.csr_array((data, indices, indptr), shape=W.shape)
    assert got.has_canonical_format
    np.testing.assert_allclose(got.toarray(), F, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_walks_follow_edges_and_end_only_where_they_must(backend):
    W, plan = graph(40, weighted=False), Plan(12, 20, 0, 1)
    with use_backend(backend):
        paths = walk_kernels.random_walks(walk_kernels.steps(W), np.arange(40), plan)
    dense = W.toarray()
    ends = (dense == 0).all(axis=1)
    for before, after in zip(paths.T[:-1], paths.T[1:], strict=True):
        moved = after >= 0
        assert (dense[before[moved], after[moved]] > 0).all()
        assert (ends[before[~moved & (before >= 0)]]).all()
        assert (after[before < 0] < 0).all()


@pytest.mark.parametrize("repelling", [False, True])
def test_each_walk_takes_the_next_node_in_proportion_to_weights_and_stops_as_told(repelling):
    """Chi-square tests of one walk of each start at a time: those of one start need not be independent."""
    weights = np.array([0.0, 5.0, 1.0, 0.25, 2.0, 0.01])
    n, starts, walks = weights.size, 20_000, 3
    steps = walk_kernels.steps(scipy.sparse.csr_array(np.tile(weights, (n, 1))))
    paths = walk_kernels.random_walks(steps, np.zeros(starts, int), Plan(3, walks, WORD // 5, 99, 0, repelling))
    for r in range(walks):
        own = paths[r::walks]
        for step in (1, 2):
            alive = own[own[:, step - 1] >= 0, step]
            expected = alive.size * np.concatenate([[0.2], 0.8 * weights[1:] / weights.sum()])
            counts = np.bincount(alive + 1, minlength=n + 1)
            assert counts[1] == 0
            counts = np.delete(counts, 1)
            assert scipy.stats.chisquare(counts, expected).pvalue > 1e-6


def test_repelling_walks_spread_over_the_neighbours():
    """From a node with as many neighbours as walks, each neighbour gets exactly one of them."""
    n = 50
    steps = walk_kernels.steps(scipy.sparse.csr_array(np.ones((n, n)) - np.eye(n)))
    paths = walk_kernels.random_walks(steps, np.arange(n), Plan(2, n - 1, 0, 7, 0, repelling=True))
    for i, reached in enumerate(paths[:, 1].reshape(n, n - 1)):
        assert sorted(reached) == [j for j in range(n) if j != i]


@pytest.mark.parametrize("weights", [[1.0], [3.0, 1.0], [0.1, 0.2, 0.3, 0.4], [1e-9, 1.0, 1.0], np.arange(1.0, 40)])
def test_alias_table_holds_the_probabilities(weights):
    W = scipy.sparse.csr_array(np.array([weights]))
    indptr, d = W.indptr.astype(np.int64), len(weights)
    threshold, alias = np.empty(d, np.uint32), np.empty(d, np.int32)
    _standard_walks.alias_tables(indptr, W.data, threshold, alias)
    got = np.zeros(d)
    for e in range(d):
        share = 1.0 if alias[e] == e else threshold[e] / WORD
        got[e] += share / d
        got[alias[e]] += (1 - share) / d
    np.testing.assert_allclose(got, W.data / W.data.sum(), atol=2.0**-31)


def test_no_nodes_and_no_edges():
    for backend in ("numba", "numpy"):
        with use_backend(backend):
            for n in (0, 1, 2):
                steps = walk_kernels.steps(scipy.sparse.csr_array((n, n)))
                indptr, indices, data = walk_kernels.walk_features(steps, np.ones(n), np.ones(4), Plan(4, 3, 0, 1))
                np.testing.assert_array_equal(indptr, np.arange(n + 1))
                np.testing.assert_array_equal(indices, np.arange(n))
                np.testing.assert_array_equal(data, np.ones(n))


# --- rows of powers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize(("rows", "length"), [(range(3, 20), 4), (range(40), 1), (range(40), 2), (range(5, 5), 3)])
def test_gram_of_powers_and_its_gradient(backend, rows, length):
    P = graph(40, weighted=True)
    P.data[::3] *= -1
    P.data[1::7] = 0
    weights = real(len(rows), length, length)
    weights = weights + np.swapaxes(weights, 1, 2)
    sources = np.repeat(np.arange(40), np.diff(P.indptr))

    def gram(data):
        powers = [
            np.linalg.matrix_power(scipy.sparse.csr_array((data, P.indices, P.indptr)).toarray(), step)
            for step in range(length)
        ]
        return np.einsum("liv,miv->ilm", powers, powers)[rows.start : rows.stop]

    with use_backend(backend):
        got = walk_kernels.power_gram(P, rows, length)
        gradient = walk_kernels.power_gram_pullback(P, sources, rows, weights)
    np.testing.assert_allclose(got, gram(P.data), rtol=1e-12, atol=1e-12)
    direction = real(P.nnz, seed=1)
    want = naive.directional_derivative(lambda t: np.sum(weights * gram(P.data + t * direction)), 1e-4)
    assert gradient @ direction == pytest.approx(want, rel=1e-7, abs=1e-9)
