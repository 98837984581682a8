"""What only a GPU can tell: kernels as compiled for it, equal results, memory, streams, sizes beyond 2^31 entries."""

import numpy as np
import pytest
import scipy.sparse

from structmask import Causal, Sparse, Toeplitz, as_forest, diffusion_kernel, masked_attention, tree_decay
from structmask.backends import _cupy
from tests.conftest import LIBRARIES
from tests.gpu import exercise, test_markov

pytestmark = pytest.mark.gpu
GIB = 1 << 30


@pytest.fixture
def cupy():
    module = pytest.importorskip("cupy")
    yield module
    module.get_default_memory_pool().free_all_blocks()


@pytest.fixture
def masks(rng):
    n = 3000
    ring = scipy.sparse.diags_array([1.0, 1.0], offsets=[1, -1], shape=(n, n)).tocsr()
    parents = [-1, *(int(rng.integers(0, i)) for i in range(1, n))]
    tree = as_forest(parents=parents, lengths=rng.uniform(0.5, 1.5, n))
    return (
        Toeplitz(rng.uniform(0.5, 1, 2 * n - 1)),
        Causal(n, decay=0.99),
        Sparse(ring),
        diffusion_kernel(ring, 5.0),
        tree_decay(tree, 0.1),
    )


@pytest.mark.usefixtures("cupy")
def test_kernels_are_right_as_compiled_for_this_card():
    exercise.check_all()


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize(("kind", "prepare", "question"), test_markov.QUESTIONS)
def test_walks_are_those_of_the_host(kind, prepare, question):
    test_markov.check(LIBRARIES["cupy"], kind, prepare, question)


def test_results_are_equal_from_run_to_run(cupy, rng, masks):
    q, k, v = (cupy.asarray(rng.uniform(0, 1, (3000, 16))) for _ in range(3))
    for mask in masks:
        device = mask.to("cupy")
        first = masked_attention(q, k, v, mask=device)
        for _ in range(3):
            assert bool((masked_attention(q, k, v, mask=device) == first).all())


def test_operations_run_on_the_current_stream(cupy, rng, masks):
    X = cupy.asarray(rng.standard_normal((3000, 8)))
    for mask in masks:
        device = mask.to("cupy")
        expected, stream = device @ X, cupy.cuda.Stream(non_blocking=True)
        with stream:
            Y = device @ X
            stream.synchronize()
        assert bool((expected == Y).all())


def test_attention_holds_no_more_than_a_few_operands(cupy, masks):
    pool, n = cupy.get_default_memory_pool(), 3000
    q, k, v = (cupy.ones((64, n, 64), dtype="float32") for _ in range(3))
    for mask in masks[:2]:
        device = mask.to("cupy")
        masked_attention(q[:1], k[:1], v[:1], mask=device)
        pool.free_all_blocks()
        pool.set_limit(size=pool.used_bytes() + 2 * GIB)  # the mask of all heads in full would take 2.1 GiB
        try:
            masked_attention(q, k, v, mask=device)
        finally:
            pool.set_limit(size=0)


def test_kernels_reach_beyond_two_to_the_31_entries(cupy):
    n, k = (1 << 21) + 3, 1 << 10  # 2^31 + 3072 entries of an operand
    if cupy.cuda.runtime.memGetInfo()[0] < 36 * GIB:
        pytest.skip("needs 36 GiB of free device memory")
    X = cupy.zeros((n, k), dtype="float32")
    X[-1, :], X[0, :] = 2.0, 1.0
    swap = scipy.sparse.csr_array((np.ones(2), ([0, n - 1], [n - 1, 0])), shape=(n, n))
    device = Sparse(swap).to("cupy")
    Y = device @ X
    assert bool((Y[0, :] == 2).all())
    assert bool((Y[-1, :] == 1).all())
    del Y
    Z = _cupy.linear_scan(X, cupy.ones(n), upper=False)
    assert bool((Z[-1, :] == 3).all())
    assert bool((Z[n // 2, :] == 1).all())
