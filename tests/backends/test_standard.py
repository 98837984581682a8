"""The reference form of every kernel against loops, on every array library."""

import numpy as np
import pytest
import scipy.sparse

from structmask import to_numpy
from structmask.backends import _standard
from structmask.backends._standard import CAUSAL_CHUNK, SCAN_CHUNK
from tests import naive
from tests.cases import complex_, gates, real

LENGTHS = (1, 2, SCAN_CHUNK - 1, SCAN_CHUNK, SCAN_CHUNK + 1, 2 * SCAN_CHUNK, 2 * CAUSAL_CHUNK + 3)


def recurrence(X, decay):
    Y = np.zeros(np.broadcast_shapes(X.shape, (*decay.shape, 1)), np.result_type(X, decay))
    for i in range(X.shape[-2]):
        Y[..., i, :] = X[..., i, :] + (decay[..., i, None] * Y[..., i - 1, :] if i else 0)
    return Y


@pytest.mark.parametrize("n", LENGTHS)
def test_linear_scan_is_the_recurrence(n, library, close):
    X, a = real(2, n, 3), gates(n)
    close(_standard.linear_scan(library.array(X), library.array(a)), recurrence(X, a))
    close(_standard.linear_scan(library.array(X), library.array(gates(2, n))), recurrence(X, gates(2, n)))
    X, a = complex_(n, 1), complex_(n) / 4
    close(_standard.linear_scan(library.array(X), library.array(a)), recurrence(X, a))


def test_linear_scan_of_scans(library, close):
    """Longer than a chunk of chunks: the recursion recurs."""
    n = SCAN_CHUNK**2 + 5
    X, a = real(n, 1), np.full(n, 0.999)
    close(_standard.linear_scan(library.array(X), library.array(a)), recurrence(X, a))


@pytest.mark.parametrize("n", LENGTHS)
def test_causal_hadamard_is_the_dense_product(n, library, close):
    F, G, X, a = real(2, n, 3), real(n, 3, seed=1), real(2, n, 2, seed=2), gates(n)
    M = recurrence(np.eye(n), a) * naive_gram(F, G)
    Y, mass = _standard.causal_hadamard(*(library.array(z) for z in (F, G, X, a)))
    close(Y, M @ X)
    close(mass, M.sum(axis=-1))


def naive_gram(F, G):
    return np.einsum("...ir,...jr->...ij", F, G)


def test_decay_triangle_and_its_reverse(library, close):
    a = gates(2, 9)
    close(_standard.decay_triangle(library.array(a)), naive.causal(9, a))
    reverse = to_numpy(_standard.reversed_decay(library.array(a)))
    close(naive.causal(9, reverse)[..., ::-1, ::-1], naive.causal(9, a, upper=True))


GRIDS = [((1,), (1,)), ((5,), (5,)), ((3,), (6,)), ((2, 3), (2, 3)), ((3, 5), (1, 4)), ((2, 3, 4), (3, 2, 1))]


@pytest.mark.parametrize(("rows", "columns"), GRIDS)
@pytest.mark.parametrize("data", [real, complex_], ids=["real", "complex"])
def test_circulant_product_and_correlation(rows, columns, data, library, close):
    sides = tuple(m + n - 1 for m, n in zip(rows, columns, strict=True))
    lengths = tuple(side + 2 for side in sides)
    offsets, levels = data(2, *sides), len(sides)
    M = naive.toeplitz(offsets, levels, columns)
    X, G = data(2, M.shape[-1], 3, seed=1), data(2, M.shape[-2], 3, seed=2)
    spectrum = _standard.circulant_spectrum(library.array(offsets), columns, lengths)
    is_real = data is real
    Y = _standard.circulant_product(spectrum, library.array(X), columns, rows, lengths, real=is_real)
    close(Y, M @ X, scale=(np.abs(M) @ np.abs(X)).max())
    table = to_numpy(_standard.circulant_correlation(library.array(G), library.array(X), columns, rows, lengths))
    full = G @ np.swapaxes(X, -1, -2).conj()
    positions = naive.toeplitz(np.arange(np.prod(sides)).reshape(sides), levels, columns)
    for offset in range(int(np.prod(sides))):
        want = np.sum(full * (positions == offset), axis=(-1, -2))
        close(table.reshape(2, -1)[:, offset], want, scale=np.abs(full).sum())


def test_circulant_product_keeps_single_precision(library):
    x = library.array(real(9), "float32")
    spectrum = _standard.circulant_spectrum(x, (5,), (9,))
    Y = _standard.circulant_product(spectrum, library.array(real(5, 2), "float32"), (5,), (5,), (9,), real=True)
    assert to_numpy(Y).dtype == "float32"


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("heads", [(), (3,)])
def test_csr_product_with_shared_and_own_values(batch, heads, close):
    pattern = scipy.sparse.random_array((7, 5), density=0.4, rng=np.random.default_rng(0), format="csr")
    values, X = real(*heads, pattern.nnz), real(*batch, 5, 2)
    rows = np.repeat(np.arange(7), np.diff(pattern.indptr))
    dense = np.zeros((*heads, 7, 5))
    dense[..., rows, pattern.indices] = values
    close(_standard.csr_product(pattern, values, X), dense @ X)


def test_sampled_product_is_the_gram_matrix_at_its_places(library, close):
    F, G = complex_(2, 5, 3), complex_(4, 3, seed=1)
    rows, columns = np.array([0, 4, 4, 2]), np.array([3, 0, 0, 1])
    got = _standard.sampled_product(*(library.array(z) for z in (rows, columns, F, G)))
    close(got, naive_gram(F, G)[..., rows, columns])
