"""Never under the user's hands, never all night, and always able to say why: for real, with minutes scaled down.

Everybody here has limits of their own, as an administrator can give them: 90 s without activity (an editor notices only
after a minute that its user has gone), 150 s of work; whose story is about something else has shorter ones.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.scenes import Stage, runs_for, starts, stops, until
from tests.e2e.usurping import usurp
from tests.e2e.workbench import WORKBENCH_MS, log_in, open_file, run_in_terminal, undisturbed
from tests.suite.patience import PATIENCE, SLOW

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from playwright.sync_api import Browser, Page, ViewportSize

    from tests.e2e.stack import Person, Stack

    Scene = Generator[float, None, dict[str, Any]]

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("idle")]
pytestmark += [pytest.mark.patient(1500, "whoever comes first waits for all stories, which take minutes of idleness")]

IDLE = 90  # seconds
BUDGET = 150
NOTICED = 75  # seconds until an editor has noticed that nobody is there, and said so
SWEEPS = 60  # seconds that sweeps, queue and the stop itself may add on a busy machine
SHORT = 24  # an idle limit for stories without a browser
RESTART = 60  # the idle limit of who restarts
LONGEST = 100  # the longest running time of two of them
KEPT = 5  # seconds within which a wish from inside is granted; a machine that is slow itself says nothing of that
KEPT_IN_A_CROWD = 60  # the same while ten editors and a second stack start: 15 s were seen, how many it were is printed
COMMAND = 75  # seconds; more than twice its user's limit
OPENED = 600  # seconds that a busy machine may need until all editors are open; a quiet one needs ten
AT_ONCE = 4  # stories that a slow machine plays at once, those with a browser after the others
REPORT = "/run/gunpowder/report.json"
VIEWPORT: ViewportSize = {"width": 1280, "height": 800}

# In the editor's place: healthy, and endless when it is asked for its report.
ENDLESS = r"""
import http.server, json, socketserver, time

class Endless(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        if self.path == "/healthz":
            self.wfile.write(json.dumps({"status": "expired", "lastHeartbeat": 1}).encode())
            return
        while True:
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(0.2)

class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    allow_reuse_address = True

for attempt in range(100):
    try:
        server = Server(("0.0.0.0", 8080), Endless)
        break
    except OSError:
        time.sleep(0.05)
server.serve_forever()
"""


@pytest.fixture(scope="session")
def stack(idle_stack: Stack) -> Stack:
    """These tests have one of their own."""
    return idle_stack


class Lobby:
    """Where the stories with a browser meet: a busy machine opens editors slowly, and nobody types meanwhile."""

    def __init__(self, browser: Browser, *, guests: int) -> None:
        self.browser, self.guests, self.inside = browser, guests, 0
        self.door = False  # somebody is on the way in

    def open_editor(self, person: Person) -> Generator[float, None, Page]:
        """A browser of this person's own, with the editor open; the other stories go on meanwhile.

        Kept until the caller ends that: on a busy machine opening takes longer than the limits of these stories.
        """
        while self.door and SLOW:  # side by side they take longer there than one after the other
            yield 3.0
        self.door = True
        try:
            # In one step: those that come first are drawn for a minute, and no limit may run out meanwhile.
            person.start_and_wait(within=120)
            person.call("keep", json={"minutes": 60})
            person.shell("touch ~/workspace/typed.txt")
            yield 0.0
            page = self.browser.new_context(viewport=VIEWPORT, reduced_motion="reduce").new_page()
            page.set_default_timeout(WORKBENCH_MS)
            log_in(page, person)
            with undisturbed(person.stack):
                page.goto(f"{person.stack.url}{person.path}", wait_until="commit")
                for part in (".monaco-workbench", ".explorer-folders-view .monaco-list-row"):
                    shown = page.locator(part).first.is_visible
                    yield from until(f"{part} of {person.name}", shown, within=OPENED, every=3.0)
                # Over HTTP: a program in the container takes a second of a slow machine's processor.
                said = f"vscode-remote-resource?path={REPORT}"
                yield from until("its extension notices", lambda: "alive" in person.editor(said).text, within=OPENED)
        finally:
            self.door = False
            self.inside += 1  # or will never be: nobody waits for who failed
        return page

    def all_in(self) -> bool:
        return self.inside >= self.guests


# --- the stories -------------------------------------------------------------------------------------------------


def somebody_types(lobby: Lobby, person: Person) -> Scene:
    """For three times the limit; then rests, is warned, keeps it, starts a command and wants it stopped after that."""
    page = yield from lobby.open_editor(person)
    open_file(page, "typed.txt")
    yield from until("everybody is in", lobby.all_in, within=2 * OPENED, every=2.0)
    person.call("keep", json={"minutes": 0})
    began = time.monotonic()
    typed = 0
    while time.monotonic() - began < 3 * IDLE:
        page.keyboard.type("x")
        typed += 1
        now = person.status()
        assert now["state"] == "running", f"stopped under the user's hands: {now['explanation']}"
        yield 10.0
    status = person.status()
    in_file = yield from until(
        "all is saved", lambda: len(person.shell("cat ~/workspace/typed.txt").strip()), within=30
    )
    keep = page.locator(".notification-toast").get_by_role("button", name="Keep 1 hour")
    yield from until("the editor warns", keep.is_visible, within=IDLE + NOTICED + SWEEPS)
    before = person.status()
    warning = page.locator(".notification-toast").filter(has_text="stops in").first.inner_text()
    keep.click()
    clicked = time.monotonic()
    yield from until("it is kept", lambda: person.status()["keep_until"] != before["keep_until"], within=60, every=0.5)
    took = time.monotonic() - clicked
    after = person.status()
    person.call("keep", json={"minutes": 0})
    # Longer than the editor waits for a window that lost its connection: the command outlives its tab.
    command = f"sleep {60 + 6 * PATIENCE:.0f}; touch ~/workspace/done"
    run_in_terminal(page, person, command, until="pgrep -x sleep")
    person.call("stop", json={"when": "command_ends"})
    page.context.close()
    yield from runs_for(person, 12, what="its command still runs")
    why = yield from stops(person, within=120 + SWEEPS)
    return {
        "why": why,
        "command_ended": (person.stack.root / f"user_{person.id}" / "done").exists(),
        "typed": typed,
        "in_file": in_file,
        "keep_while_typing": status["keep_until"],
        "typed_for": time.monotonic() - began,
        "warning": warning,
        "took": took,
        "before": before,
        "after": after,
    }


def a_tab_left_open_then_hidden(lobby: Lobby, person: Person) -> Scene:
    page = yield from lobby.open_editor(person)
    person.call("keep", json={"minutes": 0})
    why = yield from stops(person, within=IDLE + 2 * NOTICED + OPENED)
    # The old tab says when and why, and does not bring it back by itself.
    overlay = page.get_by_role("dialog", name="Stopped")
    yield from until("the tab says so", overlay.is_visible, within=120)
    text = overlay.inner_text()
    yield 8.0
    assert person.status()["state"] == "stopped", "a forgotten tab woke it"
    page.get_by_role("button", name="Resume").click()
    yield from until("it runs again", lambda: person.status()["state"] == "running", within=120)
    person.call("keep", json={"minutes": 60})
    for part in (".monaco-workbench", ".explorer-folders-view .monaco-list-row"):
        yield from until("the editor is back", page.locator(part).first.is_visible, within=OPENED)

    # Somebody who only reads: the pointer moves, nothing is pressed.
    seen, quiet_since = person.status()["last_activity_at"], time.monotonic()
    while time.monotonic() - quiet_since < NOTICED:
        yield 5.0
        if (now := person.status()["last_activity_at"]) != seen:
            seen, quiet_since = now, time.monotonic()
    page.mouse.move(400, 300)
    page.mouse.move(500, 350)
    yield from until("the pointer is noticed", lambda: person.status()["last_activity_at"] != seen, within=60)

    # Chromium without a screen shows every tab; this is what a hidden one tells the page.
    page.evaluate(
        "() => { for (const [name, value] of [['visibilityState', 'hidden'], ['hidden', true]])"
        " Object.defineProperty(document, name, { get: () => value, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')); window.dispatchEvent(new Event('blur')); }"
    )
    person.call("keep", json={"minutes": 0})
    hidden = yield from stops(person, within=IDLE + 2 * NOTICED + OPENED)
    page.context.close()
    return {"why": why, "overlay": text, "hidden": {"why": hidden}}


def an_endless_command(person: Person) -> Scene:
    """In a terminal that no browser shows any more."""
    began = yield from starts(person)
    person.shell("setsid script -qfec 'sleep 9999' /dev/null </dev/null >/dev/null 2>&1 &")
    yield from runs_for(person, 45, what="a quiet command")  # half as long again as its limit
    assert person.shell("pgrep -x sleep"), "the command is gone"
    why = yield from stops(person, within=BUDGET + NOTICED + SWEEPS)
    return {"why": why, "took": time.monotonic() - began}


def a_command_that_ends(person: Person) -> Scene:
    """In a terminal that no browser shows any more."""
    yield from starts(person)
    person.shell(f"setsid script -qfec 'sleep {COMMAND}' /dev/null </dev/null >/dev/null 2>&1 &")
    began = time.monotonic()
    yield from runs_for(person, COMMAND - 5, what="a quiet command")
    why = yield from stops(person, within=30 + 2 * SWEEPS)
    return {"why": why, "took": time.monotonic() - began}


def a_page_that_polls(person: Person) -> Scene:
    began = yield from starts(person)
    asked = 0
    while person.status()["state"] == "running" and time.monotonic() - began < SHORT + SWEEPS + 20:
        person.editor("proxy/3000/")
        asked += 1
        yield 1.0
    why = yield from stops(person, within=SWEEPS)
    return {"why": why, "asked": asked}


def it_is_restarted(person: Person) -> Scene:
    yield from starts(person)
    yield RESTART - 20.0
    person.call("restart")
    yield from until("it restarts", lambda: person.status()["state"] != "running", within=20, every=0.2)
    yield from until("it runs again", lambda: person.status()["state"] == "running", within=40, every=0.2)
    yield from runs_for(person, RESTART - 20, what="just restarted")
    return {}


def a_clock_of_the_future(person: Person) -> Scene:
    """And a report that is always fresh: neither outlives the longest running time."""
    began = yield from starts(person)
    with person.websocket():
        moments = ["9999999999999", "9" * 400, "$(date +%s%3N)"]
        turn = 0
        while person.status()["state"] == "running" and time.monotonic() - began < LONGEST + SWEEPS + 20:
            at = moments[min(turn // 4, 2)]
            person.shell(
                f'echo "{{\\"presence\\": {{\\"at\\": {at}, \\"source\\": \\"window\\"}}}}" > {REPORT} || true'
            )
            turn += 1
            yield 2.0
    why = yield from stops(person, within=SWEEPS)
    return {"why": why, "took": time.monotonic() - began}


def a_hostile_state_folder(person: Person) -> Scene:
    """Wiped, closed, garbage, giant, a bad link: an open connection stands in for presence all the while."""
    yield from starts(person)
    tricks = [
        f"rm -rf {REPORT}",
        f"head -c 200000 /dev/urandom > {REPORT}",
        f"ln -sf /dev/zero {REPORT}",
        f"rm -f {REPORT}; mkdir {REPORT}",
        "chmod 000 /run/gunpowder",
    ]
    with person.websocket():
        for trick in tricks:
            person.shell(f"{trick} || true")
            yield from runs_for(person, 9, what=trick)
    why = yield from stops(person, within=SHORT + SWEEPS + 20)
    return {"why": why}


def an_answer_that_never_ends(person: Person) -> Scene:
    """Unknown is not idle, so it is held; but not longer than anything may run."""
    began = yield from starts(person)
    usurp(person, ENDLESS)
    yield from runs_for(person, LONGEST - 40 - (time.monotonic() - began), what="unknown")
    spared = person.status()["explanation"]
    why = yield from stops(person, within=40 + 2 * SWEEPS)
    return {"why": why, "spared": spared}


def the_terminals_own_command(person: Person) -> Scene:
    yield from starts(person)
    asked = time.monotonic()
    said = person.shell("gunpowder keep 2h", within=60)
    kept = time.monotonic() - asked
    status = json.loads(person.shell("gunpowder status --json", within=60))
    after = person.status()
    person.call("keep", json={"minutes": 0})
    refused = person.shell("gunpowder keep forever; echo status $?", within=60)
    # A command in the foreground of a terminal, which nobody's browser shows.
    person.shell(f"setsid script -qfec 'sleep {20 + 6 * PATIENCE:.0f}' /dev/null </dev/null >/dev/null 2>&1 &")
    waits = person.shell("gunpowder stop --when-done", within=60)
    yield from runs_for(person, 12, what="its command still runs")
    why = yield from stops(person, within=90 + SWEEPS)
    return {
        "said": said,
        "kept": kept,
        "status": status,
        "after": after,
        "refused": refused,
        "waits": waits,
        "why": why,
    }


# Two editors, because opening them is most of what these tests cost. Who types waits until the other is open, too.
WITH_A_BROWSER: dict[str, Callable[[Lobby, Person], Scene]] = {
    "left open, then hidden": a_tab_left_open_then_hidden,
    "typing": somebody_types,
}
WITHOUT: dict[str, Callable[[Person], Scene]] = {
    "endless command": an_endless_command,
    "future": a_clock_of_the_future,
    "endless answer": an_answer_that_never_ends,
    "command that ends": a_command_that_ends,
    "polling": a_page_that_polls,
    "restart": it_is_restarted,
    "hostile folder": a_hostile_state_folder,
    "terminal": the_terminals_own_command,
}


USUAL = {"idle_minutes": IDLE / 60, "work_budget_hours": BUDGET / 3600}
LIMITS: dict[str, dict[str, float]] = {
    "typing": {"work_budget_hours": 8},
    "endless command": {"idle_minutes": 0.5},
    "command that ends": {"idle_minutes": 0.5},
    "polling": {"idle_minutes": SHORT / 60},
    "restart": {"idle_minutes": RESTART / 60},
    "future": {"idle_minutes": SHORT / 60, "max_lifetime_hours": LONGEST / 3600},
    "hostile folder": {"idle_minutes": SHORT / 60},
    "endless answer": {"idle_minutes": SHORT / 60, "max_lifetime_hours": LONGEST / 3600},
}


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """All stories that the tests of this run ask for, played side by side."""
    marks = [item.get_closest_marker("scene") for item in request.session.items if item.path == request.path]
    wanted = {str(mark.args[0]) for mark in marks if mark is not None}
    stack: Stack = request.getfixturevalue("stack")
    with stack.visitors():
        people = {name: stack.add_user() for name in (*WITH_A_BROWSER, *WITHOUT) if name in wanted}
        stack.give_limits({person.id: USUAL | LIMITS.get(name, {}) for name, person in people.items()})
        alone = {name: scene(people[name]) for name, scene in WITHOUT.items() if name in wanted}
        together = {}
        guests = [name for name in WITH_A_BROWSER if name in wanted]
        if guests:
            lobby = Lobby(request.getfixturevalue("browser"), guests=len(guests))
            together = {name: WITH_A_BROWSER[name](lobby, people[name]) for name in guests}
        stage = Stage()
        if not SLOW:
            stage.play(together, alone, within=3 * OPENED, at_once=len(alone))
        else:
            stage.play({}, alone, within=3 * OPENED, at_once=AT_ONCE)
            stage.play(together, {}, within=4 * OPENED, at_once=1)
        yield stage


# --- what they showed --------------------------------------------------------------------------------------------


def reason_of(ending: dict[str, Any]) -> str:
    return str(ending["why"]["reason"])


def ran_for(ending: dict[str, Any]) -> float:
    """Seconds between its start and the decision to stop."""
    decision = ending["why"]["decision"]
    moments = [datetime.fromisoformat(text) for text in (decision["clocks"]["started_at"], decision["at"])]
    return (moments[1] - moments[0]).total_seconds()


def quiet_for(ending: dict[str, Any]) -> float:
    """Seconds between the last presence that was seen and the decision to stop."""
    decision = ending["why"]["decision"]
    moments = [datetime.fromisoformat(text) for text in (decision["clocks"]["presence_at"], decision["at"])]
    return (moments[1] - moments[0]).total_seconds()


@pytest.mark.scene("typing")
def test_somebody_who_types_for_three_times_the_limit_is_not_stopped(played: Stage) -> None:
    ending = played.ending("typing")
    assert ending["in_file"] >= 10
    assert ending["typed_for"] > 3 * IDLE
    assert ending["keep_while_typing"] is None, "it was kept, not used"


@pytest.mark.scene("left open, then hidden")
def test_a_tab_left_open_and_untouched_is_stopped_and_says_why(played: Stage) -> None:
    ending = played.ending("left open, then hidden")
    assert reason_of(ending) == "idle"
    assert quiet_for(ending) >= IDLE
    decision = ending["why"]["decision"]
    assert decision["clocks"]["presence_reported"] is True
    assert decision["clocks"]["connection_at"] > decision["clocks"]["presence_at"], "the tab was connected all the time"
    assert "without activity" in ending["why"]["explanation"]
    assert "without activity" in ending["overlay"]


@pytest.mark.scene("left open, then hidden")
def test_a_hidden_tab_is_stopped(played: Stage) -> None:
    ending = played.ending("left open, then hidden")["hidden"]
    assert reason_of(ending) == "idle"
    assert quiet_for(ending) >= IDLE


@pytest.mark.scene("command that ends")
def test_a_quiet_command_lives_as_long_as_it_runs(played: Stage) -> None:
    ending = played.ending("command that ends")
    assert reason_of(ending) == "idle"
    assert ending["took"] >= COMMAND, "stopped before its command ended"
    assert "sleep" in ending["why"]["decision"]["clocks"]["work_source"]


@pytest.mark.scene("endless command")
def test_an_endless_command_is_stopped_when_its_budget_is_spent(played: Stage) -> None:
    ending = played.ending("endless command")
    assert reason_of(ending) == "work_budget"
    assert quiet_for(ending) >= BUDGET
    assert "with nobody there" in ending["why"]["explanation"]


@pytest.mark.scene("typing")
def test_the_warning_appears_in_the_editor_and_its_button_works(played: Stage) -> None:
    ending = played.ending("typing")
    assert "This workspace stops in" in ending["warning"]
    assert ending["before"]["warned"] is True
    kept = datetime.fromisoformat(ending["after"]["keep_until"]) - datetime.now(tz=UTC)
    assert timedelta(minutes=40) < kept <= timedelta(hours=1)
    print(f"kept {ending['took']:.1f} s after the click")
    assert ending["took"] < KEPT or SLOW


@pytest.mark.scene("typing")
def test_a_command_in_the_editors_own_terminal_is_waited_for(played: Stage) -> None:
    ending = played.ending("typing")
    assert reason_of(ending) == "finished"
    assert ending["command_ended"], "it was ended with its tab"
    assert "sleep" in ending["why"]["decision"]["clocks"]["work_source"]


@pytest.mark.scene("polling")
def test_a_page_that_polls_through_the_editors_path_keeps_nothing_alive(played: Stage) -> None:
    ending = played.ending("polling")
    assert ending["asked"] >= 3
    assert reason_of(ending) == "idle"


@pytest.mark.scene("restart")
def test_a_restarted_workspace_is_not_stopped_by_an_old_clock(played: Stage) -> None:
    played.ending("restart")


@pytest.mark.scene("future")
def test_a_clock_of_the_future_stops_nothing_and_keeps_nothing_beyond_its_life(played: Stage) -> None:
    ending = played.ending("future")
    assert reason_of(ending) == "lifetime"
    assert ran_for(ending) >= LONGEST


@pytest.mark.scene("hostile folder")
def test_a_wiped_or_hostile_state_folder_stops_nothing(played: Stage) -> None:
    ending = played.ending("hostile folder")
    assert reason_of(ending) == "idle"
    assert ending["why"]["decision"]["clocks"]["presence_reported"] is False


@pytest.mark.scene("endless answer")
def test_an_answer_that_never_ends_holds_the_workspace_until_the_end_of_its_life(played: Stage) -> None:
    ending = played.ending("endless answer")
    assert "unknown is not idle" in ending["spared"]
    assert reason_of(ending) == "lifetime"
    assert ran_for(ending) >= LONGEST


@pytest.mark.scene("terminal")
def test_the_command_in_the_terminal_keeps_tells_refuses_and_waits(played: Stage) -> None:
    ending = played.ending("terminal")
    assert "2 h" in ending["said"]
    assert ending["after"]["keep_until"]
    assert ending["status"]["keep_until"]
    assert "status 64" in ending["refused"]
    assert reason_of(ending) == "finished"
    print(f"gunpowder keep answered after {ending['kept']:.1f} s")
    assert ending["kept"] < KEPT_IN_A_CROWD
