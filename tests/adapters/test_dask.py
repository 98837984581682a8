"""The dask adapter: equal to the library's own products, by chunks; on a cluster, with a worker lost while it works."""

import os
import pickle
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest

import structmask
from structmask import Causal, Diagonal, LowRank, exp_features, use_backend
from structmask.backends import get_backend

da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

import dask  # noqa: E402  dask is optional

from structmask.adapters.dask import masked_attention, matmul  # noqa: E402

N = 12


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def heads(h, n=N):
    """A mask with a decay for each head."""
    return Causal(n, decay=np.linspace(0.5, 1.0, h)[:, None] * np.ones(n))


class Signed(Diagonal):
    """Its product tells by which copy, in which process, it was made."""

    def _matmat(self, X):
        return np.full(X.shape, float(hash((id(self), os.getpid())) % 2**50))


class Fatal(Diagonal):
    """Its first product ever ends the process in which it runs; a file in the name remembers that it has."""

    def _matmat(self, X):
        flag = Path(os.environ["STRUCTMASK_TEST_FLAG"])
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._matmat(X)


# --- products ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "shape", "chunks"),
    [
        (Causal(N, decay=0.9), (N,), 5),
        (Causal(N, decay=0.9), (N, 4), (5, 3)),
        (Causal(N, decay=0.9), (2, 3, N, 4), (1, 2, N, 2)),
        (heads(3), (N, 4), (N, 3)),
        (heads(3), (2, 3, N, 4), (1, 1, N, 4)),
        (heads(3), (2, 1, N, 4), (1, 1, 4, 2)),
        (LowRank(1j * normal(N, 2), normal(5, 2)), (5, 4), (5, 1)),
        (Causal(1), (1, 1), (1, 1)),
        (Causal(N), (N, 0), (N, 1)),
    ],
    ids=str,
)
def test_product_is_the_librarys(mask, shape, chunks):
    X = normal(*shape)
    Y = matmul(mask, da.from_array(X, chunks=chunks))
    expected = mask @ X
    assert Y.shape == expected.shape
    assert Y.dtype == expected.dtype
    assert np.allclose(Y.compute(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "complex64", "int64"])
def test_product_has_the_precision_of_the_operand(dtype):
    X = np.arange(2 * N).reshape(N, 2).astype(dtype)
    Y = matmul(Causal(N), da.from_array(X, chunks=(N, 1)))
    assert Y.dtype == Y.compute().dtype == (Causal(N) @ X).dtype


def test_chunks_of_columns_stay_and_chunks_of_rows_are_merged():
    X = da.zeros((N, 6), chunks=(4, 2))
    assert matmul(Causal(N), X).chunks == ((N,), (2, 2, 2))
    with dask.config.set({"array.chunk-size": N * 8}):
        assert matmul(Causal(N), X).chunks == ((N,), (1,) * 6)


def test_nothing_is_computed_before_it_is_asked_for():
    def fail(block):
        raise AssertionError(block)

    X = da.zeros((N, 2), chunks=(N, 1)).map_blocks(fail, dtype=float, meta=np.empty((0, 0)))
    assert matmul(Causal(N), X).shape == (N, 2)


def test_blocks_run_under_the_backend_in_force_when_the_graph_was_made():
    class Asking(Diagonal):
        def _matmat(self, X):
            return np.full(X.shape, float(get_backend() == "numpy"))

    X = da.zeros((N, 2), chunks=(N, 1))
    with use_backend("numpy"):
        Y = matmul(Asking(np.ones(N)), X)
    assert Y.compute().all()


def test_graph_holds_the_mask_once():
    mask = Diagonal(normal(20_000))
    Y = matmul(mask, da.zeros((20_000, 32), chunks=(20_000, 1)))
    sizes = [len(pickle.dumps(task)) for task in dict(Y.__dask_graph__()).values()]
    assert sum(size > 100_000 for size in sizes) == 1


# --- attention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [None, Causal(N, decay=0.9), heads(3)], ids=["none", "shared", "heads"])
@pytest.mark.parametrize("padded", ["no", "all", "each"])
def test_attention_is_the_librarys(mask, padded):
    q, k, v = normal(2, 3, N, 4), normal(3, N, 4, seed=1), normal(2, 1, N, 5, seed=2)
    padding = {"no": None, "all": np.arange(N) > 8, "each": np.arange(N) >= np.array([7, 0])[:, None, None]}[padded]
    expected = structmask.masked_attention(q, k, v, mask=mask, key_padding_mask=padding, eps=0.1)
    blocks = da.from_array(q, (1, 2, 5, 4)), da.from_array(k, (1, N, 2)), da.from_array(v, (1, 1, N, 5))
    lazy = None if padding is None else da.from_array(padding, chunks=5)
    out = masked_attention(*blocks, mask=mask, key_padding_mask=lazy, eps=0.1)
    assert out.shape == expected.shape
    assert out.numblocks[:2] == (2, 1 if mask is not None and mask.ndim == 3 else 3)
    assert np.allclose(out.compute(), expected, rtol=1e-12, atol=1e-12)


def test_attention_hands_its_options_on():
    q = k = v = da.from_array(normal(3, N, 4).astype("float32"), chunks=(1, N, 4))
    out = masked_attention(q, k, v, mask=Causal(N), features=(exp_features, np.exp), method="dense")
    x = q.compute()
    expected = structmask.masked_attention(x, x, x, mask=Causal(N), features=(exp_features, np.exp), method="dense")
    assert out.dtype == np.float32
    assert np.array_equal(out.compute(), expected)


# --- errors -----------------------------------------------------------------------------------------------------------


def unknown():
    x = da.zeros((N, 2), chunks=(4, 2))
    return x[x[:, 0] >= 0]


@pytest.mark.parametrize(
    ("mask", "X", "error", "match"),
    [
        (np.eye(N), lambda: da.zeros((N, 2)), TypeError, "StructuredMatrix"),
        (Causal(N), lambda: np.zeros((N, 2)), TypeError, "X must be a dask array"),
        (Causal(N), lambda: da.zeros((N, 2), dtype="float16"), TypeError, "float16"),
        (Causal(N), lambda: da.zeros((N + 1, 2)), ValueError, "12 rows"),
        (Causal(N), lambda: da.zeros(()), ValueError, "scalar"),
        (Causal(N), unknown, ValueError, "compute_chunk_sizes"),
        (heads(3), lambda: da.zeros((2, N, 2)), ValueError, "do not broadcast"),
    ],
)
def test_operands_of_products_that_do_not_fit(mask, X, error, match):
    with pytest.raises(error, match=match):
        matmul(mask, X())


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"mask": Causal(N + 1)}, ValueError, "12 queries and 12 keys"),
        ({"mask": np.eye(N)}, TypeError, "StructuredMatrix"),
        ({"mask": heads(4)}, ValueError, "do not broadcast"),
        ({"key_padding_mask": np.zeros(N, bool)}, TypeError, "must be a dask array"),
        ({"key_padding_mask": da.zeros(N)}, TypeError, "must be boolean"),
    ],
)
def test_operands_of_attention_that_do_not_fit(change, error, match):
    q = k = v = da.zeros((3, N, 4))
    with pytest.raises(error, match=match):
        masked_attention(q, k, v, **change)


# --- a cluster --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flag(tmp_path_factory):
    return tmp_path_factory.mktemp("cluster") / "was_killed"


@pytest.fixture(scope="module")
def client(flag):
    """Two worker processes of one thread each, which a nanny replaces when they die."""
    environment = {"STRUCTMASK_TEST_FLAG": str(flag), "STRUCTMASK_CACHE": os.devnull, "NUMBA_NUM_THREADS": "1"}
    settings = {"distributed.nanny.environ": environment, "distributed.scheduler.allowed-failures": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            dask.config.set(settings),
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit="600MiB", silence_logs=50
            ) as cluster,
            distributed.Client(cluster) as connected,
        ):
            yield connected


def peak_bytes():
    """Of this program: `getrusage` knows the peak of the process that started it, too."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def test_workers_make_the_masks_plans_once(client):
    Y = matmul(Signed(np.ones(N)), da.zeros((N, 40), chunks=(N, 1)))
    copies = np.unique(client.compute(Y).result())
    assert 1 <= copies.size <= 2


def test_operands_larger_than_the_memory_of_all_workers(client):
    n, k, columns = 1 << 16, 2560, 32
    Causal(n, decay=0.5) @ np.ones((n, columns))  # compiles what the workers then read from numba's cache
    X = da.ones((n, k), chunks=(n, columns), dtype="float64")  # 1280 MiB in blocks of 16 MiB, against 2 x 600 MiB
    total = client.compute(matmul(Causal(n, decay=0.5), X).sum()).result()
    assert np.isclose(total, k * (2.0 * n - 2.0), rtol=1e-12)
    assert max(client.run(peak_bytes).values()) < 600 << 20


def test_a_worker_killed_while_it_works_changes_nothing(client, flag):
    X, mask = normal(N, 12), Fatal(normal(N))
    pids = set(client.run(os.getpid).values())
    Y = matmul(mask, da.from_array(X, chunks=(N, 1)))
    result = client.compute(Y).result(timeout=60)
    assert flag.exists()
    client.wait_for_workers(2, timeout=60)
    assert set(client.run(os.getpid).values()) != pids
    assert np.array_equal(result, mask.diagonal()[:, None] * X)


def test_attention_on_the_cluster(client):
    q, k, v = normal(3, 2, 4, N, 8)
    expected = structmask.masked_attention(q, k, v, mask=heads(4))
    lazy = (da.from_array(x, chunks=(1, 2, N, 8)) for x in (q, k, v))
    assert np.allclose(client.compute(masked_attention(*lazy, mask=heads(4))).result(), expected, rtol=1e-12)
