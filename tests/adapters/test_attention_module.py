"""MaskedLinearAttention against its definition, head by head; softmax attention against torch's."""

import copy

import numpy as np
import pytest

from structmask import BlockDiagonal, Causal, Dense, ExponentialSum, LowRank, Toeplitz, positive_features, relu_features

torch = pytest.importorskip("torch")

from structmask.adapters.torch import (  # noqa: E402  torch is optional
    MaskedLinearAttention,
    as_module,
    softmax_attention,
)

pytestmark = pytest.mark.usefixtures("double")

L, E, H = 6, 8, 2


def table(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.2, 1.0, shape)


def by_definition(layer, query, key, value, M, keep=None):
    """Every head of every batch item apart, weights written out."""
    M = np.broadcast_to(M, (len(query), layer.num_heads, *M.shape[-2:]))
    out, size = torch.zeros(*query.shape), layer.embed_dim // layer.num_heads
    for b in range(len(query)):
        for h in range(layer.num_heads):
            part = slice(h * size, (h + 1) * size)
            q, k, v = layer.q_proj(query[b])[:, part], layer.k_proj(key[b])[:, part], layer.v_proj(value[b])[:, part]
            if layer.softmax:
                A = torch.exp(q @ k.T / size**0.5)
            else:
                A = (torch.nn.functional.elu(q) + 1) @ (torch.nn.functional.elu(k) + 1).T
            A = A * torch.tensor(M[b, h])
            if keep is not None:
                A = A * keep[b]
            out[b, :, part] = A @ v / A.sum(-1, keepdim=True)
    return layer.out_proj(out)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("module", [False, True])
def test_the_definition_with_heads_and_padding(softmax, module):
    mask = Toeplitz(table(H, 2 * L - 1))
    layer = MaskedLinearAttention(E, H, mask=as_module(mask) if module else mask, softmax=softmax)
    x, lengths = torch.randn(3, L, E), torch.tensor([6, 4, 1])
    padding = torch.arange(L) >= lengths[:, None]
    out = layer(x, key_padding_mask=padding)
    torch.testing.assert_close(out, by_definition(layer, x, x, x, mask.to_dense(), ~padding))
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    assert len(list(layer.parameters())) == 8 + module


def test_keys_and_values_of_other_sizes_and_one_sequence_alone():
    mask = Dense(table(L, 4))
    layer = MaskedLinearAttention(E, H, mask=mask, kdim=3, vdim=5, bias=False)
    query, key, value = torch.randn(2, L, E), torch.randn(2, 4, 3), torch.randn(2, 4, 5)
    out = layer(query, key, value)
    torch.testing.assert_close(out, by_definition(layer, query, key, value, mask.to_dense()))
    torch.testing.assert_close(layer(query[0], key[0], value[0]), out[0])


@pytest.mark.parametrize("module", [False, True])
def test_global_tokens_in_front(module):
    mask = Toeplitz(table(2 * L - 5))
    layer = MaskedLinearAttention(E, H, mask=as_module(mask) if module else mask, global_tokens=2)
    M = np.ones((L, L))
    M[2:, 2:] = mask.to_dense()
    x = torch.randn(1, L, E)
    torch.testing.assert_close(layer(x), by_definition(layer, x, x, x, M))
    torch.testing.assert_close(layer(x, mask=Toeplitz(np.ones(7))), by_definition(layer, x, x, x, np.ones((L, L))))
    with pytest.raises(ValueError, match="cannot share global tokens"):
        layer(x, lengths=[2, 4])


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize(
    "mask",
    [
        None,
        Toeplitz(table(H, 2 * L - 1)),
        Causal(L, decay=table(L)),
        Causal(L, decay=0.5),
        ExponentialSum(table(2), table(2) / 2, L),
    ],
    ids=lambda mask: type(mask).__name__,
)
def test_packed_sequences_are_as_if_alone(mask, softmax):
    layer = MaskedLinearAttention(E, H, mask=None if mask is None else as_module(mask), softmax=softmax)
    x, lengths = torch.randn(1, L, E), [1, 3, 2]
    out = layer(x, lengths=lengths)
    alone = [layer(part, lengths=[part.shape[1]]) for part in x.split(lengths, dim=1)]
    torch.testing.assert_close(out, torch.cat(alone, dim=1))
    if mask is not None:
        block = mask.to_dense()[..., :3, :3]
        part = x[:, 1:4]
        torch.testing.assert_close(alone[1], by_definition(layer, part, part, part, block))
        out.sum().backward()
        assert all(p.grad is not None for p in layer.mask.parameters())


def test_a_mask_for_one_call():
    layer = MaskedLinearAttention(E, H, mask=Causal(L))
    x = torch.randn(1, L, E)
    blocks = BlockDiagonal((Dense(table(2, 2)), Dense(table(4, 4))))
    torch.testing.assert_close(layer(x, mask=blocks), by_definition(layer, x, x, x, blocks.to_dense()))


def test_random_features_are_part_of_the_state():
    layers = [MaskedLinearAttention(E, H, features=positive_features(E // H, 16, rng=seed)) for seed in (0, 1)]
    x = torch.randn(1, L, E)
    assert not torch.allclose(layers[0](x), layers[1](x))
    layers[1].load_state_dict(layers[0].state_dict())
    assert torch.equal(layers[0](x), layers[1](x))
    maps = (relu_features(E // H, 3, rng=0), torch.nn.Sequential(torch.nn.Linear(E // H, 3), torch.nn.Softplus()))
    layer = MaskedLinearAttention(E, H, features=maps)
    assert "features.0" in layer.state_dict()
    layer(x).sum().backward()
    assert all(p.grad is not None for p in layer.features.parameters())


def test_copies_are_independent_and_precision_follows():
    layer = MaskedLinearAttention(E, H, mask=as_module(Causal(L, decay=0.5)))
    x = torch.randn(1, L, E)
    layer(x)
    other = copy.deepcopy(layer)
    torch.testing.assert_close(layer(x), other(x))
    torch.nn.init.zeros_(other.mask.decay)
    assert not torch.allclose(layer(x), other(x))
    single = other.float()(x.float())
    assert single.dtype == torch.float32


def test_what_it_refuses():
    with pytest.raises(ValueError, match="multiple of num_heads, got 8 and 3"):
        MaskedLinearAttention(8, 3)
    with pytest.raises(ValueError, match="global_tokens must not be negative"):
        MaskedLinearAttention(8, 2, global_tokens=-1)
    with pytest.raises(TypeError, match="StructuredMatrix, a MaskModule or None, got ndarray"):
        MaskedLinearAttention(8, 2, mask=np.ones((2, 2)))
    x = torch.randn(1, L, E)
    with pytest.raises(TypeError, match="no block for a shorter sequence"):
        MaskedLinearAttention(E, H, mask=LowRank(np.ones((L, 1)), np.ones((L, 1))))(x, lengths=[L])
    with pytest.raises(ValueError, match="a sequence of length 6 does not fit"):
        MaskedLinearAttention(E, H, mask=Causal(4))(x, lengths=[L])


def test_softmax_attention_is_torchs_with_the_logarithm_of_the_mask():
    q, k, v = torch.randn(3, 2, L, 3, requires_grad=True)
    M = torch.tensor(table(L, L), requires_grad=True)
    out = softmax_attention(q, k, v, mask=Dense(np.ones((L, L))), parameters={"a": M})
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=M.log())
    torch.testing.assert_close(out, wanted)
    own, theirs = (torch.autograd.grad(y.square().sum(), (q, k, v, M), retain_graph=True) for y in (out, wanted))
    torch.testing.assert_close(own, theirs)
    zero = np.tril(table(L, L))
    zero[2] = 0
    huge = softmax_attention(1e4 * q, 1e4 * k, v, mask=Dense(zero))
    assert huge.isfinite().all()
    assert not huge[:, 2].any()
    assert not softmax_attention(q, k, v, dropout=1.0).any()
    with pytest.raises(ValueError, match="does not fit 6 queries and 6 keys"):
        softmax_attention(q, k, v, mask=Causal(5))
