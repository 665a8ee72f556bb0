"""A network for each workspace that runs: alone in it, it neither reaches others nor finds their names."""

from __future__ import annotations

import contextlib
import random
import re
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

import structlog
from docker.errors import APIError, NotFound

from workspaces.errors import PassingRefusal, RuntimeUnavailable, StartRefused
from workspaces.naming import LABEL_INSTANCE, alone_in, network_name
from workspaces.runtimes.docker_objects import SUBNET_BITS, network_config
from workspaces.runtimes.docker_refusals import HTTP_CONFLICT, asking, explanation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import docker

logger = structlog.get_logger(__name__)

AMBIGUOUS = "is ambiguous"  # what the engine says of a name that two networks have
_GONE = re.compile(r"network \S+ not found", re.IGNORECASE)
# An engine that was killed may count what is gone as connected still.
_HAUNTED = re.compile("no available IPv4 addresses|already exists in network", re.IGNORECASE)
# What the engine says of addresses that another network has, or that a killed one counts so.
_TAKEN = re.compile("overlaps with other one|networks have overlapping|failed to allocate gateway", re.IGNORECASE)
# Networks of workspaces that do not run: a workspace that comes back soon finds its own, which saves a tenth of its
# start; the engine makes each of them anew when it starts, which takes 0.07 s each.
KEPT = 16
REMOVED_AT_ONCE = 2  # a removal takes the engine a fifth of a second, and somebody waits for their stop
# Subnets are tried at random, so that two that make networks at once rarely try the same.
_TRIES = 64


class Networks:
    """The networks of one installation, each named after its workspace's container. `pool` has their addresses."""

    def __init__(self, engine: Callable[[], docker.APIClient], *, instance: str, pool: IPv4Network) -> None:
        self._engine = engine
        self._instance = instance
        self._pool = pool

    def ensure(self, container: str) -> None:
        """Make the network of this container exist, once: of one name with two networks the engine starts nothing.

        Raises PassingRefusal where there is no room in the pool, or the engine refuses; StartRefused where somebody
        else has a network of that name.
        """
        name = network_name(container)
        try:
            with asking("find the network"):
                found = self._ours(name)
                if not found:
                    self._create(name)
                    found = self._ours(name)
                # The engine's own check for duplicates does not stop two workers at once.
                if len(found) > 1:
                    self._keep_one(found)
        except APIError as error:
            if error.status_code != HTTP_CONFLICT:  # another worker made it meanwhile
                raise PassingRefusal(
                    f"The workspace's network could not be made: {explanation(error)}", code="network_failed"
                ) from error

    def remove(self, container: str) -> None:
        """Remove the network of a container that is gone. One that is in use, or cannot be removed now, stays."""
        with _if_it_can("network_kept", container=container):
            for identifier in self._ours(network_name(container)):
                self._remove(identifier)

    def renew(self, container: str) -> None:
        """Make the network anew, without whatever was connected to it: nobody but this container belongs there."""
        with _if_it_can("network_kept", container=container):
            for identifier in self._ours(network_name(container)):
                there = connected(self._engine().inspect_network(identifier).get("Containers") or {})
                if any(name == container and self._runs(key) for key, name in there):
                    return  # another worker has just started it
                for _, name in there:
                    with contextlib.suppress(APIError):
                        self._engine().disconnect_container_from_network(name, identifier, force=True)
                held_by, removed = [name[:64] for _, name in there], self._remove(identifier)
                logger.warning("network_renewed", container=container, held_by=held_by, removed=removed)

    def trim(self, *, keep: int | None = None) -> None:
        """Remove some of those that nothing runs in, where there are more than `keep` (else as many as are worth it).

        Those first whose workspaces stopped first; before them, what an earlier release left.
        """
        with _if_it_can("networks_not_trimmed"):
            idle = self._idle()
            former = [network for network in idle if not alone_in(network["Name"])]
            own = [network for network in idle if alone_in(network["Name"])]
            excess = max(0, len(own) - (KEPT if keep is None else keep))
            first = sorted(own, key=self._stopped_at)[:excess] if excess else []
            for network in [*former, *first][:REMOVED_AT_ONCE]:
                self._remove(str(network["Id"]))

    def _idle(self) -> list[dict[str, Any]]:
        """Networks of this installation in which nothing runs."""
        found = self._engine().networks(filters={"label": f"{LABEL_INSTANCE}={self._instance}"})
        used = {
            str(attached.get("NetworkID"))
            for container in self._engine().containers()
            for attached in ((container.get("NetworkSettings") or {}).get("Networks") or {}).values()
        }
        return [network for network in found if network["Id"] not in used]

    def _stopped_at(self, network: dict[str, Any]) -> tuple[str, str]:
        """When the workspace of this network ended, in a text that sorts by time; one that is gone comes first."""
        try:
            state = self._engine().inspect_container(alone_in(network["Name"]))["State"]
        except NotFound:
            return "", str(network["Created"])
        # One that never ran yet is about to.
        return str(state["FinishedAt"]) if state["Status"] == "exited" else "9", str(network["Created"])

    def _runs(self, container_id: str) -> bool:
        try:
            return bool(self._engine().inspect_container(container_id)["State"]["Running"])
        except NotFound:
            return False

    def _create(self, name: str) -> None:
        if self._found_room(name):
            return
        self.trim(keep=0)  # who does not run gives way
        if not self._found_room(name):
            raise PassingRefusal(
                "No addresses were found for this workspace. An administrator can give GUNPOWDER_NETWORKS more of "
                "them, or addresses that no other network has.",
                code="no_addresses",
            )

    def _found_room(self, name: str) -> bool:
        base, count = int(self._pool.network_address), 2 ** (SUBNET_BITS - self._pool.prefixlen)
        for place in random.sample(range(count), min(count, _TRIES)):
            subnet = IPv4Network((base + place * 2 ** (32 - SUBNET_BITS), SUBNET_BITS))
            try:
                self._engine().create_network(**network_config(name, instance=self._instance, subnet=subnet))
            except APIError as error:
                if not _TAKEN.search(explanation(error)):
                    raise
            else:
                return True
        return False

    def _ours(self, name: str) -> list[str]:
        """Ids of the networks with exactly this name (the engine's filter finds parts of names too), oldest first.

        Raises StartRefused when one of them is not this installation's: others may be in there.
        """
        found = [network for network in self._engine().networks(names=[name]) if network["Name"] == name]
        if any((network.get("Labels") or {}).get(LABEL_INSTANCE) != self._instance for network in found):
            raise StartRefused(
                f"A network that is called {name} and is not this installation's stands in the way. An administrator "
                f"must remove it (`docker network rm {name}`) or change GUNPOWDER_CONTAINER_PREFIX.",
                code="network_name_taken",
            )
        return [str(network["Id"]) for network in sorted(found, key=lambda n: (n["Created"], n["Id"]))]

    def _keep_one(self, found: list[str]) -> None:
        """The oldest stays, or a later one that something is connected to: it was there alone when that started."""
        oldest, *later = found
        kept = [network for network in later if not self._remove(network)]
        if kept and not self._remove(oldest):
            kept.append(oldest)
        if len(kept) > 1:  # containers in several: for an administrator to look at
            logger.warning("network_not_removed", networks=kept)

    def _remove(self, identifier: str) -> bool:
        """False where something is connected to it. Gone already: True."""
        try:
            self._engine().remove_network(identifier)
        except NotFound:
            return True
        except APIError:
            return False
        return True


@contextlib.contextmanager
def _if_it_can(otherwise: str, **of: str) -> Iterator[None]:
    """Do what is not worth failing for; a line named `otherwise` says why it was not done."""
    try:
        with asking("tidy the networks"):
            yield
    except (APIError, RuntimeUnavailable, StartRefused) as error:
        logger.info(otherwise, why=str(error)[:200], **of)


def connected(there: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Who is connected to a network, as the engine describes it: its key and the name it is disconnected by.

    The key is the container's id, or one of the connection's own where there is no container any more.
    """
    return [(str(key), str((each or {}).get("Name") or key)) for key, each in there.items()]


def lost(error: APIError) -> bool:
    """Whether the engine refused a start because the network was removed meanwhile."""
    return _GONE.search(explanation(error)) is not None


def haunted(error: APIError) -> bool:
    """Whether the engine refused a start because somebody else has the network's only address."""
    return _HAUNTED.search(explanation(error)) is not None
