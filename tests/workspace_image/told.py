"""What the extension is told, step by step, and what is pressed or called at that."""

from __future__ import annotations

from typing import Any


def minutes(from_now: float) -> dict[str, float]:
    """A moment, counted from when the steps begin: a busy machine may begin them minutes after it read this."""
    return {"minutes": from_now}


# As workspaces/notices.py writes it for a workspace that nobody has used for 25 minutes.
QUIET: dict[str, Any] = {
    "version": 1,
    "started_at": minutes(-60),
    "last_activity_at": minutes(-25.2),
    "stops_at": minutes(5),
    "stops_reason": "idle",
    "idle_seconds": 1800,
    "work_budget_seconds": 28800,
    "keep_until": None,
    "lifetime_ends_at": minutes(23 * 60),
    "lifetime_warnings": [minutes(22 * 60)],
    "stop_when_done": False,
    "working_on": [],
    "warning": None,
    "answer": None,
}
WARNED = {**QUIET, "warning": {"at": minutes(5), "reason": "idle"}}
BUSY = {**QUIET, "working_on": ["make"]}
OLD = {**QUIET, "lifetime_warnings": [minutes(-0.1)], "lifetime_ends_at": minutes(15)}

STEPS: list[dict[str, Any]] = [
    {"name": "quiet", "status": QUIET},
    {"name": "warned", "status": WARNED, "press": "Keep 1 hour"},
    {"name": "warned again", "status": WARNED},
    {"name": "kept", "status": {**QUIET, "keep_until": minutes(60)}, "command": "gunpowder.choose"},
    {
        "name": "budget",
        "status": {**BUSY, "stops_reason": "work_budget", "warning": {"at": minutes(15), "reason": "work_budget"}},
    },
    {"name": "waiting", "status": {**BUSY, "stop_when_done": True}},
    {"name": "old", "status": OLD},
    {"name": "old again", "status": OLD},
    {"name": "stop", "status": BUSY, "command": "gunpowder.stop"},
    {"name": "stop, unknown", "status": {**QUIET, "working_on": None}, "command": "gunpowder.stop"},
    {"name": "absurd", "status": {"working_on": 7, "warning": 7, "lifetime_warnings": "x", "keep_until": []}},
]
