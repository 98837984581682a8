"""State-space masks: chunks and transforms, attention, rows of any size, rules of the algebra, what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from structmask import (
    Band,
    Buckets,
    Causal,
    ExponentialSum,
    StateSpace,
    Toeplitz,
    explain,
    masked_attention,
    use_backend,
)
from structmask.linalg import chunk_basis, state_scan
from structmask.linalg.hadamard import masked_product, masked_pullback
from structmask.linalg.orbits import orbit
from structmask.linalg.rounding import rounding_of
from structmask.linalg.state_space import StateSpace as Class
from tests import naive
from tests.cases import complex_, real, states
from tests.methods import check_methods

SIDES = ({}, {"causal": True}, {"causal": True, "upper": True})


@given(
    st.integers(0, 20),
    st.integers(0, 12),
    st.integers(1, 3),
    st.integers(1, 5),
    st.sampled_from(SIDES),
    st.sampled_from([real, complex_]),
    st.booleans(),
)
def test_any_state_space_by_chunks_and_by_transform(n, w, r, size, sides, data, scanned):
    (a, b, c), near = states(2, rank=r, data=data), data(w) if w else None
    M, dense = StateSpace(a, b, c, n, near=near, **sides), naive.state_space(a, b, c, n, near, **sides)
    X = data(n, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Class, "is_scanned", scanned)
        patch.setattr(state_scan, "PRODUCT_CHUNK", size)
        np.testing.assert_allclose(M @ X, dense @ X, atol=1e-12)
        np.testing.assert_allclose(M.T @ X, np.swapaxes(dense, -1, -2) @ X, atol=1e-12)
    np.testing.assert_allclose(M.to_dense(), dense, atol=1e-13)


@given(st.integers(0, 40), st.integers(0, 3))
def test_an_orbit_is_powers_times_a_vector(count, r):
    a, b, _ = states(rank=r)
    want = [np.linalg.matrix_power(a, s) @ b for s in range(count)]
    np.testing.assert_allclose(orbit(a, b, count), np.reshape(want, (count, r)).T, atol=1e-13)


def test_conjugate_pairs_are_a_rotation():
    z, n = 0.9 * np.exp(0.4j), 80
    pair = ExponentialSum([0.5 - 1j, 0.5 + 1j], [z, z.conjugate()], n)
    block = StateSpace([[z.real, z.imag], [-z.imag, z.real]], [0.0, 1.0], [2.0, 1.0], n)
    assert block.dtype == "float64"
    np.testing.assert_allclose(pair.to_dense(), block.to_dense(), atol=1e-13)


def test_polynomials_are_jordan_blocks():
    n = 300
    M = StateSpace([[1.0, -1.0 / n], [0.0, 1.0]], [1.0, 1.0], [1.0, 0.0], n)
    s = abs(np.arange(n)[:, None] - np.arange(n))
    np.testing.assert_allclose(M.to_dense(), 1 - s / n, atol=1e-13)


@pytest.mark.parametrize("decay", [1.0, 0.99999, -0.9999])
def test_long_products_in_single_precision_keep_the_decay(decay):
    n = 60_000
    M, X = StateSpace([[decay]], [1.0], [1.0], n, causal=True), abs(real(n, 2))
    want = Causal(n, decay=decay) @ X
    error = abs(state_scan.product(M._placed(X.astype("f4")), X.astype("f4")) - want).max()
    assert error < 3e-6 * abs(want).max()


def test_the_cheaper_way_is_taken():
    short, long = StateSpace(*states(rank=2), 60), StateSpace(*states(rank=40), 2**16, near=np.ones(2000))
    assert short.is_scanned
    assert rounding_of(short, 1e-7).is_local
    assert not long.is_scanned
    assert not rounding_of(long, 1e-7).is_local
    assert explain(long, columns=8).seconds < explain(Toeplitz(real(2**17 - 1)), columns=8).seconds * 1.01


# --- attention --------------------------------------------------------------------------------------------------------

N, R, K = 150, 3, 2
MASKS = {
    "sum": ExponentialSum(real(2, 1, 3), abs(np.tanh(real(3))), N),
    "near": StateSpace(*states(), N, near=real(70)),
    "causal": StateSpace(*states(), N, near=real(3), causal=True),
    "upper": ExponentialSum(real(2), np.tanh(real(2)), N, causal=True, upper=True),
    "complex": StateSpace(*states(data=complex_), N),
    "heads": StateSpace(*states(2, 1), N, near=real(2, 1, 5)),
    "nothing": StateSpace(np.ones((0, 0)), [], [], N, near=real(3)),
    "all near": StateSpace(*states(), N, near=real(200)),
}


@pytest.mark.parametrize("data", [real, complex_], ids=["real", "complex"])
@pytest.mark.parametrize("backend", ["numpy", "auto"])
@pytest.mark.parametrize("name", MASKS)
def test_every_method_gives_the_product_and_its_row_sums(name, backend, data, close):
    with use_backend(backend):
        assert {"scan", "toeplitz"} < check_methods(
            MASKS[name], data(N, R), data(N, R, seed=1), data(N, K, seed=2), close
        )


@pytest.mark.parametrize("name", MASKS)
def test_gradients_of_attention_are_those_of_the_toeplitz_matrix(name, close):
    mask, (F, G, P, X) = MASKS[name], (real(N, R), real(N, R, seed=1), real(N, K, seed=2), real(N, K, seed=3))
    got, *_ = masked_pullback(mask, F, G, P, X)
    table, *_ = masked_pullback(mask.toeplitz, F, G, P, X)
    want = mask.gradient(table["offsets"])
    assert set(got) == set(mask.parameters)
    for key, value in want.items():
        close(got[key], value)


@pytest.mark.parametrize("sides", SIDES, ids=str)
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["numpy", "auto"])
def test_rows_are_accurate_however_small(sides, precision, backend):
    """Keys spread over many magnitudes and a mask that fades fast: a transform would lose the small rows."""
    n, rng = 700, np.random.default_rng(0)
    F, G, X = (np.exp(rng.uniform(-8, 8, (n, 4))) for _ in range(3))
    F, G, X = (a.astype(precision).astype(float) for a in (F, G, X))
    mask = ExponentialSum([1.0, 0.01], [0.5, 0.97], n, **sides)
    A = mask.to_dense() * (F @ G.T)
    with use_backend(backend):
        Y, mass = masked_product(mask, *(a.astype(precision) for a in (F, G, X)), "scan")
    tolerance = 3e-6 if precision == "float32" else 1e-13
    np.testing.assert_allclose(Y, A @ X, rtol=tolerance)
    np.testing.assert_allclose(mass, A.sum(axis=1), rtol=tolerance)


@pytest.mark.parametrize("sides", SIDES, ids=str)
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("size", chunk_basis.CHUNKS)
def test_directions_inside_a_chunk_say_what_the_states_say(size, precision, sides, monkeypatch, close):
    """Slow decays share directions, fast ones keep theirs; a chunk of any size, a length that no chunk divides."""
    monkeypatch.setattr(chunk_basis, "CHUNKS", (size,))
    n, decays = 5 * size + 3, np.exp(-1 / np.array([[300.0, 400, 500, 600, 700, 800], [2, 3, 4, 5, 6, 7]]))
    mask = ExponentialSum(abs(real(2, 6)), decays, n, **sides)
    slow = ExponentialSum(mask.weights[0], mask.decays[0], n, **sides)
    F, G, X = abs(real(2, n, 5)), abs(real(n, 5, seed=1)), real(n, 19, seed=2)
    for M in (mask, slow):
        A = M.to_dense() * (F @ G.T)
        Y, mass = masked_product(M, *(a.astype(precision) for a in (F, G, X)), "scan")
        close(Y, A @ X, scale=(A @ abs(X)).max())
        close(mass, A.sum(axis=-1))
    ranks = [chunk_basis.basis(M, size, precision).rank for M in (mask, slow)]
    assert ranks[0] == 6 * sum(mask.sides)
    assert ranks[1] <= (6 if precision == "float32" and size < 256 else 9) or sides


def test_long_attention_in_single_precision_keeps_the_decay(close):
    n = 20_000
    mask, F, G, X = ExponentialSum([1.0, 0.5], [0.99999, 1.0], n), *(abs(real(n, 3, seed=s)) for s in range(3))
    Y, mass = masked_product(mask, *(a.astype("f4") for a in (F, G, X)), "scan")
    want, want_mass = masked_product(mask.toeplitz, F, G, X, "stream")
    close(Y, want, tolerance=3e-6)
    close(mass, want_mass, tolerance=3e-6)


def test_causal_attention_does_not_see_the_future(close):
    q, k, v = real(9, 4), real(9, 4, seed=1), real(9, 2, seed=2)
    mask = ExponentialSum([1.0, 0.5], [0.9, 0.2], 9, causal=True)
    out = masked_attention(q, k, v, mask=mask)
    changed = v.copy()
    changed[5:] += 1.0
    close(masked_attention(q, k, changed, mask=mask)[:5], out[:5])


# --- the algebra ------------------------------------------------------------------------------------------------------

decay, wave = ExponentialSum([1.0, 2.0], [0.5, 0.9], 9), StateSpace(*states(), 9, near=real(2))
one_sided = ExponentialSum([3.0], [0.4], 9, causal=True)
toeplitz, buckets, gone = Toeplitz(real(17)), Buckets(real(2), (1,), 9), Causal(9, decay=0.5)
RULES = [
    (decay + decay, 2 * decay.to_dense(), ExponentialSum),
    (one_sided + one_sided, 2 * one_sided.to_dense(), ExponentialSum),
    (decay * decay, decay.to_dense() ** 2, ExponentialSum),
    (one_sided.T * one_sided.T, one_sided.to_dense().T ** 2, ExponentialSum),
    (gone * decay, gone.to_dense() * decay.to_dense(), ExponentialSum),
    (gone.T * one_sided.T, gone.to_dense().T * one_sided.to_dense().T, ExponentialSum),
    (Causal(9) * wave, np.tril(wave.to_dense()), StateSpace),
    (wave * Causal(9).T, np.triu(wave.to_dense()), StateSpace),
    (wave * toeplitz, wave.to_dense() * toeplitz.to_dense(), Toeplitz),
    (decay * buckets, decay.to_dense() * buckets.to_dense(), Toeplitz),
    (Band(real(5), 9) * wave, naive.band(real(5), 9) * wave.to_dense(), Band),
]


@pytest.mark.parametrize(("result", "want", "kind"), RULES)
def test_rule_is_taken_and_right(result, want, kind, close):
    assert type(result) is kind
    close(result.to_dense(), want)


def test_sides_that_differ_are_not_joined(close):
    close((decay + one_sided).to_dense(), decay.to_dense() + one_sided.to_dense())
    with pytest.raises(TypeError, match="no fast product"):
        decay * one_sided
    with pytest.raises(TypeError, match="no fast product"):
        gone.T * one_sided


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        ((np.ones((2, 3)), np.ones(3), np.ones(3), 4), {}, r"needs a \(\.\.\., r, r\)"),
        ((np.ones((2, 2)), np.ones(3), np.ones(2), 4), {}, r"got shapes \(\(2, 2\), \(3,\), \(2,\)\)"),
        ((np.ones((1, 1)), 1.0, [1.0], 4), {}, "StateSpace needs"),
        ((np.ones((1, 1)), [1.0], [1.0], 4), {"near": 1.0}, "near of shape"),
        ((np.ones((1, 1)), [1.0], [1.0], -1), {}, "size n >= 0, got -1"),
        ((np.ones((1, 1)), [1.0], [1.0], 4), {"upper": True}, "pass causal=True"),
        ((np.ones((2, 1, 1)), np.ones((3, 1)), [1.0], 4), {}, "broadcast"),
    ],
)
def test_generators_that_do_not_fit(arguments, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        StateSpace(*arguments, **options)


@pytest.mark.parametrize(("weights", "decays"), [([1.0], [0.5, 0.2]), (1.0, [0.5]), (1.0, 0.5)])
def test_sums_that_do_not_fit(weights, decays):
    with pytest.raises(ValueError, match="as many weights"):
        ExponentialSum(weights, decays, 3)
