"""What a person does in the browser: the log-in, the Code Editor tab, and VS Code itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

from tests.suite.waiting import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.e2e.stack import Person

WORKBENCH_MS = 60_000


def log_in(page: Page, person: Person) -> None:
    """Through the page that everybody meets first, to the Code Editor tab."""
    page.goto(f"{person.stack.url}/")
    page.get_by_label("User name").fill(person.name)
    page.get_by_label("Password").fill(person.password)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Code Editor")).to_be_visible()


def expect_state(page: Page, state: str, *, within: float = 60) -> None:
    """The Code Editor tab says so by itself, without a reload."""
    expect(page.locator("#badge")).to_have_attribute("data-state", state, timeout=within * 1000)


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
    page.wait_for_selector(".xterm", timeout=20_000)

    def done() -> bool:
        return person.shell(f"{until} && echo yes || echo no").strip() == "yes"

    def attempt() -> bool:
        page.locator(".xterm-helper-textarea").first.focus()
        page.keyboard.type(command + "\n")
        try:
            return eventually("", done, within=4, every=0.3)
        except AssertionError:
            return False

    eventually(f"the terminal ran {command!r}", attempt, within=30)


def open_file(page: Page, name: str) -> None:
    """Through quick open, like somebody who knows the shortcuts."""
    page.keyboard.press("Control+p")
    page.locator(".quick-input-widget input").first.fill(name)
    page.locator(".quick-input-list .monaco-list-row").filter(has_text=name).first.click()
    page.locator(f'.tab[data-resource-name="{name}"]').wait_for()
    page.locator(".editor-instance .view-lines").first.click()
