"""What may happen next: every transition of the table, and what happens when two things want to happen at once."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone

from tests.trouble import CannotStop, Contended, Interrupted, LosesTheEngine, OverlooksPorts
from workspaces import conf, lifecycle
from workspaces.errors import (
    AccessDenied,
    NotRunning,
    PassingRefusal,
    RuntimeUnavailable,
    StartRefused,
    StartsTooOften,
    StopRefused,
)
from workspaces.lifecycle import Outcome
from workspaces.models import Transition, Workspace
from workspaces.runtimes.base import Observation, Phase, Report
from workspaces.states import Reason, State, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from workspaces.runtimes.base import Endpoint
    from workspaces.runtimes.memory import MemoryRuntime

    Sent = list[tuple[str, tuple[Any, ...]]]

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


def _history(workspace: Workspace) -> list[tuple[str, str, str]]:
    rows = Transition.objects.filter(workspace=workspace).order_by("id")
    return [(row.from_state, row.to_state, row.reason) for row in rows]


def _start(workspace: Workspace, runtime: MemoryRuntime) -> Outcome:
    outcome = lifecycle.perform_start(workspace.pk, workspace.generation, runtime=runtime)
    workspace.refresh_from_db()
    return outcome


def _stop(workspace: Workspace, runtime: MemoryRuntime) -> Outcome:
    outcome = lifecycle.perform_stop(workspace.pk, workspace.generation, runtime=runtime)
    workspace.refresh_from_db()
    return outcome


@pytest.fixture
def starting(user: Any) -> Workspace:
    return lifecycle.request_start(user, actor=user)


# --- start -------------------------------------------------------------------------------------------------------


def test_a_first_start_brings_the_workspace_to_running(user: Any, runtime: MemoryRuntime) -> None:
    workspace = lifecycle.request_start(user, actor=user)
    assert (workspace.state, workspace.wanted, workspace.generation) == (State.STARTING, Wanted.RUNNING, 1)
    assert _start(workspace, runtime) is Outcome.DONE
    assert workspace.state == State.RUNNING
    assert workspace.port == 11000 + user.pk
    assert runtime.running_names() == [workspace.container]
    assert [stage["stage"] for stage in workspace.stages] == ["queued", "preparing", "creating", "waiting", "ready"]
    assert _history(workspace) == [("stopped", "starting", "user"), ("starting", "running", "ready")]


def test_history_says_who_asked_and_when(user: Any, staff: Any, runtime: MemoryRuntime) -> None:
    workspace = lifecycle.request_start(user, actor=staff, reason=Reason.STAFF)
    _start(workspace, runtime)
    asked, came_up = Transition.objects.order_by("id")
    assert (asked.actor, asked.reason, asked.generation) == (staff, "staff", 1)
    assert asked.time == workspace.requested_at
    assert came_up.actor is None
    assert str(came_up) == "starting -> running (ready)"


@pytest.mark.parametrize("calls", [2, 5])
def test_any_number_of_requests_is_one_start(user: Any, runtime: MemoryRuntime, calls: int) -> None:
    generations = {lifecycle.request_start(user, actor=user).generation for _ in range(calls)}
    assert generations == {1}
    workspace = lifecycle.request_start(user, actor=user)
    _start(workspace, runtime)
    assert lifecycle.request_start(user, actor=user).state == State.RUNNING
    assert (runtime.starts, len(_history(workspace))) == (1, 2)


def test_a_start_is_sent_after_the_commit_and_only_once(
    user: Any, sent: Sent, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        workspace = lifecycle.request_start(user, actor=user)
        lifecycle.request_start(user, actor=user)
        assert sent == []
    assert sent == [("workspaces.start", (workspace.pk, 1))]


def test_a_disabled_user_cannot_start(user: Any) -> None:
    user.is_active = False
    user.save()
    with pytest.raises(AccessDenied):
        lifecycle.request_start(user, actor=user)
    with pytest.raises(AccessDenied):
        lifecycle.request_restart(user, actor=user)
    assert not Workspace.objects.exists()


def test_a_second_start_reuses_the_container_and_the_port(running: Workspace, runtime: MemoryRuntime) -> None:
    container, port = running.container_id, running.port
    lifecycle.request_stop(running, actor=None)
    running.refresh_from_db()
    _stop(running, runtime)
    again = lifecycle.request_start(running.user, actor=None)
    assert _start(again, runtime) is Outcome.DONE
    assert (again.generation, again.container_id, again.port) == (2, container, port)


def test_a_changed_setting_replaces_the_container_at_the_next_start(
    running: Workspace, runtime: MemoryRuntime, configure: Callable[..., None]
) -> None:
    before = running.container_id
    lifecycle.request_stop(running, actor=None)
    running.refresh_from_db()
    _stop(running, runtime)
    configure(pids=333)
    again = lifecycle.request_start(running.user, actor=None)
    _start(again, runtime)
    assert again.container_id != before
    assert again.state == State.RUNNING


def test_a_start_taken_over_from_a_dead_worker_finds_its_own_container(
    starting: Workspace, runtime: MemoryRuntime
) -> None:
    """The first worker made the container and died: its port is in use, by that very container."""
    dying = LosesTheEngine()
    dying._containers = runtime._containers
    with pytest.raises(RuntimeUnavailable):
        _start(starting, dying)
    Workspace.objects.filter(pk=starting.pk).update(port=None)
    assert _start(starting, runtime) is Outcome.DONE
    assert starting.port == 11000 + starting.user_id
    assert (len(runtime.running_names()), runtime.starts) == (1, 0)


# --- a start that fails ------------------------------------------------------------------------------------------


def test_a_refused_start_fails_with_the_runtimes_code_and_sentence(starting: Workspace, runtime: MemoryRuntime) -> None:
    runtime.refuse = StartRefused("The image is not there.", code="image_missing")
    assert _start(starting, runtime) is Outcome.FAILED
    assert starting.state == State.FAILED
    assert (starting.error_code, starting.error_message) == ("image_missing", "The image is not there.")
    assert starting.port is None
    assert _history(starting)[-1] == ("starting", "failed", "start_failed")
    assert Transition.objects.first().detail == {"code": "image_missing"}  # type: ignore[union-attr]


def test_the_next_start_after_a_failure_works_and_forgets_the_error(
    starting: Workspace, runtime: MemoryRuntime
) -> None:
    runtime.refuse = StartRefused("no")
    _start(starting, runtime)
    runtime.refuse = None
    again = lifecycle.request_start(starting.user, actor=None)
    assert (again.error_code, again.error_message, again.generation) == ("", "", 2)
    assert _start(again, runtime) is Outcome.DONE


def test_a_failed_workspace_can_be_stopped_and_its_error_put_away(starting: Workspace, runtime: MemoryRuntime) -> None:
    runtime.refuse = StartRefused("no")
    _start(starting, runtime)
    lifecycle.request_stop(starting, actor=None)
    starting.refresh_from_db()
    assert _stop(starting, runtime) is Outcome.DONE
    assert starting.state == State.STOPPED
    assert (starting.error_code, starting.error_message) == ("", "")
    assert _history(starting)[-2:] == [("failed", "stopping", "user"), ("stopping", "stopped", "user")]


def test_an_editor_that_never_answers_is_stopped_and_told(
    starting: Workspace, runtime: MemoryRuntime, configure: Callable[..., None]
) -> None:
    configure(start_timeout_seconds=0.2)
    runtime.answering = False
    assert _start(starting, runtime) is Outcome.FAILED
    assert starting.error_code == "start_timeout"
    assert "0.2 seconds" in starting.error_message
    assert _history(starting)[-1] == ("starting", "failed", "start_timeout")
    assert runtime.running_names() == []


@pytest.mark.parametrize(
    ("exit_code", "out_of_memory", "code", "reason"),
    [
        (1, False, "crashed", "crashed"),
        (0, False, "exited", "exited"),
        (143, False, "exited", "exited"),
        (137, True, "oom", "oom"),
    ],
)
def test_a_container_that_ends_while_it_starts_is_told_at_once(
    starting: Workspace, exit_code: int, *, out_of_memory: bool, code: str, reason: str
) -> None:
    def end(runtime: MemoryRuntime, _: Endpoint) -> None:
        (name,) = runtime.running_names()
        runtime._containers[name].lines = ["one", "the last line"]
        runtime.end(name, exit_code=exit_code, out_of_memory=out_of_memory)

    assert _start(starting, Interrupted(on_health=end)) is Outcome.FAILED
    assert starting.error_code == code
    assert "the last line" in starting.error_message
    assert _history(starting)[-1] == ("starting", "failed", reason)


def test_a_container_taken_away_while_it_starts_is_told(starting: Workspace) -> None:
    def remove(runtime: MemoryRuntime, _: Endpoint) -> None:
        runtime.ensure_removed(runtime.running_names()[0])

    assert _start(starting, Interrupted(on_health=remove)) is Outcome.FAILED
    assert starting.error_code == "removed"
    assert starting.error_message


def test_a_port_that_turns_out_to_be_taken_is_changed_within_the_same_start(starting: Workspace) -> None:
    runtime = OverlooksPorts()
    runtime.busy_ports = {11000 + starting.user_id, 21000}
    assert _start(starting, runtime) is Outcome.DONE
    assert starting.port == 21001


def test_ports_that_are_all_taken_end_the_start_without_a_storm(starting: Workspace) -> None:
    runtime = OverlooksPorts()
    runtime.busy_ports = set(range(1024, 65536))
    assert _start(starting, runtime) is Outcome.FAILED
    assert starting.error_code == "port_taken"
    assert "GUNPOWDER_PORT_RANGE" in starting.error_message


def test_no_free_port_at_all_is_told(
    starting: Workspace, runtime: MemoryRuntime, configure: Callable[..., None]
) -> None:
    configure(port_range=(21000, 21001), port_base=65535)  # nobody has a port of their own
    runtime.busy_ports = {21000, 21001}
    assert _start(starting, runtime) is Outcome.FAILED
    assert starting.error_code == "no_port_free"


def test_an_engine_that_is_away_changes_nothing(starting: Workspace, runtime: MemoryRuntime) -> None:
    runtime.reachable = False
    for _ in range(2 * lifecycle.MAX_ATTEMPTS):
        with pytest.raises(RuntimeUnavailable):
            _start(starting, runtime)
    starting.refresh_from_db()
    assert (starting.state, starting.attempts) == (State.STARTING, 0)
    assert len(_history(starting)) == 1
    runtime.reachable = True
    assert _start(starting, runtime) is Outcome.DONE


def test_a_refusal_that_does_not_pass_fails_with_its_sentence(starting: Workspace, runtime: MemoryRuntime) -> None:
    runtime.refuse = PassingRefusal("The host has no memory left.", code="no_memory")
    outcomes = [_start(starting, runtime) for _ in range(lifecycle.PASSING_ATTEMPTS)]
    assert outcomes == [*[Outcome.AGAIN] * (lifecycle.PASSING_ATTEMPTS - 1), Outcome.FAILED]
    assert (starting.error_code, starting.error_message) == ("no_memory", "The host has no memory left.")
    runtime.refuse = None
    assert _start(lifecycle.request_start(starting.user, actor=None), runtime) is Outcome.DONE


def test_an_engine_that_answers_and_yet_cannot_gives_the_place_in_the_queue_free(
    starting: Workspace, runtime: MemoryRuntime
) -> None:
    contended = Contended()
    for _ in range(lifecycle.MAX_ATTEMPTS):
        with pytest.raises(RuntimeUnavailable):
            _start(starting, contended)
    assert _start(starting, contended) is Outcome.FAILED
    assert starting.error_code == "start_interrupted"


def test_a_start_that_fails_and_cannot_be_stopped_fails_all_the_same(
    starting: Workspace, configure: Callable[..., None]
) -> None:
    configure(start_timeout_seconds=0)
    stubborn = CannotStop()
    stubborn.answering = False
    assert _start(starting, stubborn) is Outcome.FAILED
    assert starting.error_code == "start_timeout"
    assert (starting.state, starting.port) == (State.FAILED, None)


def test_a_start_whose_workers_keep_dying_is_given_up(starting: Workspace, runtime: MemoryRuntime) -> None:
    Workspace.objects.filter(pk=starting.pk).update(attempts=lifecycle.MAX_ATTEMPTS)
    assert _start(starting, runtime) is Outcome.FAILED
    assert starting.error_code == "start_interrupted"
    again = lifecycle.request_start(starting.user, actor=None)
    assert _start(again, runtime) is Outcome.DONE


# --- stop --------------------------------------------------------------------------------------------------------


def test_a_stop_ends_the_container_and_keeps_it(running: Workspace, runtime: MemoryRuntime, user: Any) -> None:
    lifecycle.request_stop(running, actor=user)
    running.refresh_from_db()
    assert (running.state, running.wanted, running.stop_reason) == (State.STOPPING, Wanted.STOPPED, "user")
    assert _stop(running, runtime) is Outcome.DONE
    assert (running.state, running.port) == (State.STOPPED, None)
    assert running.stopped_at is not None
    assert runtime.running_names() == []
    assert runtime.observe(running.container).phase is Phase.EXITED
    assert _history(running)[-2:] == [("running", "stopping", "user"), ("stopping", "stopped", "user")]


def test_a_stop_is_sent_after_the_commit_and_only_once(
    running: Workspace, sent: Sent, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        lifecycle.request_stop(running, actor=None)
        running.refresh_from_db()
        lifecycle.request_stop(running, actor=None)
    assert sent == [("workspaces.stop", (running.pk, running.generation))]


def test_stopping_what_never_ran_is_nothing_to_do(user: Any) -> None:
    workspace = Workspace(user=user)
    assert lifecycle.request_stop(workspace, actor=user).state == State.STOPPED
    assert not Workspace.objects.exists()


def test_stopping_what_is_stopped_is_nothing_to_do(running: Workspace, runtime: MemoryRuntime) -> None:
    lifecycle.request_stop(running, actor=None)
    running.refresh_from_db()
    _stop(running, runtime)
    before = len(_history(running))
    assert lifecycle.request_stop(running, actor=None).state == State.STOPPED
    assert len(_history(running)) == before


def test_an_engine_that_is_away_keeps_a_stop_waiting(running: Workspace, runtime: MemoryRuntime) -> None:
    lifecycle.request_stop(running, actor=None)
    running.refresh_from_db()
    runtime.reachable = False
    with pytest.raises(RuntimeUnavailable):
        _stop(running, runtime)
    running.refresh_from_db()
    assert running.state == State.STOPPING
    assert running.port is not None
    runtime.reachable = True
    assert _stop(running, runtime) is Outcome.DONE


def test_a_container_that_cannot_be_stopped_keeps_its_stop_waiting(running: Workspace) -> None:
    lifecycle.request_stop(running, actor=None)
    running.refresh_from_db()
    with pytest.raises(StopRefused):
        _stop(running, CannotStop())
    running.refresh_from_db()
    assert running.state == State.STOPPING


def test_a_stop_that_is_given_up_fails_with_its_sentence(running: Workspace, now: datetime) -> None:
    lifecycle.request_stop(running, actor=None)
    running.refresh_from_db()
    failed = lifecycle.fail_stop(running, message="It does not end.", now=now)
    assert failed is not None
    assert (failed.state, failed.error_code, failed.error_message) == ("failed", "stop_failed", "It does not end.")
    assert failed.port is None
    assert _history(running)[-1] == ("stopping", "failed", "stop_failed")


# --- both at once ------------------------------------------------------------------------------------------------


def _stop_now(workspace: Workspace) -> None:
    lifecycle.request_stop(Workspace.objects.get(pk=workspace.pk), actor=None)


def test_a_stop_during_a_start_wins(starting: Workspace) -> None:
    runtime = Interrupted(after_start=lambda _: _stop_now(starting))
    assert _start(starting, runtime) is Outcome.STALE
    assert (starting.state, starting.port) == (State.STOPPED, None)
    assert runtime.running_names() == []
    assert _history(starting)[1:] == [("starting", "stopping", "user"), ("stopping", "stopped", "user")]


def test_a_stop_while_the_editor_is_awaited_wins(starting: Workspace) -> None:
    def stop(runtime: MemoryRuntime, _: Endpoint) -> None:
        runtime.answering = False
        _stop_now(starting)

    runtime = Interrupted(on_health=stop)
    assert _start(starting, runtime) is Outcome.STALE
    assert starting.state == State.STOPPED
    assert runtime.running_names() == []


def test_a_stop_before_the_worker_came_wins(starting: Workspace, runtime: MemoryRuntime) -> None:
    _stop_now(starting)
    assert _start(starting, runtime) is Outcome.STALE
    assert runtime.starts == 0
    assert _stop(starting, runtime) is Outcome.DONE
    assert starting.state == State.STOPPED


def test_a_stop_during_a_start_that_fails_wins(starting: Workspace) -> None:
    def stop_and_crash(runtime: MemoryRuntime, _: Endpoint) -> None:
        _stop_now(starting)
        runtime.end(runtime.running_names()[0], exit_code=1)

    runtime = Interrupted(on_health=stop_and_crash)
    assert _start(starting, runtime) is Outcome.STALE
    assert (starting.state, starting.error_code) == (State.STOPPED, "")


def test_a_start_during_a_stop_wins(running: Workspace, runtime: MemoryRuntime, user: Any) -> None:
    lifecycle.request_stop(running, actor=user)
    asked = lifecycle.request_start(user, actor=user)
    assert (asked.state, asked.wanted) == (State.STOPPING, Wanted.RUNNING)
    assert _stop(asked, runtime) is Outcome.DONE
    assert (asked.state, asked.generation) == (State.STARTING, 2)
    assert _start(asked, runtime) is Outcome.DONE
    assert _history(running)[-3:] == [
        ("running", "stopping", "user"),
        ("stopping", "starting", "restart"),
        ("starting", "running", "ready"),
    ]


def test_the_last_intent_wins(running: Workspace, runtime: MemoryRuntime, user: Any) -> None:
    lifecycle.request_stop(running, actor=user)
    lifecycle.request_start(user, actor=user)
    _stop_now(running)
    running.refresh_from_db()
    assert _stop(running, runtime) is Outcome.DONE
    assert running.state == State.STOPPED


def test_the_start_that_follows_a_stop_is_sent(
    running: Workspace, runtime: MemoryRuntime, user: Any, sent: Sent, django_capture_on_commit_callbacks: Any
) -> None:
    lifecycle.request_stop(running, actor=user)
    lifecycle.request_start(user, actor=user)
    with django_capture_on_commit_callbacks(execute=True):
        _stop(running, runtime)
    assert sent == [("workspaces.start", (running.pk, 2))]


# --- restart -----------------------------------------------------------------------------------------------------


def test_a_restart_stops_and_starts(running: Workspace, runtime: MemoryRuntime, user: Any) -> None:
    asked = lifecycle.request_restart(user, actor=user)
    assert (asked.state, asked.wanted, asked.stop_reason) == (State.STOPPING, Wanted.RUNNING, "restart")
    port = running.port
    assert _stop(asked, runtime) is Outcome.DONE
    assert _start(asked, runtime) is Outcome.DONE
    assert (asked.generation, asked.port, asked.stop_reason) == (2, port, "")
    assert runtime.starts == 2
    assert [reason for *_, reason in _history(running)] == ["user", "ready", "restart", "restart", "ready"]


def test_a_restart_of_what_does_not_run_is_a_start(user: Any, runtime: MemoryRuntime) -> None:
    asked = lifecycle.request_restart(user, actor=user)
    assert asked.state == State.STARTING
    assert _start(asked, runtime) is Outcome.DONE


def test_a_restart_during_a_start_changes_nothing(starting: Workspace, user: Any) -> None:
    assert lifecycle.request_restart(user, actor=user).generation == starting.generation
    assert len(_history(starting)) == 1


def test_a_restart_during_a_stop_starts_again_afterwards(running: Workspace, runtime: MemoryRuntime, user: Any) -> None:
    lifecycle.request_stop(running, actor=user)
    asked = lifecycle.request_restart(user, actor=user)
    _stop(asked, runtime)
    assert asked.state == State.STARTING


def test_a_restart_by_staff_says_so_in_the_history(user: Any, staff: Any) -> None:
    workspace = lifecycle.request_restart(user, actor=staff, reason=Reason.STAFF)
    assert _history(workspace) == [("stopped", "starting", "staff")]


# --- late, twice, out of order -----------------------------------------------------------------------------------


def test_the_same_message_again_does_nothing(running: Workspace, runtime: MemoryRuntime) -> None:
    before = Workspace.objects.filter(pk=running.pk).values().get()
    for _ in range(3):
        assert lifecycle.perform_start(running.pk, running.generation, runtime=runtime) is Outcome.STALE
        assert lifecycle.perform_stop(running.pk, running.generation, runtime=runtime) is Outcome.STALE
    assert Workspace.objects.filter(pk=running.pk).values().get() == before
    assert runtime.starts == 1


def test_messages_of_an_old_generation_do_nothing(
    running: Workspace, runtime: MemoryRuntime, bring_up: Callable[[Any], Workspace]
) -> None:
    lifecycle.request_stop(running, actor=None)
    running.refresh_from_db()
    _stop(running, runtime)
    bring_up(running.user)
    old = running.generation
    for perform in (lifecycle.perform_start, lifecycle.perform_stop):
        assert perform(running.pk, old, runtime=runtime) is Outcome.STALE
        assert perform(running.pk, old + 7, runtime=runtime) is Outcome.STALE
        assert perform(10**9, 1, runtime=runtime) is Outcome.STALE
    running.refresh_from_db()
    assert running.state == State.RUNNING
    assert len(runtime.running_names()) == 1


def test_an_illegal_transition_is_a_bug_and_never_written(running: Workspace, now: datetime) -> None:
    with pytest.raises(ValueError, match="no transition"):
        Workspace.objects.change_state(
            pk=running.pk,
            to=State.STARTING,
            allowed=frozenset({State.RUNNING}),
            generation=running.generation,
            reason=Reason.USER,
            now=now,
        )
    running.refresh_from_db()
    assert running.state == State.RUNNING


# --- idle stops --------------------------------------------------------------------------------------------------

DECISION = {"verdict": "stop", "sentence": "Stopped."}


def _stop_idle(workspace: Workspace, *, now: datetime) -> Workspace | None:
    return lifecycle.stop_if_unchanged(workspace, reason=Reason.IDLE, decision=DECISION, now=now)


def test_a_quiet_workspace_is_stopped_with_the_clocks_in_its_history(running: Workspace, now: datetime) -> None:
    moved = _stop_idle(running, now=now)
    assert moved is not None
    assert (moved.state, moved.stop_reason) == (State.STOPPING, "idle")
    assert Transition.objects.latest("id").detail == moved.last_decision == DECISION


@pytest.mark.parametrize("field", ["presence_at", "work_at", "keep_until"])
def test_whoever_came_back_since_the_decision_keeps_the_workspace(
    running: Workspace, now: datetime, field: str
) -> None:
    Workspace.objects.filter(pk=running.pk).update(**{field: now + MINUTE})
    assert _stop_idle(running, now=now) is None
    running.refresh_from_db()
    assert running.state == State.RUNNING


@pytest.fixture
def stopping_idle(running: Workspace, now: datetime) -> Workspace:
    moved = _stop_idle(running, now=now)
    assert moved is not None
    return moved


def _report_presence(workspace: Workspace, runtime: MemoryRuntime, at: datetime) -> None:
    runtime.inside(workspace.container).report = Report(present_at=at, source="window")


def test_presence_just_before_the_end_keeps_the_container(stopping_idle: Workspace, runtime: MemoryRuntime) -> None:
    _report_presence(stopping_idle, runtime, timezone.now())
    assert _stop(stopping_idle, runtime) is Outcome.DONE
    assert (stopping_idle.state, stopping_idle.wanted, stopping_idle.stop_reason) == ("running", "running", "")
    assert len(runtime.running_names()) == 1
    assert _history(stopping_idle)[-1] == ("stopping", "running", "activity")


def test_whoever_opens_it_before_the_end_keeps_the_container(stopping_idle: Workspace, runtime: MemoryRuntime) -> None:
    lifecycle.request_start(stopping_idle.user, actor=stopping_idle.user)
    assert _stop(stopping_idle, runtime) is Outcome.DONE
    assert (stopping_idle.state, stopping_idle.stop_reason) == ("running", "")
    assert _history(stopping_idle)[-1] == ("stopping", "running", "activity")


def test_old_presence_keeps_nothing(stopping_idle: Workspace, runtime: MemoryRuntime) -> None:
    _report_presence(stopping_idle, runtime, stopping_idle.changed_at - MINUTE)
    assert _stop(stopping_idle, runtime) is Outcome.DONE
    assert stopping_idle.state == State.STOPPED


def test_a_workspace_that_does_not_answer_just_before_the_end_is_stopped(
    stopping_idle: Workspace, runtime: MemoryRuntime
) -> None:
    runtime.mute.add(stopping_idle.container)
    assert _stop(stopping_idle, runtime) is Outcome.DONE
    assert stopping_idle.state == State.STOPPED


def test_a_heartbeat_is_no_presence(stopping_idle: Workspace, runtime: MemoryRuntime) -> None:
    assert stopping_idle.port is not None
    runtime.heartbeats[stopping_idle.port] = timezone.now()
    assert _stop(stopping_idle, runtime) is Outcome.DONE
    assert stopping_idle.state == State.STOPPED


def test_nobody_can_keep_what_its_user_stopped(running: Workspace, runtime: MemoryRuntime) -> None:
    lifecycle.request_stop(running, actor=running.user)
    running.refresh_from_db()
    assert running.port is not None
    runtime.heartbeats[running.port] = timezone.now()
    _stop(running, runtime)
    assert running.state == State.STOPPED


# --- limits ------------------------------------------------------------------------------------------------------


def _cycle(user: Any, runtime: MemoryRuntime) -> None:
    workspace = lifecycle.request_start(user, actor=user, starts_per_minute=10)
    workspace = lifecycle.request_stop(workspace, actor=user)
    lifecycle.perform_stop(workspace.pk, workspace.generation, runtime=runtime)


def test_only_starts_that_change_something_are_limited(user: Any, runtime: MemoryRuntime) -> None:
    for _ in range(9):
        _cycle(user, runtime)
    for _ in range(20):
        lifecycle.request_start(user, actor=user, starts_per_minute=10)
    lifecycle.perform_start(user.workspace.pk, 10, runtime=runtime)
    for _ in range(20):
        assert lifecycle.request_start(user, actor=user, starts_per_minute=10).state == State.RUNNING
    with pytest.raises(StartsTooOften) as refusal:
        lifecycle.request_restart(user, actor=user, starts_per_minute=10)
    assert refusal.value.code == "throttled"
    assert 0 < refusal.value.retry_after <= 60
    lifecycle.request_stop(Workspace.objects.get(user=user), actor=user)
    lifecycle.perform_stop(user.workspace.pk, 10, runtime=runtime)
    with pytest.raises(StartsTooOften):
        lifecycle.request_start(user, actor=user, starts_per_minute=10)
    assert lifecycle.request_start(user, actor=None).state == State.STARTING  # staff are not limited


def test_the_limit_is_over_after_a_minute(user: Any, runtime: MemoryRuntime) -> None:
    for _ in range(10):
        _cycle(user, runtime)
    Transition.objects.update(time=timezone.now() - timedelta(seconds=61))
    assert lifecycle.request_start(user, actor=user, starts_per_minute=10).state == State.STARTING


# --- keep --------------------------------------------------------------------------------------------------------


def test_keeping_holds_off_the_idle_stop(running: Workspace, now: datetime) -> None:
    assert lifecycle.request_keep(running, minutes=90, now=now).keep_until == now + timedelta(minutes=90)


def test_keeping_ends_after_eight_hours_at_most(running: Workspace, now: datetime) -> None:
    assert lifecycle.request_keep(running, minutes=10_000, now=now).keep_until == now + timedelta(hours=8)


def test_keeping_never_reaches_past_the_longest_lifetime(
    running: Workspace, now: datetime, configure: Callable[..., None]
) -> None:
    configure(max_lifetime_hours=1)
    assert running.started_at is not None
    kept = lifecycle.request_keep(running, minutes=480, now=now)
    assert kept.keep_until == running.started_at + timedelta(hours=1)


def test_only_what_runs_can_be_kept(user: Any, starting: Workspace, now: datetime) -> None:
    for workspace in (starting, Workspace(user=user)):
        with pytest.raises(NotRunning) as refusal:
            lifecycle.request_keep(workspace, minutes=5, now=now)
        assert refusal.value.code == "not_running"


def test_a_stop_ends_what_was_kept(running: Workspace, runtime: MemoryRuntime, now: datetime) -> None:
    lifecycle.request_keep(running, minutes=60, now=now)
    lifecycle.request_stop(running, actor=None)
    running.refresh_from_db()
    _stop(running, runtime)
    assert running.keep_until is None


# --- what reconcile found ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "reason", "code"),
    [
        (Observation(name="n", phase=Phase.ABSENT), Reason.REMOVED, ""),
        (Observation(name="n", phase=Phase.REMOVING), Reason.REMOVED, ""),
        (Observation(name="n", phase=Phase.EXITED, exit_code=0), Reason.EXITED, ""),
        (Observation(name="n", phase=Phase.EXITED, exit_code=137), Reason.EXITED, ""),
        (Observation(name="n", phase=Phase.EXITED, exit_code=143), Reason.EXITED, ""),
        (Observation(name="n", phase=Phase.EXITED, exit_code=130), Reason.EXITED, ""),
        (Observation(name="n", phase=Phase.EXITED, exit_code=137, out_of_memory=True), Reason.OOM, "oom"),
        (Observation(name="n", phase=Phase.EXITED, exit_code=1), Reason.CRASHED, "crashed"),
        (Observation(name="n", phase=Phase.EXITED, exit_code=139), Reason.CRASHED, "crashed"),
    ],
)
def test_why_a_container_ended(seen: Observation, reason: Reason, code: str) -> None:
    found, found_code, message = lifecycle.explain_end(seen)
    assert (found, found_code, bool(message)) == (reason, code, bool(code))


def test_what_is_gone_is_stopped_with_its_reason(running: Workspace, now: datetime) -> None:
    settled = lifecycle.settle_gone(running, Observation(name="n", phase=Phase.ABSENT), now=now)
    assert settled is not None
    assert (settled.state, settled.wanted, settled.stop_reason) == ("stopped", "stopped", "removed")
    assert (settled.port, settled.error_code) == (None, "")


def test_a_crash_is_a_failure_with_a_sentence(running: Workspace, now: datetime) -> None:
    seen = Observation(name="n", phase=Phase.EXITED, exit_code=7)
    settled = lifecycle.settle_gone(running, seen, now=now)
    assert settled is not None
    assert (settled.state, settled.error_code) == ("failed", "crashed")
    assert "7" in settled.error_message


def test_a_silent_editor_is_ended_and_failed(running: Workspace, runtime: MemoryRuntime, now: datetime) -> None:
    settled = lifecycle.settle_unhealthy(running, runtime=runtime, now=now)
    assert settled is not None
    assert (settled.state, settled.error_code) == ("failed", "unhealthy")
    assert runtime.running_names() == []


def test_a_row_that_moved_on_is_not_settled(running: Workspace, now: datetime) -> None:
    lifecycle.request_stop(running, actor=None)
    assert lifecycle.settle_gone(running, Observation(name="n", phase=Phase.ABSENT), now=now) is None


def test_the_runtime_of_the_tests_is_the_configured_one(runtime: MemoryRuntime) -> None:
    assert conf.runtime() is runtime


def test_a_start_that_was_finished_meanwhile_is_not_given_up(running: Workspace, runtime: MemoryRuntime) -> None:
    stale = Workspace.objects.get(pk=running.pk)
    stale.state = State.STARTING  # as a sweep read it before the start was finished
    outcome = lifecycle.fail_start(stale, runtime=runtime, code="start_timeout", message="Too late.")
    assert outcome is Outcome.STALE
    assert runtime.running_names() == [running.container]


def test_a_workspace_that_somebody_works_on_is_not_called_unhealthy(
    running: Workspace, runtime: MemoryRuntime, now: datetime
) -> None:
    Workspace.objects.filter(pk=running.pk).update(generation=running.generation + 1)
    assert lifecycle.settle_unhealthy(running, runtime=runtime, now=now) is None
    assert runtime.running_names() == [running.container]


def test_one_killed_process_of_earlier_is_no_reason_for_a_polite_stop_of_today() -> None:
    ended = Observation(name="x", phase=Phase.EXITED, exit_code=143, out_of_memory=True)
    assert lifecycle.explain_end(ended)[0] is Reason.EXITED
