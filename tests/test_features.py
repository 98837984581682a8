"""Feature maps: their values, what the random ones estimate, and the arrays they take."""

import array_api_strict
import numpy as np
import pytest
import torch

from structmask import elu_features, exp_features, masked_attention, positive_features, relu_features
from structmask.features import apply_features

MAPS = {
    "elu": lambda: elu_features,
    "exp": lambda: exp_features,
    "relu": lambda: relu_features(4),
    "relu-projected": lambda: relu_features(4, 6, rng=0),
    "positive": lambda: positive_features(4, 6, rng=0),
    "positive-query": lambda: positive_features(4, 6, rng=0).query,
    "positive-key": lambda: positive_features(4, 6, rng=0).key,
}


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


# --- values -----------------------------------------------------------------------------------------------------------


def test_elu():
    x = np.array([-800.0, -1.5, -0.0, 0.0, 2.0, 800.0])
    assert elu_features(x).tolist() == [0.0, np.exp(-1.5), 1.0, 1.0, 3.0, 801.0]


def test_exp():
    x = normal(3, 4)
    np.testing.assert_array_equal(exp_features(x), np.exp(x))


def test_relu():
    assert relu_features(3)(np.array([-2.0, 0.0, 2.0])).tolist() == [1e-3, 1e-3, 2.001]


def test_relu_with_a_projection():
    phi, x = relu_features(4, 6, rng=0), normal(5, 4)
    for i in range(5):
        for r in range(6):
            wanted = max(0.0, sum(phi.projection[r, c] * x[i, c] for c in range(4)) / np.sqrt(6)) + 1e-3
            assert phi(x)[i, r] == pytest.approx(wanted, rel=1e-12)


def test_positive():
    phi, x = positive_features(4, 6, rng=0), normal(5, 4)
    for i in range(5):
        a = x[i] / 4**0.25
        for r in range(6):
            wanted = (np.exp(phi.projection[r] @ a - a @ a / 2) + 1e-6) / np.sqrt(6)
            assert phi(x)[i, r] == pytest.approx(wanted, rel=1e-12)


def test_the_stabilisers_are_one_factor_a_query_and_one_for_all_keys():
    phi, x = positive_features(4, 6, rng=0), normal(2, 5, 4)
    query, key = phi.query(x) / phi(x), phi.key(x) / phi(x)
    np.testing.assert_allclose(query, np.broadcast_to(query[..., :1], query.shape), rtol=1e-12)
    np.testing.assert_allclose(key, np.broadcast_to(key[:, :1, :1], key.shape), rtol=1e-12)
    assert np.ptp(query[..., 0]) > 0.1  # every query has its own
    np.testing.assert_allclose(phi.query(x).max(axis=-1), 1 / np.sqrt(6), rtol=1e-5)


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
def test_attention_does_not_see_the_stabilisers(size):
    phi = positive_features(4, 16, rng=0)
    q, k, v = size * normal(3, 5, 4), size * normal(3, 6, 4, seed=1), normal(3, 6, 2)
    wanted = masked_attention(phi(q), phi(k), v, features=None)
    np.testing.assert_allclose(masked_attention(q, k, v, features=phi), wanted, rtol=1e-9)


def test_large_inputs_neither_overflow_nor_vanish():
    phi = positive_features(4, 8, rng=0)
    for x in (normal(5, 4) * 1e3, normal(5, 4).astype(np.float32) * 300):
        for features in (phi.query(x), phi.key(x)):
            assert np.isfinite(features).all()
            assert features.max() > 0


# --- the random maps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orthogonal", [True, False])
def test_positive_features_are_unbiased(orthogonal):
    x, y = 0.8 * normal(1, 4), 0.8 * normal(1, 4, seed=1)
    samples = []
    for seed in range(2000):
        phi = positive_features(4, 8, orthogonal=orthogonal, rng=seed)
        samples.append((phi(x) @ phi(y).T).item())
    wanted = np.exp((x @ y.T).item() / 2)  # sqrt(d) = 2
    error, standard = np.mean(samples) - wanted, np.std(samples) / np.sqrt(len(samples))
    assert 0 < standard < 0.05
    assert abs(error) < 5 * standard + 1e-5  # the floor adds O(1e-6)


def test_orthogonal_rows_keep_gaussian_norms_and_lower_the_variance():
    W = positive_features(5, 13, rng=0).projection
    for start in (0, 5, 10):
        block = W[start : start + 5]
        gram = block @ block.T
        np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-12)
    squares = np.sum(positive_features(5, 20000, rng=0).projection ** 2, axis=1)
    assert abs(squares.mean() - 5) < 5 * np.sqrt(10 / 20000)  # chi-squared of 5 degrees: mean 5, variance 10
    assert abs(squares.var() - 10) < 1.5
    x, y = normal(1, 8), -normal(1, 8)

    def spread(orthogonal):
        maps = (positive_features(8, 8, orthogonal=orthogonal, rng=s) for s in range(1000))
        return np.var([(phi(x) @ phi(y).T).item() for phi in maps])

    assert spread(orthogonal=True) < spread(orthogonal=False)


@pytest.mark.parametrize("factory", [positive_features, relu_features])
def test_the_same_seed_gives_the_same_features(factory):
    x = normal(3, 4)
    np.testing.assert_array_equal(factory(4, 6, rng=7)(x), factory(4, 6, rng=7)(x))
    generator = np.random.default_rng(7)
    np.testing.assert_array_equal(factory(4, 6, rng=generator)(x), factory(4, 6, rng=7)(x))
    assert not np.array_equal(factory(4, 6, rng=generator)(x), factory(4, 6, rng=7)(x))  # a generator moves on
    assert not np.array_equal(factory(4, 6)(x), factory(4, 6)(x))


# --- arrays of all kinds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAPS)
def test_single_precision_stays_single(name):
    x = normal(2, 5, 4).astype(np.float32)
    features = MAPS[name]()(x)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, MAPS[name]()(x.astype(float)), rtol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MAPS)
def test_torch_and_strict_arrays(name, dtype):
    x = normal(2, 5, 4).astype(dtype)
    wanted, tolerance = MAPS[name]()(x), 1e-12 if dtype == "float64" else 1e-5
    tensor = MAPS[name]()(torch.from_numpy(x))
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_allclose(tensor.numpy(), wanted, rtol=tolerance)
    strict = MAPS[name]()(array_api_strict.asarray(x))
    assert type(strict).__module__.startswith("array_api_strict")
    assert np.from_dlpack(strict).dtype == tensor.numpy().dtype == wanted.dtype == dtype
    np.testing.assert_allclose(np.from_dlpack(strict), wanted, rtol=tolerance)


@pytest.mark.parametrize("name", MAPS)
def test_inputs_are_not_modified_and_may_be_strided_or_read_only(name):
    x = normal(4, 5)
    x.flags.writeable = False
    np.testing.assert_allclose(MAPS[name]()(x.T), MAPS[name]()(x.T.copy()), rtol=1e-12)
    np.testing.assert_array_equal(x, normal(4, 5))


# --- applying them ----------------------------------------------------------------------------------------------------


def test_one_map_a_pair_a_map_with_two_sides_or_none():
    q, k = normal(3, 4), normal(5, 4)
    phi = positive_features(4, 6, rng=0)
    for features, wanted in (
        (np.exp, (np.exp(q), np.exp(k))),
        ((np.exp, np.abs), (np.exp(q), np.abs(k))),
        (phi, (phi.query(q), phi.key(k))),
        ((phi, phi), (phi(q), phi(k))),
        (None, (q, k)),
    ):
        for got, expected in zip(apply_features(features, q, k), wanted, strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("features", [(np.exp,), (np.exp, 3), (np.exp,) * 3])
def test_a_tuple_that_is_no_pair(features):
    with pytest.raises(TypeError, match="must be a pair of callables"):
        apply_features(features, 1, 1)


def test_what_is_no_map():
    with pytest.raises(TypeError, match=r"features must be a callable, a pair .* or None, got str"):
        apply_features("elu", 1, 1)


@pytest.mark.parametrize("factory", [relu_features, positive_features])
def test_sizes_that_make_no_sense(factory):
    with pytest.raises(ValueError, match="sizes d >= 1 and m >= 1, got d=0, m=3"):
        factory(0, 3)
    with pytest.raises(ValueError, match="sizes d >= 1 and m >= 1, got d=3, m=0"):
        factory(3, 0)


@pytest.mark.parametrize("factory", [relu_features, positive_features])
def test_inputs_of_another_size(factory):
    with pytest.raises(ValueError, match=r"inputs \(\.\.\., 3\), got shape \(2, 4\); make them with d=4"):
        factory(3, 5)(normal(2, 4))
