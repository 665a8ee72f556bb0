"""Enqueue by name, after commit. A message that cannot be sent is no error: the row waits, reconcile sends again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from celery import current_app
from django.db import transaction
from django.utils import timezone
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

from workspaces import conf
from workspaces.models import Workspace

if TYPE_CHECKING:
    from datetime import datetime

logger = structlog.get_logger(__name__)

UNSENDABLE = (KombuError, OperationalError, RedisError, OSError)


def start(workspace: Workspace) -> None:
    _after_commit("workspaces.start", workspace)


def stop(workspace: Workspace) -> None:
    _after_commit("workspaces.stop", workspace)


def check(workspace: Workspace) -> None:
    """Ask for a look at this one container now, instead of at the next reconcile pass."""
    transaction.on_commit(lambda: _send("workspaces.check", workspace.pk))


def reconcile() -> None:
    """Ask for a reconcile pass now. One that nobody got round to before the next regular one is dropped."""
    transaction.on_commit(lambda: _send("workspaces.reconcile", expires=conf.env().reconcile_seconds))


def mark(workspace: Workspace, *, now: datetime) -> None:
    """Note that a worker was told; reconcile sends again what stays unsettled for long after this."""
    Workspace.objects.filter(pk=workspace.pk).update(dispatched_at=now)


def _after_commit(task: str, workspace: Workspace) -> None:
    pk, generation = workspace.pk, workspace.generation
    mark(workspace, now=timezone.now())
    transaction.on_commit(lambda: _send(task, pk, generation))


def _send(task: str, *args: Any, expires: float | None = None) -> None:
    try:
        current_app.send_task(task, args=args, retry=False, ignore_result=True, expires=expires)
    except UNSENDABLE as error:
        logger.warning("dispatch_failed", task=task, args=args, error=type(error).__name__)
