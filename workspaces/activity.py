"""Records when a signal was last seen. Throttled, never blocking, and never backwards."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import F, Q
from django.db.models.functions import Greatest

from workspaces.models import Workspace
from workspaces.states import State

WRITE_INTERVAL = timedelta(seconds=60)


def write_interval(idle: timedelta) -> timedelta:
    """At most one write a minute and workspace; less where an idle limit of seconds needs it."""
    return min(WRITE_INTERVAL, idle / 10)


def record_connection(workspace: Workspace, *, at: datetime, now: datetime, every: timedelta = timedelta(0)) -> bool:
    """Note that somebody was connected at `at`, at most once in `every`; returns whether a row was written.

    `at` may come from inside a container, so it is clamped to `now`. A workspace that is not running has no clock.
    """
    moment = min(at, now)
    seen = workspace.connection_at
    if seen is not None and moment - seen < every:
        return False
    rows = Workspace.objects.filter(
        Q(connection_at__isnull=True) | Q(connection_at__lt=moment),
        pk=workspace.pk,
        state=State.RUNNING,
        generation=workspace.generation,
    )
    return bool(rows.update(connection_at=moment, last_activity_at=Greatest(F("last_activity_at"), moment)))
