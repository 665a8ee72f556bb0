"""Whole stacks from docker-compose.yml, a real browser, and what to show when a test fails."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Error as BrowserError
from playwright.sync_api import sync_playwright

from tests.e2e.stack import Person, Stack

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from playwright.sync_api import Browser, Page

logging.getLogger("httpx").setLevel(logging.WARNING)  # one line a request drowns everything else

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The stack with its defaults: nobody is stopped for idleness while tests run."""
    yield from _lifetime(Stack("stack", ports=12000))


@pytest.fixture(scope="session")
def quick_stack() -> Iterator[Stack]:
    """The stack in a hurry: an idle limit of seconds, frequent sweeps, little memory."""
    yield from _lifetime(
        Stack(
            "quick",
            ports=14000,
            GUNPOWDER_IDLE_MINUTES="0.4",
            GUNPOWDER_SWEEP_SECONDS="2",
            GUNPOWDER_RECONCILE_SECONDS="3",
            GUNPOWDER_START_TIMEOUT_SECONDS="20",
            GUNPOWDER_MEMORY="768m",
        )
    )


def _lifetime(stack: Stack) -> Iterator[Stack]:
    try:
        stack.up()
        yield stack
    finally:
        stack.down()


@pytest.fixture(scope="session")
def alice(stack: Stack) -> Person:
    """Somebody whose editor runs. Tests leave it running."""
    return _running(stack)


@pytest.fixture(scope="session")
def bob(stack: Stack) -> Person:
    """Somebody else whose editor runs. Tests leave it running."""
    return _running(stack)


def _running(stack: Stack) -> Person:
    person = stack.add_user()
    person.start_and_wait()
    person.leave_mark()
    return person


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium a module. Not one a session: its event loop would live on among the tests of other folders."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab of a browser that has never been here."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(30_000)
    yield context.new_page()
    context.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what a person needs to see why it failed, while everything is still there."""
    report = yield
    if report.failed and report.when != "teardown":
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, Stack):
                report.sections.append((f"stack {value.project}", value.diagnosis()))
            if name == "page":
                report.sections.append(("screenshots", _photograph(item.name, value)))
    return report


def _photograph(test: str, page: Page) -> str:
    """Pictures of all tabs. Beside the run's data, which is removed when the run ends."""
    folder = Path(os.environ["GUNPOWDER_TEST_DATA"]).parent / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, tab in enumerate(page.context.pages):
        path = folder / f"{re.sub(r'[^a-z0-9_]+', '-', test.lower())}-{number}.png"
        try:
            tab.screenshot(path=path, timeout=5_000)
            lines.append(f"{path}: {tab.url}")
        except BrowserError as problem:
            lines.append(f"no picture of {tab.url}: {problem}")
    return "\n".join(lines)
