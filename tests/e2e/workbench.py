"""What a person does in the browser: the log-in, the Code Editor tab, and VS Code itself."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from playwright.sync_api import expect

from tests.suite.patience import PATIENCE, SLOW
from tests.suite.undo import paused
from tests.suite.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from tests.e2e.stack import Person, Stack

# Three seconds on a quiet machine; three hundred were seen on one whose host was busy.
WORKBENCH_MS = 600_000


@contextmanager
def undisturbed(stack: Stack) -> Iterator[None]:
    """On a slow machine no sweeps are sent meanwhile: one that opens a window has nothing left for anything else."""
    if not SLOW:
        yield
        return
    with paused(stack.service("beat")):
        yield


def log_in(page: Page, person: Person) -> None:
    """Through the page that everybody meets first, to the Code Editor tab."""
    page.goto(f"{person.stack.url}/")
    page.get_by_label("User name").fill(person.name)
    page.get_by_label("Password").fill(person.password)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Code Editor")).to_be_visible()


def expect_state(page: Page, state: str, *, within: float = 60) -> None:
    """The Code Editor tab says so by itself, without a reload."""
    expect(page.locator("#badge")).to_have_attribute("data-state", state, timeout=within * 500 * PATIENCE)


def wait_for_workbench(page: Page) -> None:
    """The real VS Code is drawn and has its files."""
    page.wait_for_selector(".monaco-workbench", timeout=WORKBENCH_MS)
    page.wait_for_selector(".explorer-folders-view .monaco-list-row", timeout=WORKBENCH_MS)


def run_in_terminal(page: Page, person: Person, command: str, *, until: str) -> None:
    """Type a command into the editor's terminal until the shell test `until` holds in the container.

    Typed again while nothing happens: a terminal that is just opening swallows what comes too early.
    """
    if not page.locator(".xterm").is_visible():
        page.keyboard.press("Control+`")
    page.wait_for_selector(".xterm", timeout=WORKBENCH_MS)

    def done() -> bool:
        return person.shell(f"({until}) >/dev/null && echo yes || echo no").strip() == "yes"

    def attempt() -> bool:
        page.locator(".xterm-helper-textarea").first.focus()
        page.keyboard.type(command + "\n")
        try:
            return eventually("", done, within=8, every=0.5)
        except AssertionError:
            return False

    eventually(f"the terminal ran {command!r}", attempt, within=120)


def open_file(page: Page, name: str) -> None:
    """From the list of files. Quick open, asked before its search is ready, finds nothing and does not ask again."""
    page.locator(".explorer-folders-view .monaco-list-row").filter(has_text=name).first.dblclick()
    page.locator(f'.tab[data-resource-name="{name}"]').wait_for()
    page.locator(".editor-instance .view-lines").first.click()
