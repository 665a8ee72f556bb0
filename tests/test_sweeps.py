"""Each sweep: what it finds, what it leaves alone, and that one bad row blocks nobody."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from django.contrib.sessions.models import Session

from tests.trouble import CannotStop, Interrupted
from workspaces import access, lifecycle, sweeps, ticket
from workspaces.lifecycle import Outcome
from workspaces.models import (
    KnownPlace,
    LoginAllowance,
    PortRest,
    Ticket,
    TokenFamily,
    Transition,
    Usage,
    WorkerBeat,
    Workspace,
)
from workspaces.passes import Report
from workspaces.runtimes.base import Endpoint, Phase
from workspaces.runtimes.memory import MemoryRuntime
from workspaces.states import State, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    Sent = list[tuple[str, tuple[Any, ...]]]

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


def _actions(report: Report) -> list[tuple[int | None, str]]:
    return [(action["workspace"], action["action"]) for action in report.actions]


def _again(workspace: Workspace) -> Workspace:
    workspace.refresh_from_db()
    return workspace


def _snapshot() -> list[dict[str, Any]]:
    return [dict(row) for row in Workspace.objects.order_by("pk").values()]


# --- disabled users ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["starting", "running"])
def test_a_disabled_users_workspace_and_tickets_end(
    user: Any, runtime: MemoryRuntime, now: datetime, state: str
) -> None:
    workspace = lifecycle.request_start(user, actor=user)
    if state == "running":
        lifecycle.perform_start(workspace.pk, 1, runtime=runtime)
    ticket.issue(workspace, login="a", now=now)
    assert sweeps.stop_disabled(now=now).actions == []
    user.is_active = False
    user.save()
    assert _actions(sweeps.stop_disabled(now=now)) == [(user.pk, "stop")]
    assert (_again(workspace).state, workspace.stop_reason) == (State.STOPPING, "disabled")
    assert Ticket.objects.get().revoked_at == now
    assert sweeps.stop_disabled(now=now).actions == []


def test_a_start_that_waits_behind_a_stop_does_not_outlive_the_account(
    running: Workspace, user: Any, runtime: MemoryRuntime, now: datetime
) -> None:
    """Disabled between a restart's stop and its start: whichever pass sees it next ends it."""
    lifecycle.request_restart(user, actor=user)
    user.is_active = False
    user.save()
    sweeps.stop_disabled(now=now)
    lifecycle.perform_stop(running.pk, running.generation, runtime=runtime)
    sweeps.stop_disabled(now=now)
    row = _again(running)
    assert row.state in {State.STOPPED, State.STOPPING}
    assert row.wanted == Wanted.STOPPED


# --- overdue -----------------------------------------------------------------------------------------------------


@pytest.fixture
def admitted(user: Any, now: datetime) -> Workspace:
    """A start whose worker vanished after it began."""
    workspace = lifecycle.request_start(user, actor=user)
    Workspace.objects.filter(pk=workspace.pk).update(admitted_at=now, attempts=1)
    return _again(workspace)


def test_a_start_that_nobody_finishes_is_given_up(admitted: Workspace, runtime: MemoryRuntime, now: datetime) -> None:
    assert sweeps.fail_overdue(runtime=runtime, now=now + timedelta(seconds=70)).actions == []
    report = sweeps.fail_overdue(runtime=runtime, now=now + timedelta(seconds=90))
    assert _actions(report) == [(admitted.user_id, "fail_start")]
    assert (_again(admitted).state, admitted.error_code) == (State.FAILED, "start_timeout")
    assert Transition.objects.latest("id").reason == "start_timeout"


def test_a_start_that_still_waits_in_the_queue_is_not_overdue(user: Any, runtime: MemoryRuntime, now: datetime) -> None:
    workspace = lifecycle.request_start(user, actor=user)
    assert sweeps.fail_overdue(runtime=runtime, now=now + timedelta(hours=1)).actions == []
    assert _again(workspace).state == State.STARTING


def test_a_stop_that_nobody_finishes_is_finished(running: Workspace, runtime: MemoryRuntime, now: datetime) -> None:
    lifecycle.request_stop(running, actor=None)
    sweeps.fail_overdue(runtime=runtime, now=now + 5 * MINUTE)
    assert _again(running).state == State.STOPPED


def test_a_stop_that_the_runtime_refuses_fails_with_its_sentence(
    running: Workspace, runtime: MemoryRuntime, now: datetime
) -> None:
    lifecycle.request_stop(running, actor=None)
    stubborn = CannotStop()
    stubborn._containers = runtime._containers
    report = sweeps.fail_overdue(runtime=stubborn, now=now + 5 * MINUTE)
    assert _actions(report) == [(running.user_id, "fail_stop")]
    assert (_again(running).state, running.error_code) == (State.FAILED, "stop_failed")
    assert "could not stop" in running.error_message


def test_an_unreachable_runtime_makes_nothing_overdue(
    admitted: Workspace, runtime: MemoryRuntime, now: datetime
) -> None:
    runtime.reachable = False
    before = _snapshot()
    report = sweeps.fail_overdue(runtime=runtime, now=now + 60 * MINUTE)
    assert report.skipped
    assert _snapshot() == before


# --- reconcile: rows ---------------------------------------------------------------------------------------------


def test_what_agrees_is_left_alone(running: Workspace, runtime: MemoryRuntime, now: datetime) -> None:
    before = _snapshot()
    assert sweeps.reconcile(runtime=runtime, now=now).actions == []
    assert _snapshot() == before


@pytest.mark.parametrize(
    ("exit_code", "out_of_memory", "state", "reason", "code"),
    [
        (137, False, "stopped", "exited", ""),
        (0, False, "stopped", "exited", ""),
        (137, True, "failed", "oom", "oom"),
        (1, False, "failed", "crashed", "crashed"),
    ],
)
def test_a_container_that_ended_is_told_with_its_reason(
    running: Workspace,
    runtime: MemoryRuntime,
    now: datetime,
    exit_code: int,
    *,
    out_of_memory: bool,
    state: str,
    reason: str,
    code: str,
) -> None:
    runtime.end(running.container, exit_code=exit_code, out_of_memory=out_of_memory)
    report = sweeps.reconcile(runtime=runtime, now=now)
    assert _actions(report) == [(running.user_id, "gone")]
    assert (_again(running).state, running.stop_reason, running.error_code) == (state, reason, code)
    assert running.port is None


def test_a_container_that_was_removed_is_told(running: Workspace, runtime: MemoryRuntime, now: datetime) -> None:
    runtime.ensure_removed(running.container)
    sweeps.reconcile(runtime=runtime, now=now)
    assert (_again(running).state, running.stop_reason) == (State.STOPPED, "removed")


def test_one_look_is_not_enough(running: Workspace, now: datetime) -> None:
    """The list did not show it, the second look did: a container that was just being started again."""

    class Blinking(MemoryRuntime):
        def observe_all(self) -> Any:
            return iter([])

    blinking = Blinking()
    blinking.stray(_spec_of(running))
    assert sweeps.reconcile(runtime=blinking, now=now).actions == []
    assert _again(running).state == State.RUNNING


def test_an_unreachable_runtime_is_never_read_as_gone(
    running: Workspace, runtime: MemoryRuntime, now: datetime
) -> None:
    runtime.reachable = False
    before = _snapshot()
    report = sweeps.reconcile(runtime=runtime, now=now + 60 * MINUTE)
    assert "does not answer" in report.skipped
    assert _snapshot() == before


def test_silence_counts_from_the_question_and_not_from_the_beginning_of_the_pass(
    running: Workspace, runtime: MemoryRuntime, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "time", SimpleNamespace(monotonic=itertools.count().__next__))
    runtime.answering = False
    sweeps.reconcile(runtime=runtime, now=now)
    assert (_again(running).unhealthy_since or now) > now


def test_a_silent_editor_is_ended_after_a_while_and_not_before(
    running: Workspace, runtime: MemoryRuntime, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Here no pass takes any time.
    monkeypatch.setattr(sweeps, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda _: None))
    runtime.answering = False
    assert sweeps.reconcile(runtime=runtime, now=now).actions == []
    silent_since = _again(running).unhealthy_since
    assert silent_since == now
    not_yet = silent_since + sweeps.UNHEALTHY_AFTER - timedelta(milliseconds=1)
    assert sweeps.reconcile(runtime=runtime, now=not_yet).actions == []
    assert _again(running).unhealthy_since == silent_since
    report = sweeps.reconcile(runtime=runtime, now=silent_since + sweeps.UNHEALTHY_AFTER)
    assert _actions(report) == [(running.user_id, "unhealthy")]
    assert (_again(running).state, running.error_code) == (State.FAILED, "unhealthy")
    assert runtime.running_names() == []


def test_a_slow_editor_is_not_taken_for_a_silent_one(running: Workspace, runtime: MemoryRuntime, now: datetime) -> None:
    runtime.answers_after = 10  # the usual question is given up after 3 s
    sweeps.reconcile(runtime=runtime, now=now)
    assert _again(running).unhealthy_since is not None
    late = now + sweeps.UNHEALTHY_AFTER + timedelta(seconds=5)
    assert sweeps.reconcile(runtime=runtime, now=late).actions == []
    assert (_again(running).state, running.unhealthy_since) == (State.RUNNING, None)


def test_an_editor_that_answers_again_is_forgiven(running: Workspace, runtime: MemoryRuntime, now: datetime) -> None:
    runtime.answering = False
    sweeps.reconcile(runtime=runtime, now=now)
    runtime.answering = True
    sweeps.reconcile(runtime=runtime, now=now + timedelta(seconds=15))
    assert _again(running).unhealthy_since is None
    runtime.answering = False
    assert sweeps.reconcile(runtime=runtime, now=now + timedelta(seconds=40)).actions == []


def test_a_look_at_one_workspace_settles_only_that_one(
    running: Workspace,
    make_user: Callable[..., Any],
    bring_up: Callable[[Any], Workspace],
    runtime: MemoryRuntime,
    now: datetime,
) -> None:
    other = bring_up(make_user())
    for row in (running, other):
        runtime.end(row.container, exit_code=137)
    assert _actions(sweeps.check_one(running.pk, runtime=runtime, now=now)) == [(running.user_id, "gone")]
    assert (_again(running).state, _again(other).state) == (State.STOPPED, State.RUNNING)
    assert sweeps.check_one(running.pk, runtime=runtime, now=now).actions == []
    assert sweeps.check_one(10**9, runtime=runtime, now=now).actions == []


# --- reconcile: messages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["workspaces.start", "workspaces.stop"])
def test_a_lost_message_is_sent_again(
    user: Any,
    runtime: MemoryRuntime,
    now: datetime,
    sent: Sent,
    django_capture_on_commit_callbacks: Any,
    task: str,
) -> None:
    workspace = lifecycle.request_start(user, actor=user)
    if task == "workspaces.stop":
        workspace = lifecycle.request_stop(workspace, actor=user)
    Workspace.objects.filter(pk=workspace.pk).update(dispatched_at=now)
    assert sweeps.reconcile(runtime=runtime, now=now).actions == []  # too soon
    with django_capture_on_commit_callbacks(execute=True):
        report = sweeps.reconcile(runtime=runtime, now=now + timedelta(seconds=10))
    assert _actions(report) == [(user.pk, "resend")]
    assert sent == [(task, (workspace.pk, workspace.generation))]


def test_a_resent_message_is_not_sent_with_every_pass(user: Any, runtime: MemoryRuntime, now: datetime) -> None:
    workspace = lifecycle.request_start(user, actor=user)
    Workspace.objects.filter(pk=workspace.pk).update(dispatched_at=now - 10 * MINUTE)
    assert len(sweeps.reconcile(runtime=runtime, now=now).actions) == 1
    assert sweeps.reconcile(runtime=runtime, now=now).actions == []


# --- reconcile: containers ---------------------------------------------------------------------------------------


def _spec_of(workspace: Workspace, **changes: Any) -> Any:
    from django.conf import settings

    from workspaces.spec import build_spec

    spec = build_spec(workspace, endpoint=Endpoint(host="127.0.0.1", port=workspace.port or 21999), env=settings.ENV)
    return replace(spec, **changes)


def test_a_container_without_any_row_is_removed(running: Workspace, runtime: MemoryRuntime, now: datetime) -> None:
    runtime.stray(_spec_of(running, name="left-over", user_id=10**6))
    report = sweeps.reconcile(runtime=runtime, now=now)
    assert _actions(report) == [(10**6, "remove_orphan")]
    assert runtime.observe("left-over").phase is Phase.ABSENT
    assert runtime.running_names() == [running.container]


def test_a_container_that_runs_though_its_row_is_stopped_is_stopped(
    running: Workspace, runtime: MemoryRuntime, now: datetime
) -> None:
    lifecycle.request_stop(running, actor=None)
    lifecycle.perform_stop(running.pk, running.generation, runtime=runtime)
    runtime.stray(_spec_of(_again(running)))
    report = sweeps.reconcile(runtime=runtime, now=now)
    assert _actions(report) == [(running.user_id, "stop_orphan")]
    assert runtime.observe(running.container).phase is Phase.EXITED


def test_a_stray_with_our_label_under_another_name_is_stopped_and_kept(
    running: Workspace, runtime: MemoryRuntime, now: datetime
) -> None:
    runtime.stray(_spec_of(running, name="stray", endpoint=Endpoint(host="127.0.0.1", port=21998)))
    report = sweeps.reconcile(runtime=runtime, now=now)
    assert _actions(report) == [(running.user_id, "stop_stray")]
    assert runtime.observe("stray").phase is Phase.EXITED
    assert runtime.running_names() == [running.container]
    assert _again(running).state == State.RUNNING


@pytest.mark.parametrize("state", ["starting", "stopping"])
def test_a_container_in_the_middle_of_a_start_or_stop_is_left_alone(
    running: Workspace, runtime: MemoryRuntime, now: datetime, state: str
) -> None:
    Workspace.objects.filter(pk=running.pk).update(state=state, dispatched_at=now)
    assert sweeps.reconcile(runtime=runtime, now=now).actions == []
    assert runtime.running_names() == [running.container]


def test_a_stray_that_cannot_be_stopped_does_not_end_the_pass(
    running: Workspace, runtime: MemoryRuntime, now: datetime
) -> None:
    stubborn = CannotStop()
    stubborn._containers = runtime._containers
    runtime.stray(_spec_of(running, name="a-stray"))
    runtime.stray(_spec_of(running, name="z-left-over", user_id=10**6))
    report = sweeps.reconcile(runtime=stubborn, now=now)
    assert (10**6, "remove_orphan") in _actions(report)


# --- every sweep -------------------------------------------------------------------------------------------------


def test_a_poisoned_row_blocks_nobody(
    make_user: Callable[..., Any], bring_up: Callable[[Any], Workspace], runtime: MemoryRuntime, now: datetime
) -> None:
    """A row whose state word is unknown to the code, from a newer version, say."""
    first, poisoned, last = (bring_up(make_user()) for _ in range(3))
    Workspace.objects.filter(pk=poisoned.pk).update(stop_reason="poison")
    for row in (first, poisoned, last):
        lifecycle.request_stop(_again(row), actor=None)
    Workspace.objects.filter(pk=poisoned.pk).update(stop_reason="from-the-future")
    sweeps.fail_overdue(runtime=runtime, now=now + 5 * MINUTE)
    assert [_again(row).state for row in (first, last)] == [State.STOPPED, State.STOPPED]


def test_a_start_given_up_while_somebody_works_on_it_is_left_to_them(admitted: Workspace, now: datetime) -> None:
    """The overdue sweep loses against a worker that just finished."""

    def finish(_: str) -> None:
        Workspace.objects.filter(pk=admitted.pk).update(state=State.STOPPED)

    runtime = Interrupted(before_stop=finish)
    outcome = lifecycle.fail_start(admitted, runtime=runtime, code="start_timeout", message="late")
    assert outcome is Outcome.STALE
    assert _again(admitted).state == State.STOPPED


def test_every_report_can_be_logged_and_says_what_was_done(running: Workspace, now: datetime) -> None:
    report = Report("x")
    report.log()
    report.add(running.user_id, "stop", reason="idle")
    report.log()
    assert report.actions == [{"workspace": running.user_id, "action": "stop", "reason": "idle"}]


# --- usage, purge ------------------------------------------------------------------------------------------------


def test_usage_is_sampled_and_the_share_of_a_processor_comes_with_the_second_sample(
    running: Workspace, runtime: MemoryRuntime, now: datetime
) -> None:
    sweeps.sample_usage(runtime=runtime, now=now)
    first = Usage.objects.get()
    assert (first.cpu_percent, first.memory_limit_bytes, first.generation) == (0.0, 1536 * 2**20, 1)
    Usage.objects.update(cpu_seconds=0)
    sweeps.sample_usage(runtime=runtime, now=now + timedelta(seconds=20))
    second = Usage.objects.get()
    assert second.cpu_percent == pytest.approx(100 * second.cpu_seconds / 20, abs=0.1)
    assert str(running.pk) in str(second)


def test_a_new_containers_processor_time_does_not_continue_the_old_ones(
    running: Workspace, runtime: MemoryRuntime, now: datetime
) -> None:
    sweeps.sample_usage(runtime=runtime, now=now)
    Usage.objects.update(cpu_seconds=0, generation=0)
    sweeps.sample_usage(runtime=runtime, now=now + timedelta(seconds=20))
    assert Usage.objects.get().cpu_percent == 0


@pytest.mark.parametrize("trouble", ["gone", "unreachable"])
def test_a_missing_sample_leaves_the_last_one(
    running: Workspace, runtime: MemoryRuntime, now: datetime, trouble: str
) -> None:
    sweeps.sample_usage(runtime=runtime, now=now)
    if trouble == "gone":
        runtime.end(running.container, exit_code=1)
    else:
        runtime.reachable = False
    sweeps.sample_usage(runtime=runtime, now=now + MINUTE)
    assert Usage.objects.get().sampled_at == now


def test_the_purge_deletes_what_nobody_can_use_and_no_more(user: Any, now: datetime) -> None:
    workspace = access.ensure_workspace_for(user)
    old, fresh = now - timedelta(days=2), now - timedelta(seconds=30)
    ticket.issue(workspace, login="a", now=old)
    ticket.issue(workspace, login="b", now=fresh)
    for port, moment in ((9001, old), (9002, fresh)):
        PortRest.objects.create(port=port, user_id=1, released_at=moment)
    for name, moment in (("old", old), ("fresh", fresh)):
        WorkerBeat.objects.create(name=name, at=moment)
    for key, moment in (("old", old), ("fresh", now + timedelta(hours=1))):
        Session.objects.create(session_key=key, session_data="", expire_date=moment)
        TokenFamily.objects.create(user=user, login=key, newest="", created_at=old, expires_at=moment)
        LoginAllowance.objects.create(key=uuid4(), account=uuid4(), full_at=moment)
    for moment in (now - timedelta(days=91), now - timedelta(days=89)):
        KnownPlace.objects.create(place=uuid4(), user=user, last_at=moment)
    report = sweeps.purge_expired(now=now)
    assert {action["action"]: action["count"] for action in report.actions} == {
        "tickets": 1,
        "log-ins": 1,
        "lock-out": 2,
        "sessions": 1,
        "ports": 1,
        "workers": 1,
    }
    assert (Ticket.objects.get().login, PortRest.objects.get().port) == ("b", 9002)
    assert str(WorkerBeat.objects.get()) == "fresh"
