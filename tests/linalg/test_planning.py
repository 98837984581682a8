"""Plans: what explain says is what runs, and its numbers behave as costs do."""

import numpy as np
import pytest

from structmask import Causal, LowRank, Plan, Toeplitz, explain, use_backend
from structmask.linalg.planning import Work, seconds
from tests.cases import real


def attention(n, r):
    return LowRank(real(n, r), real(n, r, seed=1))


def test_plan_is_a_table_with_the_choice_marked():
    plan = explain(Toeplitz(real(127)) * attention(64, 4), columns=8)
    head, titles, *rows = str(plan).splitlines()
    assert "Toeplitz(64 x 64" in head
    assert "8 columns" in head
    assert titles.split() == ["method", "flops", "bytes", "seconds"]
    assert [row.split()[0] for row in rows] == [step.method for step in plan.steps]
    assert [row.endswith("<- chosen") for row in rows] == [True] + [False] * (len(rows) - 1)
    assert isinstance(plan, Plan)


def test_plan_offers_every_method_once_and_orders_by_time():
    plan = explain(Causal(4096) * attention(4096, 8), columns=8)
    assert {step.method for step in plan.steps} >= {"dense", "stream", "scan"}
    times = [step.seconds for step in plan.steps]
    assert times == sorted(times)
    assert (plan.method, plan.seconds) == (plan.steps[0].method, times[0])
    assert (plan.flops, plan.bytes) == (plan.steps[0].work.flops, plan.steps[0].work.bytes)


def test_plain_products_never_form_the_matrix():
    plan = explain(Toeplitz(real(2**15 - 1)))
    assert plan.method == "product"
    assert plan.flops < {step.method: step for step in plan.steps}["to_dense"].work.flops


def test_long_sequences_avoid_quadratic_work_and_short_ones_take_it():
    mask = Toeplitz.from_function(lambda s: np.exp(-abs(s) / 9), 2**16)
    assert explain(mask * attention(2**16, 4), columns=4).method != "dense"
    assert explain(Toeplitz(real(63)) * attention(32, 16), columns=16).method == "dense"


def test_costs_grow_with_columns():
    matrix = Toeplitz(real(255)) * attention(128, 4)
    assert explain(matrix, columns=64).flops > explain(matrix, columns=1).flops


def test_backend_changes_the_expected_time():
    matrix = Toeplitz(real(4095))
    with use_backend("numpy"):
        plain = explain(matrix, columns=64).seconds
    assert explain(matrix, columns=64).seconds != plain


def test_double_precision_costs_twice():
    work = Work(gemm=1e9, bytes=1e6)
    assert seconds(work, "numba", "float64") == 2 * seconds(work, "numba", "float32")


def test_work_adds_and_multiplies():
    work = Work(gemm=1.0, fft=2.0, scan=3.0, bytes=4.0, calls=5.0)
    assert work + work == work * 2
    assert (work * 2).flops == 12.0


def test_explain_refuses_arrays_and_bad_columns():
    with pytest.raises(TypeError, match=r"takes a StructuredMatrix, got ndarray; for attention pass mask \* LowRank"):
        explain(np.eye(3))
    for columns in (0, -1, 1.5, "many"):
        with pytest.raises(ValueError, match="positive integer"):
            explain(Causal(3), columns=columns)
