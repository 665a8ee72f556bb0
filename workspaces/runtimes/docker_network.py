"""The network of all workspaces of one installation: made once, whoever asks first, and never two of one name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from docker.errors import APIError, NotFound

from workspaces import naming
from workspaces.errors import PassingRefusal
from workspaces.runtimes.docker_objects import network_config
from workspaces.runtimes.docker_refusals import HTTP_CONFLICT, asking, explanation

if TYPE_CHECKING:
    from collections.abc import Callable

    import docker

logger = structlog.get_logger(__name__)

AMBIGUOUS = "is ambiguous"  # what the engine says of a name that two networks have


class Network:
    def __init__(self, engine: Callable[[], docker.APIClient], *, instance: str) -> None:
        self._engine = engine
        self._instance = instance

    def ensure(self) -> None:
        """Make the workspaces' network exist, once: of one name with two networks the engine starts nothing."""
        try:
            with asking("find the network"):
                found = self._networks()
                if not found:
                    self._engine().create_network(**network_config(self._instance))
                    found = self._networks()
                # The engine's own check for duplicates does not stop two workers at once.
                if len(found) > 1:
                    self._keep_one(found)
        except APIError as error:
            if error.status_code != HTTP_CONFLICT:  # another worker made it meanwhile
                raise PassingRefusal(
                    f"The workspaces' network could not be made: {explanation(error)}", code="network_failed"
                ) from error

    def _networks(self) -> list[str]:
        """Ids of the networks with exactly our name (the engine's filter finds parts of names too), oldest first."""
        name = naming.network_name(self._instance)
        found = [network for network in self._engine().networks(names=[name]) if network["Name"] == name]
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
            self._engine().remove_network(identifier)
        except NotFound:
            return True
        except APIError:
            return False
        return True
