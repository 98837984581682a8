"""Gradients of masked attention for queries, keys, values and mask, float32, one head: time over that of the result.

`backward` is the backward pass alone, in multiples of the forward pass; `torch` is autograd through the dense
computation, forward and backward, over ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.sparse import csr_array, diags_array, eye_array, kron

from benchmarks import peers
from benchmarks.bench_attention import inputs
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
from structmask.graphs import SpectralFilter
from structmask.linalg.composite import Sum

_KINDS = {
    Causal: "causal",
    ExponentialSum: "exponential sum",
    LowRank: "low rank",
    Sum: "low rank + causal",
    SpectralFilter: "diffusion",
}
LONGEST = 8192  # tokens from which on the dense computation is left out


def rows(settings: Settings) -> Iterator[Row]:
    for L in (17,) if settings.tiny else (64, 256, 1024, 4096, 5000, 16384, 65536):
        for m in (3,) if settings.tiny else (16, 64):
            yield _row(L, m, settings)
    for L in (17,) if settings.tiny else (1024, 16384):
        yield _row(L, 3 if settings.tiny else 64, settings, Causal(L, decay=np.full(L, 0.99, np.float32)))
    for L in (17,) if settings.tiny else (1024, 16384):
        mask = ExponentialSum(np.ones(2, np.float32), np.array([0.9, 0.99], np.float32), L)
        yield _row(L, 3 if settings.tiny else 64, settings, mask)
    for L in (17,) if settings.tiny else (1024, 16384):
        yield _row(L, 3 if settings.tiny else 64, settings, tree_decay(as_forest(parents=(np.arange(L) - 1) // 2), 0.5))
    for L in (17,) if settings.tiny else (1024, 16384):
        factors = np.random.default_rng(2).uniform(0.1, 1.0, (2, L, 4)).astype(np.float32)
        yield _row(L, 3 if settings.tiny else 64, settings, LowRank(*factors))
        yield _row(L, 3 if settings.tiny else 64, settings, LowRank(*factors) + Causal(L, decay=0.99))
    for L in (17,) if settings.tiny else (1024, 10_000):
        for t in (1.0, 10.0):
            yield _row(L, 3 if settings.tiny else 16, settings, diffusion_kernel(_grid(L), t))
        for walk in (3, 6):
            yield _row(L, 3 if settings.tiny else 16, settings, random_walk_kernel(_grid(L), walk))


def _grid(L: int) -> csr_array:
    """A square grid of about L nodes."""
    side = max(2, round(L**0.5))
    path = diags_array([np.ones(side - 1, np.float32)] * 2, offsets=[-1, 1])
    eye = eye_array(side, dtype=np.float32)
    return csr_array(kron(path, eye) + kron(eye, path))


def _row(L: int, m: int, settings: Settings, mask: StructuredMatrix | None = None) -> Row:
    L = L if mask is None else mask.shape[-1]  # a grid has a whole side
    F, G, V, table = inputs(L, m, m)
    kind = "relative positions" if mask is None else _KINDS.get(type(mask), "tree")
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
    time = {name: timing.best for name, timing in interleaved(calls, budget=settings.budget).items()}
    figures: dict[str, Any] = {
        "forward, ms": time["forward"] * 1e3,
        "backward / forward": time["backward"] / time["forward"],
    }
    if "torch" in time:
        figures["torch"] = time["torch"] / (time["forward"] + time["backward"])
    return Row(f"{kind} L={L} m=e={m}", figures)


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
