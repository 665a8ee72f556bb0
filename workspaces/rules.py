"""Which limits and pauses hold for whom: the settings, what an administrator gave a user, and the timetable.

Loaded once per pass or request (`Rules.load`), then asked per row without a query.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfoNotFoundError

import structlog
from django.contrib.auth import get_user_model
from django.db.models import Count, Max

from workspaces import conf, idleness
from workspaces.models import IdlePause, UserLimits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from workspaces.idleness import Limits, Pause
    from workspaces.models import Workspace

logger = structlog.get_logger(__name__)

# An idle stop lies at most this far ahead: the longest idle limit that the settings allow.
HORIZON = timedelta(days=8)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What decides idleness, besides the clocks. `mark` changes whenever any of it may have changed."""

    mark: str
    general: Limits
    own: Mapping[int, Limits] = field(default_factory=dict)
    pauses: tuple[Pause, ...] = ()
    group_pauses: Mapping[int, tuple[Pause, ...]] = field(default_factory=dict)

    def limits_for(self, user_id: int) -> Limits:
        return self.own.get(user_id, self.general)

    def pauses_for(self, user_id: int) -> tuple[Pause, ...]:
        return (*self.pauses, *self.group_pauses.get(user_id, ()))

    def forecast(self, workspace: Workspace) -> idleness.Forecast:
        """When this running workspace stops if nothing more happens, and why."""
        return idleness.forecast(
            workspace.clocks(), self.limits_for(workspace.user_id), pauses=self.pauses_for(workspace.user_id)
        )


def load(user_ids: Iterable[int], *, now: datetime) -> Rules:
    """The rules for these users; a handful of queries, however many they are."""
    wanted = set(user_ids)
    general = conf.limits()
    own = {row.user_id: row.over(general) for row in UserLimits.objects.filter(user_id__in=wanted)}
    everybody: list[Pause] = []
    some: dict[int, tuple[Pause, ...]] = {}
    since, until = now - timedelta(days=1), now + HORIZON
    coming = {row: found for row in IdlePause.objects.touching(since, until) if (found := _falls(row, since, until))}
    groups = _groups_of([row.pk for row in coming])
    members = _members({group for found in groups.values() for group in found}, wanted)
    for row, found in coming.items():
        if row.pk not in groups:
            everybody.extend(found)
            continue
        for user_id in {member for group in groups[row.pk] for member in members.get(group, ())}:
            some[user_id] = (*some.get(user_id, ()), *found)
    return Rules(mark=mark(), general=general, own=own, pauses=tuple(everybody), group_pauses=some)


def _falls(row: IdlePause, since: datetime, until: datetime) -> tuple[Pause, ...]:
    """When the pause falls in that time. One whose zone this system does not know is logged and left out."""
    try:
        return tuple(row.occurrences(since=since, until=until))
    except (ZoneInfoNotFoundError, ValueError, OverflowError) as error:
        logger.exception("pause_unreadable", pause=row.pk, why=str(error))
        return ()


def _groups_of(pauses: list[int]) -> dict[int, set[int]]:
    """The groups of each pause that is for groups."""
    found: dict[int, set[int]] = defaultdict(set)
    if pauses:
        pairs = IdlePause.groups.through.objects.filter(idlepause_id__in=pauses)
        for pause, group in pairs.values_list("idlepause_id", "group_id"):
            found[pause].add(group)
    return dict(found)


def _members(groups: set[int], wanted: set[int]) -> dict[int, set[int]]:
    """Who of these users is in which of these groups."""
    found: dict[int, set[int]] = defaultdict(set)
    if groups and wanted:
        users = get_user_model()._default_manager.filter(pk__in=wanted, groups__in=groups)
        for user_id, group in users.values_list("pk", "groups"):
            if group in groups:
                found[group].add(user_id)
    return dict(found)


def mark() -> str:
    """A short name for the rules in force: rows that carry another one have their stop worked out anew."""
    parts: list[Any] = [repr(conf.limits())]
    for model in (UserLimits, IdlePause):
        seen = model.objects.aggregate(count=Count("pk"), latest=Max("updated_at"))
        parts += [seen["count"], seen["latest"]]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
