"""What attention takes beyond its operands and its result: never an array of size L x m x e or L x L.

Compiled kernels allocate outside Python, so a fresh process measures its own resident peak, which Linux can reset.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

MEGABYTE = 2.0**20
PEAK = pathlib.Path("/proc/self/clear_refs")
pytestmark = pytest.mark.skipif(not PEAK.exists(), reason="the peak of a running process is reset through /proc")

MEASURE = """
import json, pathlib, sys
import numpy as np, scipy.sparse
from structmask import *
from structmask.attention import attend, attend_pullback
from structmask.backends._numba import fft_jobs, scratch

def resident(field):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

def line(L):
    return np.exp(-abs(np.arange(1 - L, L)) / L).astype(np.float32)

def plane(L):
    a = round(L**0.5)
    s = abs(np.arange(1 - a, a))
    return np.exp(-np.hypot(s[:, None], s[None, :]) / a).astype(np.float32)

def chain(L):
    return scipy.sparse.diags_array([np.ones(L - 1, np.float32)] * 2, offsets=[-1, 1])

MASKS = {
    "none": lambda L: None,
    "toeplitz": lambda L: Toeplitz(line(L)),
    "toeplitz-2": lambda L: Toeplitz(plane(L), levels=2),
    "causal": lambda L: Causal(L, decay=np.full(L, 0.99, np.float32)),
    "state_space": lambda L: StateSpace(0.999 * np.eye(4), np.ones(4), np.ones(4), L, near=np.ones(64)),
    "low_rank": lambda L: LowRank(np.ones((L, 4), np.float32), np.ones((L, 4), np.float32)),
    "diagonal": lambda L: Diagonal(np.ones(L, np.float32)),
    "sparse": lambda L: Sparse(scipy.sparse.eye_array(L, dtype=np.float32, format="csr")),
    "sum": lambda L: Toeplitz(line(L)) + Causal(L, decay=0.5),
    "tree": lambda L: tree_decay(as_forest(parents=(np.arange(L) + 1) // 2 - 1), 0.5),
    "diffusion": lambda L: diffusion_kernel(chain(L), 1.0, tol=1e-3),
    "hadamard": lambda L: Toeplitz(line(L)) * LowRank(np.ones((L, 1), np.float32), np.ones((L, 1), np.float32)),
}

def ring(n):
    chords = [np.ones(n - s, np.float32) for s in (1, n // 7)]
    return scipy.sparse.diags_array(2 * chords, offsets=[1, n // 7, -1, -(n // 7)], shape=(n, n)).tocsr()

def walks(n, count):
    graph, X = ring(n), np.ones((n, 2), np.float32)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    kernel = random_walk_kernel(graph, 4, walks=count, rng=0)
    if count:
        kernel.pullback(X, X)
    kernel @ X
    return resident("VmHWM") - before

def peak(mask, method, L, m, e, backward=False):
    if mask == "walks":
        return walks(L, m)
    F, G = np.ones((2, L, m), np.float32)
    V = np.ones((L, e), np.float32)
    M = MASKS[mask](L)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    out, mass = attend(F, G, V, M, method=method)
    if backward:
        attend_pullback(F, G, V, M, out, mass, out)
    return resident("VmHWM") - before

for case in json.loads(sys.argv[1]):
    peak(**case)  # compiles what it needs
    fft_jobs._pool.__dict__.clear()  # scratch that is kept between calls counts as well
    scratch._KEPT.clear()
    print(json.dumps(peak(**case)), flush=True)
"""


def peaks(*cases):
    """Peak of each call in bytes, measured one after the other in one process that gives freed memory back."""
    environment = {
        **os.environ,
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "0",
        "MALLOC_ARENA_MAX": "1",
    }
    command = [sys.executable, "-W", "error", "-c", MEASURE, json.dumps(cases)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def case(mask, method, L=16384, m=64, e=64, *, backward=False):
    return {"mask": mask, "method": method, "L": L, "m": m, "e": e, "backward": backward}


# Forms without a kernel of their own take blocks of one size at any length: a shorter one shows the same peak sooner.
CASES = [
    case("none", "low_rank"),
    case("none", "dense", L=4096),
    case("toeplitz", "fused"),
    case("toeplitz", "stream"),
    case("toeplitz", "dense"),
    case("toeplitz-2", "stream", m=16, e=16),
    case("toeplitz-2", "fused"),
    case("toeplitz-2", "dense"),
    case("causal", "scan"),
    case("causal", "stream"),
    case("causal", "dense", L=4096),
    case("state_space", "scan"),
    case("low_rank", "low_rank"),
    case("low_rank", "stream"),
    case("diagonal", "diagonal"),
    case("sparse", "sparse"),
    case("sparse", "stream"),
    case("sum", "terms"),
    case("tree", "scan"),
    case("tree", "stream", m=8, e=8),
    case("sum", "stream", m=16, e=16),
    case("hadamard", "stream", m=8, e=8),
    *(case(mask, "auto") for mask in ("none", "toeplitz", "causal", "sparse", "sum")),
]


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_peak_is_under_a_hundred_megabytes(backend, monkeypatch):
    monkeypatch.setenv("STRUCTMASK_BACKEND", backend)
    cases = [c for c in CASES if backend == "numba" or c["method"] not in ("fused", "auto")]
    cases = [c for c in cases if backend == "numba" or (c["mask"], c["method"]) != ("tree", "scan")]
    if backend == "numpy":
        cases = [{**c, "L": min(c["L"], 4096), "m": min(c["m"], 32), "e": min(c["e"], 32)} for c in cases]
    for c, peak in zip(cases, peaks(*cases), strict=True):
        assert peak < 100 * MEGABYTE, f"{c}: {peak / MEGABYTE:.0f} MB"
        assert peak >= 4 * c["L"] * c["e"], f"{c}: {peak} bytes hold less than the result"


def test_gradients_take_as_little():
    cases = [case(mask, "auto", backward=True) for mask in ("none", "causal", "toeplitz")]
    for c, peak in zip(cases, peaks(*cases), strict=True):
        assert peak < 200 * MEGABYTE, f"{c}: {peak / MEGABYTE:.0f} MB"


@pytest.mark.parametrize(
    ("mask", "method", "L"),  # long enough for every thread to take part, each with scratch of its own
    [
        ("causal", "scan", 32768),
        ("tree", "scan", 131072),
        ("toeplitz", "stream", 32768),
        ("toeplitz", "fused", 32768),
        ("diffusion", "stream", 16384),
    ],
)
def test_memory_grows_with_the_length_only(mask, method, L):
    short, long = peaks(case(mask, method, L=L, m=16, e=16), case(mask, method, L=4 * L, m=16, e=16))
    assert long < 5 * short
    assert long < 4 * 4 * L * 16 * 16  # an array L x m x e


@pytest.mark.parametrize(("count", "numbers"), [(None, 60), (4, 400)])
def test_walks_take_memory_in_proportion_to_the_nodes(count, numbers):
    short, long = peaks(*(case("walks", "", L=n, m=count) for n in (20_000, 80_000)))
    assert 8 * 80_000 < long < 5 * short
    assert long < 8 * numbers * 80_000
