"""CuPy's `RawModule` on the CPU: CUDA C compiled by g++ with `cuda_on_cpu.h`, run on the arrays of the stand-in.

It is stricter than CuPy about arguments: CuPy does not see a pointer to numbers of another type, a strided array, or a
Python number where the kernel wants 32 bits.
"""

import ctypes
import hashlib
import os
import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
LIMITS = {"threads": 1024, "grid": (2**31 - 1, 65535, 65535)}
SANITIZERS = {
    None: (),
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "thread": ("-DSM_THREADS", "-fsanitize=thread"),
}
TYPES = {
    "float": np.float32,
    "double": np.float64,
    "int": np.int32,
    "unsigned": np.uint32,
    "long long": np.int64,
    "unsigned long long": np.uint64,
}


class RawModule:
    """Kernels of a CUDA source; `seed` chooses the schedule of all launches to come, `sanitizer` watches them."""

    seed = 0
    sanitizer = None

    def __init__(self, *, code, options=()):
        self.kernels = {name: parameters(listed, options) for name, listed in KERNEL.findall(code)}
        entries = "\n".join(entry(name, kinds) for name, kinds in self.kernels.items())
        self.library = ctypes.CDLL(str(compiled(f"{code}\n{entries}", (*options, *SANITIZERS[self.sanitizer]))))

    def get_function(self, name):
        return Kernel(name, self.kernels[name], getattr(self.library, f"run_{name}"))


class Kernel:
    """One kernel, called as CuPy's: `kernel(grid, block, arguments)`."""

    def __init__(self, name, parameters, run):
        self.name, self.parameters, self.run = name, parameters, run

    def __call__(self, grid, block, args):
        if len(args) != len(self.parameters):
            msg = f"{self.name} takes {len(self.parameters)} arguments, got {len(args)}"
            raise TypeError(msg)
        grid, block = ((*sizes, 1, 1)[:3] for sizes in (grid, block))
        if np.prod(block) > LIMITS["threads"] or any(g > most for g, most in zip(grid, LIMITS["grid"], strict=True)):
            msg = f"{self.name}: blocks {block} or grid {grid} beyond what a GPU takes"
            raise ValueError(msg)
        if 0 in grid:
            msg = f"{self.name}: an empty grid {grid} is an error of the driver"
            raise ValueError(msg)
        held = [argument(self.name, i, a, *kind) for i, (a, kind) in enumerate(zip(args, self.parameters, strict=True))]
        pointers = (ctypes.c_void_p * len(held))(*(x.ctypes.data for x in held))
        triple = ctypes.c_uint * 3
        if self.run(triple(*grid), triple(*block), ctypes.c_uint(RawModule.seed), pointers):
            msg = f"{self.name}: some threads of a block never reach a barrier that others wait at"
            raise RuntimeError(msg)


def argument(name, place, given, kind, pointer):
    """What holds an argument on the host, after all that CuPy would not check."""
    what = f"argument {place} of {name}"
    if not pointer:
        if not (isinstance(given, np.generic) and given.dtype == TYPES[kind]):
            msg = f"{what} must be numpy.{TYPES[kind].__name__}, got {type(given).__name__}"
            raise TypeError(msg)
        return np.array([given])
    held = getattr(given, "held", None)
    if not isinstance(held, np.ndarray) or held.dtype != TYPES[kind]:
        msg = f"{what} must be a device array of {TYPES[kind].__name__}, got {given!r}"
        raise TypeError(msg)
    if not held.flags.c_contiguous:
        msg = f"{what} is not contiguous"
        raise ValueError(msg)
    return held


KERNEL = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')


def parameters(listed, options):
    """(type, is a pointer) of each parameter of a kernel, with the macros of the options put in."""
    macros = dict(option[2:].split("=") for option in options if option.startswith("-D"))
    kinds = []
    for parameter in listed.split(","):
        words = re.sub(r"\b(const|__restrict__)\b|\*", " ", parameter).split()[:-1]
        kinds.append((" ".join(macros.get(word, word) for word in words), "*" in parameter))
    return kinds


def entry(name, kinds):
    """A function that launches a kernel with arguments given by their addresses."""
    given = [f"({kind}*)a[{i}]" if pointer else f"*({kind}*)a[{i}]" for i, (kind, pointer) in enumerate(kinds)]
    return (
        f'extern "C" int run_{name}(const unsigned* grid, const unsigned* block, unsigned seed, void** a) '
        f"{{ return launch(grid, block, seed, [=] {{ {name}({', '.join(given)}); }}); }}"
    )


@cache
def compiled(code, options):
    """Path of the shared library of a source."""
    flags = ["-std=c++20", "-O1", "-g", "-fPIC", "-shared", "-w", *options]
    key = hashlib.sha256("\0".join((code, *flags, HEADER.read_text())).encode()).hexdigest()[:20]
    folder = Path(tempfile.gettempdir()) / "structmask-emulator"
    folder.mkdir(exist_ok=True)
    library = folder / f"{key}.so"
    if not library.exists():
        source, fresh = (folder / f"{key}.{os.getpid()}.{ending}" for ending in ("cpp", "so"))
        source.write_text(f'#include "{HEADER}"\n{code}')
        done = subprocess.run(
            ["g++", *flags, str(source), "-o", str(fresh), "-lpthread"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SyntaxError(done.stderr)
        fresh.replace(library)
        source.unlink()
    return library
