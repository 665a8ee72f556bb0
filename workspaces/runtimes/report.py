"""What a workspace says of itself, out of the bytes of its answer; pure. Written by somebody hostile, so checked."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from workspaces.runtimes.base import Report, Request, RequestVerb

MAX_BYTES = 16384  # the report itself has at most 4096; the rest is room for the answer's head
# Containers share the host's clock. A time that lies further ahead than a clock step is no time at all.
TOLERATED_AHEAD = timedelta(minutes=2)
_SOURCES = frozenset({"window", "cursor", "terminal", "opened"})
_IDENTIFIER = re.compile(r"[0-9A-Za-z-]{8,64}")
NOTHING = Report()


def parse_report(answer: bytes, *, now: datetime) -> Report:
    """Read a raw HTTP answer; whatever makes no sense is left out. Times are clamped to `now`."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b"\r\n", 1)[0].split(b" ")
    if len(status) < 2 or status[1] != b"200" or len(answer) >= MAX_BYTES:  # noqa: PLR2004 - "HTTP/1.1 200"
        return NOTHING
    try:
        # The body may come in chunks, so what is before the first brace and behind the last is not looked at.
        found = json.loads(body[body.find(b"{") : body.rfind(b"}") + 1])
    except (ValueError, RecursionError):
        return NOTHING
    if not isinstance(found, dict):
        return NOTHING
    presence = found.get("presence")
    present_at = _moment(presence.get("at"), now=now) if isinstance(presence, dict) else None
    source = presence.get("source") if isinstance(presence, dict) else None
    return Report(
        present_at=present_at,
        alive_at=_moment(found.get("alive"), now=now),
        source=source if isinstance(source, str) and source in _SOURCES else "",
        request=_request(found.get("request"), now=now),
    )


def _request(found: Any, *, now: datetime) -> Request | None:
    if not isinstance(found, dict):
        return None
    identifier, verb = found.get("id"), found.get("verb")
    if not isinstance(identifier, str) or not _IDENTIFIER.fullmatch(identifier):
        return None
    if not isinstance(verb, str) or verb not in set(RequestVerb):
        return None
    minutes = _number(found.get("minutes"))
    if verb == RequestVerb.KEEP and (minutes is None or minutes <= 0):
        return None
    return Request(
        id=identifier,
        verb=RequestVerb(verb),
        asked_at=_moment(found.get("at"), now=now),
        minutes=min(minutes or 0, 1_000_000),
    )


def _moment(value: Any, *, now: datetime) -> datetime | None:
    milliseconds = _number(value)
    if milliseconds is None or milliseconds <= 0:
        return None
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return None if moment > now + TOLERATED_AHEAD else min(moment, now)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of a thousand digits
        return None
    return number if math.isfinite(number) else None
