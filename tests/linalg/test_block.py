"""Block-diagonal and bordered masks: their entries, the rules of the algebra, and attention part by part."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from structmask import (
    BlockDiagonal,
    Causal,
    Dense,
    Diagonal,
    LowRank,
    Toeplitz,
    explain,
    masked_attention,
    use_backend,
    with_global_tokens,
)
from structmask.linalg import hadamard_methods
from structmask.linalg.block import Bordered
from structmask.linalg.composite import Product, Scaled, Sum
from structmask.linalg.hadamard import Hadamard, Kind, Sizes, masked_product, masked_pullback, plan
from structmask.linalg.rounding import rounding_of
from tests import naive
from tests.cases import complex_, gates, real
from tests.methods import check_methods


@st.composite
def packs(draw):
    """Blocks of any shapes, empty ones among them, some with a batch."""
    shapes = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=5))
    batch = draw(st.sampled_from([(), (), (2,), (3, 1)]))
    return [
        draw(st.sampled_from([real, complex_]))(*draw(st.sampled_from([(), batch])), *shape, seed=index)
        for index, shape in enumerate(shapes)
    ]


@given(packs(), st.integers(1, 3))
def test_any_blocks(blocks, k):
    M, dense = BlockDiagonal([Dense(a) for a in blocks]), naive.block_diagonal(*blocks)
    X = real(dense.shape[-1], k)
    np.testing.assert_allclose(M @ X, dense @ X, atol=1e-13)
    np.testing.assert_array_equal(M.to_dense(), dense)
    np.testing.assert_array_equal(M.T.to_dense(), np.swapaxes(dense, -1, -2))
    rows = [0, -1] if M.shape[-2] else []
    np.testing.assert_array_equal(M.entries(rows, slice(1, None)), dense[..., rows, 1:])


@given(st.integers(0, 3), st.integers(0, 4), st.integers(0, 4), st.sampled_from([0.5, np.array([2.0, -1.0])]))
def test_any_border(count, m, n, value):
    M, dense = with_global_tokens(Dense(real(m, n)), count, value), naive.with_global_tokens(real(m, n), count, value)
    X = real(dense.shape[-1], 2)
    np.testing.assert_allclose(M @ X, dense @ X, atol=1e-13)
    np.testing.assert_array_equal(M.to_dense(), dense)


def test_entries_ask_only_the_blocks_they_meet(monkeypatch):
    asked = []
    own = Causal._at
    monkeypatch.setattr(Causal, "_at", lambda self, i, j: asked.append(self.n) or own(self, i, j))
    M = BlockDiagonal([Causal(n) for n in (3, 4, 5)])
    M.entries([3, 6], slice(None))
    assert asked == [4]


def test_token_gradient_is_a_sum_over_the_border(close):
    G, X, M = real(5, 3), real(5, 3, seed=1), with_global_tokens(Diagonal(real(4)), 1, 0.5)
    close(M.pullback(G, X)["value"], (G[0] * X[1:].sum(axis=0)).sum() + (G[1:].sum(axis=0) * X[0]).sum())


# --- attention part by part -------------------------------------------------------------------------------------------

N, R, K = 24, 3, 2
MASKS = {
    "blocks": BlockDiagonal([Causal(7, decay=0.5), Toeplitz(real(33))]),
    "blocks-empty": BlockDiagonal([Dense(real(0, 3)), Causal(21), Dense(real(3, 0))]),
    "blocks-heads": BlockDiagonal([Causal(20, decay=gates(2, 20)), LowRank(real(4, 1), real(4, 1))]),
    "border": with_global_tokens(Toeplitz(real(45)), 1, 0.5),
    "border-grid": with_global_tokens(Toeplitz(real(7, 9), levels=2), 4),
    "border-heads": with_global_tokens(Causal(22), 2, real(2)),
    "border-nothing": with_global_tokens(Causal(0), N),
    "border-complex": with_global_tokens(Causal(23), 1, 0.5j),
    "border-blocks": with_global_tokens(BlockDiagonal([Causal(11), Causal(12)]), 1),
}


@pytest.mark.parametrize("data", [real, complex_], ids=["real", "complex"])
@pytest.mark.parametrize("backend", ["numpy", "auto"])
@pytest.mark.parametrize("name", MASKS)
def test_every_method_gives_the_product_and_its_row_sums(name, backend, data, close):
    with use_backend(backend):
        check_methods(MASKS[name], data(N, R), data(N, R, seed=1), data(N, K, seed=2), close)


@pytest.mark.parametrize("data", [real, complex_], ids=["real", "complex"])
@pytest.mark.parametrize("name", MASKS)
def test_gradients_of_the_parts_are_those_of_the_whole(name, data, close):
    """Against the streamed sum of the mask's own pullbacks, and products with the dense adjoint."""
    mask, F, G, P, X = MASKS[name], data(N, R), data(N, R, seed=1), data(2, N, K, seed=2), data(N, K, seed=3)
    d_mask, dF, dG, dX = masked_pullback(mask, F, G, P, X, columns=X.shape[-1])
    want = [mask._placed(X)._pullback(F.conj()[..., [r]] * P, G[..., [r]] * X) for r in range(R)]
    for got, *parts in flat(d_mask, *want):
        close(got, sum(parts), scale=1e3)
    A, product = mask.to_dense(), P @ X.conj().T
    close(dF, (A.conj() * product) @ G.conj(), scale=1e3)
    close(dG, np.swapaxes(A.conj() * product, -1, -2) @ F.conj(), scale=1e3)
    close(dX, np.swapaxes(A * (F @ G.T), -1, -2).conj() @ P, scale=1e3)


def flat(*trees):
    for name, value in trees[0].items():
        rest = [tree[name] for tree in trees]
        if isinstance(value, dict):
            yield from flat(*rest)
        else:
            yield rest


def test_attention_never_crosses_blocks(close):
    q, k, v, sizes = real(12, 4), real(12, 4, seed=1), real(12, 3, seed=2), (5, 1, 6)
    got = masked_attention(q, k, v, mask=BlockDiagonal([Causal(n) for n in sizes]))
    ends = np.cumsum((0, *sizes))
    parts = [slice(a, b) for a, b in itertools.pairwise(ends)]
    close(got, np.concatenate([masked_attention(q[p], k[p], v[p], mask=Causal(p.stop - p.start)) for p in parts]))


def test_class_token_sees_and_is_seen_by_all(close):
    """Topological attention with a class token: row and column of ones around a two-level mask."""
    table, (F, G) = np.abs(real(5, 7)), (np.abs(real(13, 4)), np.abs(real(13, 4, seed=1)))
    mask = np.ones((13, 13))
    mask[1:, 1:] = naive.toeplitz(table, 2)
    v = real(13, 3)
    got = masked_attention(F, G, v, mask=with_global_tokens(Toeplitz(table, levels=2)), features=None, eps=1e-8)
    close(got, naive.masked_attention(F, G, v, mask, eps=1e-8))


def test_a_class_token_keeps_the_method_and_adds_little():
    inner = Toeplitz(real(63, 63), levels=2)
    sizes, kind = Sizes(1, 1025, 1025, 32, 64), Kind("numpy", "float32")
    chosen = plan(with_global_tokens(inner), sizes, kind)
    assert chosen.method == "dense"
    assert chosen.seconds < 1.1 * plan(inner, Sizes(1, 1024, 1024, 32, 64), kind).seconds
    line = plan(with_global_tokens(Toeplitz(real(2**17 - 1))), Sizes(1, 2**16 + 1, 2**16 + 1, 32, 32), kind)
    assert line.method == "border"
    assert [step.method for step in line.steps][-1] == "dense"


def test_parts_take_their_own_methods(monkeypatch):
    ran = []
    for name in ("scan", "diagonal", "dense", "stream"):
        own = getattr(hadamard_methods, name)
        monkeypatch.setattr(hadamard_methods, name, lambda *args, own=own, name=name: ran.append(name) or own(*args))
    mask = BlockDiagonal([Causal(2000), Diagonal(real(500))])
    phi = real(2500, 4)
    assert explain(mask * LowRank(phi, phi), columns=5).method == "blocks"
    masked_product(with_global_tokens(mask, 0), phi, phi, real(2500, 5))
    assert ran == ["scan", "diagonal"]


def test_rows_stay_accurate_behind_a_border():
    """Single precision, a mask that decays fast and keys of very different size: no row loses its digits."""
    n = 300
    table = np.exp(-((np.arange(1 - n, n) / 8.0) ** 2))
    mask, F = with_global_tokens(Toeplitz(table), 1, 0.0), np.ones((n + 1, 1))
    G = np.exp(np.linspace(-8, 8, n + 1))[:, None]
    v = real(n + 1, 2)
    exact = masked_attention(F, G, v, mask=mask, features=None, method="dense")
    got = masked_attention(*(a.astype(np.float32) for a in (F, G, v)), mask=mask, features=None)
    assert np.abs(got - exact).max() < 1e-4


def test_rounding_is_local_if_that_of_all_parts_is():
    for spread in (Toeplitz(real(5)), Toeplitz(real(5)) @ Causal(3)):
        assert rounding_of(BlockDiagonal([Causal(2), Dense(real(2, 2))]), 1e-7).is_local
        assert not rounding_of(BlockDiagonal([Causal(2), spread]), 1e-7).is_known
        assert rounding_of(with_global_tokens(Causal(2)), 1e-7).is_local
        assert not rounding_of(with_global_tokens(spread), 1e-7).is_known


# --- the algebra ------------------------------------------------------------------------------------------------------

first = BlockDiagonal([Causal(2), Toeplitz(real(5))])
second = BlockDiagonal([Causal(2, decay=0.5), Toeplitz(real(5, seed=1))])
shifted = BlockDiagonal([Toeplitz(real(5)), Causal(2)])
framed = with_global_tokens(Causal(4), 1, 0.5)
RULES = [
    (first + second, first.to_dense() + second.to_dense(), BlockDiagonal),
    (first + shifted, first.to_dense() + shifted.to_dense(), Sum),
    (first * second, first.to_dense() * second.to_dense(), BlockDiagonal),
    (first @ second, first.to_dense() @ second.to_dense(), BlockDiagonal),
    (first @ shifted, first.to_dense() @ shifted.to_dense(), Product),
    (-3 * first, -3 * first.to_dense(), BlockDiagonal),
    (first * LowRank(real(5, 2), real(5, 2)), first.to_dense() * (real(5, 2) @ real(5, 2).T), Hadamard),
    (first * Diagonal(real(5)), np.diag(np.diag(first.to_dense()) * real(5)), Diagonal),
    (framed * framed, framed.to_dense() ** 2, Bordered),
    (framed * Dense(real(5, 5)), framed.to_dense() * real(5, 5), Dense),
    (2 * framed, 2 * framed.to_dense(), Scaled),
]


@pytest.mark.parametrize(("result", "want", "kind"), RULES)
def test_rule_is_taken_and_right(result, want, kind, close):
    assert type(result) is kind
    close(result.to_dense(), want)


@pytest.mark.parametrize("other", [shifted, BlockDiagonal([Toeplitz(real(3)), Causal(3, decay=gates(3))])], ids=repr)
def test_blocks_at_other_places_or_without_a_rule_are_refused(other):
    with pytest.raises(TypeError, match="BlockDiagonal \\* BlockDiagonal has no fast product"):
        first * other
    with pytest.raises(TypeError, match="Bordered \\* Bordered has no fast product"):
        framed * with_global_tokens(Causal(3), 2)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_blocks_are_matrices():
    with pytest.raises(ValueError, match="needs at least one matrix"):
        BlockDiagonal([])
    with pytest.raises(TypeError, match=r"got list; wrap an array as structmask\.Dense"):
        BlockDiagonal([[1.0]])
    with pytest.raises(ValueError, match="broadcast"):
        BlockDiagonal([Dense(real(2, 1, 1)), Dense(real(3, 1, 1))])


def test_global_tokens_need_a_mask_and_a_count():
    with pytest.raises(TypeError, match="needs a StructuredMatrix, got ndarray"):
        with_global_tokens(np.eye(2))
    with pytest.raises(ValueError, match="count >= 0, got -1"):
        with_global_tokens(Causal(2), -1)
    with pytest.raises(TypeError):
        with_global_tokens(Causal(2), 1.5)
    with pytest.raises(ValueError, match="broadcast"):
        with_global_tokens(Toeplitz(real(2, 5)), 1, np.ones(3))


def test_long_packs_have_a_short_repr():
    assert repr(BlockDiagonal([Causal(2)] * 100)).endswith("... 100 blocks; 200 x 200)")
