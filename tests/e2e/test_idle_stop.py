"""One idle stop at a time: nobody there, somebody back in the last moment, and what the Code Editor tab says of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.e2e.stack import NAVIGATION, signal_lifecycle
from tests.e2e.workbench import log_in
from tests.suite.waiting import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.e2e.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

SHORT = 24  # seconds without activity
SWEEPS = 60  # seconds that sweeps, queue and the stop itself may add on a busy machine
REPORT = "/run/gunpowder/report.json"


def test_nobody_there_is_stopped_and_the_next_visit_starts_it_again(stack: Stack) -> None:
    person = stack.add_user()
    stack.give_limits({person.id: {"idle_minutes": SHORT / 60}})
    person.start_and_wait()
    person.leave_mark()
    began = time.monotonic()
    stopped = person.wait_for("stopped", within=SHORT + SWEEPS + 20)
    print(f"stopped {time.monotonic() - began:.1f} s after the start, with a limit of {SHORT} s")
    assert time.monotonic() - began >= SHORT - 2
    assert stopped["stop_reason"] == "idle"
    assert person.inspect()["State"]["Status"] == "exited"
    assert [(row["to"], row["reason"], row["actor"]) for row in person.history()][:2] == [
        ("stopped", "idle", None),
        ("stopping", "idle", None),
    ]
    tab = person.session.get("/")
    assert "Nobody had used it for a while" in tab.text
    assert "without activity" in tab.text

    # A tab that somebody forgot does not wake it; a person who opens the page does.
    assert person.handshake(**person.cookie) == 503
    assert person.editor("x.js").status_code == 503
    assert person.status()["state"] == "stopped"
    page = person.editor(headers=NAVIGATION)
    assert (page.status_code, "Starting your editor" in page.text) == (200, True)
    person.wait_for("running", within=30)
    eventually("the editor opens", person.editor_opens, within=10)
    assert person.shell("cat ~/workspace/whose.txt").strip() == person.mark


def test_who_comes_back_between_the_decision_and_the_stop_keeps_it(stack: Stack) -> None:
    person = stack.add_user()
    stack.give_limits({person.id: {"idle_minutes": SHORT / 60}})
    person.start_and_wait()
    before = person.inspect()["State"]["StartedAt"]
    signal_lifecycle(stack, "STOP")  # nobody does the stop that the sweep decides
    try:
        person.wait_for("stopping", within=SHORT + SWEEPS + 20)
        person.shell(f'echo "{{\\"presence\\": {{\\"at\\": $(date +%s%3N), \\"source\\": \\"window\\"}}}}" > {REPORT}')
    finally:
        signal_lifecycle(stack, "CONT")
    person.wait_for("running", within=60)
    assert person.inspect()["State"]["StartedAt"] == before
    newest = [(row["to"], row["reason"]) for row in person.history()][:2]
    assert newest == [("running", "activity"), ("stopping", "idle")]


def test_the_code_editor_tab_shows_the_time_left_and_keeps(stack: Stack, page: Page) -> None:
    person = stack.add_user()
    person.start_and_wait()
    log_in(page, person)
    expect(page.locator("#idle-line")).to_contain_text("unless it is used before then")
    page.get_by_role("button", name="Keep 1 hour").click()
    expect(page.locator("#idle-line")).to_contain_text("Kept running until")
    page.get_by_role("button", name="Stop when its command ends").click()
    expect(page.locator("#idle-line")).to_contain_text("as soon as no command runs")
    expect(page.locator("#badge")).to_have_attribute("data-state", "stopped", timeout=90_000)
    assert person.status()["stop_reason"] == "finished"
