"""Every task has a stable name, a queue and limits; and what it does with trouble."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from celery.exceptions import Retry
from django.conf import settings

from gunpowder.celery import alive_file, app
from workspaces import lifecycle, tasks
from workspaces.errors import PassingRefusal
from workspaces.lifecycle import Outcome
from workspaces.models import WorkerBeat, Workspace
from workspaces.states import State

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from workspaces.runtimes.memory import MemoryRuntime

app.loader.import_default_modules()
OURS = {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}

# Renaming one would strand messages that wait in Redis during an update.
NAMES = {
    "workspaces.start": "lifecycle",
    "workspaces.stop": "lifecycle",
    "workspaces.check": "sweeps",
    "workspaces.stop_idle": "sweeps",
    "workspaces.listen": "sweeps",
    "workspaces.attend": "sweeps",
    "workspaces.stop_disabled": "sweeps",
    "workspaces.fail_overdue": "sweeps",
    "workspaces.reconcile": "sweeps",
    "workspaces.sample_usage": "sweeps",
    "workspaces.purge_expired": "sweeps",
    "workspaces.read_logs": "sweeps",
    "workspaces.run_for_operator": "sweeps",
    "workspaces.beat": "sweeps",
}


def test_the_names_are_the_known_ones() -> None:
    assert set(OURS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_task_is_routed_and_limited(name: str) -> None:
    task: Any = OURS[name]
    assert task.queue == NAMES[name]
    assert 0 < task.soft_time_limit < task.time_limit < settings.TIMING.visibility_timeout
    long = NAMES[name] == "lifecycle"
    assert (task.acks_late, bool(task.reject_on_worker_lost)) == (
        long,
        True if long else bool(task.reject_on_worker_lost),
    )
    assert task.ignore_result is (name not in {"workspaces.read_logs", "workspaces.run_for_operator"})


def test_a_start_may_take_its_timeout_and_clean_up_before_its_limit() -> None:
    task: Any = OURS["workspaces.start"]
    env = settings.ENV
    assert env.start_timeout_seconds + env.stop_grace_seconds < task.soft_time_limit


@pytest.mark.parametrize("name", sorted(settings.CELERY_BEAT_SCHEDULE))
def test_every_entry_of_the_schedule_names_a_task_and_expires_before_its_next_turn(name: str) -> None:
    entry = settings.CELERY_BEAT_SCHEDULE[name]
    assert entry["task"] in OURS
    assert 0 < entry["options"]["expires"] < entry["schedule"]
    assert entry["options"]["queue"] == NAMES[entry["task"]]


def test_every_sweep_is_in_the_schedule() -> None:
    sweeps = set(NAMES) - {
        f"workspaces.{name}" for name in ("start", "stop", "check", "read_logs", "run_for_operator", "beat")
    }
    assert {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()} == sweeps


pytestmark = pytest.mark.django_db


def test_a_start_and_a_stop_go_through_the_lifecycle(user: Any, runtime: MemoryRuntime) -> None:
    workspace = lifecycle.request_start(user, actor=user)
    assert tasks.start(workspace.pk, 1) == Outcome.DONE
    lifecycle.request_stop(Workspace.objects.get(), actor=user)
    assert tasks.stop(workspace.pk, 1) == Outcome.DONE
    assert tasks.stop(workspace.pk, 1) == Outcome.STALE
    assert Workspace.objects.get().state == State.STOPPED


@pytest.mark.parametrize("task", [tasks.start, tasks.stop])
def test_an_unreachable_runtime_postpones_the_work(task: Any, running: Workspace, runtime: MemoryRuntime) -> None:
    lifecycle.request_stop(running, actor=None)
    if task is tasks.start:
        Workspace.objects.filter(pk=running.pk).update(state=State.STARTING)
    before = Workspace.objects.get().state
    runtime.reachable = False
    with pytest.raises(Retry) as retry:
        task.apply(args=(running.pk, running.generation), throw=True)
    assert retry.value.when == tasks.UNAVAILABLE_RETRY_SECONDS
    assert Workspace.objects.get().state == before


def test_a_refusal_that_passes_is_tried_again_after_growing_pauses(user: Any, runtime: MemoryRuntime) -> None:
    workspace = lifecycle.request_start(user, actor=user)
    runtime.refuse = PassingRefusal("The host was busy.")
    pauses = []
    for retries in range(lifecycle.PASSING_ATTEMPTS - 1):
        with pytest.raises(Retry) as retry:
            tasks.start.apply(args=(workspace.pk, 1), retries=retries, throw=True)
        pauses.append(retry.value.when)
    assert pauses == [2, 4, 8]
    assert Workspace.objects.get().state == State.STARTING
    runtime.refuse = None
    assert tasks.start(workspace.pk, 1) == Outcome.DONE


@pytest.mark.parametrize("name", ["stop_idle", "stop_disabled", "fail_overdue", "reconcile", "sample_usage"])
def test_a_sweep_survives_an_unreachable_runtime(name: str, running: Workspace, runtime: MemoryRuntime) -> None:
    runtime.reachable = False
    getattr(tasks, name)()
    assert Workspace.objects.get().state == State.RUNNING


def test_a_look_at_one_workspace_survives_an_unreachable_runtime(running: Workspace, runtime: MemoryRuntime) -> None:
    runtime.reachable = False
    tasks.check(running.pk)
    assert Workspace.objects.get().state == State.RUNNING


def test_a_look_at_one_workspace_settles_it(running: Workspace, runtime: MemoryRuntime) -> None:
    runtime.end(running.container, exit_code=1)
    tasks.check(running.pk)
    assert Workspace.objects.get().state == State.FAILED


def test_the_log_is_read_from_the_container(running: Workspace, runtime: MemoryRuntime) -> None:
    runtime._containers[running.container].lines = ["one", "two", "three"]
    assert tasks.read_logs(running.pk, 2) == ["two", "three"]
    runtime.reachable = False
    assert tasks.read_logs(running.pk, 2) is None


def test_the_log_of_a_workspace_that_never_ran_is_empty(user: Any, runtime: MemoryRuntime) -> None:
    workspace = lifecycle.request_start(user, actor=user)
    assert tasks.read_logs(workspace.pk, 2) == []


def test_the_log_of_a_workspace_that_was_deleted_is_empty(runtime: MemoryRuntime) -> None:
    assert tasks.read_logs(10**9, 2) == []


@pytest.mark.parametrize("reachable", [True, False])
def test_a_worker_stamps_its_row_and_its_file(
    runtime: MemoryRuntime, tmp_path: Path, now: datetime, *, reachable: bool
) -> None:
    runtime.reachable = reachable
    tasks.beat("sweeps@host", str(tmp_path / "alive"))
    stamp = WorkerBeat.objects.get()
    assert (stamp.name, stamp.runtime_ok) == ("sweeps@host", reachable)
    assert stamp.at >= now
    assert (tmp_path / "alive").exists()


def test_the_purge_runs(runtime: MemoryRuntime) -> None:
    tasks.purge_expired()


def test_each_kind_of_worker_has_a_file_of_its_own() -> None:
    assert alive_file("lifecycle@a") == alive_file("lifecycle@b") != alive_file("sweeps@a")
