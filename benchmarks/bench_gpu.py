"""On a GPU through CuPy, float32, m = e = 64: time of others / ours.

The same script as on the CPU, its arrays on the device. `dense` and `stream` are our own other methods; `GEMM` is the
dense computation in CuPy with the mask formed beforehand, `literal` the paper's algorithm as it stands, `SDPA` softmax
attention in torch with a dense log bias (the same mask, other weights), `batched` a chunked computation in torch.
The column `error` is the worst row of the first head beside double precision on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.contest import Contest, relative_error, run
from benchmarks.report import Row
from benchmarks.settings import Settings
from structmask import Causal, Toeplitz, masked_attention, to_numpy
from structmask.backends.config import cupy_status

Way = Callable[[], Any]


def rows(settings: Settings) -> Iterator[Row]:
    if reason := cupy_status():
        yield Row("GPU", {"ours": f"- ({reason})"})
        return
    for heads, L in ((2, 128),) if settings.tiny else ((8, 1024), (8, 4096), (8, 16384), (1, 65536)):
        yield run(toeplitz(heads, L), budget=settings.budget)
    for side in (8,) if settings.tiny else (32, 64, 128):
        yield run(image(8, side), budget=settings.budget)
    for heads, L in ((2, 128),) if settings.tiny else ((8, 1024), (8, 4096), (8, 16384), (1, 65536)):
        yield run(causal(heads, L), budget=settings.budget)


def toeplitz(heads: int, L: int) -> Contest:
    mask = Toeplitz.from_function(lambda s: np.exp(-np.abs(s) / 200.0) + 0.1, L)
    return _attention(f"1-D relative positions, H={heads} L={L}", mask, heads)


def image(heads: int, side: int) -> Contest:
    mask = Toeplitz.from_function(lambda dy, dx: np.exp(-np.hypot(dy, dx) / 8.0), (side, side))
    return _attention(f"2-D relative positions, H={heads} L={side}x{side}", mask, heads)


def causal(heads: int, L: int) -> Contest:
    mask = Causal(L, decay=0.99)
    contest = _attention(f"causal, decay 0.99, H={heads} L={L}", mask, heads)
    F, G, V = _inputs(heads, L)
    torch = peers.torch_or_none()
    rivals: dict[str, Way | str] = {"batched": "- (no torch)"}
    if torch is not None and torch.cuda.is_available():
        f, g, v = (torch.from_numpy(a).cuda() for a in (F, G, V))

        def batched() -> Any:
            with torch.device("cuda"):
                return peers.causal_batched(torch, f, g, v, 0.99)

        rivals = {"batched": _waiting(batched, torch.cuda.synchronize)}
    return Contest(contest.case, contest.ours, {**rivals, **contest.peers}, contest.check, contest.tolerance, ("SDPA",))


def _attention(case: str, mask: Any, heads: int) -> Contest:
    import cupy

    L, wait = mask.shape[-1], cupy.cuda.runtime.deviceSynchronize
    F, G, V = _inputs(heads, L)
    f, g, v = map(cupy.asarray, (F, G, V))
    placed, fits = mask.to("cupy"), heads * L * L * 4 < 1e10

    def ours(method: str) -> Way:
        return _waiting(lambda: masked_attention(f, g, v, mask=placed, features=None, method=method), wait)

    own: dict[str, Way | str] = {"ours": ours("auto"), "dense": ours("dense"), "stream": ours("stream")}
    rivals: dict[str, Way | str] = dict.fromkeys(("GEMM", "SDPA"), "- (memory)")
    if fits:
        matrix = cupy.asarray(to_numpy(placed.astype("float32").to_dense()), dtype="float32")
        rivals = {"GEMM": _waiting(lambda: _gemm(f, g, v, matrix), wait), "SDPA": _sdpa(F, G, V, mask)}
    if isinstance(mask, Toeplitz) and mask.levels == 1:
        rivals["literal"] = _literal(f, g, v, mask) if heads * L * 64 * 64 * 4 * 6 < 5e10 else "- (memory)"
    return Contest(case, own, rivals, _sampled(F, G, V, mask), 1e-4, ("SDPA",))


def _inputs(heads: int, L: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(L)
    F, G = np.abs(rng.standard_normal((2, heads, L, 64))).astype(np.float32)
    return F, G, rng.standard_normal((heads, L, 64)).astype(np.float32)


def _waiting(call: Way, wait: Callable[[], Any]) -> Way:
    def finished() -> Any:
        result = call()
        wait()
        return result

    return finished


def _gemm(f: Any, g: Any, v: Any, matrix: Any) -> Any:
    A = (f @ g.swapaxes(-1, -2)) * matrix
    return (A @ v) / A.sum(axis=-1, keepdims=True)


def _sdpa(F: np.ndarray, G: np.ndarray, V: np.ndarray, mask: Any) -> Way | str:
    torch = peers.torch_or_none()
    if torch is None or not torch.cuda.is_available():
        return "- (no torch)"
    q, k, v = (torch.from_numpy(a).cuda()[None] for a in (F, G, V))
    bias = torch.from_numpy(np.log(np.maximum(mask.to_dense(), 1e-30)).astype(np.float32)).cuda()
    attend = torch.nn.functional.scaled_dot_product_attention
    return _waiting(lambda: attend(q, k, v, attn_mask=bias), torch.cuda.synchronize)


def _literal(f: Any, g: Any, v: Any, mask: Toeplitz) -> Way:
    import cupy

    L = mask.shape[-1]
    column = np.zeros(2 * L, np.float32)
    column[:L], column[L + 1 :] = mask.offsets[L - 1 :], mask.offsets[: L - 1]
    spectrum = cupy.fft.rfft(cupy.asarray(column))[:, None]

    def call() -> Any:
        outer = (g[..., :, None] * v[..., None, :]).reshape(*g.shape[:-1], -1)
        outer = cupy.fft.irfft(cupy.fft.rfft(outer, 2 * L, axis=-2) * spectrum, axis=-2)[..., :L, :]
        mass = cupy.fft.irfft(cupy.fft.rfft(g, 2 * L, axis=-2) * spectrum, axis=-2)[..., :L, :]
        outer = outer.reshape(*f.shape, v.shape[-1])
        return (f[..., None, :] @ outer)[..., 0, :] / (f * mass).sum(axis=-1)[..., None]

    return _waiting(call, cupy.cuda.runtime.deviceSynchronize)


def _sampled(F: np.ndarray, G: np.ndarray, V: np.ndarray, mask: Any) -> Callable[[Any], float]:
    """Largest error of a few rows of the first head, relative to the largest entry of the row's neighbours."""
    chosen = np.unique(np.linspace(0, F.shape[1] - 1, 7).astype(int))
    A = (F[0, chosen].astype(float) @ G[0].T.astype(float)) * mask.entries(chosen, slice(None))
    exact = (A @ V[0]) / A.sum(axis=-1, keepdims=True)
    return lambda out: relative_error(to_numpy(_numpy_ready(out))[0, chosen], exact)


def _numpy_ready(out: Any) -> Any:
    """Torch's softmax attention has one more leading axis."""
    return out[0] if out.ndim == 4 else out
