"""Who may start now: the fair start queue.

A host does about three starts a second however many are tried at once, and with four at a time the median user waits
half as long as with twenty (design measurements). So starts beyond `GUNPOWDER_START_CONCURRENCY` wait, in order of
their request. A user has one workspace and so one place: pressing Start again keeps it, stopping gives it up.

The queue is rows, `starting` and not yet admitted; a message only makes a worker look. Whoever ends a start or a stop
calls the next ones, and reconcile calls again what was lost with a message.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from math import ceil
from statistics import median
from typing import TYPE_CHECKING

from django.db.models import Q
from django.utils import timezone

from workspaces import conf, dispatch
from workspaces.models import Workspace
from workspaces.states import State

if TYPE_CHECKING:
    from datetime import datetime

    from workspaces.runtimes.base import Runtime

#: What a start is expected to need, in bytes: a quiet editor with its extensions. More than a workspace may have is
#: never asked for.
EXPECTED = 384 * 2**20
# A message that is younger is most likely on its way.
CALLED_LATELY = timedelta(seconds=2)
# A start that nothing holds up is admitted long before this; until then there is no place to speak of.
BEFORE_A_PLACE = timedelta(seconds=2)
LAST_STARTS = 20


class Waits(StrEnum):
    """What a start waits for."""

    TURN = "turn"
    MEMORY = "memory"


@dataclass(frozen=True, kw_only=True)
class Room:
    """How many starts may begin now, and what there is too little of for one more."""

    starts: int
    short_of: Waits


def expected_memory() -> int:
    """Bytes that one more workspace is counted with."""
    return int(min(EXPECTED, conf.env().memory))


def room(*, available: int | None, in_progress: int) -> Room:
    """What the host can still take. `available` is its free memory in bytes, None where that is not known.

    Starts in progress have not used their memory yet, so each is counted with what it is expected to need.
    """
    env = conf.env()
    by_turn = max(0, env.start_concurrency - in_progress)
    if available is None:
        return Room(starts=by_turn, short_of=Waits.TURN)
    need = expected_memory()
    by_memory = max(0, (available - env.memory_reserve - in_progress * need) // need)
    return Room(starts=min(by_turn, by_memory), short_of=Waits.MEMORY if by_memory < by_turn else Waits.TURN)


def must_wait(workspace: Workspace, *, available: int | None) -> Waits | None:
    """None: it may begin. Call it under the admission lock, or two could take the last place."""
    space = room(available=available, in_progress=Workspace.objects.admitted().count())
    ahead = Workspace.objects.queued().before(workspace).count()
    return None if ahead < space.starts else space.short_of


def call_next(*, runtime: Runtime, now: datetime) -> list[int]:
    """Tell workers to look at whoever may begin now; returns their users. Called once too often, it does no harm."""
    if not Workspace.objects.queued().exists():
        return []
    space = room(available=runtime.memory_available(), in_progress=Workspace.objects.admitted().count())
    # Looked at and left, or told so long ago that the message may be lost; whoever clears the mark is the one to call.
    unheard = ~Q(queued_for="") | Q(dispatched_at__lte=now - CALLED_LATELY)
    called = []
    for row in Workspace.objects.queued()[: space.starts]:
        if Workspace.objects.queued().filter(unheard, pk=row.pk).update(queued_for="", dispatched_at=now):
            dispatch.start(row)
            called.append(row.user_id)
    return called


class Queue:
    """Everybody who waits, as it is now: made once to tell many their places."""

    @cached_property
    def _order(self) -> dict[int, int]:
        waiting = Workspace.objects.queued().values_list("pk", flat=True)
        return {pk: place for place, pk in enumerate(waiting, start=1)}

    @cached_property
    def seconds_a_start(self) -> float | None:
        """How long starts took lately, from admission until the editor answered; None when nothing runs."""
        lately = Workspace.objects.running().exclude(admitted_at=None).order_by("-started_at")[:LAST_STARTS]
        took = [
            (row.started_at - row.admitted_at).total_seconds() for row in lately if row.started_at and row.admitted_at
        ]
        return median(took) if took else None

    def place_of(self, workspace: Workspace, *, now: datetime | None = None) -> int | None:
        """1 for whoever is next; None for who does not wait."""
        if workspace.state != State.STARTING or workspace.admitted_at is not None:
            return None
        since = workspace.requested_at or workspace.changed_at
        if not workspace.queued_for and (now or timezone.now()) - since < BEFORE_A_PLACE:
            return None
        return self._order.get(workspace.pk)

    def seconds_for(self, workspace: Workspace, place: int | None) -> int | None:
        """About how long until it runs, from the last starts; None where nothing tells, as when memory is short."""
        if place is None or self.seconds_a_start is None or workspace.queued_for == Waits.MEMORY:
            return None
        rounds = 1 + ceil(place / int(conf.env().start_concurrency))  # the one under way, then those until its own
        return max(1, round(rounds * self.seconds_a_start))
