"""Stops that nobody asked for, and what keeps them off."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone

from tests.lifecycle.acting import do_stop, history_of
from workspaces import lifecycle
from workspaces.errors import (
    NotRunning,
    StartsTooOften,
)
from workspaces.lifecycle import Outcome
from workspaces.models import Transition, Workspace
from workspaces.runtimes.base import Report
from workspaces.states import Reason, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from workspaces.runtimes.memory import MemoryRuntime


pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


# --- idle stops -------------------------------------------------------------------------------------------------------

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
    assert do_stop(stopping_idle, runtime) is Outcome.DONE
    assert (stopping_idle.state, stopping_idle.wanted, stopping_idle.stop_reason) == ("running", "running", "")
    assert len(runtime.running_names()) == 1
    assert history_of(stopping_idle)[-1] == ("stopping", "running", "activity")


def test_whoever_opens_it_before_the_end_keeps_the_container(stopping_idle: Workspace, runtime: MemoryRuntime) -> None:
    lifecycle.request_start(stopping_idle.user, actor=stopping_idle.user)
    assert do_stop(stopping_idle, runtime) is Outcome.DONE
    assert (stopping_idle.state, stopping_idle.stop_reason) == ("running", "")
    assert history_of(stopping_idle)[-1] == ("stopping", "running", "activity")


def test_old_presence_keeps_nothing(stopping_idle: Workspace, runtime: MemoryRuntime) -> None:
    _report_presence(stopping_idle, runtime, stopping_idle.changed_at - MINUTE)
    assert do_stop(stopping_idle, runtime) is Outcome.DONE
    assert stopping_idle.state == State.STOPPED


def test_a_workspace_that_does_not_answer_just_before_the_end_is_stopped(
    stopping_idle: Workspace, runtime: MemoryRuntime
) -> None:
    runtime.mute.add(stopping_idle.container)
    assert do_stop(stopping_idle, runtime) is Outcome.DONE
    assert stopping_idle.state == State.STOPPED


def test_a_heartbeat_is_no_presence(stopping_idle: Workspace, runtime: MemoryRuntime) -> None:
    assert stopping_idle.port is not None
    runtime.heartbeats[stopping_idle.port] = timezone.now()
    assert do_stop(stopping_idle, runtime) is Outcome.DONE
    assert stopping_idle.state == State.STOPPED


def test_nobody_can_keep_what_its_user_stopped(running: Workspace, runtime: MemoryRuntime) -> None:
    lifecycle.request_stop(running, actor=running.user)
    running.refresh_from_db()
    assert running.port is not None
    runtime.heartbeats[running.port] = timezone.now()
    do_stop(running, runtime)
    assert running.state == State.STOPPED


# --- limits -----------------------------------------------------------------------------------------------------------


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


# --- keep -------------------------------------------------------------------------------------------------------------


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
    do_stop(running, runtime)
    assert running.keep_until is None
