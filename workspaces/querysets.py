"""Readable filters, and THE one function that changes a state."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import structlog
from django.db import models, transaction
from django.db.models import Q

from workspaces.states import ACTIVE, TRANSITIONS, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workspaces.models import Workspace
    from workspaces.states import Reason

logger = structlog.get_logger(__name__)

ALWAYS = Q()


class WorkspaceQuerySet(models.QuerySet["Workspace"]):
    def running(self) -> Self:
        return self.filter(state=State.RUNNING)

    def active(self) -> Self:
        return self.filter(state__in=ACTIVE)

    def idle_since(self, cutoff: datetime) -> Self:
        """Running, and nothing seen after `cutoff`; served by the partial index on last_activity_at."""
        return self.running().filter(last_activity_at__lte=cutoff).order_by("last_activity_at")

    def due_by(self, moment: datetime) -> Self:
        """Running, and to be stopped by `moment` if nothing more happens; served by the partial index on due_at."""
        return self.running().filter(due_at__lte=moment).order_by("due_at")

    def to_be_decided(self, *, soon: datetime, now: datetime) -> Self:
        """Running, and to be warned or stopped; who is warned and not yet due has been decided already."""
        return self.due_by(soon).filter(Q(warned_at__isnull=True) | Q(due_at__lte=now))

    def quiet_between(self, after: datetime, until: datetime) -> Self:
        """Running, and last seen active in this time; served by the partial index on last_activity_at."""
        return self.idle_since(until).filter(last_activity_at__gt=after)

    def marked_otherwise(self, mark: str) -> Self:
        """Running, but their stop was worked out by other rules. Two ranges, because an index cannot serve "not"."""
        return self.running().filter(Q(due_mark__lt=mark) | Q(due_mark__gt=mark))

    def attended(self) -> Self:
        """Running and warned, or to be stopped when their command ends: asked more often than the others."""
        return self.running().filter(Q(warned_at__isnull=False) | Q(stop_when_done=True))

    def of_disabled_users(self) -> Self:
        return self.filter(state__in=(State.STARTING, State.RUNNING), user__is_active=False)

    def unsettled(self, *, quiet_since: datetime) -> Self:
        """In progress, and nobody was told so since `quiet_since`: the message may be lost. Who waits is not there."""
        begun = Q(state=State.STOPPING) | Q(state=State.STARTING, admitted_at__isnull=False)
        return self.filter(begun, dispatched_at__lte=quiet_since)

    def queued(self) -> Self:
        """Starting, but not yet admitted: in the order in which they were asked for."""
        return self.filter(state=State.STARTING, admitted_at__isnull=True).order_by("requested_at", "pk")

    def before(self, workspace: Workspace) -> Self:
        """Asked for before this one."""
        earlier = Q(requested_at__lt=workspace.requested_at)
        return self.filter(earlier | Q(requested_at=workspace.requested_at, pk__lt=workspace.pk))

    def admitted(self) -> Self:
        """Starting, and being worked on."""
        return self.filter(state=State.STARTING, admitted_at__isnull=False)

    def start_overdue(self, *, now: datetime, timeout: float) -> Self:
        return self.filter(state=State.STARTING, admitted_at__lte=now - timedelta(seconds=timeout))

    def stop_overdue(self, *, now: datetime, timeout: float) -> Self:
        return self.filter(state=State.STOPPING, changed_at__lte=now - timedelta(seconds=timeout))

    def change_state(
        self,
        *,
        pk: int,
        to: State,
        allowed: frozenset[State],
        generation: int,
        reason: Reason,
        now: datetime,
        actor: Any = None,
        where: Q = ALWAYS,
        detail: dict[str, Any] | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> Workspace | None:
        """Move one row to `to` if it is still in `allowed` with `generation` (and `where` holds).

        Returns the row as it is now, or None when somebody else was first: a normal outcome, not an error.
        The history row is written in the same transaction. No engine call may happen inside one.
        """
        illegal = {source for source in allowed if to not in TRANSITIONS[source]}
        if illegal:
            raise ValueError(f"no transition {sorted(illegal)} -> {to}")
        with transaction.atomic():
            locked = self.select_for_update(of=("self",))
            row = locked.filter(where, pk=pk, state__in=allowed, generation=generation).first()
            if row is None:
                return None
            source = State(row.state)
            values = {"state": to, "changed_at": now, **(changes or {})}
            if values.get("port", row.port) is None:
                row.release_port(now=now)
            for name, value in values.items():
                setattr(row, name, value)
            row.save(update_fields=list(values))
            row.transitions.create(
                from_state=source,
                to_state=to,
                reason=reason,
                actor=actor,
                generation=row.generation,
                time=now,
                detail=detail or {},
            )
        logger.info(
            "workspace_transition",
            workspace=row.user_id,
            generation=row.generation,
            **{"from": str(source), "to": str(to)},
            reason=str(reason),
        )
        return row
