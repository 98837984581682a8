"""What an algorithm costs, in one small model: work is counted by kind, and each kind has a rate on each backend.

The planner compares algorithms for the same product, so only ratios of the rates matter. `calibrate` measures those of
this machine; `python -m benchmarks planner` prints prediction beside measurement.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from structmask.backends.config import get_backend
from structmask.linalg.rates import rates_of

if TYPE_CHECKING:
    from structmask.linalg.base import StructuredMatrix


@dataclass(frozen=True)
class Work:
    """Counts of one algorithm: floating-point operations by kind, bytes moved, and calls into kernels."""

    gemm: float = 0.0  # inside dense matrix products
    fft: float = 0.0  # inside transforms
    fused: float = 0.0  # inside transforms whose input and output are made in registers
    scan: float = 0.0  # inside recurrences and sparse products
    bytes: float = 0.0
    calls: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Work)})

    def __mul__(self, count: float) -> Work:
        return Work(**{f.name: getattr(self, f.name) * count for f in fields(Work)})

    @property
    def flops(self) -> float:
        """Floating-point operations of every kind together."""
        return self.gemm + self.fft + self.fused + self.scan


def seconds(work: Work, backend: str, precision: str) -> float:
    """Expected time of some work."""
    rates = rates_of(backend)
    time: float = sum(getattr(work, name) / rate for name, rate in rates.items() if name != "calls")
    return time * (2.0 if precision == "float64" else 1.0) + work.calls / rates["calls"]


def acting_backend(home: str | None) -> str:
    """The backend whose rates apply to arrays of this home."""
    if home == "cupy":
        return "cupy"
    return "numpy" if get_backend() == "numpy" or home not in (None, "numpy") else "numba"


@dataclass(frozen=True)
class Step:
    """One algorithm for a product and what it is expected to cost."""

    method: str
    work: Work
    seconds: float


@dataclass(frozen=True)
class Plan:
    """The algorithm chosen for a product, beside its alternatives; `str` of it is the table.

    Attributes
    ----------
    expression : str
        What is multiplied.
    columns : int
        Number of columns of the operand.
    steps : tuple of Step
        Every algorithm that applies, cheapest first.
    """

    expression: str
    columns: int
    steps: tuple[Step, ...]

    @property
    def method(self) -> str:
        """Name of the algorithm that will run."""
        return self.steps[0].method

    @property
    def flops(self) -> float:
        """Floating-point operations of the algorithm that will run."""
        return self.steps[0].work.flops

    @property
    def bytes(self) -> float:
        """Bytes moved by the algorithm that will run."""
        return self.steps[0].work.bytes

    @property
    def seconds(self) -> float:
        """Expected time of the algorithm that will run, in seconds."""
        return self.steps[0].seconds

    def __str__(self) -> str:
        head = f"{self.expression} @ ({self.columns} columns)"
        lines = [head, f"{'method':<12}{'flops':>12}{'bytes':>12}{'seconds':>12}"]
        for index, step in enumerate(self.steps):
            mark = "  <- chosen" if index == 0 else ""
            lines.append(
                f"{step.method:<12}{step.work.flops:>12.3g}{step.work.bytes:>12.3g}{step.seconds:>12.3g}{mark}"
            )
        return "\n".join(lines)


def make_plan(
    expression: str, columns: int, works: Iterable[tuple[str, Work]], *, home: str | None, precision: str
) -> Plan:
    """The plan that takes the cheapest of several (method, work) pairs."""
    backend = acting_backend(home)
    steps = [Step(method, work, seconds(work, backend, precision)) for method, work in works]
    return Plan(expression, columns, tuple(sorted(steps, key=lambda step: step.seconds)))


def explain(expression: StructuredMatrix, /, *, columns: int = 1) -> Plan:
    """Which algorithm `expression @ X` will use, and what it is expected to cost beside the alternatives.

    Parameters
    ----------
    expression : StructuredMatrix
        For masked attention: ``mask * LowRank(phi_q, phi_k)``.
    columns : int
        Number of columns of the operand (for attention the value size).

    Returns
    -------
    Plan
        `str` of it is a table; `method`, `flops`, `bytes` and `seconds` are those of the choice.

    Examples
    --------
    >>> import numpy as np
    >>> from structmask import Causal, LowRank, explain
    >>> phi = np.ones((4096, 8))
    >>> explain(Causal(4096) * LowRank(phi, phi), columns=8).method
    'scan'
    """
    from structmask.linalg.base import StructuredMatrix

    if not isinstance(expression, StructuredMatrix):
        msg = (
            f"explain takes a StructuredMatrix, got {type(expression).__name__}; for attention pass mask "
            "* LowRank(phi_q, phi_k)"
        )
        raise TypeError(msg)
    _check_columns(columns)
    return expression._plan(columns)


def _check_columns(columns: Any) -> None:
    if not isinstance(columns, int) or columns < 1:
        msg = f"columns must be a positive integer, got {columns!r}"
        raise ValueError(msg)
