"""Tells how far a run is, and at its end what a person looks for first.

Without a terminal each test gets a line when it is over, and one while it takes long: a log that is cut off anywhere
shows where the run was. Each process of the suite writes down which test it is at, and the controlling process keeps
the summary on disk, so that whoever ends a run from outside (deploy/test/deadline.sh) can tell both.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.suite.summary import Running, Summary

if TYPE_CHECKING:
    from collections.abc import Generator

    from _pytest.terminal import TerminalReporter

FOLDER = Path(os.environ["GUNPOWDER_TEST_DATA"]) / "report"
SUMMARY = FOLDER / "summary"
PROCESS = os.environ.get("PYTEST_XDIST_WORKER", "main")
PHASES = ("setup", "call", "teardown")
EVERY_SECONDS = 2
LONG_SECONDS = 15


def pytest_configure(config: pytest.Config) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    config.pluginmanager.register(Whereabouts(), "gunpowder-whereabouts")
    if PROCESS == "main":
        config.pluginmanager.register(Progress(config), "gunpowder-progress")


class Whereabouts:
    """In each process: the test that it is at, on disk before that begins."""

    path = FOLDER / f"running-{PROCESS}"

    def _note(self, nodeid: str, phase: str) -> None:
        hidden = self.path.with_name(f".{self.path.name}")
        hidden.write_text(f"{PROCESS} {time.time():.1f} {phase} {nodeid}\n", encoding="utf-8")
        hidden.replace(self.path)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> Generator[None, object, object]:
        try:
            return (yield)
        finally:
            self.path.unlink(missing_ok=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._note(item.nodeid, "setup")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        self._note(item.nodeid, "call")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        self._note(item.nodeid, "teardown")


def whereabouts() -> list[Running]:
    """Which test each process is at, the longest first."""
    found, now = [], time.time()
    for path in FOLDER.glob("running-*"):
        with contextlib.suppress(OSError, ValueError):
            process, since, phase, nodeid = path.read_text(encoding="utf-8").rstrip("\n").split(" ", 3)
            found.append(Running(process, nodeid, phase, now - float(since)))
    return sorted(found, key=lambda one: -one.seconds)


class Progress:
    """In the process that controls the others: prints, sums up, and keeps the summary on disk."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.summary = Summary()
        self.lines = "GUNPOWDER_TEST_TERMINAL" not in os.environ  # a terminal shows pytest's own dots
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeps the summary", daemon=True)

    @property
    def reporter(self) -> TerminalReporter:
        reporter: TerminalReporter | None = self.config.pluginmanager.get_plugin("terminalreporter")
        assert reporter is not None
        return reporter

    def pytest_sessionstart(self) -> None:
        self.summary.seed = str(getattr(self.config.option, "randomly_seed", "") or "")
        self._keeper.start()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.summary.total = self.summary.total or len(session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self.summary.total = len(ids)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A process that crashed is at no test any more."""
        (FOLDER / f"running-{node.gateway.id}").unlink(missing_ok=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """No dots and letters where there are lines; pytest still counts."""
        if not self.lines or report.skipped:
            return None
        if report.passed:
            return "passed" if report.when == "call" else "", "", ""
        return "error" if report.when in {"setup", "teardown"} else "failed", "", ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        phase = report.when if report.when in PHASES else "crash"
        error = first_error(report) if report.failed else None
        self.summary.add(report.nodeid, phase=phase, seconds=report.duration, error=error)
        if error is not None:
            self._say(f"FAILED in {phase}: {report.nodeid}: {error}")
        elif self.lines and phase == "teardown":
            where = getattr(getattr(report, "node", None), "gateway", None)
            percent = self.summary.done * 100 // (self.summary.total or 1)
            seconds = self.summary.seconds[report.nodeid]
            self._say(f"{percent:3d}% {getattr(where, 'id', PROCESS)} {seconds:6.2f} s  {report.nodeid}")

    def _say(self, line: str) -> None:
        self.reporter.ensure_newline()
        self.reporter.write_line(line[:300])
        self.reporter.flush()

    def _keep(self) -> None:
        """Every few seconds: the summary on disk, and a word about each test that takes long."""
        told: dict[str, float] = {}
        while True:
            running = whereabouts()
            write_summary(self.summary, running)
            for one in running:
                if self.lines and one.seconds >= told.get(one.nodeid, LONG_SECONDS):
                    told[one.nodeid] = one.seconds * 2
                    self._say(f"     {one.process} still at {one.nodeid} ({one.phase}, {one.seconds:.0f} s)")
            if self._over.wait(EVERY_SECONDS):
                return

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        self._over.set()
        self._keeper.join(timeout=10)
        write_summary(self.summary, [])
        terminalreporter.section("in short")
        for line in self.summary.lines():
            terminalreporter.write_line(line)


def write_summary(summary: Summary, running: list[Running]) -> None:
    hidden = SUMMARY.with_name(".summary")
    hidden.write_text("\n".join(summary.lines(running)) + "\n", encoding="utf-8")
    hidden.replace(SUMMARY)


def first_error(report: pytest.TestReport) -> str:
    """The first line of what went wrong."""
    message = getattr(getattr(report.longrepr, "reprcrash", None), "message", "") or str(report.longreprtext)
    lines = [line.strip() for line in str(message).splitlines() if line.strip()]
    return lines[0] if lines else "no message"
