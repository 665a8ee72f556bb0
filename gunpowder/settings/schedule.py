"""Beat's schedule is code; entries that code no longer names are pruned from the database (`gunpowder.beat`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gunpowder.settings.environment import Environment

USAGE_SECONDS = 20.0
DISABLED_SECONDS = 5.0
PURGE_SECONDS = 3600.0


def beat_schedule(env: Environment) -> dict[str, dict[str, Any]]:
    """Each entry expires before its next turn, so a queue that stood still holds one sweep, not a hundred."""
    every = {
        "workspaces.stop_idle": env.sweep_seconds,
        "workspaces.listen": env.listen_seconds,
        "workspaces.attend": env.listen_seconds,
        "workspaces.fail_overdue": env.reconcile_seconds,
        "workspaces.reconcile": env.reconcile_seconds,
        "workspaces.stop_disabled": DISABLED_SECONDS,
        "workspaces.sample_usage": USAGE_SECONDS,
        "workspaces.purge_expired": PURGE_SECONDS,
    }
    return {
        name: {
            "task": name,
            "schedule": seconds,
            "options": {"queue": "sweeps", "expires": max(seconds * 0.9, 0.9)},
        }
        for name, seconds in every.items()
    }
