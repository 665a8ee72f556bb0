"""How long containers ran, and how long they did not because nobody needed them.

*run* is the time from a transition to `running` until the next one out of it, or until now.

*saved* is the time after each stop for one of `SAVING` (idle, work budget, its command finished): from the `stopped`
transition until the next `starting`, or until now, but no longer than until the container would have been stopped
anyway, at its maximum lifetime (its start plus the user's lifetime). So the figures compare with an installation that
stops at the maximum lifetime only. What a person, staff or a fault stopped saves nothing, and neither does the time in
`starting` and `stopping`: a container that is on its way up or down is neither run nor saved.

Times of containers that were never stopped are counted up to now, so today's figures grow. Days are UTC days. The
lifetime is the one that holds now: what it was at the time is written nowhere.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import chain, groupby
from typing import TYPE_CHECKING, NamedTuple

from django.db.models import OuterRef, Subquery

from workspaces import naming
from workspaces.models import Transition, UserLimits, Workspace
from workspaces.states import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from django.db.models import QuerySet

DEFAULT_DAYS = 30
MAX_DAYS = 366
SAVING = frozenset({"idle", "work_budget", "finished"})
# Workspaces per round of queries: what a round holds in memory is bounded, and a stream has something to send.
WORKSPACES_AT_ONCE = 200
ROWS_AT_ONCE = 5000

_NONE = timedelta()
_DAY = timedelta(days=1)


class Change(NamedTuple):
    """A transition, as far as it matters here."""

    user_id: int
    time: datetime
    from_state: str
    to_state: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Figures:
    run: timedelta = _NONE
    saved: timedelta = _NONE

    def __add__(self, other: Figures) -> Figures:
        return Figures(run=self.run + other.run, saved=self.saved + other.saved)

    def __bool__(self) -> bool:
        return bool(self.run or self.saved)

    @property
    def run_hours(self) -> float:
        return _hours(self.run)

    @property
    def saved_hours(self) -> float:
        return _hours(self.saved)

    @property
    def saved_percent(self) -> int | None:
        """The share of what would have run, rounded down: 100 only if nothing ran. None where nothing would have."""
        return int(100 * self.saved / (self.run + self.saved)) if self else None


NOTHING = Figures()


def _hours(duration: timedelta) -> float:
    return round(duration / timedelta(hours=1), 4)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Whole UTC days and the current one, up to now."""

    since: datetime
    until: datetime

    @classmethod
    def of_days(cls, days: int, *, now: datetime) -> Window:
        """Today and the `days - 1` days before."""
        if not 1 <= days <= MAX_DAYS:
            raise ValueError(f"days must be 1 to {MAX_DAYS}")
        today = now.astimezone(UTC).date()
        return cls(since=_midnight(today - timedelta(days=days - 1)), until=now)

    def days(self) -> list[date]:
        """Every day of the window, oldest first."""
        first, last = self.since.astimezone(UTC).date(), self.until.astimezone(UTC).date()
        return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class UserSavings:
    """One user's figures; days on which nothing ran and nothing was saved are left out."""

    user_id: int
    username: str
    by_day: Mapping[date, Figures]

    @property
    def total(self) -> Figures:
        return sum(self.by_day.values(), NOTHING)


# --- pure: from transitions to figures ---


class Interval(NamedTuple):
    start: datetime
    end: datetime
    saved: bool


def intervals(changes: Iterable[Change], *, lifetime: timedelta, now: datetime) -> Iterator[Interval]:
    """What one user's transitions, oldest first, say was run and saved; intervals never overlap.

    A run whose start is not among them is taken to have begun longer ago than the lifetime: its stop saves nothing.
    """
    started: datetime | None = None
    current: Interval | None = None  # ends with the next transition, at the latest at its `end`
    for change in changes:
        if current is not None:
            yield current._replace(end=min(current.end, change.time))
            current = None
        if change.to_state == State.STARTING:
            started = None
        elif change.to_state == State.RUNNING:
            # Who came back just before the stop (`stopping` -> `running`) did not start anew.
            started = change.time if change.from_state == State.STARTING else started
            current = Interval(change.time, now, saved=False)
        elif change.to_state == State.STOPPED and change.reason in SAVING and started is not None:
            current = Interval(change.time, min(now, started + lifetime), saved=True)
    if current is not None:
        yield current


def split_days(start: datetime, end: datetime) -> Iterator[tuple[date, timedelta]]:
    """The parts of an interval that fall on each UTC day; nothing for one that ends before it starts."""
    while start < end:
        day = start.astimezone(UTC).date()
        until = min(end, _midnight(day + _DAY))
        yield day, until - start
        start = until


def fold(changes: Iterable[Change], *, window: Window, lifetime: timedelta) -> dict[date, Figures]:
    """One user's figures per day of the window, from their transitions, oldest first."""
    by_day: dict[date, Figures] = {}
    for start, end, saved in intervals(changes, lifetime=lifetime, now=window.until):
        for day, part in split_days(max(start, window.since), min(end, window.until)):
            more = Figures(saved=part) if saved else Figures(run=part)
            by_day[day] = by_day.get(day, NOTHING) + more
    return by_day


@dataclass(frozen=True, kw_only=True)
class Report:
    """Figures of one user or of many together. `users` has those with any, most saved first."""

    window: Window
    by_day: dict[date, Figures]
    users: list[tuple[UserSavings, Figures]] = field(default_factory=list)

    @property
    def total(self) -> Figures:
        return sum(self.by_day.values(), NOTHING)

    def users_named(self, part: str) -> list[tuple[UserSavings, Figures]]:
        """Those with `part` in their name, whatever the case and however it is spelt."""
        wanted = naming.user_name(part).casefold()
        return [pair for pair in self.users if wanted in pair[0].username.casefold()]


def summarise(found: Iterable[UserSavings], *, window: Window) -> Report:
    """Add up over users; every day of the window is there."""
    by_day = dict.fromkeys(window.days(), NOTHING)
    users = []
    for each in found:
        for day, figures in each.by_day.items():
            by_day[day] += figures
        if total := each.total:
            users.append((each, total))
    users.sort(key=lambda pair: (-pair[1].saved, -pair[1].run, pair[0].username))
    return Report(window=window, by_day=by_day, users=users)


# --- from the database ---


def report(*, window: Window, lifetime: timedelta, user_id: int | None = None) -> Report:
    """The figures of one user, or of all. The caller has checked who may see them."""
    rounds = load(window=window, lifetime=lifetime, user_id=user_id)
    return summarise(chain.from_iterable(rounds), window=window)


def load(*, window: Window, lifetime: timedelta, user_id: int | None = None) -> Iterator[list[UserSavings]]:
    """Users in the order of their ids, a bounded number at a time with a fixed number of queries for each such round.

    `lifetime` is that of users who have none of their own.
    """
    rows = Workspace.objects.order_by("user_id").values_list("pk", "user_id", "user__username")
    if user_id is not None:
        rows = rows.filter(user_id=user_id)
    last = -1
    while found := list(rows.filter(user_id__gt=last)[:WORKSPACES_AT_ONCE]):
        last = found[-1][1]
        yield _load_round(found, window=window, lifetime=lifetime)


def _load_round(found: list[tuple[int, int, str]], *, window: Window, lifetime: timedelta) -> list[UserSavings]:
    names = {user_id: username for _, user_id, username in found}
    own = _own_lifetimes(names)
    # A stop that still saves within the window belongs to a run that began at most one lifetime before it.
    since = window.since - max([lifetime, *own.values()])
    changes = _changes([pk for pk, _, _ in found], since=since, until=window.until)
    return [
        UserSavings(
            user_id=user_id,
            username=names[user_id],
            by_day=fold(theirs, window=window, lifetime=own.get(user_id, lifetime)),
        )
        for user_id, theirs in groupby(changes, key=_user_of)
    ]


def _own_lifetimes(user_ids: Iterable[int]) -> dict[int, timedelta]:
    given = UserLimits.objects.filter(user_id__in=list(user_ids), max_lifetime_hours__isnull=False)
    return {
        user_id: timedelta(hours=hours)
        for user_id, hours in given.values_list("user_id", "max_lifetime_hours")
        if hours is not None
    }


def _changes(workspaces: list[int], *, since: datetime, until: datetime) -> Iterator[Change]:
    """Transitions by user and time, oldest first: those since then, and before each user's first the one that leads in.

    Only a lead-in to `running` matters: what was stopped so long ago saves nothing any more.
    """
    newest = Transition.objects.filter(workspace=OuterRef("pk"), time__lt=since).order_by("-time", "-id")
    leading = Workspace.objects.filter(pk__in=workspaces).annotate(last=Subquery(newest.values("pk")[:1]))
    before = Transition.objects.filter(pk__in=leading.values("last"), to_state=State.RUNNING)
    within = Transition.objects.filter(workspace__in=workspaces, time__gte=since, time__lte=until)
    return heapq.merge(_rows(before), _rows(within), key=_user_of)  # on a tie, the first one's come first


def _rows(transitions: QuerySet[Transition]) -> Iterator[Change]:
    ordered = transitions.order_by("workspace__user_id", "time", "id")
    values = ordered.values_list("workspace__user_id", "time", "from_state", "to_state", "reason")
    return (Change(*row) for row in values.iterator(chunk_size=ROWS_AT_ONCE))


def _user_of(change: Change) -> int:
    return change.user_id
