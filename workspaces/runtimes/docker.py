"""The Docker engine behind the seam; the only importer of the docker SDK."""

from __future__ import annotations

import dataclasses
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import structlog
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from workspaces import naming
from workspaces.errors import PassingRefusal, PortTaken, RuntimeUnavailable, StartRefused, StopRefused
from workspaces.runtimes import docker_facts, probe
from workspaces.runtimes.base import HEALTH_SECONDS, Change, Health, Observation, Phase, Signals, Usage
from workspaces.runtimes.docker_connection import close_what_does_not_connect
from workspaces.runtimes.docker_objects import (
    TOP_COLUMNS,
    Host,
    container_config,
    foreground_commands,
    from_inspect,
    from_list,
    network_config,
    read_at,
    secret_of,
)

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
HTTP_CONFLICT = 409
# The engine's words for what a container does, and whether it runs after that.
BEGAN = {"start": True, "unpause": True, "die": False, "destroy": False}

_REFUSALS: tuple[tuple[str, str, str], ...] = (
    ("no space left on device", "disk_full", "The host's disk is full. An administrator must free space."),
    ("disk quota exceeded", "disk_full", "The host's disk quota is used up. An administrator must raise it."),
    (
        "bind source path does not exist",
        "folder_unusable",
        (
            "The workspace's folder is missing on the Docker host. GUNPOWDER_WORKSPACE_ROOT must name the same folder "
            "for the worker and for the engine."
        ),
    ),
)
# Refusals of a host under load, which pass: no memory or no process for a moment, a mount or a name that is still being
# taken away, an engine whose own helpers were too slow.
_PASSING: tuple[tuple[str, str, str], ...] = (
    ("cannot allocate memory", "no_memory", "The host has no memory left. Try again later."),
    ("resource temporarily unavailable", "engine_busy", "The host has no room for more processes. Try again later."),
    ("device or resource busy", "engine_busy", "The host was busy with this container. Try again."),
    ("context deadline exceeded", "engine_busy", "The container engine was too slow. Try again."),
    ("is marked for removal", "engine_busy", "The container before was still being removed. Try again."),
)
_AMBIGUOUS = "is ambiguous"
_PORT_TAKEN = ("port is already allocated", "address already in use")


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
    def _host(self) -> Host:
        return Host.of(self._engine.info())

    def ensure_running(self, spec: WorkspaceSpec) -> Observation:
        self._folders.ensure(spec.user_id)
        for attempt in range(NAME_CONFLICT_ROUNDS):
            there = self._inspect(spec.name)
            if there is None:
                if not self._create(spec):  # somebody else has the name meanwhile
                    time.sleep(NAME_CONFLICT_PAUSE * 2**attempt)
                    continue
                self._start(spec, fresh=True)
                return self.observe(spec.name)
            seen = self._see(spec.name, there)
            if seen.user_id != spec.user_id:
                raise _name_taken(spec.name)
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
            with _asking("stop a container"):
                if seen.phase is Phase.PAUSED:
                    self._engine.unpause(seen.container_id)  # a paused process never sees SIGTERM
                self._engine.stop(seen.container_id, timeout=grace)
        except NotFound:
            return
        except APIError as error:
            raise StopRefused(f"The engine could not stop container {name}: {_explanation(error)}") from error

    def ensure_removed(self, name: str) -> None:
        seen = self.observe(name)
        if seen.phase is Phase.ABSENT or seen.user_id is None:
            return
        try:
            with _asking("remove a container"):
                self._engine.remove_container(seen.container_id, force=True, v=True)
        except NotFound:
            return
        except APIError as error:
            if error.status_code != HTTP_CONFLICT:  # "removal … is already in progress" is what we want
                raise StopRefused(f"The engine could not remove container {name}: {_explanation(error)}") from error

    def observe_all(self) -> Iterator[Observation]:
        with _asking("list containers"):
            found = self._engine.containers(
                all=True,
                filters={"label": [f"{naming.LABEL_INSTANCE}={self._instance}", naming.LABEL_WORKSPACE]},
            )
        return iter([from_list(entry, instance=self._instance) for entry in found])

    def changes(self) -> Iterator[Change]:
        try:
            with _asking("tell of containers"):
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
            raise RuntimeUnavailable(f"the engine could not tell of containers: {_explanation(error)}") from error
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
        commands = self._commands(seen.container_id)
        cpu_seconds, cpu_read_at = (None, None) if time.monotonic() > until else self._cpu_seconds(seen.container_id)
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

    def _commands(self, container_id: str) -> tuple[str, ...] | None:
        try:
            with _asking("list processes"):
                # Without a selection of its own, so that the engine may ask for just this container's processes.
                found = self._looking.top(container_id, ps_args=f"-o {TOP_COLUMNS}")
            return foreground_commands(dict(found))
        except (RuntimeUnavailable, APIError, ValueError, LookupError) as error:
            logger.info("commands_unknown", container=container_id[:12], why=type(error).__name__)
            return None

    def _cpu_seconds(self, container_id: str) -> tuple[float | None, datetime | None]:
        try:
            with _asking("sample a container"):
                found = self._looking.stats(container_id, stream=False, one_shot=True)
            return int(found["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9, read_at(found)
        except (RuntimeUnavailable, APIError, LookupError, TypeError, ValueError) as error:
            logger.info("cpu_unknown", container=container_id[:12], why=type(error).__name__)
            return None, None

    def port_free(self, endpoint: Endpoint) -> bool:
        return probe.port_free(endpoint)

    def logs(self, name: str, *, tail: int) -> list[str]:
        try:
            with _asking("read a container's log"):
                text = self._engine.logs(name, stdout=True, stderr=True, tail=tail)
        except NotFound:
            return []
        except APIError as error:
            raise RuntimeUnavailable(f"the engine could not read the log: {_explanation(error)}") from error
        return [_printable(line) for line in text.decode("utf-8", "replace").splitlines()][-tail:]

    def usage(self, name: str) -> Usage | None:
        try:
            with _asking("sample a container"):
                found = self._engine.stats(name, stream=False, one_shot=True)
        except NotFound:
            return None
        except APIError as error:
            raise RuntimeUnavailable(f"the engine gave no sample: {_explanation(error)}") from error
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
            with _asking("describe itself"):
                info = self._engine.info()
        except APIError as error:
            raise RuntimeUnavailable(f"the engine could not describe itself: {_explanation(error)}") from error
        root = self._folders.root
        return [
            *docker_facts.engine_facts(info, asked_at=asked_at, answered_at=datetime.now(tz=UTC)),
            docker_facts.image_fact(image, self._image_id(image)),
            *docker_facts.host_facts(PROC, workspaces=len(user_ids)),
            docker_facts.disk_fact(root),
            *docker_facts.folder_facts(root, user_ids),
        ]

    def ping(self) -> None:
        try:
            with _asking("ping"):
                self._engine.ping()
        except APIError as error:
            raise RuntimeUnavailable(f"the engine answers {error.status_code} to a ping") from error

    def _see(self, name: str, there: dict[str, Any]) -> Observation:
        return from_inspect(name, there, instance=self._instance)

    # --- steps of ensure_running ---

    def _inspect(self, name: str, *, quick: bool = False) -> dict[str, Any] | None:
        try:
            with _asking("inspect a container"):
                engine = self._looking if quick else self._engine
                found: dict[str, Any] = engine.inspect_container(name)
        except NotFound:
            return None
        except APIError as error:
            raise RuntimeUnavailable(f"the engine could not inspect {name}: {_explanation(error)}") from error
        # The engine also finds an id by prefix; only the exact name is ours.
        return found if str(found["Name"]).lstrip("/") == name else None

    def _reusable(self, spec: WorkspaceSpec, seen: Observation, there: dict[str, Any]) -> bool:
        """Same spec and same image content: a tag may have been built anew since."""
        if seen.spec_hash != spec.hash or seen.phase is Phase.REMOVING:
            return False
        image = self._image_id(spec.image)
        return image is None or image == there["Image"]

    def _image_id(self, image: str) -> str | None:
        try:
            with _asking("inspect an image"):
                return str(self._engine.inspect_image(image)["Id"])
        except NotFound:
            return None
        except APIError as error:
            raise RuntimeUnavailable(f"the engine could not inspect the image: {_explanation(error)}") from error

    def _create(self, spec: WorkspaceSpec) -> bool:
        """Create the container; False when the name was taken meanwhile."""
        self._ensure_network()
        try:
            with _asking("create a container"):
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
            raise _refusal(error) from error
        return True

    def _wake(self, spec: WorkspaceSpec, seen: Observation) -> bool:
        """Start or unpause what is there; False when it could not be woken and was removed for a fresh one."""
        if seen.phase is Phase.PAUSED:
            try:
                with _asking("unpause a container"):
                    self._engine.unpause(seen.container_id)
            except APIError as error:
                raise _refusal(error) from error
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

    def _start(self, spec: WorkspaceSpec, *, fresh: bool) -> None:
        """Start it. A port conflict or a failed first start leaves a corpse behind, which is removed here."""
        try:
            self._ask_to_start(spec.name)
        except APIError as error:
            refusal = _refusal(error)
            if fresh or isinstance(refusal, PortTaken):
                self.ensure_removed(spec.name)
            raise refusal from error

    def _ask_to_start(self, name: str) -> None:
        for attempt in range(1, NAME_CONFLICT_ROUNDS + 1):
            try:
                with _asking("start a container"):
                    self._engine.start(name)
            except APIError as error:
                if attempt == NAME_CONFLICT_ROUNDS or _AMBIGUOUS not in _explanation(error).lower():
                    raise
                # Another worker has just made a second one, and each of the others may be about to.
                self._ensure_network()
                time.sleep(NAME_CONFLICT_PAUSE * attempt)
            else:
                return

    def _ensure_network(self) -> None:
        """Make the workspaces' network exist, once: of one name with two networks the engine starts nothing."""
        try:
            with _asking("find the network"):
                found = self._networks()
                if not found:
                    self._engine.create_network(**network_config(self._instance))
                    found = self._networks()
                # The engine's own check for duplicates does not stop two workers at once.
                if len(found) > 1:
                    self._keep_one(found)
        except APIError as error:
            if error.status_code != HTTP_CONFLICT:  # another worker made it meanwhile
                raise PassingRefusal(
                    f"The workspaces' network could not be made: {_explanation(error)}", code="network_failed"
                ) from error

    def _networks(self) -> list[str]:
        """Ids of the networks with exactly our name (the engine's filter finds parts of names too), oldest first."""
        name = naming.network_name(self._instance)
        found = [network for network in self._engine.networks(names=[name]) if network["Name"] == name]
        return [str(network["Id"]) for network in sorted(found, key=lambda n: (n["Created"], n["Id"]))]

    def _keep_one(self, found: list[str]) -> None:
        """The oldest stays, or a later one that something is connected to: it was there alone when that started."""
        oldest, *later = found
        kept = [network for network in later if not self._remove_network(network)]
        if kept and not self._remove_network(oldest):
            kept.append(oldest)
        if len(kept) > 1:  # containers in several: for an administrator to look at
            logger.warning("network_not_removed", networks=kept)

    def _remove_network(self, identifier: str) -> bool:
        """False where something is connected to it. Gone already: True."""
        try:
            self._engine.remove_network(identifier)
        except NotFound:
            return True
        except APIError:
            return False
        return True


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Turn "no answer" into RuntimeUnavailable; an answer that is an error stays an APIError."""
    try:
        yield
    except APIError:
        raise
    except (RequestException, DockerException, OSError) as error:
        raise RuntimeUnavailable(
            f"The container engine did not answer ({what}: {type(error).__name__}). Nothing was changed; "
            "an administrator should look at the engine."
        ) from error


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


def _explanation(error: APIError) -> str:
    return _printable(str(error.explanation or error))[:300]


def _refusal(error: APIError) -> StartRefused:
    """What the engine's answer to a create or start means for this start."""
    text = _explanation(error)
    lowered = text.lower()
    if any(part in lowered for part in _PORT_TAKEN):
        return PortTaken("The port is in use by another program.")
    for part, code, sentence in _REFUSALS:
        if part in lowered:
            return StartRefused(sentence, code=code)
    for part, code, sentence in _PASSING:
        if part in lowered:
            return PassingRefusal(sentence, code=code)
    return StartRefused(f"The container engine refused the start: {text}", code="engine_refused")


def _name_taken(name: str) -> StartRefused:
    return StartRefused(
        f"A container named {name} exists on the host that Gunpowder did not make. An administrator must rename or "
        "remove it, or choose another GUNPOWDER_CONTAINER_PREFIX.",
        code="name_taken",
    )


def _printable(line: str) -> str:
    """Without control characters: what a container prints must not act on whoever reads it."""
    return "".join(char for char in line if char.isprintable() or char == "\t")
