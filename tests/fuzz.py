"""Random calls of the public functions, held against their definitions: `python -m tests.fuzz 10000`.

A call is drawn from its own seed: kind, shapes, precisions, values, graphs, trees. In every other call one argument is
damaged: NaN, infinities, huge and tiny numbers, wrong shapes and types. What must come of it: the value of the
definition, or an error of a documented kind that says something. What must not: another exception, a hang, a NaN that
no argument explains, a wrong number.
"""

import argparse
import collections
import contextlib
import faulthandler
import signal
import sys
import traceback
import warnings

import numpy as np

from structmask import BackendError, ConvergenceWarning, NotATreeError, to_numpy, use_backend

REFUSALS = (ValueError, TypeError, IndexError, OverflowError, MemoryError, BackendError, NotATreeError)
SECONDS = 240  # compiling included
SINGLE = {"float16", "float32", "complex64"}
CALLS = {}


def call(function):
    """A kind of call: it draws its arguments, calls the library and compares."""
    CALLS[function.__name__] = function
    return function


class WrongAnswerError(Exception):
    """What the library returned is not what the definition says."""


class SlowCallError(Exception):
    """A call took longer than any small problem should."""


class Draw:
    """Arguments of one call, at most one of them damaged."""

    def __init__(self, seed, index):
        self.rng = np.random.default_rng([seed, index])
        self.harm = index % 2 == 1
        self.damage = ""

    def choice(self, *options):
        return options[self.rng.integers(len(options))]

    def happens(self, probability):
        return self.rng.random() < probability

    def size(self, low=0, high=12):
        if self.happens(0.02):
            return int(self.rng.integers(40, 90))
        return int(self.rng.integers(low, high + 1))

    def batch(self):
        return self.choice((), (), (), (1,), (2,), (3, 1), (0,))

    def raw(self, *shape, dtype=None):
        """Numbers of some precision, never damaged."""
        dtype = np.dtype(dtype or self.choice("f8", "f8", "f8", "f4", "c16", "i8", "?"))
        x = self.rng.standard_normal(shape)
        if dtype.kind == "c":
            x = x + 1j * self.rng.standard_normal(shape)
        if self.happens(0.2):
            x = x * (self.rng.random(shape) < 0.5)
        return (3 * x).astype(dtype) if dtype.kind != "?" else x > 0

    def array(self, *shape, dtype=None):
        return self.harmed(self.raw(*shape, dtype=dtype), ARRAYS)

    def positive(self, *shape):
        return self.harmed(self.rng.random(shape) + 0.01, ARRAYS)

    def array_like(self, x):
        return self.harmed(x, ARRAYS)

    def number(self, x):
        return self.harmed(x, NUMBERS)

    def harmed(self, x, ways):
        """The argument, or what a mistake would have made of it."""
        if not self.harm or self.damage or self.happens(0.5):
            return x
        name = self.choice(*ways)
        ways = ways if isinstance(ways, dict) else ARRAYS
        with np.errstate(all="ignore"):
            y = ways[name](self.rng, x)
        self.damage = f"{name} for {np.shape(x)}"
        return y


def _entry(value):
    def put(rng, x):
        x = np.array(x, dtype=np.result_type(x, "f4"))
        if x.size:
            x.flat[rng.integers(x.size)] = value
        return x

    return put


ARRAYS = {
    "nan": _entry(np.nan),
    "infinity": _entry(-np.inf),
    "huge": _entry(1e300),
    "tiny": _entry(1e-310),
    "negative": _entry(-7.0),
    "all zero": lambda _, x: np.zeros_like(x),
    "a row more": lambda _, x: np.concatenate([x, x[-1:]]) if x.ndim else np.array([1.0, 2.0]),
    "a column less": lambda _, x: x[..., :-1] if x.ndim else x,
    "an axis more": lambda _, x: x[None],
    "an axis less": lambda _, x: x[0] if len(x.shape) and len(x) else np.float64(2.0),
    "empty": lambda _, x: np.zeros((*x.shape[:-1], 0)),
    "objects": lambda _, x: x.astype(object),
    "text": lambda _, x: np.full(x.shape, "a"),
    "list": lambda _, x: x.tolist(),
    "none": lambda *_: None,
    "half": lambda _, x: x.astype("c8" if x.dtype.kind == "c" else "f2"),
    "bytes": lambda _, x: np.nan_to_num(x.real).astype("i1"),
    "longdouble": lambda _, x: x.astype("G" if x.dtype.kind == "c" else "g"),
    "big-endian": lambda _, x: x.astype(x.dtype.newbyteorder(">")),
    "strided": lambda _, x: np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x,
    "reversed": lambda _, x: np.flip(np.flip(x).copy()) if x.ndim else x,
}
NUMBERS = {
    "nan": lambda *_: np.nan,
    "infinity": lambda *_: np.inf,
    "minus": lambda _, x: -x if x else -1,
    "half": lambda _, x: x + 0.5,
    "zero": lambda *_: 0,
    "one": lambda *_: 1,
    "huge": lambda *_: 10**15,
    "float": lambda _, x: float(x),
    "numpy": lambda _, x: np.asarray(x)[()],
    "text": lambda *_: "x",
    "none": lambda *_: None,
    "complex": lambda _, x: x + 1j,
}


def expect(draw, got, definition, *, tolerance=1e-8, scale=None):
    """The result is that of the definition, in the largest number of which (or of `scale`) errors count."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            want = np.asarray(definition() if callable(definition) else definition)
    except (ValueError, TypeError, IndexError, AttributeError, OverflowError, np.linalg.LinAlgError) as error:
        msg = f"accepted what the definition does not take: {error}"
        raise WrongAnswerError(msg) from error
    got = np.asarray(to_numpy(got))
    if got.shape != want.shape:
        msg = f"shape {got.shape}, not {want.shape}"
        raise WrongAnswerError(msg)
    if np.result_type(got).name in SINGLE:
        tolerance = max(tolerance, 3e-4)
    with np.errstate(all="ignore"):
        known = np.isfinite(want)
        if draw.damage.startswith(("nan", "infinity")):
            got = np.where(np.isnan(got), want, got)  # explained by the argument
        if not want.size or (draw.damage and not known.all()):
            return
        size = max(float(np.max(np.abs(want))) if scale is None else float(np.max(scale)), np.finfo("f4").tiny)
        if size > np.finfo("f4").max and np.result_type(got).name in SINGLE:
            return  # beyond the precision asked for
        error = np.abs(got - want)
        if not (error <= tolerance * size).all() and (np.isfinite(size) or not draw.damage):
            msg = f"off by {np.nanmax(error) / size:.1e} of the largest, {np.isnan(got).sum()} NaN of {got.size}"
            raise WrongAnswerError(msg)


def expect_product(draw, M, dense, X):
    """M @ X. Where an operand is not finite, so is every number that it enters, and no other column."""
    got = np.asarray(to_numpy(M @ X))
    tolerance = 3e-4 if np.asarray(dense).dtype.name in SINGLE else 1e-8
    X = np.asarray(X)
    X = X.astype(np.result_type(X.dtype, "f4"))
    dense = np.asarray(dense).astype(np.result_type(dense, "f4"))
    if got.dtype.name in SINGLE and np.abs(dense).max(initial=0) > np.finfo("f4").max:
        return  # beyond the precision asked for
    with np.errstate(all="ignore"):
        good, scale = np.isfinite(X), np.abs(dense) @ np.abs(X)
        want = dense @ X
    if got.shape != want.shape:
        msg = f"shape {got.shape}, not {want.shape}"
        raise WrongAnswerError(msg)
    if good.all() or X.ndim == 1:
        if good.all() and np.isfinite(dense).all() and np.isfinite(scale).all():
            expect(draw, got, want, scale=np.max(scale, initial=0), tolerance=tolerance)
        return
    clean = np.broadcast_to(good.all(axis=-2, keepdims=True), want.shape)
    if np.isfinite(want[clean]).all():
        scale = np.max(scale[clean], initial=0)
        expect(draw, np.where(clean, got, 0), np.where(clean, want, 0), scale=scale, tolerance=tolerance)
    touched = (np.abs(dense) > 1e-30).astype(float) @ (~good).astype(float) > 0
    if np.isfinite(got[touched]).all() and touched.any():
        msg = "a product with NaN is finite"
        raise WrongAnswerError(msg)


def expire(*_):
    raise SlowCallError


@contextlib.contextmanager
def watched():
    """No call takes long; native code that hangs ends the run with a traceback."""
    faulthandler.dump_traceback_later(4 * SECONDS, exit=True, file=sys.__stderr__)
    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()


def run(seed, index, kinds=None):
    """One call: its kind, its damage, and what is wrong with what came, or None."""
    from tests import fuzz_calls  # noqa: F401  fills CALLS

    draw = Draw(seed, index)
    kind = draw.choice(*(kinds or CALLS))
    try:
        with warnings.catch_warnings(), watched(), use_backend(draw.choice("auto", "auto", "numpy")):
            warnings.simplefilter("ignore" if draw.harm else "error")
            warnings.simplefilter("ignore", ConvergenceWarning)
            CALLS[kind](draw)
    except REFUSALS as error:
        if not (draw.damage and str(error)) or isinstance(error, np.linalg.LinAlgError):
            return kind, draw.damage, traceback.format_exc()
        return kind, "refused", None
    except Exception:  # noqa: BLE001  whatever else comes is a finding
        return kind, draw.damage, traceback.format_exc()
    return kind, draw.damage, None


def main(arguments=None):
    """Run calls and list what is wrong; the exit status tells whether anything is."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n", 1)[0])
    parser.add_argument("cases", type=int, nargs="?", default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first call")
    parser.add_argument("--kinds", nargs="*", help="only these kinds of calls")
    options = parser.parse_args(arguments)
    count, findings = collections.Counter(), 0
    for index in range(options.first, options.first + options.cases):
        kind, outcome, wrong = run(options.seed, index, options.kinds)
        count[kind] += 1
        count["refused"] += outcome == "refused"
        if wrong:
            findings += 1
            sys.stdout.write(f"--- call {index} of seed {options.seed}: {kind}, damage: {outcome or 'none'}\n{wrong}\n")
            sys.stdout.flush()
    refused = count.pop("refused")
    sys.stdout.write(f"{options.cases} calls of {len(count)} kinds, {refused} refused, {findings} findings\n")
    return findings


if __name__ == "__main__":
    from tests import fuzz  # noqa: PLW0406  the calls register themselves in the module of this name

    sys.exit(bool(fuzz.main()))
