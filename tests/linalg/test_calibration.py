"""Rates of this machine: the fit finds what made the times; the cache file is read and written, never trusted."""

import json
import math
from dataclasses import astuple

import numpy as np
import pytest

from structmask import Toeplitz, calibrate, explain, use_backend
from structmask.backends import BackendError, config
from structmask.linalg import calibration, rates
from structmask.linalg.planning import Work


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv(rates.ENVIRONMENT_VARIABLE, str(tmp_path / "deep"))
    rates.rates_of.cache_clear()
    yield rates.cache_file()
    monkeypatch.undo()
    rates.rates_of.cache_clear()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(calibration, "_SIZES", ((16, 3), (40, 2)))
    monkeypatch.setattr(calibration, "_PATIENCE", 0.0005)


def test_fit_finds_the_rates_that_made_the_times():
    rng = np.random.default_rng(0)
    true = Work(gemm=1e9, fft=3e8, fused=2e9, scan=1e8, bytes=5e9, calls=1e5)
    works = [Work(*(10 ** rng.uniform(3, 7, 5)), calls=2.0) for _ in range(60)]
    seconds = [sum(np.array(astuple(work)) / astuple(true)) for work in works]
    found = calibration.fitted(works, seconds, Work(*(3 * rate for rate in astuple(true))))
    for value, exact in zip(astuple(found), astuple(true), strict=True):
        assert math.isclose(value, exact, rel_tol=0.25)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_calibrate_measures_and_stores_the_backend_in_force(backend, cache, quick):
    before = rates.rates_of(backend)
    with use_backend(backend):
        found = calibrate()
        assert set(found) == set(before)
        assert all(0 < rate < math.inf for rate in found.values())
        assert rates.rates_of(backend) == found
        calls = [seconds for _, seconds in calibration._samples()]
    assert min(calls) > 0
    assert set(json.loads(cache.read_text())) == {backend}
    assert list(cache.parent.iterdir()) == [cache]


def test_what_is_not_to_be_stored_is_not(cache, quick):
    calibrate(store=False)
    assert not cache.exists()


def test_plans_follow_the_stored_rates(cache):
    plan = explain(Toeplitz(np.ones(99)), columns=5).seconds
    slow = {kind: rate / 2 for kind, rate in rates.typical("numba").items()}
    rates.store("numpy", slow)
    rates.store("numba", slow)
    assert explain(Toeplitz(np.ones(99)), columns=5).seconds == pytest.approx(2 * plan)
    assert set(json.loads(cache.read_text())) == {"numba", "numpy"}


def test_rates_of_another_number_of_processors_do_not_count(cache, monkeypatch):
    rates.store("numba", dict.fromkeys(calibration.KINDS, 1.0))
    assert rates.rates_of("numba")["gemm"] == 1.0
    rates.rates_of.cache_clear()
    monkeypatch.setattr(rates, "processors", lambda: config.processors() + 1)
    assert rates.rates_of("numba") == rates.typical("numba")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no table"),
        ('{"numba": 3}', "no complete rates"),
        ('{"numba": {"processors": 2, "rates": {"gemm": 1}}}', "no complete rates"),
        (json.dumps({"numba": {"processors": 2, "rates": dict.fromkeys(calibration.KINDS, 0)}}), "not positive"),
        (json.dumps({"numba": {"processors": 2, "rates": dict.fromkeys(calibration.KINDS, "x")}}), "no complete rates"),
    ],
)
def test_a_spoilt_file_is_ignored_with_a_warning(cache, text, reason):
    cache.parent.mkdir()
    cache.write_text(text)
    with pytest.warns(UserWarning, match=rf"rates.json .*{reason}.*calibrate\(\)"):
        assert rates.rates_of("numba") == rates.typical("numba")


def test_where_the_file_is_kept(monkeypatch):
    monkeypatch.delenv(rates.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.setenv("LOCALAPPDATA", "/y")
    for platform, place in {
        "linux": "/x/structmask",
        "win32": "/y/structmask",
        "darwin": "Library/Caches/structmask",
    }.items():
        monkeypatch.setattr(rates.sys, "platform", platform)
        assert place in rates.cache_file().as_posix()


def test_the_gpu_is_not_measured(monkeypatch):
    monkeypatch.setattr(calibration, "get_backend", lambda: "cupy")
    with pytest.raises(BackendError, match="measures the host"):
        calibrate()
