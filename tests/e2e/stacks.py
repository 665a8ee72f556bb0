"""Whole stacks from docker-compose.yml for the tests of any folder, and what to show of them when a test fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.stack import Stack
from tests.groups import group_of
from tests.suite.patience import PATIENCE, SLOW

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

LIVE: dict[str, list[Stack]] = {}  # by the group of tests that they are for


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    """Take a stack down as soon as its last test is over: the memory that it uses is what slows the others."""
    yield
    if group_of(item) != group_of(nextitem):
        for stack in LIVE.pop(group_of(item), []):
            stack.down()


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The stack of nearly all these tests. Nobody is stopped for idleness unless the test gives them a limit."""
    yield from _lifetime("stack", ports=12000)


@pytest.fixture(scope="session")
def idle_stack() -> Iterator[Stack]:
    """The same for those who wait for minutes until somebody is idle: the others go on beside them."""
    yield from _lifetime("idle", ports=14000)


#: An address of the loopback from which stacks are told who a client is.
TRUSTED_PROXY = "127.0.0.77"


def _lifetime(name: str, *, ports: int) -> Iterator[Stack]:
    """Frequent sweeps and little memory."""
    settings = {
        # On a busy machine an editor that does nothing takes a good part of a processor.
        "GUNPOWDER_WORK_CPU_PERCENT": "180",
        # Frequent; but on a slow machine these, and health checks, would take most of the processor.
        "GUNPOWDER_SWEEP_SECONDS": "15" if SLOW else "3",
        "GUNPOWDER_LISTEN_SECONDS": "10" if SLOW else "3",
        "GUNPOWDER_RECONCILE_SECONDS": "15" if SLOW else "3",
        "GUNPOWDER_START_TIMEOUT_SECONDS": f"{max(60, 20 * PATIENCE):.0f}",
        "GUNPOWDER_START_CONCURRENCY": "2" if SLOW else "4",
        "GUNPOWDER_MEMORY": "768m",
        "GUNPOWDER_TRUSTED_PROXIES": f" {TRUSTED_PROXY},\t192.0.2.0/24 ",
    }
    made = Stack(name, ports=ports, **settings)
    LIVE.setdefault(name, []).append(made)
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture(autouse=True)
def _visitors_leave(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whom a test adds for itself is gone after it. Those of a whole file or of all stay."""
    if "stack" not in request.fixturenames:
        yield
        return
    stack: Stack = request.getfixturevalue("stack")
    with stack.visitors():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what a person needs to see why it failed, while everything is still there."""
    report = yield
    if report.failed and report.when != "teardown":
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Stack):
                report.sections.append((f"stack {value.project}", value.diagnosis()))
    return report
