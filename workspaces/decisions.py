"""The record of a decision about idleness, and the sentence that explains it to whoever it is about. Pure.

A record is plain JSON: it is stored with the workspace (the last one) and with the transition (each stop).
Sentences speak of durations, not of times of day, so that they are true in every time zone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from workspaces.idleness import Signal
from workspaces.states import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta

    from workspaces.idleness import Clocks, Forecast, Limits


class Verdict(StrEnum):
    STOP = "stop"
    SPARED = "spared"  # looked at, and there is a reason to keep it
    WARNED = "warned"  # it will be stopped within the warning time
    HELD = "held"  # it would be stopped, but something could not be learnt


_SOURCES = {
    "window": "a key or the pointer in the editor",
    "cursor": "the cursor in a file",
    "terminal": "a key in a terminal",
    "opened": "the editor was opened",
    "visit": "the editor's page was opened",
    "start": "the start itself",
}
_SIGNALS = {
    Signal.PRESENCE: "whether somebody is there",
    Signal.WORK: "whether a command runs",
    Signal.CONNECTION: "whether somebody is connected",
}


def record(
    verdict: Verdict,
    *,
    clocks: Clocks,
    limits: Limits,
    coming: Forecast,
    now: datetime,
    presence_source: str,
    work_source: str,
    working_on: Iterable[str] = (),
    reason: Reason | None = None,
) -> dict[str, Any]:
    """The record of one decision, with every clock it saw; `reason` is why it stops, else the forecast's."""
    found: dict[str, Any] = {
        "at": now.isoformat(),
        "verdict": str(verdict),
        "reason": str(reason or coming.reason),
        "stops_at": coming.at.isoformat(),
        "clocks": {
            "started_at": _iso(clocks.started_at),
            "presence_at": _iso(clocks.presence_at),
            "presence_source": presence_source,
            "presence_reported": clocks.presence_reported,
            "work_at": _iso(clocks.work_at),
            "work_source": work_source,
            "connection_at": _iso(clocks.connection_at),
            "keep_until": _iso(clocks.keep_until),
        },
        "limits": {
            "idle_seconds": limits.idle.total_seconds(),
            "work_budget_seconds": limits.work_budget.total_seconds(),
            "lifetime_seconds": limits.lifetime.total_seconds(),
        },
        "unknown": sorted(str(signal) for signal in clocks.holds()),
        "working_on": list(working_on)[:5],
    }
    found["sentence"] = _sentence(verdict, Reason(found["reason"]), clocks, limits, coming, now, found)
    return found


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _sentence(  # noqa: PLR0917 - the parts of one record
    verdict: Verdict,
    reason: Reason,
    clocks: Clocks,
    limits: Limits,
    coming: Forecast,
    now: datetime,
    found: dict[str, Any],
) -> str:
    seen = _what_was_seen(clocks, now=now, found=found)
    if verdict is Verdict.STOP:
        return f"Stopped {_because(reason, clocks, limits, now=now)}. {seen}"
    if verdict is Verdict.HELD:
        unknown = " and ".join(_SIGNALS[Signal(name)] for name in found["unknown"]) or "whether the editor is in use"
        return f"Not stopped, because {unknown} could not be read, and unknown is not idle. {seen}"
    if verdict is Verdict.WARNED:
        left = duration(coming.at - now)
        return f"Will stop in {left} {_because(reason, clocks, limits, now=coming.at)}, unless it is used. {seen}"
    return f"Not stopped: {_why_spared(clocks, limits, coming, now=now, found=found)}. {seen}"


def _because(reason: Reason, clocks: Clocks, limits: Limits, *, now: datetime) -> str:
    if reason is Reason.LIFETIME:
        return f"after {duration(limits.lifetime)}, the longest time that a workspace may run"
    if reason is Reason.WORK_BUDGET:
        return f"after {duration(limits.work_budget)} of work with nobody there, the longest that work may keep it"
    if reason is Reason.FINISHED:
        return "because its command had ended, as you had asked"
    return f"after {duration(max(now - clocks.newest(), limits.idle))} without activity"


def _why_spared(clocks: Clocks, limits: Limits, coming: Forecast, *, now: datetime, found: dict[str, Any]) -> str:
    if clocks.keep_until is not None and clocks.keep_until > now and clocks.keep_until >= clocks.newest() + limits.idle:
        return f"you asked to keep it running for another {duration(clocks.keep_until - now)}"
    if now - clocks.present() < limits.idle:
        return "somebody was there within the limit"
    if clocks.work_at is not None and now - clocks.work_at < limits.idle:
        what = ", ".join(found["working_on"]) or found["clocks"]["work_source"] or "a command"
        return f"{what} is at work"
    return f"no idle stop before {duration(coming.at - now)} from now (a pause is set)"


def _what_was_seen(clocks: Clocks, *, now: datetime, found: dict[str, Any]) -> str:
    source = _SOURCES.get(found["clocks"]["presence_source"], "somebody")
    parts = [f"Last presence {duration(now - clocks.present())} ago ({source})"]
    if not clocks.presence_reported:
        parts = [f"Nothing in it reports presence; last connection {duration(now - clocks.present())} ago"]
    if found["working_on"]:
        parts.append(f"running now: {', '.join(found['working_on'])}")
    elif clocks.work_at is not None and clocks.work_at > clocks.started_at:
        what = found["clocks"]["work_source"] or "work"
        parts.append(f"last work {duration(now - clocks.work_at)} ago ({what})")
    elif Signal.WORK in found["unknown"]:
        parts.append("what ran in it is not known")
    else:
        parts.append("no command at work")
    return "; ".join(parts) + "."


def duration(span: timedelta) -> str:
    """`40 s`, `5 min`, `1 h 5 min`, `2 days 3 h`; never negative."""
    seconds = max(0, round(span.total_seconds()))
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds} s"
    minutes = round(seconds / 60)
    if minutes < 60:  # noqa: PLR2004 - an hour
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:  # noqa: PLR2004 - two days
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} days {hours} h" if hours else f"{days} days"
