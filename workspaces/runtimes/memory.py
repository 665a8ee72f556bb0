"""The runtime in a dictionary: for unit and property tests, and the second one that keeps the seam honest."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from workspaces.errors import PortTaken, RuntimeUnavailable, StartRefused
from workspaces.runtimes.base import HEALTH_SECONDS, Change, Health, Observation, Phase, Report, Signals, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from workspaces.runtimes.base import Endpoint, Fact, WorkspaceSpec


@dataclass
class _Container:
    spec: WorkspaceSpec
    number: int
    phase: Phase = Phase.RUNNING
    exit_code: int | None = None
    out_of_memory: bool = False
    lines: list[str] = field(default_factory=list)
    report: Report = field(default_factory=Report)
    commands: tuple[str, ...] | None = ()
    cpu_seconds: float | None = 0.0
    connected: bool | None = False


class MemoryRuntime:
    """Behaves as the contract says; the public attributes are switches with which tests cause trouble."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._containers: dict[str, _Container] = {}
        self._created = 0
        self.reachable = True
        self.answering = True
        self.answers_after = 0.0  # seconds
        self.refuse: StartRefused | None = None
        self.busy_ports: set[int] = set()
        self.heartbeats: dict[int, datetime] = {}
        self.starts = 0
        self.looks = 0
        self.mute: set[str] = set()
        self.available: int | None = None
        self.told: dict[int, str] = {}
        self.facts: list[Fact] = []
        self._listeners: list[queue.SimpleQueue[Change | None]] = []

    def ensure_running(self, spec: WorkspaceSpec) -> Observation:
        with self._lock:
            self.ping()
            if self.refuse is not None:
                raise self.refuse
            there = self._containers.get(spec.name)
            if there is not None and there.spec.hash != spec.hash:
                del self._containers[spec.name]
                there = None
            if there is None or there.phase is not Phase.RUNNING:
                if not self.port_free(spec.endpoint):
                    self._containers.pop(spec.name, None)
                    raise PortTaken(f"Port {spec.endpoint.port} is in use.")
                self.starts += 1
                self._announce(spec.name, began=True)
            if there is None:
                self._created += 1
                there = self._containers[spec.name] = _Container(spec, self._created)
            there.phase, there.exit_code, there.out_of_memory = Phase.RUNNING, None, False
            return self._see(there)

    def observe(self, name: str) -> Observation:
        with self._lock:
            self.ping()
            there = self._containers.get(name)
            return Observation(name=name, phase=Phase.ABSENT) if there is None else self._see(there)

    def ensure_stopped(self, name: str, *, generation: int, grace: int) -> None:  # noqa: ARG002 - it ends at once
        with self._lock:
            self.ping()
            there = self._containers.get(name)
            if there is not None and there.spec.generation <= generation and there.phase is Phase.RUNNING:
                there.phase, there.exit_code = Phase.EXITED, 143
                self._announce(name, began=False)

    def ensure_removed(self, name: str) -> None:
        with self._lock:
            self.ping()
            if self._containers.pop(name, None) is not None:
                self._announce(name, began=False)

    def observe_all(self) -> Iterator[Observation]:
        with self._lock:
            self.ping()
            return iter([self._see(container) for container in self._containers.values()])

    def changes(self) -> Iterator[Change]:
        with self._lock:
            self.ping()
            told: queue.SimpleQueue[Change | None] = queue.SimpleQueue()
            self._listeners.append(told)
        return iter(told.get, None)

    def hang_up(self) -> None:
        """End all conversations about changes, as an engine that stops does."""
        with self._lock:
            for told in self._listeners:
                told.put(None)
            self._listeners.clear()

    def _announce(self, name: str, *, began: bool) -> None:
        for told in self._listeners:
            told.put(Change(name=name, began=began))

    def health(self, endpoint: Endpoint, *, seconds: float = HEALTH_SECONDS) -> Health:
        with self._lock:
            alive = any(c.phase is Phase.RUNNING and c.spec.endpoint == endpoint for c in self._containers.values())
            ready = alive and self.answering and self.reachable and seconds >= self.answers_after
            return Health(ready=ready, last_heartbeat_at=self.heartbeats.get(endpoint.port) if ready else None)

    def report(self, endpoint: Endpoint, *, secret: str) -> Report:
        with self._lock:
            there = next((c for c in self._containers.values() if c.spec.endpoint == endpoint), None)
            if there is None or there.phase is not Phase.RUNNING or not self.reachable or there.spec.name in self.mute:
                raise RuntimeUnavailable("the workspace did not answer")
            return there.report if secret == there.spec.secret else Report()

    def memory_available(self) -> int | None:
        return self.available

    def signals(self, name: str) -> Signals:
        with self._lock:
            self.ping()
            self.looks += 1
            there = self._containers.get(name)
            if there is None or there.phase is not Phase.RUNNING:
                return Signals(ready=False, report=None, commands=None, cpu_seconds=None, connected=None)
            return Signals(
                ready=self.answering,
                report=None if name in self.mute else there.report,
                commands=there.commands,
                cpu_seconds=there.cpu_seconds,
                connected=there.connected,
                last_heartbeat_at=self.heartbeats.get(there.spec.endpoint.port),
            )

    def tell(self, user_id: int, notice: str) -> None:
        with self._lock:
            self.ping()
            self.told[user_id] = notice

    def inside(self, name: str) -> _Container:
        """The container itself, whose report, commands and processor time a test may set."""
        return self._containers[name]

    def port_free(self, endpoint: Endpoint) -> bool:
        with self._lock:
            return endpoint.port not in self.busy_ports and not any(
                c.phase is Phase.RUNNING and c.spec.endpoint == endpoint for c in self._containers.values()
            )

    def logs(self, name: str, *, tail: int) -> list[str]:
        with self._lock:
            self.ping()
            there = self._containers.get(name)
            return [] if there is None else there.lines[-tail:]

    def usage(self, name: str) -> Usage | None:
        with self._lock:
            self.ping()
            there = self._containers.get(name)
            if there is None or there.phase is not Phase.RUNNING:
                return None
            return Usage(
                cpu_seconds=there.cpu_seconds or 0.0,
                memory_bytes=2**20,
                memory_limit_bytes=there.spec.memory,
                pids=1,
                disk_bytes=0,
            )

    def examine(self, *, image: str, user_ids: frozenset[int]) -> list[Fact]:  # noqa: ARG002 - it has no place
        self.ping()
        return list(self.facts)

    def ping(self) -> None:
        if not self.reachable:
            raise RuntimeUnavailable("the in-memory runtime was told not to answer")

    def end(self, name: str, *, exit_code: int, out_of_memory: bool = False) -> None:
        """Let a container end by itself, as a crash or a kill from outside would."""
        with self._lock:
            there = self._containers[name]
            there.phase, there.exit_code, there.out_of_memory = Phase.EXITED, exit_code, out_of_memory
            self._announce(name, began=False)

    def stray(self, spec: WorkspaceSpec) -> None:
        """Put a running container there that no start made."""
        with self._lock:
            self._created += 1
            self._containers[spec.name] = _Container(replace(spec), self._created)
            self._announce(spec.name, began=True)

    def running_names(self) -> list[str]:
        with self._lock:
            return [name for name, there in self._containers.items() if there.phase is Phase.RUNNING]

    def _see(self, there: _Container) -> Observation:
        return Observation(
            name=there.spec.name,
            phase=there.phase,
            container_id=f"memory-{there.number}",
            user_id=there.spec.user_id,
            generation=there.spec.generation,
            spec_hash=there.spec.hash,
            image=there.spec.image,
            endpoint=there.spec.endpoint if there.phase is Phase.RUNNING else None,
            exit_code=there.exit_code,
            out_of_memory=there.out_of_memory,
        )
