"""Stops and restarts, and what happens when two things want to happen at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.lifecycle.acting import do_start, do_stop, history_of
from tests.trouble import CannotStop, Interrupted
from workspaces import lifecycle
from workspaces.errors import (
    RuntimeUnavailable,
    StopRefused,
)
from workspaces.lifecycle import Outcome
from workspaces.models import Workspace
from workspaces.runtimes.base import Phase
from workspaces.states import Reason, State, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from workspaces.runtimes.base import Endpoint
    from workspaces.runtimes.memory import MemoryRuntime

    Sent = list[tuple[str, tuple[Any, ...]]]

pytestmark = pytest.mark.django_db


# --- stop -------------------------------------------------------------------------------------------------------------


def test_a_stop_ends_the_container_and_keeps_it(running: Workspace, runtime: MemoryRuntime, user: Any) -> None:
    lifecycle.request_stop(running, actor=user)
    running.refresh_from_db()
    assert (running.state, running.wanted, running.stop_reason) == (State.STOPPING, Wanted.STOPPED, "user")
    assert do_stop(running, runtime) is Outcome.DONE
    assert (running.state, running.port) == (State.STOPPED, None)
    assert running.stopped_at is not None
    assert runtime.running_names() == []
    assert runtime.observe(running.container).phase is Phase.EXITED
    assert history_of(running)[-2:] == [("running", "stopping", "user"), ("stopping", "stopped", "user")]


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
    do_stop(running, runtime)
    before = len(history_of(running))
    assert lifecycle.request_stop(running, actor=None).state == State.STOPPED
    assert len(history_of(running)) == before


def test_an_engine_that_is_away_keeps_a_stop_waiting(running: Workspace, runtime: MemoryRuntime) -> None:
    lifecycle.request_stop(running, actor=None)
    running.refresh_from_db()
    runtime.reachable = False
    with pytest.raises(RuntimeUnavailable):
        do_stop(running, runtime)
    running.refresh_from_db()
    assert running.state == State.STOPPING
    assert running.port is not None
    runtime.reachable = True
    assert do_stop(running, runtime) is Outcome.DONE


def test_a_container_that_cannot_be_stopped_keeps_its_stop_waiting(running: Workspace) -> None:
    lifecycle.request_stop(running, actor=None)
    running.refresh_from_db()
    with pytest.raises(StopRefused):
        do_stop(running, CannotStop())
    running.refresh_from_db()
    assert running.state == State.STOPPING


def test_a_stop_that_is_given_up_fails_with_its_sentence(running: Workspace, now: datetime) -> None:
    lifecycle.request_stop(running, actor=None)
    running.refresh_from_db()
    failed = lifecycle.fail_stop(running, message="It does not end.", now=now)
    assert failed is not None
    assert (failed.state, failed.error_code, failed.error_message) == ("failed", "stop_failed", "It does not end.")
    assert failed.port is None
    assert history_of(running)[-1] == ("stopping", "failed", "stop_failed")


# --- both at once -----------------------------------------------------------------------------------------------------


def _stop_now(workspace: Workspace) -> None:
    lifecycle.request_stop(Workspace.objects.get(pk=workspace.pk), actor=None)


def test_a_stop_during_a_start_wins(starting: Workspace) -> None:
    runtime = Interrupted(after_start=lambda _: _stop_now(starting))
    assert do_start(starting, runtime) is Outcome.STALE
    assert (starting.state, starting.port) == (State.STOPPED, None)
    assert runtime.running_names() == []
    assert history_of(starting)[1:] == [("starting", "stopping", "user"), ("stopping", "stopped", "user")]


def test_a_stop_while_the_editor_is_awaited_wins(starting: Workspace) -> None:
    def stop(runtime: MemoryRuntime, _: Endpoint) -> None:
        runtime.answering = False
        _stop_now(starting)

    runtime = Interrupted(on_health=stop)
    assert do_start(starting, runtime) is Outcome.STALE
    assert starting.state == State.STOPPED
    assert runtime.running_names() == []


def test_a_stop_before_the_worker_came_wins(starting: Workspace, runtime: MemoryRuntime) -> None:
    _stop_now(starting)
    assert do_start(starting, runtime) is Outcome.STALE
    assert runtime.starts == 0
    assert do_stop(starting, runtime) is Outcome.DONE
    assert starting.state == State.STOPPED


def test_a_stop_during_a_start_that_fails_wins(starting: Workspace) -> None:
    def stop_and_crash(runtime: MemoryRuntime, _: Endpoint) -> None:
        _stop_now(starting)
        runtime.end(runtime.running_names()[0], exit_code=1)

    runtime = Interrupted(on_health=stop_and_crash)
    assert do_start(starting, runtime) is Outcome.STALE
    assert (starting.state, starting.error_code) == (State.STOPPED, "")


def test_a_start_during_a_stop_wins(running: Workspace, runtime: MemoryRuntime, user: Any) -> None:
    lifecycle.request_stop(running, actor=user)
    asked = lifecycle.request_start(user, actor=user)
    assert (asked.state, asked.wanted) == (State.STOPPING, Wanted.RUNNING)
    assert do_stop(asked, runtime) is Outcome.DONE
    assert (asked.state, asked.generation) == (State.STARTING, 2)
    assert do_start(asked, runtime) is Outcome.DONE
    assert history_of(running)[-3:] == [
        ("running", "stopping", "user"),
        ("stopping", "starting", "restart"),
        ("starting", "running", "ready"),
    ]


def test_the_last_intent_wins(running: Workspace, runtime: MemoryRuntime, user: Any) -> None:
    lifecycle.request_stop(running, actor=user)
    lifecycle.request_start(user, actor=user)
    _stop_now(running)
    running.refresh_from_db()
    assert do_stop(running, runtime) is Outcome.DONE
    assert running.state == State.STOPPED


def test_the_start_that_follows_a_stop_is_sent(
    running: Workspace, runtime: MemoryRuntime, user: Any, sent: Sent, django_capture_on_commit_callbacks: Any
) -> None:
    lifecycle.request_stop(running, actor=user)
    lifecycle.request_start(user, actor=user)
    with django_capture_on_commit_callbacks(execute=True):
        do_stop(running, runtime)
    assert sent == [("workspaces.start", (running.pk, 2))]


# --- restart ----------------------------------------------------------------------------------------------------------


def test_a_restart_stops_and_starts(running: Workspace, runtime: MemoryRuntime, user: Any) -> None:
    asked = lifecycle.request_restart(user, actor=user)
    assert (asked.state, asked.wanted, asked.stop_reason) == (State.STOPPING, Wanted.RUNNING, "restart")
    port = running.port
    assert do_stop(asked, runtime) is Outcome.DONE
    assert do_start(asked, runtime) is Outcome.DONE
    assert (asked.generation, asked.port, asked.stop_reason) == (2, port, "")
    assert runtime.starts == 2
    assert [reason for *_, reason in history_of(running)] == ["user", "ready", "restart", "restart", "ready"]


def test_a_restart_of_what_does_not_run_is_a_start(user: Any, runtime: MemoryRuntime) -> None:
    asked = lifecycle.request_restart(user, actor=user)
    assert asked.state == State.STARTING
    assert do_start(asked, runtime) is Outcome.DONE


def test_a_restart_during_a_start_changes_nothing(starting: Workspace, user: Any) -> None:
    assert lifecycle.request_restart(user, actor=user).generation == starting.generation
    assert len(history_of(starting)) == 1


def test_a_restart_during_a_stop_starts_again_afterwards(running: Workspace, runtime: MemoryRuntime, user: Any) -> None:
    lifecycle.request_stop(running, actor=user)
    asked = lifecycle.request_restart(user, actor=user)
    do_stop(asked, runtime)
    assert asked.state == State.STARTING


def test_a_restart_by_staff_says_so_in_the_history(user: Any, staff: Any) -> None:
    workspace = lifecycle.request_restart(user, actor=staff, reason=Reason.STAFF)
    assert history_of(workspace) == [("stopped", "starting", "staff")]


# --- late, twice, out of order ----------------------------------------------------------------------------------------


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
    do_stop(running, runtime)
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
