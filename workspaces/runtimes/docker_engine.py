"""What is read from the engine: absent is None, and "I could not ask" is RuntimeUnavailable."""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

import docker
from docker.errors import APIError, NotFound

from workspaces import naming
from workspaces.errors import RuntimeUnavailable
from workspaces.runtimes.base import Change
from workspaces.runtimes.docker_connection import close_what_does_not_connect
from workspaces.runtimes.docker_refusals import asking, explanation

if TYPE_CHECKING:
    from collections.abc import Iterator

close_what_does_not_connect()

# Seconds for one answer of the engine; a busy one takes many times its usual 0.2 s for a start.
ENGINE_TIMEOUT = 20
# The same within a look at a workspace that is perhaps idle: one that is slow must not hold up a sweep, but what is not
# known by then counts as "not idle", and keeps the memory of a busy host.
LOOK_TIMEOUT = 5
# The engine's words for what a container does, and whether it runs after that.
BEGAN = {"start": True, "unpause": True, "die": False, "destroy": False}


class Engine:
    """One engine, asked about the containers of one installation."""

    def __init__(self, socket: str, *, instance: str) -> None:
        self._socket = socket
        self._instance = instance

    @cached_property
    def client(self) -> docker.APIClient:
        """Connected on first use, so that an engine that is down is an answer and not a crash at start-up."""
        return docker.APIClient(base_url=f"unix://{self._socket}", version="auto", timeout=ENGINE_TIMEOUT)

    @cached_property
    def looking(self) -> docker.APIClient:
        """The same engine for short looks."""
        return docker.APIClient(base_url=f"unix://{self._socket}", version="auto", timeout=LOOK_TIMEOUT)

    def close(self) -> None:
        """End the connections that were made."""
        for name in ("client", "looking"):
            if name in vars(self):
                vars(self)[name].close()

    def inspect(self, name: str, *, quick: bool = False) -> dict[str, Any] | None:
        """The container of exactly this name."""
        try:
            with asking("inspect a container"):
                engine = self.looking if quick else self.client
                found: dict[str, Any] = engine.inspect_container(name)
        except NotFound:
            return None
        except APIError as error:
            raise RuntimeUnavailable(f"the engine could not inspect {name}: {explanation(error)}") from error
        # The engine also finds an id by prefix; only the exact name is ours.
        return found if str(found["Name"]).lstrip("/") == name else None

    def containers(self) -> list[dict[str, Any]]:
        """All workspaces of this installation, running or not."""
        try:
            with asking("list containers"):
                found: list[dict[str, Any]] = self.client.containers(
                    all=True,
                    filters={"label": [f"{naming.LABEL_INSTANCE}={self._instance}", naming.LABEL_WORKSPACE]},
                )
        except APIError as error:
            raise RuntimeUnavailable(f"the engine could not list containers: {explanation(error)}") from error
        return found

    def newest_options(self) -> dict[str, Any] | None:
        """What the workspace made last was given of the host."""
        newest = max(self.containers(), key=lambda entry: int(entry["Created"]), default=None)
        there = self.inspect(str(newest["Names"][0]).lstrip("/")) if newest and newest.get("Names") else None
        return None if there is None else dict(there["HostConfig"])

    def image(self, image: str) -> dict[str, Any] | None:
        try:
            with asking("inspect an image"):
                return dict(self.client.inspect_image(image))
        except NotFound:
            return None
        except APIError as error:
            raise RuntimeUnavailable(f"the engine could not inspect the image: {explanation(error)}") from error

    def info(self) -> dict[str, Any]:
        """Its own description of itself and its host."""
        try:
            with asking("describe itself"):
                found: dict[str, Any] = self.client.info()
        except APIError as error:
            raise RuntimeUnavailable(f"the engine could not describe itself: {explanation(error)}") from error
        return found

    def changes(self) -> Iterator[Change]:
        """See `runtimes.base.Runtime.changes`."""
        try:
            with asking("tell of containers"):
                # From this second on, so that nothing is missed between the question and its first answer.
                stream = self.client.events(
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


def _changes(stream: Any) -> Iterator[Change]:
    try:
        for event in stream:
            yield Change(name=str(event["Actor"]["Attributes"]["name"]), began=BEGAN[event["Action"]])
    finally:
        stream.close()
        # The SDK shuts the socket down, and leaves it open for as long as the response lives: some cycle of its own.
        stream._response.close()
