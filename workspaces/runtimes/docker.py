"""The Docker engine behind the seam; outside of the modules `docker…` here nobody imports its SDK."""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import structlog
from docker.errors import APIError, NotFound

from workspaces import naming
from workspaces.errors import PortTaken, RuntimeUnavailable, StartRefused, StopRefused
from workspaces.runtimes import docker_facts, probe
from workspaces.runtimes.base import HEALTH_SECONDS, Change, Health, Observation, Phase, Signals, Usage
from workspaces.runtimes.docker_connection import close_what_does_not_connect
from workspaces.runtimes.docker_host import Host, disk_of
from workspaces.runtimes.docker_looks import commands_of, cpu_seconds_of
from workspaces.runtimes.docker_network import AMBIGUOUS, Network
from workspaces.runtimes.docker_objects import container_config, from_inspect, from_list, read_at, secret_of
from workspaces.runtimes.docker_refusals import HTTP_CONFLICT, asking, explanation, name_taken, printable, refusal_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workspaces.runtimes.base import Endpoint, Fact, Report, WorkspaceSpec
    from workspaces.runtimes.host_folders import HostFolders

logger = structlog.get_logger(__name__)
close_what_does_not_connect()

# Seconds for one answer of the engine; a busy one takes many times its usual 0.2 s for a start.
ENGINE_TIMEOUT = 20
# The same for each answer within a look at a workspace that is perhaps idle, and for the whole look: one that is slow
# must not hold up a sweep, but what is not known by then counts as "not idle", and keeps the memory of a busy host.
LOOK_TIMEOUT = 5
LOOK_SECONDS = 10
PROC = Path("/proc")
# Two workers may create the same name at once: one wins, the others look again. The engine reserves the name before
# it can show the container, so they look after a moment; a busy engine needs more than one.
NAME_CONFLICT_ROUNDS = 6
NAME_CONFLICT_PAUSE = 0.05
# The engine's words for what a container does, and whether it runs after that.
BEGAN = {"start": True, "unpause": True, "die": False, "destroy": False}


class DockerRuntime:
    """See `runtimes.base.Runtime` for the contract. `host_root` is the workspace root as the engine sees it."""

    def __init__(self, *, socket: str, instance: str, prefix: str, folders: HostFolders, host_root: str) -> None:
        self._socket = socket
        self._instance = instance
        self._prefix = prefix
        self._folders = folders
        self._host_root = host_root

    @cached_property
    def _engine(self) -> docker.APIClient:
        """Connected on first use, so that an engine that is down is an answer and not a crash at start-up."""
        return docker.APIClient(base_url=f"unix://{self._socket}", version="auto", timeout=ENGINE_TIMEOUT)

    @cached_property
    def _looking(self) -> docker.APIClient:
        """The same engine for short looks."""
        return docker.APIClient(base_url=f"unix://{self._socket}", version="auto", timeout=LOOK_TIMEOUT)

    @cached_property
    def _network(self) -> Network:
        return Network(lambda: self._engine, instance=self._instance)

    @cached_property
    def _host(self) -> Host:
        return Host.of(self._engine.info(), disk=disk_of(self._folders.root))

    def ensure_running(self, spec: WorkspaceSpec) -> Observation:
        self._folders.ensure(spec.user_id)
        for attempt in range(NAME_CONFLICT_ROUNDS):
            there = self._inspect(spec.name)
            if there is None:
                if not self._create(spec):  # somebody else has the name meanwhile
                    time.sleep(NAME_CONFLICT_PAUSE * 2**attempt)
                    continue
                if not self._start(spec, fresh=True):
                    continue
                return self.observe(spec.name)
            seen = self._see(spec.name, there)
            if seen.user_id != spec.user_id:
                raise name_taken(spec.name)
            if not self._reusable(spec, seen, there):
                self.ensure_stopped(spec.name, generation=spec.generation, grace=spec.stop_grace)
                self.ensure_removed(spec.name)
                continue
            if seen.phase is Phase.RUNNING or self._wake(spec, seen):
                return self.observe(spec.name)
        raise RuntimeUnavailable(f"the container name {spec.name} is contended; trying again later")

    def observe(self, name: str) -> Observation:
        there = self._inspect(name)
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
                    self._engine.unpause(seen.container_id)  # a paused process never sees SIGTERM
                self._engine.stop(seen.container_id, timeout=grace)
        except NotFound:
            return
        except APIError as error:
            raise StopRefused(f"The engine could not stop container {name}: {explanation(error)}") from error

    def ensure_removed(self, name: str) -> None:
        seen = self.observe(name)
        if seen.phase is Phase.ABSENT or seen.user_id is None:
            return
        try:
            with asking("remove a container"):
                self._engine.remove_container(seen.container_id, force=True, v=True)
        except NotFound:
            return
        except APIError as error:
            if error.status_code != HTTP_CONFLICT:  # "removal … is already in progress" is what we want
                raise StopRefused(f"The engine could not remove container {name}: {explanation(error)}") from error

    def observe_all(self) -> Iterator[Observation]:
        with asking("list containers"):
            found = self._engine.containers(
                all=True,
                filters={"label": [f"{naming.LABEL_INSTANCE}={self._instance}", naming.LABEL_WORKSPACE]},
            )
        return iter([from_list(entry, instance=self._instance) for entry in found])

    def changes(self) -> Iterator[Change]:
        try:
            with asking("tell of containers"):
                # From this second on, so that nothing is missed between the question and its first answer.
                stream = self._engine.events(
                    since=int(time.time()),
                    decode=True,
                    filters={
                        "type": "container",
                        "event": list(BEGAN),
                        "label": [f"{naming.LABEL_INSTANCE}={self._instance}", naming.LABEL_WORKSPACE],
                    },
                )
        except APIError as error:
            raise RuntimeUnavailable(f"the engine could not tell of containers: {explanation(error)}") from error
        return _changes(stream)

    def health(self, endpoint: Endpoint, *, seconds: float = HEALTH_SECONDS) -> Health:
        found = probe.probe(endpoint, seconds=seconds)
        if found.ready and probe.connected(endpoint):
            return dataclasses.replace(found, last_heartbeat_at=datetime.now(tz=UTC))
        return found

    def report(self, endpoint: Endpoint, *, secret: str) -> Report:
        return probe.read_report(endpoint, secret=secret)

    def signals(self, name: str) -> Signals:
        there = self._inspect(name, quick=True)
        seen = Observation(name=name, phase=Phase.ABSENT) if there is None else self._see(name, there)
        if there is None or seen.phase is not Phase.RUNNING or seen.endpoint is None:
            return Signals(ready=False, report=None, commands=None, cpu_seconds=None, connected=None)
        until = time.monotonic() + LOOK_SECONDS
        commands = commands_of(self._looking, seen.container_id)
        cpu_seconds, cpu_read_at = (
            (None, None) if time.monotonic() > until else cpu_seconds_of(self._looking, seen.container_id)
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
                text = self._engine.logs(name, stdout=True, stderr=True, tail=tail)
        except NotFound:
            return []
        except APIError as error:
            raise RuntimeUnavailable(f"the engine could not read the log: {explanation(error)}") from error
        return [printable(line) for line in text.decode("utf-8", "replace").splitlines()][-tail:]

    def usage(self, name: str) -> Usage | None:
        try:
            with asking("sample a container"):
                found = self._engine.stats(name, stream=False, one_shot=True)
        except NotFound:
            return None
        except APIError as error:
            raise RuntimeUnavailable(f"the engine gave no sample: {explanation(error)}") from error
        memory = found.get("memory_stats") or {}
        if "usage" not in memory:
            return None
        # Page cache that the kernel would give back at once is not use; the docker command counts the same way.
        cache = int(
            (memory.get("stats") or {}).get("inactive_file", memory.get("stats", {}).get("total_inactive_file", 0))
        )
        user_id = self.observe(name).user_id
        return Usage(
            cpu_seconds=int(found["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9,
            memory_bytes=max(int(memory["usage"]) - cache, 0),
            memory_limit_bytes=int(memory.get("limit", 0)),
            pids=int((found.get("pids_stats") or {}).get("current", 0)),
            disk_bytes=0 if user_id is None else self._folders.disk_bytes(user_id),
            read_at=read_at(found),
        )

    def memory_available(self) -> int | None:
        """The kernel's own estimate. The engine is this machine's, and a container's /proc shows the host's memory."""
        try:
            lines = (PROC / "meminfo").read_text(encoding="ascii").splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
        except (OSError, StopIteration, ValueError, IndexError):
            return None

    def examine(self, *, image: str, user_ids: frozenset[int]) -> list[Fact]:
        asked_at = datetime.now(tz=UTC)
        try:
            with asking("describe itself"):
                info = self._engine.info()
        except APIError as error:
            raise RuntimeUnavailable(f"the engine could not describe itself: {explanation(error)}") from error
        root = self._folders.root
        return [
            *docker_facts.engine_facts(info, asked_at=asked_at, answered_at=datetime.now(tz=UTC)),
            docker_facts.image_fact(image, self._image_id(image)),
            *docker_facts.host_facts(PROC, workspaces=len(user_ids)),
            docker_facts.disk_fact(root),
            docker_facts.writes_fact(info, disk_of(root)),
            *docker_facts.folder_facts(root, user_ids),
        ]

    def ping(self) -> None:
        try:
            with asking("ping"):
                self._engine.ping()
        except APIError as error:
            raise RuntimeUnavailable(f"the engine answers {error.status_code} to a ping") from error

    def _see(self, name: str, there: dict[str, Any]) -> Observation:
        return from_inspect(name, there, instance=self._instance)

    # --- steps of ensure_running ---

    def _inspect(self, name: str, *, quick: bool = False) -> dict[str, Any] | None:
        try:
            with asking("inspect a container"):
                engine = self._looking if quick else self._engine
                found: dict[str, Any] = engine.inspect_container(name)
        except NotFound:
            return None
        except APIError as error:
            raise RuntimeUnavailable(f"the engine could not inspect {name}: {explanation(error)}") from error
        # The engine also finds an id by prefix; only the exact name is ours.
        return found if str(found["Name"]).lstrip("/") == name else None

    def _reusable(self, spec: WorkspaceSpec, seen: Observation, there: dict[str, Any]) -> bool:
        """Same spec and same image content: a tag may have been built anew since."""
        if seen.spec_hash != spec.hash or seen.phase is Phase.REMOVING:
            return False
        disks = {limit["Path"] for limit in there["HostConfig"].get("BlkioDeviceWriteBps") or ()}
        if disks and self._host.disk and disks != {self._host.disk}:  # named anew since, as at a boot
            return False
        image = self._image_id(spec.image)
        return image is None or image == there["Image"]

    def _image_id(self, image: str) -> str | None:
        try:
            with asking("inspect an image"):
                return str(self._engine.inspect_image(image)["Id"])
        except NotFound:
            return None
        except APIError as error:
            raise RuntimeUnavailable(f"the engine could not inspect the image: {explanation(error)}") from error

    def _create(self, spec: WorkspaceSpec) -> bool:
        """Create the container; False when the name was taken meanwhile."""
        self._network.ensure()
        try:
            with asking("create a container"):
                self._engine.create_container_from_config(
                    container_config(spec, host_root=self._host_root, host=self._host), name=spec.name
                )
        except NotFound as error:
            raise StartRefused(
                f"The image {spec.image} is not on the Docker host. An administrator must build or load it "
                "(`make up` does) or correct GUNPOWDER_WORKSPACE_IMAGE.",
                code="image_missing",
            ) from error
        except APIError as error:
            if error.status_code == HTTP_CONFLICT:
                return False
            raise refusal_of(error) from error
        return True

    def _wake(self, spec: WorkspaceSpec, seen: Observation) -> bool:
        """Start or unpause what is there; False when it could not be woken and was removed for a fresh one."""
        if seen.phase is Phase.PAUSED:
            try:
                with asking("unpause a container"):
                    self._engine.unpause(seen.container_id)
            except APIError as error:
                raise refusal_of(error) from error
            return True
        try:
            self._start(spec, fresh=False)
        except PortTaken:
            raise
        except StartRefused as refusal:
            # For instance its network is gone. The files are not in it, so a new container costs nothing.
            logger.warning("container_replaced", container=spec.name, why=refusal.message)
            self.ensure_removed(spec.name)
            return False
        return True

    def _start(self, spec: WorkspaceSpec, *, fresh: bool) -> bool:
        """Start it. A port conflict or a failed first start leaves a corpse behind, which is removed here.

        False where it has to be made in another way first.
        """
        try:
            self._ask_to_start(spec.name)
        except APIError as error:
            refusal = refusal_of(error)
            if fresh or isinstance(refusal, PortTaken):
                self.ensure_removed(spec.name)
            # An engine that is itself in a container may not see the device: then without that limit.
            if fresh and self._host.disk and f"stat {self._host.disk}: " in explanation(error):
                logger.warning("disk_not_limited", device=self._host.disk)
                self._host = dataclasses.replace(self._host, disk="")
                return False
            raise refusal from error
        return True

    def _ask_to_start(self, name: str) -> None:
        for attempt in range(1, NAME_CONFLICT_ROUNDS + 1):
            try:
                with asking("start a container"):
                    self._engine.start(name)
            except APIError as error:
                if attempt == NAME_CONFLICT_ROUNDS or AMBIGUOUS not in explanation(error).lower():
                    raise
                # Another worker has just made a second one, and each of the others may be about to.
                self._network.ensure()
                time.sleep(NAME_CONFLICT_PAUSE * attempt)
            else:
                return


def _changes(stream: Any) -> Iterator[Change]:
    try:
        for event in stream:
            yield Change(name=str(event["Actor"]["Attributes"]["name"]), began=BEGAN[event["Action"]])
    finally:
        stream.close()
        # The SDK shuts the socket down, and leaves it open for as long as the response lives: some cycle of its own.
        stream._response.close()


def _left(until: float) -> float:
    """Seconds until then (monotonic); enough for a healthy answer even when there are none left."""
    return max(until - time.monotonic(), 1.0)
