"""Which device an operand is on: arrays of other libraries by DLPack, and two GPUs in one call."""

import gc
import re

import numpy as np
import pytest
import scipy.sparse

from structmask import (
    BackendError,
    Causal,
    Dense,
    LowRank,
    Sparse,
    Toeplitz,
    diffusion_kernel,
    masked_attention,
    to_numpy,
    tree_decay,
    tree_mask,
    use_backend,
)
from tests.conftest import LIBRARIES
from tests.gpu import stand_in

LIBRARY = LIBRARIES["stand-in"]
CPU, CUDA, MANAGED = 1, stand_in.CUDA, 13
N = 6


class Exported:
    """What another library holds, on a device of a type of DLPack; nothing but DLPack gets at it."""

    def __init__(self, x, kind=CUDA, number=0):
        self.x, self.kind, self.number = x, kind, number

    def __dlpack_device__(self):
        return self.kind, self.number

    def __dlpack__(self, **options):
        return self.x.__dlpack__(**options)


@pytest.fixture(autouse=True)
def device():
    with stand_in.installed():
        yield


@pytest.fixture
def mask(rng):
    return Toeplitz(rng.uniform(0.5, 1.0, 2 * N - 1))


# --- DLPack -----------------------------------------------------------------------------------------------------------


def test_what_is_on_a_gpu_comes_in_as_a_cupy_array_without_a_copy(rng, mask):
    X, on_gpu = rng.uniform(0.5, 1.0, (N, 2)), mask.to("cupy")
    on_gpu @ LIBRARY.array(X)  # makes its plans
    with stand_in.forbid():
        Y, Z = on_gpu @ Exported(X), Exported(X.T.copy()) @ on_gpu
        held = Dense(Exported(X)).a.held
    assert isinstance(Y, stand_in.ndarray)
    assert np.shares_memory(held, X)
    np.testing.assert_allclose(Y.get(), mask @ X, rtol=1e-12)
    np.testing.assert_allclose(Z.get(), X.T @ mask, rtol=1e-12)


def test_attention_takes_it_with_its_padding(rng, mask):
    q, k, v = rng.uniform(0.5, 1.0, (3, N, 2))
    padding = np.arange(N) > N - 3
    got = masked_attention(*map(Exported, (q, k, v)), mask=mask.to("cupy"), key_padding_mask=Exported(padding))
    assert isinstance(got, stand_in.ndarray)
    want = masked_attention(q, k, v, mask=mask, key_padding_mask=padding)
    np.testing.assert_allclose(got.get(), want, rtol=1e-12)


@pytest.mark.parametrize("kind", [CPU, 3])
def test_what_is_on_the_host_comes_in_as_a_numpy_array(rng, mask, kind):
    X = rng.standard_normal((N, 2))
    Y = mask @ Exported(X, kind)
    assert isinstance(Y, np.ndarray)
    np.testing.assert_array_equal(Y, mask @ X)
    with use_backend("cupy"):
        assert isinstance(mask @ Exported(X, kind), stand_in.ndarray)


def test_arrays_of_jax_come_in_by_the_protocol(rng, mask):
    kind = type("ArrayImpl", (Exported,), {"__module__": "jaxlib._jax", "__array_namespace__": lambda _: None})
    X = rng.standard_normal((N, 2))
    np.testing.assert_array_equal(mask @ kind(X, CPU), mask @ X)
    assert isinstance(mask.to("cupy") @ kind(X, CUDA), stand_in.ndarray)


@pytest.mark.parametrize("kind", [CPU, CUDA, MANAGED])
def test_to_numpy_brings_it_back(rng, kind):
    X = rng.standard_normal((N, 2))
    np.testing.assert_array_equal(to_numpy(Exported(X, kind)), X)


@pytest.mark.parametrize(("kind", "name"), [(10, "a ROCm device"), (8, "a Metal device"), (99, "an unknown device")])
def test_other_devices_are_refused_by_name(rng, mask, kind, name):
    with pytest.raises(BackendError, match=f"is on {name}.*CPU and on CUDA.*copy it to the CPU"):
        mask @ Exported(rng.standard_normal(N), kind)


def test_without_a_gpu_the_cause_is_said(rng, mask, monkeypatch):
    monkeypatch.setattr("structmask.backends.devices.cupy_status", lambda: "CuPy is not installed: ...")
    with pytest.raises(BackendError, match=r"CUDA device, where structmask computes with CuPy\. CuPy is not installed"):
        mask @ Exported(rng.standard_normal(N))


def test_it_does_not_meet_what_is_elsewhere(rng, mask):
    with pytest.raises(BackendError, match=r"operand lives in cupy but Toeplitz.* lives in numpy"):
        mask @ Exported(rng.standard_normal(N))
    with use_backend("numba"), pytest.raises(BackendError, match="lives on the GPU but the backend in force"):
        mask @ Exported(rng.standard_normal(N))


# --- two GPUs ---------------------------------------------------------------------------------------------------------


def on(number, x):
    with stand_in.Device(number):
        return x.to("cupy") if hasattr(x, "to") else LIBRARY.array(x)


MEETINGS = {
    "operand": lambda M, x: on(0, M) @ on(1, x),
    "left operand": lambda M, x: on(1, x.T) @ on(0, M),
    "matrix": lambda M, x: on(1, M) @ on(0, x),
    "host matrix": lambda M, x: M @ on(1, x),
    "k": lambda M, x: masked_attention(on(0, x), on(1, x), on(0, x), mask=on(0, M)),
    "mask": lambda M, x: masked_attention(*[on(0, x)] * 3, mask=on(1, M)),
    "both elsewhere": lambda M, x: on(1, M) @ on(1, x),
    "gradient": lambda M, x: on(0, M).pullback(on(0, x), on(1, x)),
    "dense form": lambda M, _: on(1, M).to_dense(),
    "diagonal": lambda M, _: on(1, M).diagonal(),
    "exported": lambda M, x: on(0, M) @ Exported(x, CUDA, 1),
    "sparse": lambda _, x: on(1, Sparse(scipy.sparse.eye_array(N, format="csr"))) @ on(0, x),
    "padding": lambda M, x: masked_attention(
        *[on(0, x)] * 3, mask=on(0, M), key_padding_mask=on(1, np.arange(N) > N - 3)
    ),
}


@pytest.mark.parametrize("meeting", MEETINGS.values(), ids=MEETINGS)
@pytest.mark.parametrize("backend", ["auto", "cupy"])
def test_operands_on_another_gpu_are_refused_in_a_sentence(rng, mask, meeting, backend):
    said = r"is on GPU 1, and the current device is GPU 0: bring all operands to one, by cupy.asarray.*\.Device"
    with use_backend(backend), pytest.raises(BackendError, match=said):
        meeting(mask, rng.uniform(0.5, 1.0, (N, 2)))


@pytest.mark.parametrize(
    "make",
    [
        lambda x: LowRank(on(0, x), on(1, x)),
        lambda x: on(0, Dense(x @ x.T)) + on(1, Causal(N, decay=np.full(N, 0.5))),
        lambda x: Toeplitz.from_column_row(on(0, x[:, 0]), on(1, x[:, 0])),
    ],
    ids=["factors", "sum", "column and row"],
)
def test_generators_of_two_gpus_are_refused(rng, make):
    with pytest.raises(BackendError, match=re.escape("are on GPUs 0 and 1; bring them to one")):
        make(rng.uniform(0.5, 1.0, (N, 2)))


def test_matrices_and_arrays_are_brought_to_the_current_gpu_by_request_alone(rng, mask):
    X, sparse = rng.standard_normal((N, 2)), Sparse(scipy.sparse.eye_array(N, format="csr"))
    for M in (mask, sparse):
        far = on(0, M)
        with stand_in.Device(1):
            Y = far.to("cupy") @ stand_in.asarray(on(0, X))
            assert Y.device.id == 1
        np.testing.assert_allclose(Y.get(), M @ X, rtol=1e-12, atol=1e-12)


# --- what is kept on a device -----------------------------------------------------------------------------------------


def path(n):
    return scipy.sparse.diags_array([1.0, 1.0], offsets=[-1, 1], shape=(n, n), format="csr")


MATRICES = {
    "toeplitz": lambda rng: Toeplitz(rng.uniform(0.5, 1.0, 2 * N - 1)),
    "causal": lambda _: Causal(N, decay=0.9),
    "sparse": lambda _: Sparse(path(N)),
    "tree": lambda _: tree_decay(path(N), 0.5),
    "tree function": lambda _: tree_mask(path(N), lambda d: np.exp(-d)),
    "diffusion": lambda _: diffusion_kernel(path(N), 0.3),
    "product": lambda rng: LowRank(*rng.uniform(0.5, 1.0, (2, N, 2))) * tree_decay(path(N), 0.5),
}


def arrays_on_devices():
    gc.collect()
    return sum(type(x) in (stand_in.ndarray, stand_in.csr_matrix) for x in gc.get_objects())


@pytest.mark.parametrize("make", MATRICES.values(), ids=MATRICES)
def test_what_is_on_devices_goes_with_its_matrix(rng, make):
    before, M, x = arrays_on_devices(), make(rng), rng.uniform(0.5, 1.0, (N, 2))
    with use_backend("cupy"):
        for number in (0, 1):
            with stand_in.Device(number):
                M @ x
                M.pullback(x, x)
                masked_attention(x, x, x, mask=M)
    assert arrays_on_devices() > before
    del M
    assert arrays_on_devices() == before


@pytest.mark.parametrize("shape", [(39,), (9, 11), (5, 7, 3)])
def test_a_product_needs_two_plans_of_cufft_a_level(rng, monkeypatch, shape):
    """CuPy keeps 16 plans a thread and device: products with the same shapes find theirs again."""
    asked, fft = set(), stand_in.MODULES["cupy"].fft

    def watched(name, own):
        def call(a, n=None, axis=-1):
            asked.add((name, a.shape, n, axis))
            return own(a, n=n, axis=axis)

        return call

    for name in ("rfft", "irfft", "fft", "ifft"):
        monkeypatch.setattr(fft, name, watched(name, getattr(fft, name)))
    M = Toeplitz(rng.uniform(0.5, 1.0, shape), levels=len(shape)).to("cupy")
    x = LIBRARY.array(rng.uniform(0.5, 1.0, (M.shape[-1], 3)))
    M @ x  # transforms the table, too
    asked.clear()
    for _ in range(3):
        M @ x
    assert len(asked) == 2 * len(shape)
    M.pullback(x, x)
    masked_attention(x, x, x, mask=M)
    assert len(asked) <= 16
    assert {"config", "rfft", "irfft", "fft", "ifft"} <= set(stand_in.API["cupy.fft"])
