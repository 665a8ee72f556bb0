"""Workspaces that were left alone, as the sweeps about idleness meet them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from django.utils import timezone

from workspaces.models import Usage, Workspace

if TYPE_CHECKING:
    from datetime import datetime


def sampled(workspace: Workspace, *, at: datetime, cpu_seconds: float = 0) -> None:
    """The processor was sampled at `at`, as the sampler does every 20 s."""
    sample = {
        "sampled_at": at,
        "generation": workspace.generation,
        "cpu_seconds": cpu_seconds,
        "cpu_percent": 0,
        "cpu_measured": True,
        "memory_bytes": 400 * 2**20,
        "memory_limit_bytes": 2**30,
        "pids": 30,
        "disk_bytes": 0,
    }
    Usage.objects.update_or_create(workspace=workspace, defaults=sample)


def left_alone(workspace: Workspace, *, hours: float = 2) -> None:
    """Let the running workspace have been left alone for this long, and its user have been warned."""
    now = timezone.now()
    past = now - timedelta(hours=hours)
    clocks = ("started_at", "presence_at", "work_at", "connection_at", "last_activity_at", "due_at")
    changes = dict.fromkeys(clocks, past) | {"warned_at": now - timedelta(minutes=1)}
    Workspace.objects.filter(pk=workspace.pk).update(**changes)
    sampled(workspace, at=now - timedelta(seconds=20))
