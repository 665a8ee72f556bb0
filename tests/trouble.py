"""Runtimes that cause one kind of trouble each, at a chosen moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workspaces.errors import PortTaken, RuntimeUnavailable, StopRefused
from workspaces.runtimes.base import HEALTH_SECONDS
from workspaces.runtimes.memory import MemoryRuntime

if TYPE_CHECKING:
    from collections.abc import Callable

    from workspaces.runtimes.base import Endpoint, Health, Observation, WorkspaceSpec


class Interrupted(MemoryRuntime):
    """Something happens at the worst moment: just after the container runs, or when the editor is first asked."""

    def __init__(
        self,
        *,
        after_start: Callable[[WorkspaceSpec], None] | None = None,
        on_health: Callable[[MemoryRuntime, Endpoint], None] | None = None,
        before_stop: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__()
        self.after_start, self.on_health, self.before_stop = after_start, on_health, before_stop

    def ensure_running(self, spec: WorkspaceSpec) -> Observation:
        seen = super().ensure_running(spec)
        if self.after_start is not None:
            self.after_start(spec)
        return seen

    def health(self, endpoint: Endpoint, *, seconds: float = HEALTH_SECONDS) -> Health:
        happens, self.on_health = self.on_health, None
        if happens is not None:
            happens(self, endpoint)
        return super().health(endpoint, seconds=seconds)

    def ensure_stopped(self, name: str, *, generation: int, grace: int) -> None:
        happens, self.before_stop = self.before_stop, None
        if happens is not None:
            happens(name)
        super().ensure_stopped(name, generation=generation, grace=grace)


class Contended(MemoryRuntime):
    """Answers, but never gets a container to run: its name is being taken away for ever."""

    def ensure_running(self, spec: WorkspaceSpec) -> Observation:
        raise RuntimeUnavailable(f"the container name {spec.name} is contended; trying again later")


class OverlooksPorts(MemoryRuntime):
    """Calls every port free and finds only at the start that it is not, as an engine may."""

    def port_free(self, endpoint: Endpoint) -> bool:
        del endpoint
        return True

    def ensure_running(self, spec: WorkspaceSpec) -> Observation:
        if spec.endpoint.port in self.busy_ports:
            raise PortTaken("The port is in use by another program.")
        return super().ensure_running(spec)


class CannotStop(MemoryRuntime):
    """Answers, but containers do not end."""

    def ensure_stopped(self, name: str, *, generation: int, grace: int) -> None:
        del generation, grace
        raise StopRefused(f"The engine could not stop container {name}.")


class LosesTheEngine(MemoryRuntime):
    """Goes away in the middle: the container was made, the answer never came."""

    def ensure_running(self, spec: WorkspaceSpec) -> Observation:
        super().ensure_running(spec)
        raise RuntimeUnavailable("the connection broke")
