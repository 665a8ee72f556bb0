"""What the app takes from the settings, as values; the only reader of `django.conf` in the domain."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.conf import settings

from workspaces.idleness import Limits

if TYPE_CHECKING:
    from workspaces.runtimes.base import Runtime

MAX_KEEP = timedelta(hours=8)


def env() -> Any:
    """The checked environment (gunpowder.settings.environment.Environment)."""
    return settings.ENV


def limits() -> Limits:
    """The limits of whoever has none of their own (`rules.py`)."""
    return Limits(
        idle=timedelta(minutes=env().idle_minutes),
        lifetime=timedelta(hours=env().max_lifetime_hours),
        work_budget=timedelta(hours=env().work_budget_hours),
        warning=timedelta(minutes=env().warn_minutes),
    )


@lru_cache(maxsize=1)
def runtime() -> Runtime:
    """The configured runtime, one per process. Only workers call this: nobody else holds the engine's socket."""
    if env().runtime == "memory":
        from workspaces.runtimes.memory import MemoryRuntime

        return MemoryRuntime()
    # The docker SDK takes a third of a second to import, so web and beat never do.
    from workspaces.runtimes.docker import DockerRuntime
    from workspaces.runtimes.host_folders import HostFolders

    return DockerRuntime(
        socket=str(env().docker_socket),
        instance=env().instance,
        prefix=env().container_prefix,
        folders=HostFolders(root=env().workspace_mount),
        host_root=str(env().workspace_root),
        pool=env().networks,
    )
