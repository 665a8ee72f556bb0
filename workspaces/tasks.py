"""Celery adapters: load by id, call one function, translate errors. Names are stable; arguments are only added."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import structlog
from celery import Task, shared_task
from django.conf import settings
from django.utils import timezone

from workspaces import conf, idle_sweeps, lifecycle, operator, sweeps
from workspaces.errors import RuntimeUnavailable, StopRefused
from workspaces.models import WorkerBeat, Workspace

logger = structlog.get_logger(__name__)

# A second look at a container that another process is busy with; reconcile would come later anyway.
BUSY_RETRY_SECONDS = 1
BUSY_RETRIES = 20
UNAVAILABLE_RETRY_SECONDS = 3
UNAVAILABLE_RETRIES = 5
# Before the next attempt of a start that was refused for something that passes: 2, 4, 8 s.
PASSING_RETRY_SECONDS = 2


class LongTask(Task[Any, Any]):
    """A start or a stop: own queue, late ack, limits from the one place that derives them."""

    queue = "lifecycle"
    acks_late = True
    reject_on_worker_lost = True
    soft_time_limit = settings.TIMING.long_soft_limit
    time_limit = settings.TIMING.long_hard_limit
    ignore_result = True


class ShortTask(Task[Any, Any]):
    """A sweep or a read: never behind a start, and lost without harm because the next turn asks again."""

    queue = "sweeps"
    acks_late = False
    soft_time_limit = settings.TIMING.short_soft_limit
    time_limit = settings.TIMING.short_hard_limit
    ignore_result = True


def _perform(task: Any, perform: Any, workspace_id: int, generation: int) -> str:
    with structlog.contextvars.bound_contextvars(task=task.name, workspace_id=workspace_id, generation=generation):
        try:
            outcome = perform(workspace_id, generation, runtime=conf.runtime())
        except (RuntimeUnavailable, StopRefused) as error:
            logger.warning("operation_postponed", code=error.code, error=error.message)
            raise task.retry(
                countdown=UNAVAILABLE_RETRY_SECONDS, max_retries=UNAVAILABLE_RETRIES, exc=error, throw=False
            ) from error
        if outcome is lifecycle.Outcome.BUSY and task.request.retries < BUSY_RETRIES:
            raise task.retry(countdown=BUSY_RETRY_SECONDS, max_retries=BUSY_RETRIES)
        if outcome is lifecycle.Outcome.AGAIN:
            # The row counts its attempts and fails in the end; here is only how long to wait.
            raise task.retry(countdown=PASSING_RETRY_SECONDS * 2 ** min(task.request.retries, 4), max_retries=None)
        return str(outcome)


@shared_task(bind=True, base=LongTask, name="workspaces.start")
def start(self: Any, workspace_id: int, generation: int) -> str:
    return _perform(self, lifecycle.perform_start, workspace_id, generation)


@shared_task(bind=True, base=LongTask, name="workspaces.stop")
def stop(self: Any, workspace_id: int, generation: int) -> str:
    return _perform(self, lifecycle.perform_stop, workspace_id, generation)


@shared_task(base=ShortTask, name="workspaces.check")
def check(workspace_id: int) -> None:
    try:
        sweeps.check_one(workspace_id, runtime=conf.runtime(), now=timezone.now())
    except RuntimeUnavailable as error:
        logger.warning("runtime_unavailable", error=error.message)


@shared_task(base=ShortTask, name="workspaces.stop_idle")
def stop_idle() -> None:
    idle_sweeps.stop_idle(runtime=conf.runtime(), now=timezone.now())


@shared_task(base=ShortTask, name="workspaces.attend")
def attend() -> None:
    idle_sweeps.attend(runtime=conf.runtime(), now=timezone.now())


@shared_task(base=ShortTask, name="workspaces.listen")
def listen() -> None:
    idle_sweeps.listen(runtime=conf.runtime(), now=timezone.now())


@shared_task(base=ShortTask, name="workspaces.stop_disabled")
def stop_disabled() -> None:
    sweeps.stop_disabled(now=timezone.now())


@shared_task(base=ShortTask, name="workspaces.fail_overdue")
def fail_overdue() -> None:
    sweeps.fail_overdue(runtime=conf.runtime(), now=timezone.now())


@shared_task(base=ShortTask, name="workspaces.reconcile")
def reconcile() -> None:
    sweeps.reconcile(runtime=conf.runtime(), now=timezone.now())


@shared_task(base=ShortTask, name="workspaces.sample_usage")
def sample_usage() -> None:
    sweeps.sample_usage(runtime=conf.runtime(), now=timezone.now())


@shared_task(base=ShortTask, name="workspaces.purge_expired")
def purge_expired() -> None:
    sweeps.purge_expired(now=timezone.now())


@shared_task(base=ShortTask, name="workspaces.read_logs", ignore_result=False)
def read_logs(workspace_id: int, tail: int) -> list[str] | None:
    """The container's last lines, for the API; None when the runtime does not answer."""
    workspace = Workspace.objects.filter(pk=workspace_id).first()
    if workspace is None or not workspace.container:
        return []
    try:
        return conf.runtime().logs(workspace.container, tail=tail)
    except RuntimeUnavailable:
        return None


# The doctor looks at everything twice when it fixes, and each thing may have to be given up after 20 s.
@shared_task(
    base=ShortTask,
    name="workspaces.run_for_operator",
    ignore_result=False,
    soft_time_limit=settings.TIMING.long_soft_limit,
    time_limit=settings.TIMING.long_hard_limit,
)
def run_for_operator(verb: str, *, dry_run: bool = False, fix: bool = False) -> Any:
    """`manage.py workspaces sweep | reconcile | doctor` from where there is no engine: done here, answered as JSON."""
    return operator.run(verb, now=timezone.now(), dry_run=dry_run, fix=fix)


@shared_task(base=ShortTask, name="workspaces.beat")
def beat(worker: str, alive_file: str) -> None:
    """Runs in the very worker it names (its own queue): stamps its row and the file its health check reads."""
    try:
        conf.runtime().ping()
        runtime_ok = True
    except RuntimeUnavailable as error:
        logger.warning("runtime_unavailable", error=error.message)
        runtime_ok = False
    WorkerBeat.objects.update_or_create(name=worker, defaults={"at": timezone.now(), "runtime_ok": runtime_ok})
    Path(alive_file).touch()
    os.utime(alive_file)
