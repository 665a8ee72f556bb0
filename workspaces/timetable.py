"""When do repeated windows of time fall? Pure. Weeks are counted on the wall clock: a class at nine stays at nine."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from workspaces.idleness import Pause

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date, tzinfo


class Repeat(StrEnum):
    ONCE = "once"
    DAILY = "daily"
    WEEKLY = "weekly"


_STEP = {Repeat.DAILY: timedelta(days=1), Repeat.WEEKLY: timedelta(weeks=1)}


@dataclass(frozen=True, kw_only=True)
class Window:
    """The first occurrence, and how it repeats; `last_day` (in `zone`, inclusive) ends the repetition."""

    starts_at: datetime
    ends_at: datetime
    zone: tzinfo
    repeat: Repeat = Repeat.ONCE
    last_day: date | None = None


def occurrences(window: Window, *, since: datetime, until: datetime) -> Iterator[Pause]:
    """Yield the occurrences that touch `since` to `until`, in order. Bounded by that span, however old the first is."""
    step = _STEP.get(window.repeat)
    if step is None:
        if window.starts_at < until and window.ends_at > since:
            yield Pause(begins_at=window.starts_at, ends_at=window.ends_at)
        return
    first = _on_the_wall(window.starts_at, window.zone)
    length = _on_the_wall(window.ends_at, window.zone) - first
    # One early: the wall clock may differ from the true one by the hour that summer time takes.
    gap = _on_the_wall(since, window.zone) - first - length
    number = max(0, gap // step - 1)
    while True:
        local = first + step * number
        if window.last_day is not None and local.date() > window.last_day:
            return
        # Both ends on the wall clock: an exam until eight ends at eight, also in the night in which the clock changes.
        begins, ends = (moment.replace(tzinfo=window.zone).astimezone(UTC) for moment in (local, local + length))
        if begins >= until:
            return
        if ends > max(since, begins):
            yield Pause(begins_at=begins, ends_at=ends)
        number += 1


def _on_the_wall(moment: datetime, zone: tzinfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)
