"""The array libraries that every law runs on, and the profile of property tests."""

import os
from contextlib import nullcontext
from dataclasses import dataclass

import hypothesis
import numpy as np
import pytest
import scipy.sparse

from structmask import to_numpy, use_backend
from structmask.backends.config import cupy_status
from structmask.graphs import exponentials, tree_table
from tests.cases import CASES
from tests.gpu import record, stand_in

tree_table.SMALL = exponentials.MOST = 0  # masks of trees go by merges, but where other ways are what is tested
os.environ["STRUCTMASK_CACHE"] = os.devnull  # what was measured on this machine has no part in tests
hypothesis.settings.register_profile("local", deadline=None, max_examples=30)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=30, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

SINGLE = {"float64": "float32", "complex128": "complex64"}


@dataclass(frozen=True)
class Library:
    """Where a test's arrays live and which backend multiplies them."""

    id: str
    home: str = "numpy"
    backend: str = "auto"
    writable: bool = True

    def takes(self, case):
        """Whether a case can live here."""
        return self.home != "array_api_strict" or case.portable

    def array(self, x, precision="float64"):
        """A NumPy or scipy.sparse array brought here; float64 and complex128 become the precision under test."""
        if precision == "float32" and str(x.dtype) in SINGLE:
            x = x.astype(SINGLE[str(x.dtype)])
        if self.home == "cupy":
            return to_cupy(x)
        if self.home == "array_api_strict":
            return pytest.importorskip("array_api_strict").asarray(x)
        return x.copy() if self.writable else read_only(x.copy())

    def left_product(self, x, M):
        """x @ M; the strict library's operators refuse to hand over to another class, so M is asked directly."""
        return M.__rmatmul__(x) if self.home == "array_api_strict" else x @ M

    def build(self, case, precision="float64"):
        """The matrix of a case, its generators here. The GPU's is built on the host and moved, as a user would."""
        if self.home != "cupy":
            return case.build(lambda x: self.array(x, precision))
        host = LIBRARIES["numba"]
        return case.build(lambda x: host.array(x, precision)).to("cupy")


LIBRARIES = {
    library.id: library
    for library in (
        Library("numpy", backend="numpy", writable=False),
        Library("numba"),
        Library("strict", home="array_api_strict"),
        Library("stand-in", home="cupy"),
        Library("cupy", home="cupy"),
    )
}


def to_cupy(x):
    cupy = pytest.importorskip("cupy")
    if scipy.sparse.issparse(x):
        return pytest.importorskip("cupyx.scipy.sparse").csr_matrix(scipy.sparse.csr_matrix(x))
    return cupy.asarray(x)


def read_only(x):
    for part in (x.data, *x.coords) if scipy.sparse.issparse(x) else (x,):
        part.setflags(write=False)
    return x


def pytest_generate_tests(metafunc):
    """`case` runs over all matrices, `library` over all libraries or the module's, both over the pairs that exist."""
    wanted = [name for name in ("case", "library") if name in metafunc.fixturenames]
    if not wanted:
        return
    cases = CASES if "case" in wanted else [None]
    libraries = LIBRARIES.values() if "library" in wanted else [getattr(metafunc.module, "LIBRARY", None)]
    rows = []
    for library in libraries:
        for case in cases:
            if library and case and not library.takes(case):
                continue
            marks = [pytest.mark.gpu] if library and library.id == "cupy" else []
            values = [value for name, value in (("case", case), ("library", library)) if name in wanted]
            rows.append(pytest.param(*values, id="-".join(value.id for value in values), marks=marks))
    metafunc.parametrize(wanted, rows)


@pytest.fixture(autouse=True)
def backend(request):
    """The backend of the library under test; "auto" elsewhere, whatever the environment says."""
    library = request.getfixturevalue("library") if "library" in request.fixturenames else None
    device = stand_in.installed() if library and library.id == "stand-in" else nullcontext()
    with device, use_backend(library.backend if library else "auto"):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(20220717)


@pytest.fixture
def host():
    return LIBRARIES["numba"]


@pytest.fixture
def close():
    return assert_close


TOLERANCE = {"float32": 1e-5, "complex64": 1e-5, "float64": 1e-12, "complex128": 1e-12}


def assert_close(got, want, *, scale=None, tolerance=None):
    """Shapes agree, and every entry to 1e-12 (1e-5 in single precision) of the scale: by default the largest entry."""
    got, want = to_numpy(got), np.asarray(want)
    assert got.shape == want.shape
    tolerance = TOLERANCE[got.dtype.name] if tolerance is None else tolerance
    if got.size:
        assert np.isfinite(got).all()
        scale = max(np.abs(want).max() if scale is None else scale, np.finfo("float32").tiny)
        error = np.abs(got - want).max()
        assert error <= tolerance * scale, f"error {error / scale:.1e} of the largest entry"


def pytest_terminal_summary(terminalreporter, config):
    """A run on hardware leaves a record for the docs."""
    if config.option.markexpr == "gpu" and not cupy_status():
        counts = {outcome: len(terminalreporter.stats.get(outcome, ())) for outcome in ("passed", "failed", "error")}
        record.write(counts["passed"], counts["failed"] + counts["error"])
