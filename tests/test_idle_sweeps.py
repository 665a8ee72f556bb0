"""The sweeps about idleness: who is stopped, warned, held or spared, what is said inside, and what it costs."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from tests.idling import sampled
from workspaces import idle_sweeps, lifecycle, rules, sweeps
from workspaces.api.representation import represent
from workspaces.errors import RuntimeUnavailable
from workspaces.models import IdlePause, Transition, Usage, UserLimits, Workspace
from workspaces.runtimes.base import Report, Request, RequestVerb
from workspaces.states import Reason, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from workspaces.passes import Report as Done
    from workspaces.runtimes.memory import MemoryRuntime

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


def _actions(report: Done) -> list[tuple[int | None, str]]:
    return [(action["workspace"], action["action"]) for action in report.actions]


def _again(workspace: Workspace) -> Workspace:
    workspace.refresh_from_db()
    return workspace


@pytest.fixture
def sweep(runtime: MemoryRuntime) -> Callable[..., Done]:
    """The idle sweep at a moment. Unless that is the question, every running workspace was sampled 20 s before.

    Those whose time had come by then were warned of it.
    """

    def run(at: datetime, *, measured: bool = True, warned: bool = True, dry_run: bool = False) -> Done:
        if warned:
            unwarned = Workspace.objects.filter(state=State.RUNNING, warned_at=None, due_at__lte=at)
            unwarned.update(warned_at=F("due_at"))
        if measured:
            for row in Workspace.objects.filter(state=State.RUNNING):
                sampled(row, at=at - 20 * SECOND)
        return idle_sweeps.stop_idle(runtime=runtime, now=at, dry_run=dry_run)

    return run


@pytest.fixture
def inside(running: Workspace, runtime: MemoryRuntime) -> Any:
    """The container of the running workspace, with an editor that once was opened."""
    container = runtime.inside(running.container)
    assert running.started_at is not None
    container.report = Report(present_at=running.started_at, source="opened")
    return container


@pytest.fixture
def start(running: Workspace) -> datetime:
    """When the running workspace was started: every clock stands there."""
    assert running.started_at is not None
    return running.started_at


# --- who is stopped ----------------------------------------------------------------------------------------------


def test_a_quiet_workspace_is_stopped_with_the_clocks_that_were_seen(
    running: Workspace, inside: Any, start: datetime, sweep: Any
) -> None:
    report = sweep(start + 31 * MINUTE)
    assert _actions(report) == [(running.user_id, "stop")]
    assert (_again(running).state, running.stop_reason) == (State.STOPPING, "idle")
    detail = Transition.objects.latest("id").detail
    assert detail == running.last_decision
    assert (detail["verdict"], detail["reason"]) == ("stop", "idle")
    assert detail["clocks"]["presence_at"] == detail["clocks"]["started_at"] == start.isoformat()
    assert detail["limits"]["idle_seconds"] == 1800
    assert detail["sentence"].startswith("Stopped after 31 min without activity. Last presence 31 min ago")


def test_a_used_workspace_is_not_even_looked_at(
    running: Workspace, runtime: MemoryRuntime, start: datetime, sweep: Any
) -> None:
    assert sweep(start + 24 * MINUTE).actions == []
    assert runtime.looks == 0
    assert _again(running).state == State.RUNNING


def test_presence_that_the_row_does_not_know_yet_spares_it(
    running: Workspace, inside: Any, start: datetime, sweep: Any
) -> None:
    inside.report = Report(present_at=start + 20 * MINUTE, source="terminal")
    assert sweep(start + 31 * MINUTE).actions == []
    assert (_again(running).presence_at, running.presence_source) == (start + 20 * MINUTE, "terminal")
    assert running.due_at == start + 50 * MINUTE
    assert running.last_spared is not None
    assert running.last_spared["verdict"] == "spared"
    assert "somebody was there within the limit" in running.last_spared["sentence"]
    assert _actions(sweep(start + 50 * MINUTE)) == [(running.user_id, "stop")]


def test_an_open_tab_that_nobody_touches_is_stopped(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime, sweep: Any
) -> None:
    inside.connected = True
    inside.report = Report(present_at=start, alive_at=start + 30 * MINUTE, source="opened")
    assert running.port is not None
    runtime.heartbeats[running.port] = start + 31 * MINUTE
    assert _actions(sweep(start + 31 * MINUTE)) == [(running.user_id, "stop")]
    assert _again(running).connection_at == start + 31 * MINUTE


@pytest.mark.parametrize("minutes", [None, 0, 20])
def test_where_what_reports_presence_has_ended_an_open_tab_keeps_it(
    running: Workspace, inside: Any, start: datetime, sweep: Any, minutes: int | None
) -> None:
    """Disabled, killed, or nowhere to write to: the last report lies there still, and nothing notices who types."""
    alive_at = None if minutes is None else start + minutes * MINUTE
    inside.connected = True
    inside.report = Report(present_at=start, alive_at=alive_at, source="window")
    assert sweep(start + 31 * MINUTE).actions == []
    assert not _again(running).presence_reported
    # Whoever types until they close the tab has the whole limit from then on.
    inside.connected = False
    assert sweep(start + 40 * MINUTE).actions == []
    assert _actions(sweep(start + 61 * MINUTE)) == [(running.user_id, "stop")]


def test_what_reports_presence_again_is_believed_again(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime, sweep: Any
) -> None:
    inside.connected = True
    sweep(start + 31 * MINUTE)
    assert not _again(running).presence_reported
    inside.report = Report(present_at=start, alive_at=start + 32 * MINUTE, source="opened")
    idle_sweeps.listen(runtime=runtime, now=start + 32 * MINUTE)
    assert _again(running).presence_reported


def test_where_nothing_reports_presence_an_open_tab_keeps_it(
    running: Workspace, inside: Any, start: datetime, sweep: Any
) -> None:
    inside.report, inside.connected = Report(), True
    assert sweep(start + 31 * MINUTE).actions == []
    assert not _again(running).presence_reported
    inside.connected = False
    assert _actions(sweep(start + 61 * MINUTE)) == [(running.user_id, "stop")]
    assert "Nothing in it reports presence" in Transition.objects.latest("id").detail["sentence"]


def test_where_nobody_tells_of_connections_the_editors_heartbeat_does(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime, sweep: Any
) -> None:
    inside.report, inside.connected = Report(), None
    assert _actions(sweep(start + 31 * MINUTE)) == [(running.user_id, "held")]
    assert running.port is not None
    runtime.heartbeats[running.port] = start + 20 * MINUTE
    assert sweep(start + 32 * MINUTE).actions == []
    assert _actions(sweep(start + 50 * MINUTE)) == [(running.user_id, "stop")]


def test_a_presence_of_the_future_is_now_at_most(running: Workspace, inside: Any, start: datetime, sweep: Any) -> None:
    inside.report = Report(present_at=start + timedelta(days=3650), source="window")
    assert sweep(start + 31 * MINUTE).actions == []
    assert _again(running).presence_at == start + 31 * MINUTE
    assert _actions(sweep(start + 24 * HOUR)) == [(running.user_id, "stop")]
    assert _again(running).stop_reason == "lifetime"


# --- what could not be learnt ------------------------------------------------------------------------------------


def _hung(inside: Any, runtime: MemoryRuntime, name: str) -> None:
    del inside, name
    runtime.answering = False


def _report_unreadable(inside: Any, runtime: MemoryRuntime, name: str) -> None:
    del inside
    runtime.mute.add(name)


def _processes_unknown(inside: Any, runtime: MemoryRuntime, name: str) -> None:
    del runtime, name
    inside.commands = None


def _processor_unknown(inside: Any, runtime: MemoryRuntime, name: str) -> None:
    del runtime, name
    inside.cpu_seconds = None


def _no_engine(inside: Any, runtime: MemoryRuntime, name: str) -> None:
    del inside, name
    runtime.reachable = False


@pytest.mark.parametrize("blind", [_hung, _report_unreadable, _processes_unknown, _processor_unknown, _no_engine])
def test_whatever_fails_holds_the_workspace_says_so_and_never_prevents_the_end_of_its_life(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime, sweep: Any, blind: Any
) -> None:
    blind(inside, runtime, running.container)
    report = sweep(start + 31 * MINUTE)
    assert _actions(report) == [(running.user_id, "held")]
    assert _again(running).state == State.RUNNING
    assert running.last_spared is not None
    assert "unknown is not idle" in running.last_spared["sentence"]
    # Nobody is told that it stops when it is merely looked at again.
    told = represent(running)
    assert (told["stops_at"], told["stops_reason"]) == (told["lifetime_ends_at"], "lifetime")
    assert not told["warned"]
    assert _actions(sweep(start + 24 * HOUR)) == [(running.user_id, "stop")]
    assert _again(running).stop_reason == "lifetime"


def test_those_that_are_held_do_not_block_the_others(
    make_user: Callable[..., Any],
    bring_up: Callable[[Any], Workspace],
    runtime: MemoryRuntime,
    now: datetime,
    sweep: Any,
    monkeypatch: Any,
) -> None:
    held, quiet = (bring_up(make_user()) for _ in range(2))
    runtime.inside(held.container).commands = None
    Workspace.objects.filter(pk=held.pk).update(due_at=now)
    monkeypatch.setattr(idle_sweeps, "BATCH", 1)
    assert _actions(sweep(now + 31 * MINUTE)) == [(held.user_id, "held"), (quiet.user_id, "stop")]
    assert _actions(sweep(now + 33 * MINUTE)) == [(held.user_id, "held")]


def test_without_a_fresh_sample_of_the_processor_one_sweep_measures_and_the_next_decides(
    running: Workspace, inside: Any, start: datetime, sweep: Any
) -> None:
    inside.cpu_seconds = 100.0
    assert _actions(sweep(start + 31 * MINUTE, measured=False)) == [(running.user_id, "held")]
    inside.cpu_seconds = 160.0  # a minute of one whole processor
    assert sweep(start + 32 * MINUTE, measured=False).actions == []
    assert _again(running).work_source == "processor at 100 %"
    Usage.objects.update(sampled_at=start + 61 * MINUTE, cpu_seconds=160)
    assert _actions(sweep(start + 62 * MINUTE, measured=False)) == [(running.user_id, "stop")]


# --- work --------------------------------------------------------------------------------------------------------


def test_a_command_in_a_terminal_extends_life_up_to_its_budget(
    running: Workspace, inside: Any, start: datetime, sweep: Any
) -> None:
    inside.commands = ("make", "sleep")
    assert sweep(start + 31 * MINUTE).actions == []
    assert _again(running).work_source == "make, sleep"
    assert running.due_at == start + 61 * MINUTE
    assert "make, sleep is at work" in (running.last_spared or {})["sentence"]
    for minutes in range(56, 8 * 60 - 20, 25):
        sweep(start + minutes * MINUTE)
    assert _again(running).state == State.RUNNING
    assert (running.due_at, running.due_reason) == (start + 8 * HOUR, "work_budget")
    assert _actions(sweep(start + 8 * HOUR)) == [(running.user_id, "stop")]
    assert _again(running).stop_reason == "work_budget"
    assert "after 8 h of work with nobody there" in (running.last_decision or {})["sentence"]


def test_a_command_is_noticed_while_nobody_is_there_and_so_is_its_end(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime, sweep: Any
) -> None:
    """It runs from the third to the twenty-fourth minute: gone before a stop is near, and work all the same."""
    for minutes in range(3, 71):
        inside.commands = ("make",) if minutes < 24 else ()
        report = sweep(start + minutes * MINUTE, warned=False)
        if _again(running).warned_at is not None or running.state != State.RUNNING:
            break
    assert _actions(report) == [(running.user_id, "warned")]
    # Looked at after 5, 10, 15 and 20 minutes, and then for two sweeps in vain.
    assert running.work_at == start + 20 * MINUTE
    assert running.due_at == start + 50 * MINUTE
    assert runtime.looks <= 8


def test_a_busy_processor_is_work_and_the_sampler_notes_it(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime, sweep: Any
) -> None:
    sweeps.sample_usage(runtime=runtime, now=start + 28 * MINUTE)
    inside.cpu_seconds = 30.0
    sweeps.sample_usage(runtime=runtime, now=start + 29 * MINUTE)
    assert (_again(running).work_at, running.work_source) == (start + 29 * MINUTE, "processor at 50 %")
    assert running.due_at == start + 59 * MINUTE


def test_a_little_use_of_the_processor_is_no_work(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime
) -> None:
    sweeps.sample_usage(runtime=runtime, now=start + 28 * MINUTE)
    inside.cpu_seconds = 3.0
    sweeps.sample_usage(runtime=runtime, now=start + 29 * MINUTE)
    assert _again(running).work_at == start


# --- warning and keeping -----------------------------------------------------------------------------------------


def _told(runtime: MemoryRuntime, workspace: Workspace) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(runtime.told[workspace.user_id])
    return found


def test_five_minutes_before_the_stop_the_workspace_is_told(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime, sweep: Any
) -> None:
    report = sweep(start + 25 * MINUTE)
    assert _actions(report) == [(running.user_id, "warned")]
    assert "Will stop in 5 min after 30 min without activity" in report.actions[0]["why"]
    stops = int((start + 30 * MINUTE).timestamp() * 1000)
    assert _told(runtime, running)["warning"] == {"at": stops, "reason": "idle"}
    assert _told(runtime, running)["stops_at"] == stops
    assert _again(running).warned_at == start + 30 * MINUTE


def test_whoever_returns_after_the_warning_withdraws_it(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime, sweep: Any
) -> None:
    sweep(start + 25 * MINUTE)
    inside.report = Report(present_at=start + 26 * MINUTE, source="window")
    idle_sweeps.listen(runtime=runtime, now=start + 26 * MINUTE + SECOND)
    assert _again(running).warned_at is None
    assert running.due_at == start + 56 * MINUTE
    assert _told(runtime, running)["warning"] is None
    assert running.last_spared is not None


def test_a_warned_workspace_is_stopped_when_its_time_comes_and_not_at_the_next_sweep(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime, sweep: Any
) -> None:
    sweep(start + 25 * MINUTE)
    sampled(running, at=start + 30 * MINUTE - 20 * SECOND)
    idle_sweeps.attend(runtime=runtime, now=start + 30 * MINUTE - SECOND)
    assert _again(running).state == State.RUNNING
    report = idle_sweeps.attend(runtime=runtime, now=start + 30 * MINUTE + SECOND)
    assert _actions(report) == [(running.user_id, "stop")]


def test_nobody_is_stopped_without_a_warning_even_where_nobody_swept_in_time(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime, sweep: Any
) -> None:
    late = start + 40 * MINUTE
    assert _actions(sweep(late, warned=False)) == [(running.user_id, "warned")]
    assert "Will stop in 5 min" in (_again(running).last_decision or {})["sentence"]
    assert (running.warned_at, running.due_at) == (late + 5 * MINUTE, late + 5 * MINUTE)
    assert _told(runtime, running)["warning"]["at"] == int((late + 5 * MINUTE).timestamp() * 1000)
    assert sweep(late + 4 * MINUTE).actions == []
    sampled(running, at=late + 5 * MINUTE - 20 * SECOND)
    assert _actions(idle_sweeps.attend(runtime=runtime, now=late + 5 * MINUTE)) == [(running.user_id, "stop")]


def test_a_warning_stays_while_something_is_unknown(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime, sweep: Any
) -> None:
    sweep(start + 25 * MINUTE)
    runtime.mute.add(running.container)
    assert _actions(sweep(start + 30 * MINUTE)) == [(running.user_id, "held")]
    assert _again(running).warned_at == start + 30 * MINUTE
    assert _told(runtime, running)["warning"] is not None


def test_a_crowd_that_leaves_together_is_warned_together(
    make_user: Callable[..., Any],
    bring_up: Callable[[Any], Workspace],
    sweep: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(idle_sweeps, "BATCH", 2)
    rows = [bring_up(make_user()) for _ in range(5)]
    start = max(row.started_at for row in rows if row.started_at is not None)
    assert [action for _, action in _actions(sweep(start + 26 * MINUTE))] == ["warned"] * 5


def test_the_end_of_its_life_needs_no_look_and_no_time(
    running: Workspace,
    inside: Any,
    runtime: MemoryRuntime,
    start: datetime,
    sweep: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A host on which nothing answers in time must still get its memory back."""
    monkeypatch.setattr(idle_sweeps, "LOOKING_SECONDS", 0)
    assert sweep(start + 31 * MINUTE).actions == []
    assert runtime.looks == 0
    assert _actions(sweep(start + 24 * HOUR)) == [(running.user_id, "stop")]
    assert (_again(running).stop_reason, runtime.looks) == ("lifetime", 0)


@pytest.mark.parametrize("answers", [False, True])
def test_one_that_lets_us_wait_is_left_in_peace_for_a_while(
    running: Workspace,
    inside: Any,
    runtime: MemoryRuntime,
    start: datetime,
    monkeypatch: pytest.MonkeyPatch,
    *,
    answers: bool,
) -> None:
    monkeypatch.setattr(idle_sweeps, "PROMPT_SECONDS", -1)  # nothing is prompt enough
    asked: list[str] = []

    def at_last(endpoint: Any, *, secret: str) -> Report:
        asked.append(secret)
        if answers:
            return Report()
        raise RuntimeUnavailable(f"{endpoint} lets us wait")

    monkeypatch.setattr(runtime, "report", at_last)
    with contextlib.nullcontext() if answers else pytest.raises(RuntimeUnavailable):
        idle_sweeps._ask(runtime, running)
    idle_sweeps.listen(runtime=runtime, now=start + MINUTE)
    assert len(asked) == 1
    monkeypatch.setitem(idle_sweeps._waiting, running.pk, 0.0)
    idle_sweeps.listen(runtime=runtime, now=start + 2 * MINUTE)
    assert len(asked) == 2


def test_a_connection_between_look_and_stop_keeps_it_where_nothing_reports_presence(
    running: Workspace, inside: Any, start: datetime, sweep: Any
) -> None:
    Workspace.objects.filter(pk=running.pk).update(presence_reported=False)
    seen = _again(running)
    Workspace.objects.filter(pk=running.pk).update(connection_at=start + 31 * MINUTE)
    stopped = lifecycle.stop_if_unchanged(seen, reason=Reason.IDLE, decision={}, now=start + 31 * MINUTE)
    assert stopped is None


def test_a_keep_never_shortens_what_was_promised(running: Workspace, start: datetime) -> None:
    lifecycle.request_keep(running, minutes=240, now=start)
    lifecycle.request_keep(running, minutes=60, now=start + MINUTE)
    assert _again(running).keep_until == start + 4 * HOUR
    lifecycle.request_keep(running, minutes=0, now=start + MINUTE)
    assert _again(running).keep_until is None


def test_what_ran_a_while_ago_is_not_told_as_if_it_ran_now(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime, sweep: Any
) -> None:
    inside.commands = ("make",)
    sweep(start + 26 * MINUTE)
    assert _told(runtime, running)["working_on"] == ["make"]
    idle_sweeps.listen(runtime=runtime, now=start + 29 * MINUTE)
    assert _told(runtime, running)["working_on"] is None


def test_a_fresh_container_never_reads_the_warning_of_the_one_before(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime, sweep: Any, bring_up: Any
) -> None:
    sweep(start + 26 * MINUTE)
    assert _told(runtime, running)["warning"] is not None
    stopping = lifecycle.request_stop(_again(running), actor=running.user)
    lifecycle.perform_stop(stopping.pk, stopping.generation, runtime=runtime)
    fresh = bring_up(running.user)
    assert _told(runtime, fresh)["warning"] is None
    assert _told(runtime, fresh)["generation"] == fresh.generation


def test_pauses_cost_the_same_however_many_there_are(running: Workspace, start: datetime) -> None:
    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            rules.load([running.user_id], now=start)
        return len(queries)

    group = Group.objects.create(name="course")
    running.user.groups.add(group)
    costs = []
    for number in range(12):
        pause = IdlePause.objects.create(name=f"{number}", starts_at=start, ends_at=start + (number + 1) * HOUR)
        pause.groups.add(group)
        costs.append(cost())
    assert len(set(costs)) == 1
    assert len(rules.load([running.user_id], now=start).pauses_for(running.user_id)) == 12
    IdlePause.objects.update(time_zone="Nowhere/Else", repeat="daily")
    assert rules.load([running.user_id], now=start).pauses_for(running.user_id) == ()


def _ask(container: Any, verb: RequestVerb, *, at: datetime, identifier: str = "request-1", minutes: float = 0) -> None:
    request = Request(id=identifier, verb=verb, asked_at=at, minutes=minutes)
    container.report = replace(container.report, request=request)


def test_a_wish_to_keep_it_is_granted_once_and_answered(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime
) -> None:
    asked = start + 10 * MINUTE
    _ask(inside, RequestVerb.KEEP, at=asked, minutes=120)
    for seconds in range(3):
        idle_sweeps.listen(runtime=runtime, now=asked + seconds * SECOND)
    assert _again(running).keep_until == asked + 2 * HOUR
    assert running.due_at == asked + 2 * HOUR
    assert _told(runtime, running)["answer"] == {
        "id": "request-1",
        "ok": True,
        "message": "Kept running for 2 h, used or not.",
    }


def test_nobody_keeps_it_longer_than_eight_hours_or_beyond_its_life(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime
) -> None:
    _ask(inside, RequestVerb.KEEP, at=start + MINUTE, minutes=1_000_000)
    idle_sweeps.listen(runtime=runtime, now=start + MINUTE)
    assert _again(running).keep_until == start + 8 * HOUR + MINUTE
    _ask(inside, RequestVerb.KEEP, at=start + 20 * HOUR, minutes=480, identifier="request-2")
    idle_sweeps.listen(runtime=runtime, now=start + 20 * HOUR)
    assert _again(running).keep_until == start + 24 * HOUR


def test_a_wish_to_stop_is_granted_in_its_owners_name(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime
) -> None:
    _ask(inside, RequestVerb.STOP, at=start + MINUTE)
    idle_sweeps.listen(runtime=runtime, now=start + MINUTE)
    assert (_again(running).state, running.stop_reason) == (State.STOPPING, "user")
    assert Transition.objects.latest("id").actor == running.user
    assert _told(runtime, running)["answer"]["ok"] is True


def test_a_wish_that_comes_too_late_is_refused_and_explained(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime
) -> None:
    _ask(inside, RequestVerb.STOP, at=start + MINUTE)
    idle_sweeps.listen(runtime=runtime, now=start + HOUR)
    assert _again(running).state == State.RUNNING
    assert _told(runtime, running)["answer"]["ok"] is False


def test_it_stops_when_its_command_ends_and_not_between_two_commands(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime
) -> None:
    inside.commands = ("make",)
    _ask(inside, RequestVerb.STOP_WHEN_DONE, at=start + MINUTE)
    moment = start + MINUTE
    for commands in (("make",), ("make",), (), ("pytest",), (), ()):
        inside.commands = commands
        sampled(running, at=moment - 10 * SECOND)
        idle_sweeps.listen(runtime=runtime, now=moment)
        idle_sweeps.attend(runtime=runtime, now=moment)
        assert _again(running).state == State.RUNNING, f"stopped during {commands}"
        moment += 2 * SECOND
    moment += 2 * SECOND
    report = idle_sweeps.attend(runtime=runtime, now=moment)
    assert _actions(report) == [(running.user_id, "stop")]
    assert (_again(running).state, running.stop_reason) == (State.STOPPING, "finished")
    assert "its command had ended" in (running.last_decision or {})["sentence"]


def test_a_keep_withdraws_a_stop_that_waits(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime
) -> None:
    lifecycle.request_stop_when_done(running, now=start)
    lifecycle.request_keep(running, minutes=60, now=start)
    assert not _again(running).stop_when_done
    lifecycle.request_stop_when_done(running, now=start)
    _ask(inside, RequestVerb.CANCEL, at=start + MINUTE)
    idle_sweeps.listen(runtime=runtime, now=start + MINUTE)
    assert (_again(running).stop_when_done, running.keep_until) == (False, None)


def test_hearing_presence_writes_at_most_once_a_minute(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime
) -> None:
    writes = []
    for seconds in range(0, 300, 3):
        now = start + seconds * SECOND
        inside.report = Report(present_at=now, source="window")
        with CaptureQueriesContext(connection) as queries:
            idle_sweeps.listen(runtime=runtime, now=now)
        writes += [query["sql"] for query in queries if query["sql"].startswith("UPDATE")]
    assert 4 <= len(writes) <= 5


def test_many_workspaces_are_asked_in_turns(
    make_user: Callable[..., Any],
    bring_up: Callable[[Any], Workspace],
    runtime: MemoryRuntime,
    now: datetime,
    monkeypatch: Any,
) -> None:
    rows = [bring_up(make_user()) for _ in range(6)]
    monkeypatch.setattr(idle_sweeps, "LISTENED_AT_ONCE", 2)
    for row in rows:
        runtime.inside(row.container).report = Report(present_at=now + 3 * MINUTE, source="window")
    later = now + 5 * MINUTE
    heard = []
    for turn in range(3):
        idle_sweeps.listen(runtime=runtime, now=later + 3 * turn * SECOND)
        heard.append(Workspace.objects.filter(presence_source="window").count())
    assert heard == [2, 4, 6]


# --- rules -------------------------------------------------------------------------------------------------------


def test_a_users_own_limits_count_from_the_next_sweep_on(
    running: Workspace, inside: Any, start: datetime, sweep: Any
) -> None:
    UserLimits.objects.create(user=running.user, idle_minutes=10)
    assert _actions(sweep(start + 11 * MINUTE)) == [(running.user_id, "warned")]
    assert _actions(sweep(start + 14 * MINUTE)) == [(running.user_id, "stop")]
    assert Transition.objects.latest("id").detail["limits"]["idle_seconds"] == 600


def test_longer_limits_of_a_user_keep_it_running(running: Workspace, inside: Any, start: datetime, sweep: Any) -> None:
    UserLimits.objects.create(user=running.user, idle_minutes=120, max_lifetime_hours=48)
    assert sweep(start + 31 * MINUTE).actions == []
    assert (_again(running).due_at, running.lifetime_ends_at) == (start + 2 * HOUR, start + 48 * HOUR)


def test_a_setting_that_changed_counts_from_the_next_sweep_on(
    running: Workspace, inside: Any, start: datetime, sweep: Any, configure: Callable[..., None]
) -> None:
    configure(idle_minutes=10)
    assert _actions(sweep(start + 11 * MINUTE)) == [(running.user_id, "warned")]
    assert _actions(sweep(start + 14 * MINUTE)) == [(running.user_id, "stop")]


def test_during_a_class_nobody_is_stopped(running: Workspace, inside: Any, start: datetime, sweep: Any) -> None:
    lesson = IdlePause.objects.create(name="Class", starts_at=start, ends_at=start + 2 * HOUR)
    assert sweep(start + 31 * MINUTE).actions == []
    assert _again(running).due_at == start + 2 * HOUR
    lesson.delete()
    assert _actions(sweep(start + 32 * MINUTE)) == [(running.user_id, "warned")]
    assert _actions(sweep(start + 37 * MINUTE)) == [(running.user_id, "stop")]


def test_a_stop_that_was_held_until_an_exam_began_waits_for_its_end(
    running: Workspace, inside: Any, start: datetime, sweep: Any
) -> None:
    IdlePause.objects.create(name="Exam", starts_at=start + 31 * MINUTE, ends_at=start + 2 * HOUR)
    inside.commands = None
    assert _actions(sweep(start + 30.5 * MINUTE)) == [(running.user_id, "held")]
    inside.commands = ()
    assert sweep(start + 31.5 * MINUTE).actions == []
    assert _again(running).state == State.RUNNING
    assert "a pause is set" in (running.last_spared or {})["sentence"]
    assert _actions(sweep(start + 2 * HOUR + MINUTE, warned=False)) == [(running.user_id, "warned")]
    assert _actions(sweep(start + 2 * HOUR + 7 * MINUTE)) == [(running.user_id, "stop")]


def test_a_shorter_running_time_is_announced_to_whom_it_ends(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime, sweep: Any
) -> None:
    inside.report = Report(present_at=start + 9 * HOUR, source="window")
    sweep(start + 9 * HOUR, warned=False)
    UserLimits.objects.create(user=running.user, max_lifetime_hours=8)
    sweep(start + 9 * HOUR + MINUTE, warned=False)
    told = json.loads(runtime.told[running.user_id])
    end = start + 9 * HOUR + 6 * MINUTE
    assert (_again(running).state, running.warned_at) == (State.RUNNING, end)
    assert told["warning"] == {"at": int(end.timestamp() * 1000), "reason": "lifetime"}
    assert told["lifetime_ends_at"] == told["stops_at"] == int(end.timestamp() * 1000)
    # Somebody who goes on working is neither stopped earlier nor spared by it.
    inside.report = Report(present_at=start + 9 * HOUR + 2 * MINUTE, source="window")
    for now in (start + 9 * HOUR + 3 * MINUTE, start + 9 * HOUR + 5 * MINUTE):
        idle_sweeps.listen(runtime=runtime, now=now)
        idle_sweeps.attend(runtime=runtime, now=now)
        sweep(now, warned=False)
        assert (_again(running).state, running.warned_at) == (State.RUNNING, end)
    assert _actions(idle_sweeps.attend(runtime=runtime, now=end)) == [(running.user_id, "stop")]
    assert _again(running).stop_reason == "lifetime"


def test_one_that_is_held_is_not_stopped_by_what_it_says_of_itself(
    running: Workspace, inside: Any, runtime: MemoryRuntime, start: datetime, sweep: Any
) -> None:
    """Where people are warned half a minute before, a held one is looked at again later than it would be warned."""
    UserLimits.objects.create(user=running.user, idle_minutes=2)
    assert _actions(sweep(start + 1.7 * MINUTE)) == [(running.user_id, "warned")]
    inside.commands = None
    assert _actions(sweep(start + 2.1 * MINUTE)) == [(running.user_id, "held")]
    assert _again(running).due_at == start + 3.1 * MINUTE
    idle_sweeps.listen(runtime=runtime, now=start + 2.2 * MINUTE)
    assert _again(running).state == State.RUNNING


def test_a_pause_for_a_group_is_for_its_members_only(
    make_user: Callable[..., Any], bring_up: Callable[[Any], Workspace], sweep: Any
) -> None:
    member, other = (bring_up(make_user()) for _ in range(2))
    assert member.started_at is not None
    group = Group.objects.create(name="course 7")
    group.user_set.add(member.user)
    lesson = IdlePause.objects.create(name="Exam", starts_at=member.started_at, ends_at=member.started_at + 2 * HOUR)
    lesson.groups.add(group)
    report = sweep(member.started_at + 31 * MINUTE)
    assert _actions(report) == [(other.user_id, "stop")]


# --- dry run, and what it costs ----------------------------------------------------------------------------------


def test_a_dry_run_says_what_it_would_do_and_save_and_does_nothing(
    running: Workspace, inside: Any, start: datetime, sweep: Any
) -> None:
    sampled(running, at=start + 31 * MINUTE - 20 * SECOND)
    Workspace.objects.update(warned_at=F("due_at"))
    before = list(Workspace.objects.values()), list(Usage.objects.values())
    report = sweep(start + 31 * MINUTE, dry_run=True, measured=False, warned=False)
    assert _actions(report) == [(running.user_id, "would_stop")]
    action = report.actions[0]
    assert action["reason"] == "idle"
    assert action["saves_memory_bytes"] == 400 * 2**20
    assert action["saves_hours_at_most"] == pytest.approx(23.5, abs=0.1)
    assert (list(Workspace.objects.values()), list(Usage.objects.values())) == before


def test_a_sweep_finds_every_quiet_workspace_in_one_pass(
    make_user: Callable[..., Any], bring_up: Callable[[Any], Workspace], now: datetime, sweep: Any
) -> None:
    rows = [bring_up(make_user()) for _ in range(5)]
    assert sorted(_actions(sweep(now + 31 * MINUTE))) == [(row.user_id, "stop") for row in rows]


def test_a_row_that_vanishes_during_a_sweep_blocks_nobody(
    make_user: Callable[..., Any], bring_up: Callable[[Any], Workspace], runtime: MemoryRuntime, now: datetime
) -> None:
    gone, stays = (bring_up(make_user()) for _ in range(2))
    for row in (gone, stays):
        sampled(row, at=now + 31 * MINUTE - 20 * SECOND)
    Workspace.objects.filter(pk=gone.pk).update(due_at=now)
    Workspace.objects.update(warned_at=F("due_at"))
    vanished: list[int] = []

    def vanish_before_the_update(execute: Any, sql: str, *rest: Any) -> Any:
        if "FOR UPDATE" in sql and not vanished:
            vanished.append(gone.user_id)
            gone.user.delete()
        return execute(sql, *rest)

    with connection.execute_wrapper(vanish_before_the_update):
        report = idle_sweeps.stop_idle(runtime=runtime, now=now + 31 * MINUTE)
    assert vanished
    assert _actions(report) == [(stays.user_id, "stop")]


# Emptied afterwards: rolled back, the rows would slow every later test's scans.
@pytest.mark.django_db(transaction=True)
def test_among_a_hundred_thousand_rows_a_hundred_idle_ones_cost_a_hundred(
    runtime: MemoryRuntime, now: datetime
) -> None:
    """Sixty thousand of them run: there are no more ports."""
    _many_rows(100_000, running=60_000, idle=100, now=now)
    with CaptureQueriesContext(connection) as queries:
        report = idle_sweeps.stop_idle(runtime=runtime, now=now)
    # None of these has a container, so the look is blind and each is held: one look and a few queries for each.
    assert runtime.looks == 100
    assert [action["action"] for action in report.actions] == ["held"] * 100
    assert len(queries) < 100 * 8
    plan = "\n".join(
        line[0]
        for query in queries
        if '"due_at" <=' in query["sql"] or '"due_mark"' in query["sql"].split("WHERE")[-1]
        for line in _explain(query["sql"])
        if query["sql"].startswith("SELECT")
    )
    assert "Seq Scan on workspaces_workspace" not in plan, plan
    assert "workspace_due" in plan, plan


def _explain(sql: str) -> list[tuple[str]]:
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN " + sql)
        found: list[tuple[str]] = cursor.fetchall()
    return found


def _many_rows(count: int, *, running: int, idle: int, now: datetime) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO auth_user (id, username, password, is_superuser, is_staff, is_active, first_name, last_name,"
            " email, date_joined) SELECT 10000000 + n, 'many-' || n, '', false, false, true, '', '', '', now()"
            " FROM generate_series(1, %s) n",
            [count],
        )
        # Without it the planner believes the table to be tiny, and each foreign key is checked by reading all of it.
        cursor.execute("ANALYZE auth_user")
        cursor.execute(
            "INSERT INTO workspaces_workspace (user_id, state, wanted, generation, changed_at, attempts, stages, host,"
            " port, container, container_id, image, editor_secret, stop_reason, error_code, error_message, started_at,"
            " presence_at, work_at, last_activity_at, due_at, due_reason, due_mark)"
            " SELECT id, CASE WHEN n <= %s THEN 'running' ELSE 'stopped' END, 'running', 1, %s, 0, '[]', '127.0.0.1',"
            " CASE WHEN n <= %s THEN 2000 + n END, 'many-' || n, '', '', '', '', '', '',"
            " %s, %s, %s, %s, CASE WHEN n <= %s THEN %s::timestamptz ELSE %s::timestamptz END, 'idle', %s"
            " FROM (SELECT id, substr(username, 6)::int AS n FROM auth_user WHERE username LIKE 'many-%%') AS many",
            [running, now, running, *([now - HOUR] * 4), idle, now - 30 * MINUTE, now + 2 * HOUR, rules.mark()],
        )
        cursor.execute("ANALYZE workspaces_workspace")
