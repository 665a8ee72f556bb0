"""Records when a signal was last seen, and what follows from that. Throttled, never blocking, never backwards."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Greatest

from workspaces.models import Workspace
from workspaces.states import State

if TYPE_CHECKING:
    from workspaces.querysets import WorkspaceQuerySet
    from workspaces.rules import Rules

WRITE_INTERVAL = timedelta(seconds=60)
VISIT = "visit"


def write_interval(idle: timedelta) -> timedelta:
    """At most one write a minute and workspace; less where an idle limit of seconds needs it."""
    return min(WRITE_INTERVAL, idle / 10)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one look showed; None is "nothing new". Times may come from inside, so they are clamped when written."""

    presence_at: datetime | None = None
    presence_source: str = ""
    presence_reported: bool | None = None
    work_at: datetime | None = None
    work_source: str = ""
    connection_at: datetime | None = None


NOTHING_NEW = Seen()


def record_connection(workspace: Workspace, *, at: datetime, now: datetime, every: timedelta = timedelta(0)) -> bool:
    """Note that somebody was connected at `at`, at most once in `every`; returns whether a row was written.

    `at` may come from inside a container, so it is clamped to `now`. A workspace that is not running has no clock.
    A connection is not activity, so nothing else moves.
    """
    moment = min(at, now)
    seen = workspace.connection_at
    if seen is not None and moment - seen < every:
        return False
    rows = _running(workspace).filter(Q(connection_at__isnull=True) | Q(connection_at__lt=moment))
    return bool(rows.update(connection_at=moment))


def record_visit(workspace: Workspace, *, now: datetime, every: timedelta = timedelta(0)) -> bool:
    """Note that a person went to the editor's page just now: one event of presence; at most one write in `every`.

    `due_at` stays, perhaps too early: then the sweep looks, and finds that there is no reason.
    """
    seen = workspace.presence_at
    if seen is not None and now - seen < every:
        return False
    rows = _running(workspace).filter(Q(presence_at__isnull=True) | Q(presence_at__lt=now))
    return bool(
        rows.update(presence_at=now, presence_source=VISIT, last_activity_at=Greatest(F("last_activity_at"), now))
    )


def update(workspace: Workspace, seen: Seen, *, rules: Rules, now: datetime) -> Workspace | None:
    """Take in what a look showed and work out anew when the workspace stops. Idempotent; clocks only go forward.

    Returns the row as it is then, or None when it no longer runs in this generation.
    """
    with transaction.atomic():
        row = _running(workspace).select_for_update(of=("self",)).first()
        if row is None:
            return None
        before = {name: getattr(row, name) for name in _WRITTEN}
        take_in(row, seen, rules=rules, now=now)
        changed = [name for name, value in before.items() if getattr(row, name) != value]
        if changed:
            row.save(update_fields=changed)
    return row


def take_in(row: Workspace, seen: Seen, *, rules: Rules, now: datetime) -> None:
    """The same for a row in memory; nothing is written."""
    _move(row, "presence", seen.presence_at, seen.presence_source, now=now)
    _move(row, "work", seen.work_at, seen.work_source, now=now)
    if seen.connection_at is not None:
        row.connection_at = max(filter(None, (row.connection_at, min(seen.connection_at, now))))
    if seen.presence_reported is not None:
        row.presence_reported = seen.presence_reported
    work_out(row, rules=rules)


def work_out(row: Workspace, *, rules: Rules) -> None:
    """Set what follows from the clocks of a running row; the caller saves it.

    A stop that moves beyond the moment that was announced is announced again when its time comes.
    """
    coming = rules.forecast(row)
    if row.warned_at is not None and coming.at > row.warned_at:
        row.warned_at = None
    row.last_activity_at = row.clocks().newest()
    row.due_at, row.due_reason, row.due_mark = coming.at, str(coming.reason), rules.mark
    if row.started_at is not None:
        row.lifetime_ends_at = row.started_at + rules.limits_for(row.user_id).lifetime


DERIVED = ("last_activity_at", "due_at", "due_reason", "due_mark", "lifetime_ends_at", "warned_at")
_WRITTEN = (
    *("presence_at", "presence_source", "presence_reported", "work_at", "work_source", "connection_at"),
    *DERIVED,
)


def _move(row: Workspace, clock: str, at: datetime | None, source: str, *, now: datetime) -> None:
    """Move one clock forward, never backwards and never past now."""
    if at is None:
        return
    moment, before = min(at, now), getattr(row, f"{clock}_at")
    if before is None or moment > before:
        setattr(row, f"{clock}_at", moment)
        setattr(row, f"{clock}_source", source)


def _running(workspace: Workspace) -> WorkspaceQuerySet:
    found: WorkspaceQuerySet = Workspace.objects.filter(
        pk=workspace.pk, state=State.RUNNING, generation=workspace.generation
    )
    return found
