"""The package as it is imported: light, silent, complete and documented."""

import inspect
import io
import json
import re
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest

import structmask
from structmask.backends import config
from tests.gpu import stand_in

ROOT = Path(__file__).parent.parent
HEAVY = {"cupy", "dask", "igraph", "matplotlib", "networkx", "numba", "pyamg", "torch"}


def run_python(code, *flags):
    command = [sys.executable, *flags, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def modules_after(code):
    """Top-level names of the modules that a fresh interpreter has loaded once `code` has run."""
    result = run_python(f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))")
    assert result.returncode == 0, result.stderr
    return {name.partition(".")[0] for name in json.loads(result.stdout)}


@pytest.mark.parametrize(
    "code",
    [
        "import structmask",
        "from structmask import *",
        "import structmask, io; structmask.show_versions(io.StringIO())",
    ],
)
def test_optional_packages_are_loaded_only_when_used(code):
    loaded = modules_after(code)
    assert "structmask" in loaded
    assert not HEAVY & loaded


def test_the_check_above_sees_a_package_that_is_loaded():
    assert "numba" in modules_after("import structmask, numba")


def test_import_is_silent_under_warnings_as_errors():
    result = run_python("import structmask", "-W", "error")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_public_names_are_listed_once():
    names = structmask.__all__
    assert len(names) == len(set(names)) > 0
    assert set(names) <= set(dir(structmask))


@pytest.mark.parametrize("name", structmask.__all__)
def test_public_name_is_documented(name):
    documentation = inspect.getdoc(getattr(structmask, name))
    assert documentation, f"{name} has no docstring"
    assert documentation.splitlines()[0].endswith(".")


def public_methods():
    for name in structmask.__all__:
        value = getattr(structmask, name)
        if not inspect.isclass(value) or issubclass(value, Exception):
            continue
        for method in dir(value):
            if not method.startswith("_"):
                yield f"{name}.{method}"


@pytest.mark.parametrize("name", list(public_methods()))
def test_public_method_is_documented(name):
    # `inspect.getdoc` looks at base classes too: a structure inherits the text of the law it implements.
    owner, method = name.split(".")
    owner = getattr(structmask, owner)
    if method in getattr(owner, "__dataclass_fields__", {}):
        pytest.skip("a field: the class docstring documents it")
    assert inspect.getdoc(inspect.getattr_static(owner, method)), f"{name} has no docstring"


def test_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = structmask.no_such_name


def test_package_is_typed():
    assert resources.files("structmask").joinpath("py.typed").is_file()


def test_one_version_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert structmask.__version__ == version
    assert re.search(rf"^version: {re.escape(version)}$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert re.search(rf"^## {re.escape(version)} ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_show_versions_tells_what_decides_a_run(capsys):
    structmask.show_versions()
    shown = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert {"python", "numpy", "scipy", "numba", "torch", "cupy", "blas", "threads", "backend", "gpu"} <= set(shown)
    assert shown["backend"].strip() == config.get_backend()
    assert shown["numpy"].strip()[0].isdigit()


def test_show_versions_names_the_cards():
    report = io.StringIO()
    with stand_in.installed():
        structmask.show_versions(report)
    assert "stand-in (3 GiB, sm_90), driver for CUDA 13.1, runtime 12.9" in report.getvalue()


def test_show_versions_gives_the_reason_why_no_gpu_is_usable(monkeypatch):
    monkeypatch.setattr(config, "cupy_status", lambda: "CuPy is not installed.")
    report = io.StringIO()
    structmask.show_versions(report)
    assert "CuPy is not installed." in report.getvalue()
