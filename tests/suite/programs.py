"""The one way to run a program in tests: with a deadline, and without a terminal that it could ask."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING

from tests.suite.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


Finished = subprocess.CompletedProcess[str]
Overdue = subprocess.TimeoutExpired  # a program did not end in its time


def attempt(
    *command: str,
    within: float = 60,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    together: bool = False,
) -> Finished:
    """Run a program to its end, whatever its status; `together` gives standard error among standard output.

    Raises Overdue after `within` seconds; the program is killed then, with whatever it has started in its session.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if together else subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment,
        cwd=cwd,
        start_new_session=True,
    ) as process:
        try:
            said, complained = process.communicate(timeout=within * PATIENCE)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return Finished(command, process.returncode, said, complained or "")


class Background:
    """A program that takes long, while the tests go on; it is waited for when its result is asked for."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._said: str | None = None

    def result(self, within: float = 90) -> tuple[int, str]:
        """Its status and what it said; raises Overdue when it goes on after `within` seconds."""
        if self._said is None:
            self._said, _ = self._process.communicate(timeout=within * PATIENCE)
        return self._process.returncode, self._said

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> None:
        """Nobody wants its result, or nobody any more."""
        self._process.kill()  # does nothing when it has ended
        if self._said is None:
            self._process.communicate(timeout=10 * PATIENCE)


def run(*command: str, within: float = 60, environment: Mapping[str, str] | None = None) -> str:
    """Run a program and return what it printed; any status but 0 fails, with the end of what it said."""
    done = attempt(*command, within=within, environment=environment)
    if done.returncode != 0:
        shown = " ".join(command)[:300]
        raise AssertionError(f"{shown}: status {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def docker(*arguments: str, within: float = 60) -> str:
    return run("docker", *arguments, within=within)
