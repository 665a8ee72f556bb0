"""The Docker engine behind the seam; outside of the modules `docker…` here nobody imports its SDK."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from docker.errors import APIError, NotFound

from workspaces.errors import PortTaken, RuntimeUnavailable, StartRefused, StopRefused
from workspaces.runtimes import docker_facts, probe
from workspaces.runtimes.base import HEALTH_SECONDS, Health, Observation, Phase, Signals
from workspaces.runtimes.docker_engine import Engine
from workspaces.runtimes.docker_host import Host, disk_of, memory_of
from workspaces.runtimes.docker_looks import commands_of, cpu_seconds_of, usage_of
from workspaces.runtimes.docker_network import AMBIGUOUS, Networks, haunted, lost
from workspaces.runtimes.docker_objects import container_config, from_inspect, from_list, secret_of
from workspaces.runtimes.docker_refusals import HTTP_CONFLICT, asking, explanation, name_taken, printable, refusal_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Network

    from workspaces.runtimes.base import Change, Endpoint, Fact, Report, Usage, WorkspaceSpec
    from workspaces.runtimes.host_folders import HostFolders

logger = structlog.get_logger(__name__)

# Seconds for a whole look at a workspace that is perhaps idle, in answers of at most docker_engine.LOOK_TIMEOUT.
LOOK_SECONDS = 10
PROC = Path("/proc")
# Two workers may create the same name at once: one wins, the others look again. The engine reserves the name before
# it can show the container, so they look after a moment; a busy engine needs more than one.
NAME_CONFLICT_ROUNDS = 12
NAME_CONFLICT_PAUSE, NAME_CONFLICT_LONGEST = 0.05, 0.8  # seconds
GONE = "No such container"  # the engine's words, when another worker has removed it


class DockerRuntime:
    """See `runtimes.base.Runtime` for the contract. `host_root` is the workspace root as the engine sees it."""

    def __init__(
        self, *, socket: str, instance: str, prefix: str, folders: HostFolders, host_root: str, pool: IPv4Network
    ) -> None:
        self._engine = Engine(socket, instance=instance)
        self._instance = instance
        self._prefix = prefix
        self._folders = folders
        self._host_root = host_root
        self._pool = pool
        self._networks = Networks(lambda: self._engine.client, instance=instance, pool=pool)

    @cached_property
    def _host(self) -> Host:
        return self._host_of(self._engine.info())

    def _host_of(self, info: dict[str, Any]) -> Host:
        return Host.of(info, disk=disk_of(self._folders.root), mine=os.sched_getaffinity(0))

    def ensure_running(self, spec: WorkspaceSpec) -> Observation:
        self._folders.ensure(spec.user_id)
        for attempt in range(NAME_CONFLICT_ROUNDS):
            there, host = self._engine.inspect(spec.name), self._host
            if there is None:
                made = self._create(spec, host)
                if not made:  # somebody else has the name meanwhile
                    time.sleep(min(NAME_CONFLICT_PAUSE * 2**attempt, NAME_CONFLICT_LONGEST))
                    continue
                if not self._start(spec, made=made, made_for=host):
                    continue
                return self.observe(spec.name)
            seen = self._see(spec.name, there)
            if seen.user_id != spec.user_id:
                raise name_taken(spec.name)
            if not self._reusable(spec, seen, there):
                self.ensure_stopped(spec.name, generation=spec.generation, grace=spec.stop_grace)
                self._remove(spec.name)
                continue
            if seen.phase is Phase.RUNNING or self._wake(spec, seen):
                return self.observe(spec.name)
        raise RuntimeUnavailable(f"the container name {spec.name} is contended; trying again later")

    def observe(self, name: str) -> Observation:
        there = self._engine.inspect(name)
        if there is None:
            return Observation(name=name, phase=Phase.ABSENT)
        return self._see(name, there)

    def ensure_stopped(self, name: str, *, generation: int, grace: int) -> None:
        seen = self.observe(name)
        if seen.phase is Phase.ABSENT or seen.user_id is None or seen.generation > generation:
            return
        if not seen.alive:
            return
        try:
            with asking("stop a container"):
                if seen.phase is Phase.PAUSED:
                    self._engine.client.unpause(seen.container_id)  # a paused process never sees SIGTERM
                self._engine.client.stop(seen.container_id, timeout=grace)
        except NotFound:
            return
        except APIError as error:
            raise StopRefused(f"The engine could not stop container {name}: {explanation(error)}") from error
        self._networks.trim()

    def ensure_removed(self, name: str) -> None:
        self._remove(name)
        self._networks.remove(name)

    def _remove(self, name: str, *, only: str = "") -> None:
        """Remove the container of this name; with `only`, no other than that: a new one may have been made since."""
        seen = self.observe(name)
        if seen.phase is Phase.ABSENT or seen.user_id is None or (only and seen.container_id != only):
            return
        try:
            with asking("remove a container"):
                self._engine.client.remove_container(seen.container_id, force=True, v=True)
        except NotFound:
            return
        except APIError as error:
            if error.status_code != HTTP_CONFLICT:  # "removal … is already in progress" is what we want
                raise StopRefused(f"The engine could not remove container {name}: {explanation(error)}") from error

    def observe_all(self) -> Iterator[Observation]:
        return iter([from_list(entry, instance=self._instance) for entry in self._engine.containers()])

    def changes(self) -> Iterator[Change]:
        return self._engine.changes()

    def health(self, endpoint: Endpoint, *, seconds: float = HEALTH_SECONDS) -> Health:
        found = probe.probe(endpoint, seconds=seconds)
        if found.ready and probe.connected(endpoint):
            return dataclasses.replace(found, last_heartbeat_at=datetime.now(tz=UTC))
        return found

    def report(self, endpoint: Endpoint, *, secret: str) -> Report:
        return probe.read_report(endpoint, secret=secret)

    def signals(self, name: str) -> Signals:
        there = self._engine.inspect(name, quick=True)
        seen = Observation(name=name, phase=Phase.ABSENT) if there is None else self._see(name, there)
        if there is None or seen.phase is not Phase.RUNNING or seen.endpoint is None:
            return Signals(ready=False, report=None, commands=None, cpu_seconds=None, connected=None)
        until = time.monotonic() + LOOK_SECONDS
        commands = commands_of(self._engine.looking, seen.container_id)
        cpu_seconds, cpu_read_at = (
            (None, None) if time.monotonic() > until else cpu_seconds_of(self._engine.looking, seen.container_id)
        )
        # What comes from inside comes last: it may take all the time that there is, but only of its own look.
        health = probe.probe(seen.endpoint, seconds=_left(until))
        try:
            report = probe.read_report(seen.endpoint, secret=secret_of(there), seconds=_left(until))
        except RuntimeUnavailable:
            report = None
        return Signals(
            ready=health.ready,
            report=report,
            commands=commands,
            cpu_seconds=cpu_seconds,
            cpu_read_at=cpu_read_at,
            connected=probe.connected(seen.endpoint),
            last_heartbeat_at=health.last_heartbeat_at,
        )

    def tell(self, user_id: int, notice: str) -> None:
        try:
            self._folders.tell(user_id, notice)
        except OSError as error:
            raise RuntimeUnavailable(f"The workspace could not be told: {error.strerror}.") from error

    def port_free(self, endpoint: Endpoint) -> bool:
        return probe.port_free(endpoint)

    def logs(self, name: str, *, tail: int) -> list[str]:
        try:
            with asking("read a container's log"):
                text = self._engine.client.logs(name, stdout=True, stderr=True, tail=tail)
        except NotFound:
            return []
        except APIError as error:
            raise RuntimeUnavailable(f"the engine could not read the log: {explanation(error)}") from error
        return [printable(line) for line in text.decode("utf-8", "replace").splitlines()][-tail:]

    def usage(self, name: str) -> Usage | None:
        try:
            with asking("sample a container"):
                found = self._engine.client.stats(name, stream=False, one_shot=True)
        except NotFound:
            return None
        except APIError as error:
            raise RuntimeUnavailable(f"the engine gave no sample: {explanation(error)}") from error
        usage = usage_of(found)
        user_id = None if usage is None else self.observe(name).user_id
        if usage is None or user_id is None:
            return usage
        return dataclasses.replace(usage, disk_bytes=self._folders.disk_bytes(user_id))

    def memory_available(self) -> int | None:
        return memory_of(PROC)

    def examine(self, *, image: str, user_ids: frozenset[int]) -> list[Fact]:
        asked_at = datetime.now(tz=UTC)
        info = self._engine.info()
        root, host, newest = self._folders.root, self._host_of(info), self._engine.newest_options()
        return [
            *docker_facts.engine_facts(info, asked_at=asked_at, answered_at=datetime.now(tz=UTC)),
            docker_facts.image_fact(image, self._engine.image(image)),
            docker_facts.processors_fact(host, newest),
            docker_facts.counts_fact(host, newest),
            *docker_facts.host_facts(PROC, workspaces=len(user_ids)),
            docker_facts.disk_fact(root),
            docker_facts.writes_fact(info, host.disk),
            docker_facts.networks_fact(PROC, self._pool),
            *docker_facts.folder_facts(root, user_ids),
        ]

    def ping(self) -> None:
        try:
            with asking("ping"):
                self._engine.client.ping()
        except APIError as error:
            raise RuntimeUnavailable(f"the engine answers {error.status_code} to a ping") from error

    def _see(self, name: str, there: dict[str, Any]) -> Observation:
        return from_inspect(name, there, instance=self._instance)

    # --- steps of ensure_running ---

    def _reusable(self, spec: WorkspaceSpec, seen: Observation, there: dict[str, Any]) -> bool:
        """Same spec, same image content (a tag may have been built anew since), and made for the host as it is now."""
        if seen.spec_hash != spec.hash or seen.phase is Phase.REMOVING:
            return False
        if not self._host.still_fits(there["HostConfig"], spec.endpoint.port):
            return False
        image = self._engine.image(spec.image)
        return image is None or image["Id"] == there["Image"]

    def _create(self, spec: WorkspaceSpec, host: Host) -> str:
        """Create the container and return its id; "" when somebody took the name, or it must be made in another way."""
        self._networks.ensure(spec.name)
        try:
            with asking("create a container"):
                made: dict[str, Any] = self._engine.client.create_container_from_config(
                    container_config(spec, host_root=self._host_root, host=host), name=spec.name
                )
        except NotFound as error:
            if lost(error):
                return ""
            raise StartRefused(
                f"The image {spec.image} is not on the Docker host. An administrator must build or load it "
                "(`make up` does) or correct GUNPOWDER_WORKSPACE_IMAGE.",
                code="image_missing",
            ) from error
        except APIError as error:
            if error.status_code == HTTP_CONFLICT or self._learnt(error, host):
                return ""
            raise refusal_of(error) from error
        return str(made["Id"])

    def _learnt(self, error: APIError, made_for: Host) -> bool:
        """Whether the engine's refusal says something of its host that is remembered from now on."""
        known = made_for.without(str(error.explanation or error))
        if known is None:
            return False
        if self._host == made_for:  # else another thread has learnt it meanwhile
            logger.warning("host_cannot", without=made_for.lost_by(known), error=explanation(error))
            self._host = known
        return True

    def _wake(self, spec: WorkspaceSpec, seen: Observation) -> bool:
        """Start or unpause what is there; False when it could not be woken and was removed for a fresh one."""
        if seen.phase is Phase.PAUSED:
            try:
                with asking("unpause a container"):
                    self._engine.client.unpause(seen.container_id)
            except APIError as error:
                raise refusal_of(error) from error
            return True
        try:
            self._start(spec, made=seen.container_id, made_for=None)
        except PortTaken:
            raise
        except StartRefused as refusal:
            # For instance its network is gone. The files are not in it, so a new container costs nothing.
            cause = refusal.__cause__
            # No news: the networks of those who have been away longest are not kept.
            expected = isinstance(cause, APIError) and (lost(cause) or self._learnt(cause, self._host))
            level = logging.INFO if expected else logging.WARNING
            logger.log(level, "container_replaced", container=spec.name, why=refusal.message)
            self._remove(spec.name, only=seen.container_id)
            return False
        return True

    def _start(self, spec: WorkspaceSpec, *, made: str, made_for: Host | None) -> bool:
        """Start it. A port conflict or a failed first start leaves a corpse behind, which is removed here.

        `made` is its id, `made_for` what it was just made for, None for one that was there. False where it has to be
        made again, in another way perhaps.
        """
        try:
            self._ask_to_start(spec.name)
        except APIError as error:
            refusal = refusal_of(error)
            if made_for or isinstance(refusal, PortTaken):
                self._remove(spec.name, only=made)
            if made_for and haunted(error):
                self._networks.renew(spec.name)
                return False
            if made_for and (GONE in explanation(error) or lost(error) or self._learnt(error, made_for)):
                return False
            raise refusal from error
        return True

    def _ask_to_start(self, name: str) -> None:
        for attempt in range(1, NAME_CONFLICT_ROUNDS + 1):
            try:
                with asking("start a container"):
                    self._engine.client.start(name)
            except APIError as error:
                if attempt == NAME_CONFLICT_ROUNDS or AMBIGUOUS not in explanation(error).lower():
                    raise
                # Another worker has just made a second one, and each of the others may be about to.
                self._networks.ensure(name)
                time.sleep(NAME_CONFLICT_PAUSE * attempt)
            else:
                return


def _left(until: float) -> float:
    """Seconds until then (monotonic); enough for a healthy answer even when there are none left."""
    return max(until - time.monotonic(), 1.0)
