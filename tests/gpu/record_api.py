"""Write down what the installed CuPy offers, for the stand-in to be held to: names, and arguments where it tells them.

Run where a CuPy wheel is installed (no GPU is needed): `python -m tests.gpu.record_api`. Wherever a wheel is installed,
the tests compare the record with it.
"""

import importlib
import inspect
import json
from pathlib import Path

RECORD = Path(__file__).with_name("cupy_api.json")
MODULES = ("cupy", "cupy.fft", "cupy.linalg", "cupyx.scipy.sparse")
MARKS = {
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.VAR_KEYWORD: "**",
    inspect.Parameter.KEYWORD_ONLY: "!",
}
CLASSES = ("cupy.ndarray", "cupy.RawModule", "cupyx.scipy.sparse.csr_matrix", "cupyx.scipy.sparse.csr_array")


def record():
    """Of each module and class: its names, with the arguments of those that tell them, as in "a axis= out="."""
    api = {"version": importlib.import_module("cupy").__version__}
    for name in MODULES:
        api[name] = names(importlib.import_module(name))
    for name in CLASSES:
        module, _, last = name.rpartition(".")
        api[name] = names(getattr(importlib.import_module(module), last))
    return api


def names(owner):
    hidden = {name for name in dir(owner) if name.startswith("_") and name not in OPERATORS}
    return {name: arguments(getattr(owner, name, None)) for name in sorted({*dir(owner)} - hidden)}


def arguments(thing):
    if not inspect.isroutine(thing):
        return None
    try:
        parameters = list(inspect.signature(thing).parameters.values())
    except (TypeError, ValueError):
        return None
    return " ".join(MARKS.get(p.kind, "") + p.name + ("=" if p.default is not p.empty else "") for p in parameters)


OPERATORS = {
    f"__{prefix}{name}__"
    for name in (
        "add",
        "sub",
        "mul",
        "truediv",
        "floordiv",
        "mod",
        "pow",
        "matmul",
        "and",
        "or",
        "xor",
        "lshift",
        "rshift",
    )
    for prefix in ("", "r", "i")
} | {f"__{name}__" for name in ("neg", "pos", "abs", "invert", "lt", "le", "gt", "ge", "eq", "ne", "getitem", "len")}


if __name__ == "__main__":
    RECORD.write_text(json.dumps(record(), indent=0, separators=(",", ":"), sort_keys=True) + "\n")
