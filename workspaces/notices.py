"""What a workspace is told of itself: a small JSON text that the extension and `gunpowder` in a terminal read."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import structlog

from workspaces import idleness
from workspaces.errors import RuntimeUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from workspaces.models import Workspace
    from workspaces.rules import Rules
    from workspaces.runtimes.base import Runtime

logger = structlog.get_logger(__name__)

# What this process told last, and when (monotonic seconds), so that nothing is written that is there already. Another
# process may have told something else since: so it is forgotten after a minute, and when it has grown.
_told: dict[int, tuple[str, float]] = {}
_REMEMBERED = 10_000
_REMEMBERED_SECONDS = 60.0


def notice_of(row: Workspace, *, rules: Rules, working_on: Iterable[str] | None = None) -> dict[str, Any]:
    """The notice of a running workspace; times in milliseconds since the epoch. `working_on` None is "not known"."""
    limits = rules.limits_for(row.user_id)
    started = row.started_at or row.changed_at
    stops_at, stops_reason = row.stop_to_tell
    return {
        "version": 1,
        "generation": row.generation,
        "started_at": _ms(started),
        "last_activity_at": _ms(row.last_activity_at),
        "stops_at": _ms(stops_at),
        "stops_reason": stops_reason,
        "idle_seconds": limits.idle.total_seconds(),
        "work_budget_seconds": limits.work_budget.total_seconds(),
        "keep_until": _ms(row.keep_until),
        # New rules may have brought it forward to before now; then it ends when that was announced.
        "lifetime_ends_at": _ms(max(started + limits.lifetime, row.warned_at or started)),
        "lifetime_warnings": [_ms(moment) for moment in idleness.lifetime_warnings(started, limits.lifetime)],
        "stop_when_done": row.stop_when_done,
        "working_on": None if working_on is None else list(working_on),
        "warning": None if row.warned_at is None else {"at": _ms(row.warned_at), "reason": stops_reason},
        "answer": row.answer,
    }


def tell(
    row: Workspace, *, rules: Rules, runtime: Runtime, now: datetime, working_on: Iterable[str] | None = None
) -> bool:
    """Tell the workspace how it stands, if that is news; returns whether it was told. Failing is logged, not raised."""
    notice = notice_of(row, rules=rules, working_on=working_on)
    text = json.dumps(notice, sort_keys=True)
    before, told_at = _told.get(row.pk, ("", 0.0))
    if before == text and time.monotonic() - told_at < _REMEMBERED_SECONDS:
        return False
    try:
        runtime.tell(row.user_id, json.dumps({**notice, "written_at": _ms(now)}))
    except RuntimeUnavailable as error:
        logger.warning("notice_not_told", workspace=row.user_id, why=error.message)
        return False
    if len(_told) >= _REMEMBERED:
        _told.clear()
    _told[row.pk] = text, time.monotonic()
    return True


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)
