"""People with editors, a real browser, and what to show when a test fails."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Error as BrowserError
from playwright.sync_api import expect, sync_playwright

from tests.suite.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from playwright.sync_api import Browser, Page

    from tests.e2e.stack import Person, Stack

expect.set_options(timeout=max(60_000, 30_000 * PATIENCE))
logging.getLogger("httpx").setLevel(logging.WARNING)  # one line a request drowns everything else

# All of Chromium that a page sees, without the windows around it.
CHROMIUM = "/usr/bin/chromium-headless-shell"
# How long a page may take says something about the machine's other guests.
PATIENCE_MS = max(120_000, 60_000 * PATIENCE)
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


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One Chromium for this folder. Not for the session: its event loop would live on among the tests of others."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab of a browser that has never been here."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what a person needs to see why it failed, while everything is still there."""
    report = yield
    if report.failed and report.when != "teardown":
        page = getattr(item, "funcargs", {}).get("page")
        if page is not None:
            report.sections.append(("screenshots", _photograph(item.name, page)))
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
