"""When is a workspace idle? Pure: clocks and limits in, a reason to stop or None out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workspaces.states import Reason

if TYPE_CHECKING:
    from datetime import datetime, timedelta


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """When each signal was last seen. `None` means never, since `started_at`."""

    started_at: datetime
    presence_at: datetime | None = None
    work_at: datetime | None = None
    connection_at: datetime | None = None
    keep_until: datetime | None = None

    def newest(self) -> datetime:
        """The last activity; a start counts as one, so an old clock never stops a fresh container."""
        seen = (self.started_at, self.presence_at, self.work_at, self.connection_at)
        return max(moment for moment in seen if moment is not None)


@dataclass(frozen=True, kw_only=True)
class Limits:
    idle: timedelta
    lifetime: timedelta


def decide(clocks: Clocks, limits: Limits, *, now: datetime) -> Reason | None:
    """Return why to stop now, or None. Later activity never makes a stop earlier.

    `keep_until` holds off the idle stop, never the maximum lifetime.
    """
    if now - clocks.started_at >= limits.lifetime:
        return Reason.LIFETIME
    if clocks.keep_until is not None and now < clocks.keep_until:
        return None
    if now - clocks.newest() >= limits.idle:
        return Reason.IDLE
    return None


def stops_at(clocks: Clocks, limits: Limits) -> datetime:
    """The moment at which `decide` will say stop if nothing more happens."""
    idle = clocks.newest() + limits.idle
    if clocks.keep_until is not None:
        idle = max(idle, clocks.keep_until)
    return min(idle, clocks.started_at + limits.lifetime)
