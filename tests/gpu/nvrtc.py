"""NVIDIA's run-time compiler, which CuPy uses, from its wheel: compiles CUDA C where there is no GPU."""

import ctypes
import importlib.util
from pathlib import Path


def library():
    """The compiler, or None where its wheel is not installed."""
    for wheel in ("nvidia.cuda_nvrtc", "nvidia.cu13"):
        try:
            found = importlib.util.find_spec(wheel)
        except ModuleNotFoundError:
            continue
        for folder in found.submodule_search_locations if found else ():
            for path in sorted(Path(folder).glob("**/libnvrtc.so*")):
                return ctypes.CDLL(str(path))
    return None


def compiled(code, architecture, options=()):
    """The compiler's log, and the machine code for an architecture such as "sm_90"."""
    nvrtc, program = library(), ctypes.c_void_p()
    arguments = [f"--gpu-architecture={architecture}".encode(), b"--ptxas-options=-v", *(o.encode() for o in options)]
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None)
    failed = nvrtc.nvrtcCompileProgram(program, len(arguments), (ctypes.c_char_p * len(arguments))(*arguments))
    log = text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
    if failed:
        raise SyntaxError(log.decode())
    return log.decode(), text(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)


def text(size_of, content_of, program):
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    content_of(program, buffer)
    return buffer.raw.rstrip(b"\0")
