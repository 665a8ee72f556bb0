"""A start that works: once, again, taken over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.lifecycle.acting import do_start, do_stop, history_of
from tests.trouble import LosesTheEngine
from workspaces import lifecycle
from workspaces.errors import (
    AccessDenied,
    RuntimeUnavailable,
)
from workspaces.lifecycle import Outcome
from workspaces.models import Transition, Workspace
from workspaces.states import Reason, State, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from workspaces.runtimes.memory import MemoryRuntime

    Sent = list[tuple[str, tuple[Any, ...]]]

pytestmark = pytest.mark.django_db


def test_a_first_start_brings_the_workspace_to_running(user: Any, runtime: MemoryRuntime) -> None:
    workspace = lifecycle.request_start(user, actor=user)
    assert (workspace.state, workspace.wanted, workspace.generation) == (State.STARTING, Wanted.RUNNING, 1)
    assert do_start(workspace, runtime) is Outcome.DONE
    assert workspace.state == State.RUNNING
    assert workspace.port == 11000 + user.pk
    assert runtime.running_names() == [workspace.container]
    assert [stage["stage"] for stage in workspace.stages] == ["queued", "preparing", "creating", "waiting", "ready"]
    assert history_of(workspace) == [("stopped", "starting", "user"), ("starting", "running", "ready")]


def test_history_says_who_asked_and_when(user: Any, staff: Any, runtime: MemoryRuntime) -> None:
    workspace = lifecycle.request_start(user, actor=staff, reason=Reason.STAFF)
    do_start(workspace, runtime)
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
    do_start(workspace, runtime)
    assert lifecycle.request_start(user, actor=user).state == State.RUNNING
    assert (runtime.starts, len(history_of(workspace))) == (1, 2)


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
    do_stop(running, runtime)
    again = lifecycle.request_start(running.user, actor=None)
    assert do_start(again, runtime) is Outcome.DONE
    assert (again.generation, again.container_id, again.port) == (2, container, port)


def test_a_changed_setting_replaces_the_container_at_the_next_start(
    running: Workspace, runtime: MemoryRuntime, configure: Callable[..., None]
) -> None:
    before = running.container_id
    lifecycle.request_stop(running, actor=None)
    running.refresh_from_db()
    do_stop(running, runtime)
    configure(pids=333)
    again = lifecycle.request_start(running.user, actor=None)
    do_start(again, runtime)
    assert again.container_id != before
    assert again.state == State.RUNNING


def test_a_start_taken_over_from_a_dead_worker_finds_its_own_container(
    starting: Workspace, runtime: MemoryRuntime
) -> None:
    """The first worker made the container and died: its port is in use, by that very container."""
    dying = LosesTheEngine()
    dying._containers = runtime._containers
    with pytest.raises(RuntimeUnavailable):
        do_start(starting, dying)
    Workspace.objects.filter(pk=starting.pk).update(port=None)
    assert do_start(starting, runtime) is Outcome.DONE
    assert starting.port == 11000 + starting.user_id
    assert (len(runtime.running_names()), runtime.starts) == (1, 0)
