"""The first process of a workspace: an init like any other, through which nobody floods the engine's log."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from tests.suite.programs import attempt, docker
from tests.suite.waiting import eventually, pause

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.suite.programs import Finished

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("workspace image")]

BURST, RATE = 256 * 1024, 8 * 1024  # as in deploy/workspace/init/workspace-init.c
NOTE = "bytes of output were left out of this log"
OPTIONS = (
    *("--user", "1000:1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only"),
    *("--memory", "256m", "--pids-limit", "128", "--network", "none", "--entrypoint", "/usr/local/bin/workspace-init"),
)
# What a user of this container can do about its log: write into whatever leads there.
OPEN_ALL = """
import os
opened = []
for pid in sorted(filter(str.isdigit, os.listdir('/proc')), key=int):
    for fd in (0, 1, 2):
        try:
            os.open(f'/proc/{pid}/fd/{fd}', os.O_WRONLY)
            opened.append(pid)
        except OSError:
            pass
print(sorted(set(opened) - {str(os.getpid())}, key=int))
"""


def _arguments(*command: str) -> tuple[str, ...]:
    label = f"gunpowder.test={os.environ['GUNPOWDER_TEST_ID']}"
    return ("--label", label, *OPTIONS, os.environ["GUNPOWDER_TEST_WORKSPACE_IMAGE"], *command)


def run(*command: str) -> Finished:
    return attempt("docker", "run", "--rm", *_arguments(*command), within=60)


@contextlib.contextmanager
def running(script: str) -> Iterator[str]:
    name = docker("run", "--detach", *_arguments("bash", "-c", script)).strip()
    try:
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


def _ended(name: str) -> bool:
    return docker("inspect", "--format", "{{.State.Running}}", name).strip() == "false"


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill -TERM $$", 143)]
)
def test_it_ends_as_its_program_ends(script: str, status: int) -> None:
    assert run("bash", "-c", script).returncode == status


def test_what_cannot_be_run_is_said() -> None:
    found = run("/no/such/program")
    assert (found.returncode, found.stderr) == (127, "workspace-init: /no/such/program: No such file or directory\n")


def test_output_and_errors_stay_apart_and_whole() -> None:
    found = run("bash", "-c", "seq 1 3000; echo wrong >&2; printf 'and the last'")
    assert found.stdout == "".join(f"{number}\n" for number in range(1, 3001)) + "and the last"
    assert found.stderr == "wrong\n"


def test_signals_are_handed_on_and_nobody_is_left_dead() -> None:
    script = """
    trap 'echo told; exit 5' TERM
    for number in 1 2 3 4 5 6 7 8; do (setsid sleep 0.1 &) ; done
    echo begun
    while true; do sleep 0.1; done
    """
    with running(script) as name:
        eventually("it has begun", lambda: "begun" in docker("logs", name), within=20)
        # A line with titles, the first process, the shell and its own sleep.
        eventually("nobody is left dead", lambda: len(docker("top", name).splitlines()) <= 4, within=20)
        docker("stop", "--time", "20", name)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", name).strip() == "5"
        assert docker("logs", name) == "begun\ntold\n"


def test_nobody_gets_hold_of_what_leads_into_the_log() -> None:
    with running("sleep 600 & sleep 601") as name:
        opened = docker("exec", "--user", "1000:1000", name, "python3", "-c", OPEN_ALL).strip()
        assert "'1'" not in opened, "the first process's descriptors are nobody's"
        assert opened.count("'") >= 4, "the question itself works: others' can be opened"
        assert "[" in opened
        denied = attempt("docker", "exec", "--user", "1000:1000", name, "bash", "-c", "exec 3</proc/1/mem", within=20)
        assert denied.returncode != 0


@pytest.mark.patient(120, "a flood for some seconds")
def test_a_flood_leaves_little_in_the_log_and_holds_up_nobody() -> None:
    seconds = 6
    with running(f"timeout {seconds} bash -c 'yes & yes >&2 & wait'; sleep 600") as name:

        def said() -> str:
            return attempt("docker", "logs", name, within=20, together=True).stdout

        pause(seconds, because="the flood goes on")
        eventually("it says so", lambda: said().count(NOTE) >= 1, within=5)
        # Nobody writes any more; what was left out since is said all the same.
        eventually("it says the rest", lambda: said().count(NOTE) >= 2, within=30)
        found = said()
        assert NOTE in found
        assert BURST / 40 <= len(found) <= BURST + 60 * RATE, len(found)
        left_out = sum(int(line.split()[1]) for line in found.splitlines() if line.endswith(NOTE))
        assert left_out > 10 * BURST, "most of it went nowhere"


def test_it_says_how_it_is_used() -> None:
    found = run()
    assert (found.returncode, found.stderr) == (2, "usage: workspace-init PROGRAM [ARGUMENT...]\n")
