"""The job the product is for: log in, press Start, work in one's own VS Code, stop, come back, find everything."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.e2e.stack import ASSET, NAVIGATION, TICKET, Person, Stack
from tests.e2e.workbench import expect_state, log_in, open_file, run_in_terminal, undisturbed, wait_for_workbench
from tests.suite.programs import docker
from tests.suite.waiting import eventually

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page, Response

pytestmark = [
    pytest.mark.stack,
    pytest.mark.xdist_group("stack"),
    pytest.mark.patient(420, "opens real editors in a real browser"),
]

SETTINGS = "~/.local/share/code-server/User/settings.json"


def password_prompts(context: BrowserContext) -> list[str]:
    """Every log-in page of code-server itself that the browser meets from now on; there should be none."""
    met: list[str] = []

    def look(response: Response) -> None:
        if re.search(r"/code/user/\d+/login", response.url):
            met.append(response.url)

    context.on("response", look)
    return met


def open_editor(tab: Page, stack: Stack) -> Page:
    """Press "Open editor", which opens a tab of its own."""
    with undisturbed(stack):
        with tab.context.expect_page() as opened:
            tab.get_by_role("link", name="Open editor").click()
        editor = opened.value
        wait_for_workbench(editor)
    return editor


def expect_everything_there(person: Person) -> None:
    """Files, settings and shell history, in whatever container there is now."""
    assert person.shell("cat ~/workspace/made.txt").splitlines() == ["hello-42", "typed by hand"]
    assert '"editor.fontSize": 23' in person.shell(f"cat {SETTINGS}")
    assert "echo hello-$((6*7)) > made.txt" in person.shell("cat ~/.bash_history")


def test_a_person_starts_works_stops_and_comes_back(stack: Stack, page: Page) -> None:
    person = stack.add_user()
    prompts = password_prompts(page.context)
    log_in(page, person)
    expect_state(page, "stopped")

    # Start: the stages show while it happens, then the way in.
    began = time.monotonic()
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#start-progress")).to_be_visible()
    expect(page.locator("#stages")).to_contain_text("Waiting for the editor")
    expect_state(page, "running")
    print(f"Start to running in a new container: {time.monotonic() - began:.1f} s")
    editor = open_editor(page, stack)
    print(f"Start to the workbench: {time.monotonic() - began:.1f} s")
    expect(editor.locator(".explorer-folders-view")).to_contain_text("README.md")

    # Work: a command in the terminal, text in the editor, a setting for the next time.
    run_in_terminal(
        editor, person, "echo hello-$((6*7)) > made.txt", until="grep -qx hello-42 ~/workspace/made.txt 2>/dev/null"
    )
    open_file(editor, "made.txt")
    editor.keyboard.press("Control+End")
    editor.keyboard.type("typed by hand")
    eventually(
        "autosave wrote what was typed", lambda: "typed by hand" in person.shell("cat ~/workspace/made.txt"), within=20
    )
    person.shell(f"""mkdir -p "$(dirname {SETTINGS})" && echo '{{"editor.fontSize": 23}}' > {SETTINGS}""")
    first = person.inspect()["Id"]

    # Stop with the page's button; the editor's tab is just closed.
    editor.close()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect_state(page, "stopped")
    expect(page.locator("#sentence")).to_contain_text("Stopped at")
    assert person.inspect()["State"]["Status"] == "exited"

    # Start again: the same container, and everything in it.
    began = time.monotonic()
    page.get_by_role("button", name="Start").click()
    expect_state(page, "running")
    print(f"Start to running in a stopped container: {time.monotonic() - began:.1f} s")
    assert person.inspect()["Id"] == first
    expect_everything_there(person)

    # The container is taken away behind everybody's back: whoever opens the editor gets a new one with everything.
    docker("rm", "--force", "--volumes", person.container)
    editor = page.context.new_page()
    editor.goto(f"{stack.url}{person.path}")
    wait_for_workbench(editor)
    assert person.inspect()["Id"] != first
    expect_everything_there(person)
    open_file(editor, "made.txt")
    expect(editor.locator(".editor-instance .view-lines").first).to_contain_text("typed by hand")
    expect(editor.locator(".editor-instance .view-lines").first).to_have_css("font-size", "23px")
    assert [row["reason"] for row in person.history()][:3] == ["ready", "user", "removed"]
    assert prompts == []


def test_a_log_out_closes_the_editor(stack: Stack, alice: Person, page: Page) -> None:
    log_in(page, alice)
    page.goto(f"{stack.url}{alice.path}", wait_until="commit")
    expect(page.locator("#vscode-workbench-web-configuration")).to_be_attached()
    (ticket,) = [
        cookie["value"] for cookie in page.context.cookies(f"{stack.url}{alice.path}") if cookie["name"] == TICKET
    ]
    old = {"Cookie": f"{TICKET}={ticket}"}
    asset = f"{alice.path}_static/out/browser/serviceWorker.js"
    assert alice.anonymous.get(asset, headers={**ASSET, **old}).status_code != 401

    page.goto(f"{stack.url}/")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    eventually(
        "the old ticket is refused",
        lambda: alice.anonymous.get(asset, headers={**ASSET, **old}).status_code == 401,
        within=5,
    )
    assert alice.handshake(**old) == 401
    answer = alice.anonymous.get(alice.path, headers={**NAVIGATION, **old})
    assert (answer.status_code, answer.headers["location"]) == (302, f"/login?next={alice.path}")
    page.goto(f"{stack.url}{alice.path}")
    expect(page.get_by_role("button", name="Log in")).to_be_visible()


def test_a_changed_limit_replaces_the_container_and_keeps_everything(stack: Stack) -> None:
    person = stack.add_user()
    person.start_and_wait()
    person.leave_mark()
    person.shell(
        f"""mkdir -p "$(dirname {SETTINGS})" && echo '{{}}' > {SETTINGS} && echo remember >> ~/.bash_history"""
    )
    before = person.inspect()
    try:
        # Workers build the containers, so theirs is the setting that counts.
        stack.compose("up", "--detach", "--no-deps", "--wait", "worker", within=90, GUNPOWDER_MEMORY="1100m")
        assert person.status()["state"] == "running", "a new worker leaves what runs alone"
        person.call("restart")
        eventually(
            "the container is replaced",
            lambda: (person.inspect() or before)["Id"] != before["Id"],
            within=40,
        )
        person.wait_for("running")
        after = person.inspect()
    finally:
        stack.compose("up", "--detach", "--no-deps", "--wait", "worker", within=90)
    assert after["HostConfig"]["Memory"] == after["HostConfig"]["MemorySwap"] == 1100 * 2**20
    assert after["Config"]["Labels"]["gunpowder.spec"] != before["Config"]["Labels"]["gunpowder.spec"]
    assert person.shell("cat ~/workspace/whose.txt").strip() == person.mark
    assert person.shell(f"cat {SETTINGS}; tail -n 1 ~/.bash_history").split() == ["{}", "remember"]
