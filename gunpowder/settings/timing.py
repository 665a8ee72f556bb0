"""Timeouts that depend on each other, derived in one place: start < soft < hard < visibility."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gunpowder.settings.environment import Environment


@dataclass(frozen=True)
class Timing:
    """Seconds. A long task may work out its start timeout and still clean up before the soft limit."""

    start_timeout: float
    stop_grace: int
    long_soft_limit: int
    long_hard_limit: int
    short_soft_limit: int
    short_hard_limit: int
    visibility_timeout: int

    def __post_init__(self) -> None:
        if not self.start_timeout < self.long_soft_limit < self.long_hard_limit < self.visibility_timeout:
            raise ValueError("timeouts must grow: start, soft limit, hard limit, visibility")


def derive_timing(env: Environment) -> Timing:
    """Work out every limit from the start timeout and the grace period."""
    # A replaced container is stopped, removed, created and, when it never answers, stopped again.
    soft = int(env.start_timeout_seconds) + 2 * env.stop_grace_seconds + 20
    return Timing(
        start_timeout=env.start_timeout_seconds,
        stop_grace=env.stop_grace_seconds,
        long_soft_limit=soft,
        long_hard_limit=soft + 15,
        short_soft_limit=45,
        short_hard_limit=60,
        visibility_timeout=max(soft + 30, 90),
    )
