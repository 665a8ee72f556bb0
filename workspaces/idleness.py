"""When is a workspace idle? Pure: clocks and limits in, a reason to stop or None out. `docs/idle.md` says it to users.

Three clocks, never mixed up:

presence    a person: keys, pointer, cursor, terminal input, a visit to the editor's page
work        a foreground command in a terminal, or processor time above a threshold
connection  sockets open, requests passing; stands in for presence only where nothing reports presence

The rule, in this order:
1. Idle when presence and work are both older than `idle`.
2. Work extends that, but never past `work_budget` after the last presence.
3. `keep_until` holds off both, and so does a pause (a class, an exam).
4. Nothing goes past `lifetime`.
5. What could not be learnt holds off everything but the lifetime: unknown is not idle.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from workspaces.states import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime


class Signal(StrEnum):
    PRESENCE = "presence"
    WORK = "work"
    CONNECTION = "connection"


# Before the end of the longest running time, whoever is there is told this often.
LIFETIME_WARNINGS = (timedelta(minutes=60), timedelta(minutes=15), timedelta(minutes=5))


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """When each signal was last seen; `None` means never, since `started_at`.

    `presence_reported` is False where nothing in the workspace reports presence: then connection stands in for it.
    `unknown` are the signals that could not be read at this look.
    """

    started_at: datetime
    presence_at: datetime | None = None
    work_at: datetime | None = None
    connection_at: datetime | None = None
    keep_until: datetime | None = None
    presence_reported: bool = True
    unknown: frozenset[Signal] = frozenset()

    def present(self) -> datetime:
        """When somebody was last there; a start counts, so an old clock never stops a fresh container."""
        seen = (self.started_at, self.presence_at, None if self.presence_reported else self.connection_at)
        return max(moment for moment in seen if moment is not None)

    def newest(self) -> datetime:
        """The last activity: presence or work."""
        return max(self.present(), self.work_at or self.started_at)

    def holds(self) -> frozenset[Signal]:
        """What keeps an idle stop from being decided, because it is not known."""
        needed = {Signal.PRESENCE, Signal.WORK}
        if not self.presence_reported:
            needed.add(Signal.CONNECTION)
        return self.unknown & needed


@dataclass(frozen=True, kw_only=True)
class Limits:
    """`warning` is how long before an idle stop people are told; never more than a quarter of `idle`."""

    idle: timedelta
    lifetime: timedelta
    work_budget: timedelta = timedelta(hours=8)
    warning: timedelta = timedelta(minutes=5)

    @property
    def warn_before(self) -> timedelta:
        return min(self.warning, self.idle / 4)


@dataclass(frozen=True, kw_only=True)
class Pause:
    """From `begins_at` until just before `ends_at` nothing is stopped for idleness."""

    begins_at: datetime
    ends_at: datetime


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """When it will be stopped, and why, if nothing more happens."""

    at: datetime
    reason: Reason


def decide(clocks: Clocks, limits: Limits, *, now: datetime, pauses: Iterable[Pause] = ()) -> Reason | None:
    """Return why to stop now, or None. Later activity never makes a stop earlier; the unknown never stops."""
    coming = forecast(clocks, limits, pauses=pauses, now=now)
    if now < coming.at:
        return None
    if coming.reason is not Reason.LIFETIME and clocks.holds():
        # It may be held past its idle stop, but not past its life.
        return Reason.LIFETIME if now >= clocks.started_at + limits.lifetime else None
    return coming.reason


def forecast(clocks: Clocks, limits: Limits, *, pauses: Iterable[Pause] = (), now: datetime | None = None) -> Forecast:
    """The moment at which `decide` will say stop if nothing more happens and all is known.

    With `now`, a stop that is late (it was held, or nobody swept) waits for the end of a pause that began meanwhile.
    """
    pauses = tuple(pauses)
    idle = _idle_stop(clocks, limits)
    at = idle.at if clocks.keep_until is None else max(idle.at, clocks.keep_until)
    at = after_pauses(at, pauses)
    if now is not None and at < now < (later := after_pauses(now, pauses)):
        at = later
    end = clocks.started_at + limits.lifetime
    return Forecast(at=end, reason=Reason.LIFETIME) if end <= at else Forecast(at=at, reason=idle.reason)


def lifetime_warnings(started_at: datetime, lifetime: timedelta) -> tuple[datetime, ...]:
    """When to tell a present user that the longest running time ends; at least once, however short it is."""
    before = [mark for mark in LIFETIME_WARNINGS if mark <= lifetime / 4] or [lifetime / 4]
    return tuple(started_at + lifetime - mark for mark in before)


def _idle_stop(clocks: Clocks, limits: Limits) -> Forecast:
    without_presence = clocks.present() + limits.idle
    without_work = (clocks.work_at or clocks.started_at) + limits.idle
    budget_spent = clocks.present() + limits.work_budget
    cut_short = without_presence < budget_spent < without_work
    return Forecast(
        at=max(without_presence, min(without_work, budget_spent)),
        reason=Reason.WORK_BUDGET if cut_short else Reason.IDLE,
    )


def after_pauses(moment: datetime, pauses: Iterable[Pause]) -> datetime:
    """The first moment from `moment` on that lies in no pause."""
    for pause in sorted(pauses, key=lambda each: each.begins_at):
        if pause.begins_at <= moment < pause.ends_at:
            moment = pause.ends_at
    return moment
