"""Training cost: time and memory of a training step against the length of the sequence.

One attention layer forwards and backwards, gradients of queries, keys, values and of everything that the mask learns:
linear attention under a learnt table of relative positions, or a learnt causal decay, beside torch's own softmax
attention with a learnt dense bias. Times are multiples of torch's at the shortest length. Memory is what the process
has resident at its peak beyond what it had before the step, operands and masks not counted.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.bench_memory import peak_bytes
from benchmarks.peers import available_bytes
from experiments import command, report
from structmask import Causal, Toeplitz
from structmask.adapters.torch import masked_attention

SOFTMAX, POSITIONS, DECAY = "torch, dense bias", "relative positions", "causal decay"


@dataclass(frozen=True)
class Config:
    """Sizes, and for how long a row is repeated at least."""

    lengths: tuple[int, ...] = (256, 1024, 4096, 8192, 16384)
    heads: int = 4
    size: int = 64
    seconds: float = 1.0


QUICK = Config(lengths=(32, 64), heads=2, size=4, seconds=0.0)


@dataclass(frozen=True)
class Cost:
    """A row of the results."""

    way: str
    length: int
    relative_time: float
    megabytes: float


def costs(config: Config) -> Iterator[Cost]:
    """All ways at all lengths; torch only where its matrices fit into half of the free memory."""
    unit = 0.0
    for L in config.lengths:
        for way, maker in WAYS.items():
            if way == SOFTMAX and 6 * 4 * config.heads * L**2 > available_bytes() / 2:
                continue
            step = maker(config, L)
            seconds, peak = _measured(step, config.seconds)
            unit = unit or seconds
            print(f"  {way}: {L}", file=sys.stderr, flush=True)
            yield Cost(way, L, seconds / unit, peak / 1e6)
            del step
            gc.collect()


def softmax(config: Config, L: int) -> Callable[[], None]:
    """torch's scaled_dot_product_attention, whose bias is a parameter of shape (heads, L, L)."""
    q, k, v = _operands(config, L)
    bias = torch.zeros(config.heads, L, L, requires_grad=True)
    attention = torch.nn.functional.scaled_dot_product_attention
    return _step((q, k, v, bias), lambda: attention(q, k, v, attn_mask=bias[None]))


def positions(config: Config, L: int) -> Callable[[], None]:
    """A table of the exponentials of a learnt bias, one a head."""
    q, k, v = _operands(config, L)
    table = torch.zeros(config.heads, 2 * L - 1, requires_grad=True)
    mask = Toeplitz(np.ones((config.heads, 2 * L - 1), dtype=np.float32))
    return _step((q, k, v, table), lambda: masked_attention(q, k, v, mask=mask, parameters={"offsets": table.exp()}))


def decay(config: Config, L: int) -> Callable[[], None]:
    """A learnt decay, one a head."""
    q, k, v = _operands(config, L)
    decays = torch.full((config.heads, 1), 0.99, requires_grad=True)
    mask = Causal(L, decay=np.full((config.heads, 1), 0.99, dtype=np.float32))
    return _step((q, k, v, decays), lambda: masked_attention(q, k, v, mask=mask, parameters={"decay": decays}))


WAYS = {SOFTMAX: softmax, POSITIONS: positions, DECAY: decay}


def _operands(config: Config, L: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return torch.randn(3, 1, config.heads, L, config.size).requires_grad_().unbind()


def _step(leaves: tuple[torch.Tensor, ...], forward: Callable[[], torch.Tensor]) -> Callable[[], None]:
    def step() -> None:
        torch.autograd.grad(forward().square().mean(), leaves)

    return step


def _measured(step: Callable[[], None], least: float) -> tuple[float, float]:
    """Seconds, the fewest of a few but the first, and the peak of memory in bytes."""
    found: list[float] = []

    def timed() -> None:
        start = time.perf_counter()
        step()
        found.append(time.perf_counter() - start)

    peak = peak_bytes(timed)  # steps twice
    while len(found) < 2 or sum(found[1:]) < least:
        timed()
    return min(found[1:]), float("nan") if peak is None else peak


def plot(path: Path, rows: list[Cost]) -> None:
    """Time and memory against length, both axes logarithmic."""
    figure, axes = report.canvas(height=3.0, columns=2)
    for way in WAYS:
        own = [row for row in rows if row.way == way]
        for panel, name in zip(axes, ("relative_time", "megabytes"), strict=True):
            panel.loglog([row.length for row in own], [getattr(row, name) for row in own], "o-", label=way)
    for panel, name in zip(axes, ("time of a step, relative", "memory of a step, MB"), strict=True):
        panel.set(xlabel="tokens", ylabel=name)
        panel.grid(alpha=0.3)
    axes[0].legend()
    report.save(figure, path)


def table(rows: list[Cost]) -> str:
    """Markdown: torch's time and memory over those of each mask."""
    found = {(row.way, row.length): row for row in rows}
    lines = ["| tokens | mask | torch's time over ours | torch's memory over ours |", "| ---: | --- | ---: | ---: |"]
    for (way, L), row in found.items():
        theirs = found.get((SOFTMAX, L))
        if way == SOFTMAX:
            continue
        ratios = (
            ("does not fit", "")
            if theirs is None
            else (f"{theirs.relative_time / row.relative_time:.2g}", f"{theirs.megabytes / row.megabytes:.2g}")
        )
        lines.append(f"| {L:,} | {way} | {ratios[0]} | {ratios[1]} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    asked = command.options(__doc__, arguments)
    rows = list(costs(QUICK if asked.quick else Config()))
    report.write(asked.output, "training_cost", rows, table(rows), plot)


if __name__ == "__main__":
    main()
