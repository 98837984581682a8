"""Gradients of masked attention for queries, keys, values and mask, float32, one head: time over that of the result.

`backward` is the backward pass alone, in multiples of the forward pass; `torch` is autograd through the dense
computation, forward and backward, over ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.bench_attention import inputs
from benchmarks.bench_diffusion import grid
from benchmarks.contest import relative_error
from benchmarks.report import Row
from benchmarks.settings import Settings
from benchmarks.timing import interleaved
from structmask import (
    Causal,
    ExponentialSum,
    LowRank,
    StructuredMatrix,
    Toeplitz,
    as_forest,
    diffusion_kernel,
    random_walk_kernel,
    tree_decay,
)
from structmask.attention import attend, attend_pullback

LONGEST = 8192  # tokens from which on the dense computation is left out


def rows(settings: Settings) -> Iterator[Row]:
    m = 3 if settings.tiny else 64
    for L in (17,) if settings.tiny else (64, 256, 1024, 4096, 5000, 16384, 65536):
        for features in (3,) if settings.tiny else (16, 64):
            yield _row("relative positions", L, features, settings)
    for L in (17,) if settings.tiny else (1024, 16384):
        yield _row("causal", L, m, settings, Causal(L, decay=np.full(L, 0.99, np.float32)))
        mask = ExponentialSum(np.ones(2, np.float32), np.array([0.9, 0.99], np.float32), L)
        yield _row("exponential sum", L, m, settings, mask)
        yield _row("tree", L, m, settings, tree_decay(as_forest(parents=(np.arange(L) - 1) // 2), 0.5))
        factors = np.random.default_rng(2).uniform(0.1, 1.0, (2, L, 4)).astype(np.float32)
        yield _row("low rank", L, m, settings, LowRank(*factors))
        yield _row("low rank + causal", L, m, settings, LowRank(*factors) + Causal(L, decay=0.99))
    for side in (4,) if settings.tiny else (32, 100):
        W, few = grid(side).astype(np.float32), 3 if settings.tiny else 16
        for t in (1.0, 10.0):
            yield _row(f"diffusion t={t:g}", side**2, few, settings, diffusion_kernel(W, t))
        for length in (3, 6):
            yield _row(f"walks of {length}", side**2, few, settings, random_walk_kernel(W, length))


def _row(name: str, L: int, m: int, settings: Settings, mask: StructuredMatrix | None = None) -> Row:
    F, G, V, table = inputs(L, m, m)
    chosen: StructuredMatrix = Toeplitz(table) if mask is None else mask
    g = np.random.default_rng(1).standard_normal(V.shape).astype(np.float32)
    out, mass = attend(F, G, V, chosen)
    calls: dict[str, Callable[[], Any]] = {
        "forward": lambda: attend(F, G, V, chosen),
        "backward": lambda: attend_pullback(F, G, V, chosen, out, mass, g),
    }
    calls["backward"]()  # compiles what is not yet
    torch = peers.torch_or_none()
    if torch is not None and L <= LONGEST and mask is None:
        calls["torch"] = lambda: _dense(torch, F, G, V, table, g)
        _check(calls["backward"](), calls["torch"]())
    calls["backward"]()  # compiled
    time = {call: timing.best for call, timing in interleaved(calls, budget=settings.budget).items()}
    figures: dict[str, Any] = {
        "forward, ms": time["forward"] * 1e3,
        "backward / forward": time["backward"] / time["forward"],
    }
    if "torch" in time:
        figures["torch"] = time["torch"] / (time["forward"] + time["backward"])
    return Row(f"{name} L={L} m=e={m}", figures)


def _dense(torch: Any, F: Any, G: Any, V: Any, table: Any, g: Any) -> tuple[Any, ...]:
    """Gradients by autograd through dense masked attention, the table gathered."""
    f, k, v, t = (torch.from_numpy(a).requires_grad_() for a in (F, G, V, table))
    index = torch.arange(len(F))
    A = (f @ k.T) * t[index[:, None] - index[None, :] + len(F) - 1]
    out = (A @ v) / A.sum(dim=1, keepdim=True)
    return tuple(torch.autograd.grad(out, (f, k, v, t), torch.from_numpy(g)))


def _check(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> None:
    *gradients, of_mask = ours
    for value, exact in zip((*gradients, of_mask["offsets"]), theirs, strict=True):
        error = relative_error(value, exact.numpy().astype(float))
        if not error < 1e-3:
            msg = f"a gradient is off by {error:.1e}"
            raise AssertionError(msg)
