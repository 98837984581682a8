"""Compressed tables: every certificate is checked, every way to be refused is tried."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from structmask import ExponentialSum, StateSpace, Toeplitz, masked_attention
from structmask.linalg.compress import _Table
from structmask.linalg.realisation import Tail
from tests.cases import real


def smooth(s, rng):
    """A sample of a stationary Gaussian process: cosines of random frequencies."""
    frequencies, phases = rng.standard_normal(400), rng.uniform(0, 2 * np.pi, 400)
    return np.cos(np.outer(20 * s / s.size, frequencies) + phases).sum(axis=1) / 20


def t5(s, largest):
    logarithmic = 8 + np.floor(8 * np.log(np.maximum(s, 8) / 8) / np.log(largest / 8))
    return np.exp(-0.3 * np.where(s < 8, s, np.minimum(15, logarithmic)))


FUNCTIONS = {
    "exp": lambda s: np.exp(-s / 200),
    "1/(1+s)": lambda s: 1 / (1 + s),
    "(1+s)^-.5": lambda s: (1 + s) ** -0.5,
    "1/(1+s^2)": lambda s: 1 / (1 + s * s),
    "gauss": lambda s: np.exp(-((s / 300) ** 2) / 2),
    "matern": lambda s: (1 + 10 * s / s.size) * np.exp(-10 * s / s.size),
    "cosines": lambda s: sum(np.exp(-s / t) * np.cos(w * s) for t, w in ((100, 0.3), (400, 0.05), (1e9, 0.01))),
    "ramp": lambda s: 1 - s / s.size,
    "log": np.log1p,
    "t5": lambda s: t5(s, 128),
    "t5, long": lambda s: t5(s, max(9, s.size)),
    "clipped ramp": lambda s: np.maximum(0.1, 1 - 3 * s / s.size),
    "random": lambda s: np.random.default_rng(0).standard_normal(s.size),
    "process": lambda s: smooth(s, np.random.default_rng(1)),
    "constant": np.ones_like,
    "delta": lambda s: (s == 0) * 1.0,
    "zero": np.zeros_like,
}
ROUGH = ("t5, long", "clipped ramp", "random")
SMALL = [(n, 1e-6, measure) for n in (1, 2, 3, 10, 65, 100) for measure in ("absolute", "mass", "relative")]
LARGE = [(1000, 1e-3, "relative"), (1000, 1e-10, "mass"), (4096, 1e-6, "mass"), (4096, 1e-4, "absolute")]


@pytest.fixture(autouse=True)
def _one_thread():
    """Small matrices: threads of BLAS only wait for each other, long on a busy machine."""
    limits = pytest.importorskip("threadpoolctl").threadpool_limits
    with limits(1):
        yield


def two_sided(f):
    return Toeplitz(np.concatenate([f[:0:-1], f]))


def values(M, n):
    """f(s) by powers of the transition, one step after the other."""
    if isinstance(M, ExponentialSum):
        return (M.weights * M.decays ** np.arange(n)[:, None]).sum(axis=1)
    x, f = M.b, [] if M.near is None else list(M.near)
    while len(f) < n:
        f.append(M.c @ x)
        x = M.a @ x
    return np.array(f[:n])


def measured(f, M):
    """The three errors and the norm of the table's error, both sides counted."""
    e, size = np.abs(values(M, f.size) - f), np.abs(f)
    both = np.where(np.arange(f.size) == 0, 1, 2)
    with np.errstate(divide="ignore"):
        relative = np.divide(e, size, out=np.zeros_like(e), where=e > 0)
    return e.max(), e @ both / max(size @ both, 1e-300), relative.max(), e @ both


@pytest.mark.parametrize("name", FUNCTIONS)
def test_certificates_are_true(name):
    for n, tol, measure in (*SMALL, *LARGE):
        f = FUNCTIONS[name](np.arange(float(n)))
        try:
            M = two_sided(f).compress(tol=tol, measure=measure)
        except ValueError as refusal:
            assert "no state space is within tol" in str(refusal)  # noqa: PT017  a refusal is one of two good answers
            assert n > 256 or measure == "relative"
            continue
        absolute, mass, relative, norm = measured(f, M)
        assert {"absolute": absolute, "mass": mass, "relative": relative}[measure] <= 1.01 * tol
        assert norm <= M.error_bound
        assert M.errors.absolute == pytest.approx(absolute, abs=1e-12 * max(1, np.abs(f).max()))
        assert M.errors.mass == pytest.approx(mass, abs=1e-11)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ROUGH])
def test_smooth_tables_are_compressed_well(name):
    n = 16384
    f = FUNCTIONS[name](np.arange(float(n)))
    M = two_sided(f).compress(tol=1e-6)
    assert M.rank + M.width / 64 <= 24
    assert measured(f, M)[1] <= 1e-6


def test_long_tables():
    n = 65536
    f = 1 / (1 + np.arange(float(n)))
    M = two_sided(f).compress(tol=1e-6)
    assert measured(f, M)[1] <= 1.01e-6
    assert M.rank + M.width / 64 <= 16


@pytest.mark.parametrize("name", ["matern", "ramp", "cosines"])
def test_exact_state_spaces_are_found_exactly(name):
    f = FUNCTIONS[name](np.arange(4096.0))
    M = two_sided(f).compress(tol=1e-10)
    assert M.rank == {"matern": 2, "ramp": 2, "cosines": 6}[name]
    assert M.width == 0


def test_one_decay_is_an_exponential_sum():
    M = two_sided(3 * 0.99 ** np.arange(500)).compress(tol=1e-10)
    assert isinstance(M, ExponentialSum)
    np.testing.assert_allclose(M.weights, [3], rtol=1e-10)
    np.testing.assert_allclose(M.decays, [0.99], rtol=1e-12)


def test_the_bound_is_on_the_spectral_norm():
    f = FUNCTIONS["(1+s)^-.5"](np.arange(400.0))
    T = two_sided(f)
    M = T.compress(tol=1e-3)
    for order in (2, 1, np.inf):
        assert 0 < np.linalg.norm(M.to_dense() - T.to_dense(), order) <= M.error_bound
    assert (3 * M).error_bound == 3 * M.error_bound
    assert (M + M).error_bound >= 2 * M.error_bound
    assert M.T.error_bound == M.error_bound


# --- sides, heads, precisions -----------------------------------------------------------------------------------------


def test_causal_tables_stay_causal():
    f = FUNCTIONS["1/(1+s)"](np.arange(600.0))
    T = Toeplitz(np.concatenate([0 * f[1:], f]))
    for matrix, upper in ((T, False), (T.T, True)):
        M = matrix.compress(tol=1e-6)
        assert (M.causal, M.upper) == (True, upper)
        difference = M.to_dense() - matrix.to_dense()
        assert np.linalg.norm(difference, 2) <= M.error_bound < 1e-6 * f.sum() * 1.01


def test_past_and_future_that_differ_are_a_sum():
    s = np.arange(700.0)
    past, future = 1 / (1 + s), np.exp(-s / 20)
    T = Toeplitz(np.concatenate([future[:0:-1], past]))
    M = T.compress(tol=1e-6)
    assert [(term.causal, term.upper) for term in M.terms] == [(True, False), (True, True)]
    assert np.linalg.norm(M.to_dense() - T.to_dense(), 2) <= M.error_bound
    np.testing.assert_allclose(M.to_dense(), T.to_dense(), atol=1e-5)


def test_heads_share_an_order():
    s = np.arange(2000.0)
    f = np.stack([np.exp(-s / 50), 1 / (1 + s), 1 - s / 2000])[:, None]
    T = Toeplitz(np.concatenate([f[..., :0:-1], f], axis=-1))
    M = T.compress(tol=1e-7)
    assert M.shape == T.shape == (3, 1, 2000, 2000)
    size = np.abs(f).mean(axis=-1, keepdims=True) + np.abs(f)
    assert (np.abs(M.table - f) <= 1e-7 * size).all()
    decays = Toeplitz(np.exp(-np.abs(np.arange(-99.0, 100)) / [[5], [50]])).compress(tol=1e-9)
    assert isinstance(decays, ExponentialSum)
    assert decays.decays.shape == (2, 1)


def test_single_precision_tables():
    T = two_sided(np.exp(-np.arange(3000.0) / 90).astype(np.float32))
    M = T.compress(tol=1e-6)
    assert M.rank == 1
    assert (M @ np.ones(3000, np.float32)).dtype == np.float32
    with pytest.raises(ValueError, match="no state space"):
        T.compress(tol=1e-10)


def test_generators_live_where_the_table_does():
    xp = pytest.importorskip("array_api_strict")
    M = Toeplitz(xp.asarray(np.exp(-np.abs(np.arange(-99.0, 100)) / 20))).compress(tol=1e-6)
    assert M._home == "array_api_strict"
    assert M.rank == 1


# --- what becomes of the certificate ----------------------------------------------------------------------------------


def test_a_certificate_belongs_to_its_generators():
    M = two_sided(FUNCTIONS["1/(1+s)"](np.arange(1000.0))).compress(tol=1e-3)
    assert M.error_bound > 0
    assert M.with_parameters(c=2 * M.c).error_bound == 0
    assert math.isnan(M.astype("float32").error_bound)
    assert M.astype("float64").error_bound == M.error_bound
    with pytest.raises(TypeError, match="no fast product"):
        M * Toeplitz(np.ones(1999))  # would lose the error


def test_attention_is_as_accurate_as_the_table():
    n = 900
    T = two_sided(FUNCTIONS["(1+s)^-.5"](np.arange(float(n))))
    q, k, v = real(n, 4), real(n, 4, seed=1), real(n, 3, seed=2)
    exact = masked_attention(q, k, v, mask=T)
    M = T.compress(tol=1e-6, measure="relative")
    out = masked_attention(q, k, v, mask=M)
    spread = 2 * np.abs(v).max()
    assert np.abs(out - exact).max() <= 1.01e-6 * spread


@given(st.integers(1, 5), st.integers(30, 400), st.integers(0, 10**6))
def test_the_least_order_is_never_too_large(r, n, seed):
    """A sum of r exponentials has r states, and no bound may say that it needs more."""
    rng = np.random.default_rng(seed)
    f = rng.standard_normal(r) @ rng.uniform(-1, 1, (r, 1)) ** np.arange(n)
    for measure in ("absolute", "mass"):
        table = _Table(f, 1e-6, measure, 2)
        assert Tail(f, table.weight, 64).least <= r


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROUGH)
def test_rough_tables_are_refused_by_their_singular_values(name):
    with pytest.raises(ValueError, match=r"needs at least \d+ states.*keep the Toeplitz matrix"):
        two_sided(FUNCTIONS[name](np.arange(4096.0))).compress(tol=1e-6)


def test_zeros_have_no_relative_accuracy():
    f = np.exp(-np.arange(3000.0) / 2)
    with pytest.raises(ValueError, match="measure='mass' takes zeros"):
        two_sided(f).compress(tol=1e-3, measure="relative")
    assert isinstance(two_sided(np.log1p(np.arange(3000.0))).compress(tol=1e-3, measure="relative"), StateSpace)


@pytest.mark.parametrize(
    ("matrix", "options", "error", "sentence"),
    [
        (Toeplitz(np.ones(5)), {"tol": 0}, ValueError, "positive tol, got 0"),
        (Toeplitz(np.ones(5)), {"tol": math.nan}, ValueError, "positive tol, got nan"),
        (Toeplitz(np.ones(5)), {"tol": 1e-3, "measure": "norm"}, ValueError, "'absolute', 'mass', 'relative'"),
        (Toeplitz(np.ones((3, 5)), levels=2), {"tol": 1e-3}, ValueError, "one level"),
        (Toeplitz(np.ones(6), columns=(2,)), {"tol": 1e-3}, ValueError, "square"),
        (Toeplitz(np.ones(5) + 0j), {"tol": 1e-3}, TypeError, "real tables"),
        (Toeplitz([1.0, math.inf, 1.0]), {"tol": 1e-3}, ValueError, "finite"),
    ],
)
def test_what_cannot_be_compressed(matrix, options, error, sentence):
    with pytest.raises(error, match=sentence):
        matrix.compress(**options)
