"""Whatever hangs is ended and named: a test, a fixture, a teardown, even one that hears of no exception."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.suite.programs import Finished, attempt

ROOT = Path(__file__).resolve().parents[2]

CONFTEST = """
import tests.suite.limits as limits
limits.LAST_RESORT_SECONDS = 2
pytest_plugins = ["tests.suite.limits", "tests.suite.progress"]
"""
HANGS = """
import signal, time
import pytest

@pytest.fixture
def endless_fixture():
    time.sleep(600)

@pytest.fixture
def endless_teardown():
    yield
    time.sleep(600)

def test_endless():
    time.sleep(600)

def test_with_an_endless_fixture(endless_fixture):
    pass

def test_that_passes_with_an_endless_teardown(endless_teardown):
    pass

def test_that_fails_with_an_endless_teardown(endless_teardown):
    assert False, "on purpose"

def test_deaf():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(600)

@pytest.mark.patient(30, "sleeps for two seconds")
def test_patient():
    time.sleep(2)
"""


REASONLESS = """
import pytest

@pytest.mark.patient(30, " ")
def test_patient_without_a_reason():
    pass
"""


def _play(folder: Path, *arguments: str, tests: str = HANGS) -> Finished:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_hangs.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-p", "no:django", "-p", "no:cacheprovider", "-p", "no:randomly"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GUNPOWDER_TEST_DATA": str(folder)}
    environment.pop("PYTEST_XDIST_WORKER", None)
    environment.pop("GUNPOWDER_TEST_TERMINAL", None)
    return attempt(
        *command, "--rootdir", str(folder), "--timeout", "1", *arguments, cwd=folder, environment=environment, within=60
    )


@pytest.mark.parametrize(
    ("name", "phase"),
    [
        ("test_endless", "call"),
        ("test_with_an_endless_fixture", "setup"),
        ("test_that_passes_with_an_endless_teardown", "teardown"),
        ("test_that_fails_with_an_endless_teardown", "teardown"),
    ],
)
def test_what_hangs_fails_with_its_name_and_its_phase(tmp_path: Path, name: str, phase: str) -> None:
    done = _play(tmp_path, "-k", name)
    assert done.returncode == 1
    told = done.stdout.splitlines()
    assert any(line.startswith(f"FAILED in {phase}: test_hangs.py::{name}: Failed: Timeout") for line in told), (
        done.stdout
    )
    assert "time.sleep(600)" in done.stdout


def test_who_hears_of_no_exception_is_ended_with_all_stacks_and_the_run_with_it(tmp_path: Path) -> None:
    done = _play(
        tmp_path, "-n", "1", "--dist", "loadgroup", "--max-worker-restart", "0", "-k", "test_deaf or test_patient"
    )
    assert done.returncode != 0
    assert "in test_deaf" in done.stderr, done.stderr
    assert "FAILED in crash: test_hangs.py::test_deaf" in done.stdout
    assert done.stdout.count("FAILED in crash") == 1, "it is not played again"


def test_a_longer_limit_needs_a_reason(tmp_path: Path) -> None:
    done = _play(tmp_path, tests=REASONLESS)
    assert done.returncode != 0
    assert "a longer limit needs a reason" in done.stdout + done.stderr


def test_the_summary_is_on_disk_while_a_test_runs(tmp_path: Path) -> None:
    _play(tmp_path, "-k", "test_patient")
    assert "1 of 1 tests are over" in (tmp_path / "report" / "summary").read_text()
    assert not list((tmp_path / "report").glob("running-*"))
