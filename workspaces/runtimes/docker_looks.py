"""Short looks at a container of the engine's; what could not be learnt is None, and the log says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from docker.errors import APIError

from workspaces.errors import RuntimeUnavailable
from workspaces.runtimes.base import Usage
from workspaces.runtimes.docker_objects import TOP_COLUMNS, foreground_commands, read_at
from workspaces.runtimes.docker_refusals import asking

if TYPE_CHECKING:
    from datetime import datetime

    import docker

logger = structlog.get_logger(__name__)


def commands_of(engine: docker.APIClient, container_id: str) -> tuple[str, ...] | None:
    """The foreground commands of its terminals."""
    try:
        with asking("list processes"):
            # Without a selection of its own, so that the engine may ask for just this container's processes.
            found = engine.top(container_id, ps_args=f"-o {TOP_COLUMNS}")
        return foreground_commands(dict(found))
    except (RuntimeUnavailable, APIError, ValueError, LookupError) as error:
        logger.info("commands_unknown", container=container_id[:12], why=type(error).__name__)
        return None


def cpu_seconds_of(engine: docker.APIClient, container_id: str) -> tuple[float | None, datetime | None]:
    """Seconds of processor that it has used, and when the engine read that."""
    try:
        with asking("sample a container"):
            found = engine.stats(container_id, stream=False, one_shot=True)
        return int(found["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9, read_at(found)
    except (RuntimeUnavailable, APIError, LookupError, TypeError, ValueError) as error:
        logger.info("cpu_unknown", container=container_id[:12], why=type(error).__name__)
        return None, None


def usage_of(found: dict[str, Any]) -> Usage | None:
    """What a container uses, but for the disk, out of the engine's sample; None when it does not run."""
    memory = found.get("memory_stats") or {}
    if "usage" not in memory:
        return None
    # Page cache that the kernel would give back at once is not use; the docker command counts the same way.
    cache = int((memory.get("stats") or {}).get("inactive_file", memory.get("stats", {}).get("total_inactive_file", 0)))
    return Usage(
        cpu_seconds=int(found["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9,
        memory_bytes=max(int(memory["usage"]) - cache, 0),
        memory_limit_bytes=int(memory.get("limit", 0)),
        pids=int((found.get("pids_stats") or {}).get("current", 0)),
        disk_bytes=0,
        read_at=read_at(found),
    )
