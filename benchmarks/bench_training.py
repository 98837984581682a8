"""A training step of attention, 4 heads, m=d=64, float32: forward, backward, gradients of q, k, v and the mask.

Ours: elu features, relative positions with a bias a head, offsets = exp(bias). The rival: torch's scaled dot-product
attention with a learned dense bias (heads, L, L), the parameter itself, so that nothing is gathered or scattered. In
the long row it has one head, which fits, and counts for as many as there are. `torch` is its time over ours, `memory`
its peak beyond the operands over ours, both with gradients; `dense bias, MB` is what its parameter itself holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import peers
from benchmarks.bench_memory import MEGABYTE, peak_bytes
from benchmarks.report import Row
from benchmarks.settings import Settings
from benchmarks.timing import interleaved
from structmask import Causal, ExponentialSum, Toeplitz

WHOLE = 4096  # tokens up to which the rival has all heads at once


def rows(settings: Settings) -> Iterator[Row]:
    torch = peers.torch_or_none()
    if torch is None:
        return
    for L in (17,) if settings.tiny else (1024, 4096, 16384):
        for kind in ("relative positions", "causal", "exponential sum"):
            if kind == "relative positions" or L != 1024:
                yield _row(torch, kind, L, settings)


def _row(torch: Any, kind: str, L: int, settings: Settings) -> Row:
    heads, d = (2, 3) if settings.tiny else (4, 64)
    torch.manual_seed(0)
    q, k, v, g = torch.randn(4, heads, L, d)
    share = heads if L > WHOLE else 1
    ours, theirs = _ours(torch, kind, q, k, v, g), _sdpa(torch, *(x[: heads // share] for x in (q, k, v, g)))
    calls: dict[str, Callable[[], Any]] = {"structmask": ours}
    if (share == 1 or kind == "relative positions") and _fits(L, heads // share):
        calls["torch"] = theirs
    for call in calls.values():
        call()
    time = {name: timing.best for name, timing in interleaved(calls, budget=settings.budget).items()}
    row = Row(f"{kind} L={L}", {"step, ms": time["structmask"] * 1e3})
    own = peak_bytes(ours)
    if own is not None:
        row.figures["step, MB"] = own / MEGABYTE
    if "torch" in calls:
        row.figures["torch"] = share * time["torch"] / time["structmask"]
        other = peak_bytes(theirs)
        if own and other is not None:
            row.figures["memory"] = share * other / own
        row.figures["dense bias, MB"] = heads * L * L * 4 / MEGABYTE
    return row


def _ours(torch: Any, kind: str, q: Any, k: Any, v: Any, g: Any) -> Callable[[], Any]:
    from structmask.adapters.torch import masked_attention

    heads, L = q.shape[:2]
    if kind == "relative positions":
        mask, raw = Toeplitz(torch.ones(heads, 2 * L - 1).numpy()), torch.zeros(heads, 2 * L - 1)
        generators = {"offsets": torch.exp}
    elif kind == "causal":
        mask, raw = Causal(L, decay=torch.ones(heads, 1).numpy()), torch.full((heads, 1), 4.0)
        generators = {"decay": torch.sigmoid}
    else:
        mask = ExponentialSum(torch.ones(heads, 1).numpy(), torch.full((heads, 1), 0.9).numpy(), L)
        raw, generators = torch.full((heads, 1), 4.0), {"decays": torch.sigmoid}
    leaves = [x.clone().requires_grad_() for x in (q, k, v, raw)]

    def step() -> Any:
        parameters = {name: f(leaves[3]) for name, f in generators.items()}
        out = masked_attention(*leaves[:3], mask=mask, parameters=parameters)
        return torch.autograd.grad(out, leaves, g)

    return step


def _sdpa(torch: Any, q: Any, k: Any, v: Any, g: Any) -> Callable[[], Any]:
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    bias = torch.zeros(len(q), q.shape[1], q.shape[1], requires_grad=True)

    def step() -> Any:
        out = torch.nn.functional.scaled_dot_product_attention(*leaves, attn_mask=bias)
        return torch.autograd.grad(out, [*leaves, bias], g)

    return step


def _fits(L: int, heads: int) -> bool:
    """Whether the bias, its gradient, the weights and what else autograd keeps have room."""
    return heads * L * L * 4 * 6 < 0.7 * peers.available_bytes()
