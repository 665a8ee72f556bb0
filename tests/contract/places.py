"""Where the contract is tried: the same few handles over every runtime, so that one test module fits them all."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import docker
from docker.errors import APIError, NotFound

from workspaces import naming
from workspaces.runtimes.base import Endpoint, WorkspaceSpec
from workspaces.runtimes.docker import DockerRuntime
from workspaces.runtimes.host_folders import HostFolders
from workspaces.runtimes.memory import MemoryRuntime
from workspaces.spec import spec_hash

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from workspaces.runtimes.base import Runtime

SOCKET = "/var/run/docker.sock"
GRACE = 5
POOL = IPv4Network("198.18.0.0/15")
# Suites side by side, of a few processes each, take ports and addresses of their own.
_SUITES, _PROCESSES = 4, 8
_SUITE = int(os.environ["GUNPOWDER_TEST_ID"].split("-")[2]) % _SUITES
# Outside the kernel's range for outgoing connections and outside every range that a stack on this host uses.
_PORTS_EACH = 300
_PORTS_FROM = 30000 + 2 * _PORTS_EACH * _SUITE


def worker_number() -> int:
    """The number of this process among those that run the suite."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def room_of_its_own() -> IPv4Network:
    """A pool for two networks in which nobody but this process makes any; set aside for documentation (RFC 5737)."""
    rooms = list(IPv4Network("198.51.100.0/24").subnets(new_prefix=29))
    return rooms[_SUITE * _PROCESSES + worker_number()]


def rehash(spec: WorkspaceSpec, **changes: Any) -> WorkspaceSpec:
    """The spec with `changes` and the hash that belongs to it."""
    changed = replace(spec, **changes)
    return replace(changed, hash=spec_hash(changed, host_root="/tests"))


class Place(Protocol):
    """One runtime and the hands that act on its containers from outside."""

    @property
    def runtime(self) -> Runtime: ...

    def spec(self, *, editor: bool = False) -> WorkspaceSpec:
        """A spec for a user whom nobody has used yet. Without `editor` nothing need answer in its container."""
        ...

    def another_instance(self) -> Runtime:
        """The same kind of runtime, for another installation on the same host."""
        ...

    def unreachable(self) -> Runtime:
        """The same kind of runtime, which cannot be asked."""
        ...

    def kill(self, name: str) -> None:
        """End the container from outside, as `docker kill` does."""
        ...

    def occupied(self, endpoint: Endpoint) -> contextlib.AbstractContextManager[None]:
        """Let another program listen at `endpoint`."""
        ...

    def containers_of(self, spec: WorkspaceSpec) -> int:
        """How many containers there are under the spec's name, running or not."""
        ...


class _Specs:
    """Hands out specs with a user id, and a port, that no other test of this process has."""

    def __init__(self, *, prefix: str, instance: str, image: str, still: str = "") -> None:
        self.prefix, self.instance, self.image, self.still = prefix, instance, image, still or image
        self._users = itertools.count(1)
        self._ports = itertools.count(_PORTS_FROM + worker_number() * _PORTS_EACH)

    def spec(self, *, editor: bool = False) -> WorkspaceSpec:
        user_id = next(self._users)
        port = next(p for p in self._ports if _nothing_listens(p))
        assert port < _PORTS_FROM + (worker_number() + 1) * _PORTS_EACH, "the tests ran out of ports"
        return rehash(
            WorkspaceSpec(
                name=naming.container_name(self.prefix, user_id),
                user_id=user_id,
                instance=self.instance,
                generation=1,
                image=self.image if editor else self.still,
                endpoint=Endpoint(host="127.0.0.1", port=port),
                memory=512 * 2**20,
                cpus=1.5,
                pids=256,
                disk_write=64 * 2**20,
                disk_writes=2000,
                stop_grace=GRACE,
                secret="0123456789abcdef" * 4,
            )
        )


class MemoryPlace(_Specs):
    def __init__(self) -> None:
        super().__init__(prefix="memory-user", instance="memory", image="gunpowder/workspace:test")
        self.runtime = MemoryRuntime()

    def another_instance(self) -> MemoryRuntime:
        return MemoryRuntime()

    def unreachable(self) -> MemoryRuntime:
        runtime = MemoryRuntime()
        runtime.reachable = False
        return runtime

    def kill(self, name: str) -> None:
        self.runtime.end(name, exit_code=137)

    @contextlib.contextmanager
    def occupied(self, endpoint: Endpoint) -> Iterator[None]:
        self.runtime.busy_ports.add(endpoint.port)
        yield
        self.runtime.busy_ports.discard(endpoint.port)

    def containers_of(self, spec: WorkspaceSpec) -> int:
        return sum(seen.name == spec.name for seen in self.runtime.observe_all())


# A program that only waits, under the image's own first process.
WAITS = 'ENTRYPOINT ["/usr/local/bin/workspace-init", "sleep", "infinity"]'


class DockerPlace(_Specs):
    """The real engine. Everything made here carries this run's name, and `clear` removes it."""

    def __init__(self) -> None:
        run = f"{os.environ['GUNPOWDER_TEST_ID']}-w{worker_number()}"
        image = os.environ["GUNPOWDER_TEST_WORKSPACE_IMAGE"]
        self.engine = docker.APIClient(base_url=f"unix://{SOCKET}", version="auto", timeout=60)
        super().__init__(
            prefix=f"{run}-contract", instance=f"{run}-contract", image=image, still=self._without_editor(image)
        )
        self.root = Path(os.environ["GUNPOWDER_TEST_DATA"]) / f"contract-w{worker_number()}"
        self.root.mkdir(parents=True, exist_ok=True)
        self._runtimes: list[DockerRuntime] = []
        self.kept: set[str] = set()  # names of containers that later tests use too
        self.runtime = self._runtime(SOCKET, self.instance)
        self.runtime.ping()  # connects now, before several threads do

    def _without_editor(self, image: str) -> str:
        """The same image with a program that only waits: an editor takes most of what such a test costs."""
        run = os.environ["GUNPOWDER_TEST_ID"]
        name, tag = f"gunpowder-test/{run}-still", f"w{worker_number()}"
        made = self.engine.create_container(image, labels={"gunpowder.test": run})
        self.engine.commit(made["Id"], repository=name, tag=tag, changes=[WAITS, "CMD []"])
        self.engine.remove_container(made["Id"])
        return f"{name}:{tag}"

    def _runtime(self, engine_socket: str, instance: str) -> DockerRuntime:
        runtime = DockerRuntime(
            socket=engine_socket,
            instance=instance,
            prefix=self.prefix,
            folders=HostFolders(root=self.root),
            host_root=str(self.root),
            pool=POOL,
        )
        self._runtimes.append(runtime)
        return runtime

    def runtime_of(self, instance: str) -> DockerRuntime:
        """A worker of the installation `instance`, whose name begins with this place's."""
        return self._runtime(SOCKET, instance)

    def another_instance(self) -> DockerRuntime:
        return self.runtime_of(f"{self.instance}-other")

    def unreachable(self) -> DockerRuntime:
        return self._runtime(str(self.root / "no-engine.sock"), self.instance)

    def kill(self, name: str) -> None:
        self.engine.kill(name)
        self.engine.wait(name, timeout=60)

    @contextlib.contextmanager
    def occupied(self, endpoint: Endpoint) -> Iterator[None]:
        with socket.create_server((endpoint.host, endpoint.port)):
            yield

    def containers_of(self, spec: WorkspaceSpec) -> int:
        found = self.engine.containers(all=True, filters={"name": f"^/{spec.name}$"})
        return len(found)

    def files(self, spec: WorkspaceSpec) -> Path:
        return self.root / naming.files_folder(spec.user_id)

    def home(self, spec: WorkspaceSpec) -> Path:
        return self.root / naming.home_folder(spec.user_id)

    def notices(self, spec: WorkspaceSpec) -> Path:
        return self.root / naming.notice_folder(spec.user_id)

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.engine.inspect_container(name)
        return found

    def labels_of_image(self, image: str) -> dict[str, str]:
        found: Any = self.engine.inspect_image(image)  # type: ignore[no-untyped-call]  # half typed
        labels: dict[str, str] = found["Config"]["Labels"] or {}
        return labels

    def run(self, spec: WorkspaceSpec, *command: str) -> str:
        """What a program prints that the container's own user runs in there."""
        made = self.engine.exec_create(spec.name, list(command))
        printed: bytes = self.engine.exec_start(made["Id"])
        return printed.decode()

    def inside(self, spec: WorkspaceSpec, script: str) -> str:
        """The same of a script."""
        return self.run(spec, "bash", "-c", script)

    @contextlib.contextmanager
    def foreign_container(self, name: str) -> Iterator[str]:
        """A container that somebody else made under `name`; yields its id."""
        made = self.engine.create_container(
            self.image,
            entrypoint=["sleep", "60"],
            name=name,
            labels={"gunpowder.test": os.environ["GUNPOWDER_TEST_ID"]},
        )
        try:
            yield str(made["Id"])
        finally:
            self.engine.remove_container(made["Id"], force=True)

    def ours(self) -> list[dict[str, Any]]:
        """Every container of this place and of `another_instance`."""
        found: list[dict[str, Any]] = self.engine.containers(all=True, filters={"label": [naming.LABEL_INSTANCE]})
        return [entry for entry in found if str(entry["Labels"][naming.LABEL_INSTANCE]).startswith(self.instance)]

    def describe(self) -> str:
        """Status, log and inspect of every container made here, for the report of a failed test."""
        told = []
        for entry in self.ours():
            with contextlib.suppress(NotFound):
                state = self.engine.inspect_container(entry["Id"])["State"]
                log = self.engine.logs(entry["Id"], tail=10).decode("utf-8", "replace")
                told.append(f"{entry['Names']} {entry['Status']}\n{state}\n{log}")
        return "\n".join(told) or "no containers"

    def remove_containers(self, *, kept: Collection[str] = ()) -> None:
        for entry in self.ours():
            if not {name.lstrip("/") for name in entry["Names"] or ()} & set(kept):
                with contextlib.suppress(NotFound, APIError):  # the second: its removal is under way already
                    self.engine.remove_container(entry["Id"], force=True, v=True)
        self._remove_networks()

    def _remove_networks(self) -> None:
        """Of those that nothing runs in any more."""
        for network in self.engine.networks(filters={"label": [naming.LABEL_INSTANCE]}):
            if str(network["Labels"][naming.LABEL_INSTANCE]).startswith(self.instance):
                with contextlib.suppress(APIError):
                    self.engine.remove_network(network["Id"])

    def clear(self) -> None:
        self.remove_containers()
        self.engine.remove_image(self.still, force=True)
        self.engine.close()
        for runtime in self._runtimes:
            runtime._engine.close()
        shutil.rmtree(self.root, ignore_errors=True)


def _nothing_listens(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
