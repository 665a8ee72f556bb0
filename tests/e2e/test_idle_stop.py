"""Nobody there: beat's own sweep stops the workspace. Somebody there: it does not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e.stack import NAVIGATION
from tests.e2e.workbench import expect_state, log_in, wait_for_workbench
from tests.suite.waiting import always, eventually

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.e2e.stack import Person, Stack

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("quick")]

IDLE_SECONDS = 24  # conftest.quick_stack


def test_nobody_there_is_stopped_and_the_next_visit_starts_it_again(quick_stack: Stack) -> None:
    person = quick_stack.add_user()
    person.start_and_wait()
    person.leave_mark()
    began = time.monotonic()
    stopped = person.wait_for("stopped", within=IDLE_SECONDS + 20)
    print(f"stopped {time.monotonic() - began:.1f} s after the start, with a limit of {IDLE_SECONDS} s")
    assert time.monotonic() - began >= IDLE_SECONDS - 2
    assert stopped["stop_reason"] == "idle"
    assert person.inspect()["State"]["Status"] == "exited"
    assert [(row["to"], row["reason"], row["actor"]) for row in person.history()][:2] == [
        ("stopped", "idle", None),
        ("stopping", "idle", None),
    ]
    tab = person.session.get("/")
    assert "Nobody had used it for a while" in tab.text

    # A tab that somebody forgot does not wake it; a person who opens the page does.
    assert person.handshake(**person.cookie) == 503
    assert person.editor("x.js").status_code == 503
    assert person.status()["state"] == "stopped"
    page = person.editor(headers=NAVIGATION)
    assert (page.status_code, "Starting your editor" in page.text) == (200, True)
    person.wait_for("running", within=30)
    eventually("the editor opens", person.editor_opens, within=10)
    assert person.shell("cat ~/workspace/whose.txt").strip() == person.mark


def test_an_open_editor_is_not_stopped(quick_stack: Stack, page: Page) -> None:
    person = quick_stack.add_user()
    log_in(page, person)
    page.goto(f"{quick_stack.url}{person.path}")
    wait_for_workbench(page)
    always(
        "it runs while it is open", lambda: person.status()["state"] == "running", during=2 * IDLE_SECONDS + 6, every=1
    )

    # Closed, it is idle like any other.
    page.goto(f"{quick_stack.url}/")
    expect_state(page, "stopped", within=IDLE_SECONDS + 90)
    assert stop_reason(person) == "idle"


def stop_reason(person: Person) -> str:
    return str(person.status()["stop_reason"])
