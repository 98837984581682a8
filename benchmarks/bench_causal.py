"""Causal linear attention, float32, m = e = 64: time of others / ours.

`batched` and `sequential` are chunked computations in torch, all chunks at once or one after the other. The rows "and
backward" add the gradients of q, k and v, ours through structmask.adapters.torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.contest import Contest, relative_error, run
from benchmarks.report import Row
from benchmarks.settings import Settings
from structmask import Causal, masked_attention

Way = Callable[[], Any]


def rows(settings: Settings) -> Iterator[Row]:
    m = 3 if settings.tiny else 64
    for L in (128, 256) if settings.tiny else (1024, 4096, 16384):
        for heads in (1, 2) if settings.tiny else (1, 8):
            for decay in (1.0, 0.99):
                yield run(forward(heads, L, m, decay), budget=settings.budget)
                yield run(backward(heads, L, m, decay), budget=settings.budget)


def forward(heads: int, L: int, m: int, decay: float) -> Contest:
    F, G, V = inputs(heads, L, m)
    mask, torch = Causal(L, decay=decay), peers.torch_or_none()
    ours: dict[str, Way | str] = {"ours": lambda: masked_attention(F, G, V, mask=mask, features=None)}
    if torch is None:
        rivals: dict[str, Way | str] = dict.fromkeys(("batched", "sequential"), "- (no torch)")
    else:
        f, g, v = map(torch.from_numpy, (F, G, V))
        rivals = {
            "batched": lambda: peers.causal_batched(torch, f, g, v, decay),
            "sequential": lambda: peers.causal_sequential(torch, f, g, v, decay),
        }
    return Contest(_name(heads, L, decay), ours, rivals, sampled_check(F, G, V, decay), 1e-4)


def backward(heads: int, L: int, m: int, decay: float) -> Contest:
    F, G, V = inputs(heads, L, m)
    name, torch = f"{_name(heads, L, decay)}, and backward", peers.torch_or_none()
    if torch is None:
        missing = "- (no torch)"
        return Contest(name, {"ours": missing}, {"batched": missing, "sequential": missing}, lambda _: 0.0, 0.0)
    f, g, v = (torch.from_numpy(a).requires_grad_() for a in (F, G, V))
    weight = torch.from_numpy(np.random.default_rng(1).standard_normal(V.shape).astype(np.float32))
    mask = Causal(L, decay=decay)

    def gradients(attend: Callable[[], Any]) -> Any:
        return [a.numpy() for a in torch.autograd.grad(attend(), (f, g, v), weight)]

    def ours() -> Any:
        attend = importlib.import_module("structmask.adapters.torch").masked_attention
        return gradients(lambda: attend(f, g, v, mask=mask, features=None))

    rivals: dict[str, Way | str] = {
        "batched": lambda: gradients(lambda: peers.causal_batched(torch, f, g, v, decay)),
        "sequential": lambda: gradients(lambda: peers.causal_sequential(torch, f, g, v, decay)),
    }
    return Contest(name, {"ours": ours}, rivals, _against(torch, F, G, V, weight, decay), 1e-3)


def inputs(heads: int, L: int, m: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(L)
    F, G = np.abs(rng.standard_normal((2, heads, L, m))).astype(np.float32)
    return F, G, rng.standard_normal((heads, L, m)).astype(np.float32)


def _name(heads: int, L: int, decay: float) -> str:
    return f"H={heads} L={L} decay={decay:g}"


def sampled_check(F: np.ndarray, G: np.ndarray, V: np.ndarray, decay: float):
    """The largest error of a few rows, each relative to its largest entry, beside double precision."""
    L = F.shape[1]
    chosen = np.unique(np.r_[0, L - 1, np.random.default_rng(1).integers(0, L, 6)])
    steps = chosen[:, None] - np.arange(L)
    mask = np.where(steps >= 0, decay ** np.maximum(steps, 0.0), 0)
    F, G, V = (a.astype(float) for a in (F, G, V))
    A = (F[:, chosen] @ G.transpose(0, 2, 1)) * mask
    exact = (A @ V) / A.sum(axis=-1, keepdims=True)
    size = np.max(np.abs(exact), axis=-1, keepdims=True)
    return lambda out: float(np.max(np.abs(np.asarray(out)[:, chosen] - exact) / size))


def _against(torch: Any, F: np.ndarray, G: np.ndarray, V: np.ndarray, weight: Any, decay: float):
    """The largest relative error of the gradients beside those of the sequential computation in double precision."""
    f, g, v = (torch.from_numpy(a.astype(np.float64)).requires_grad_() for a in (F, G, V))
    out = peers.causal_sequential(torch, f, g, v, decay)
    exact = [a.numpy() for a in torch.autograd.grad(out, (f, g, v), weight.double())]
    return lambda gradients: max(relative_error(a, b) for a, b in zip(gradients, exact, strict=True))
