"""What the engine's errors mean: no answer, a refusal that passes, or one that does not, in words for a person."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

from workspaces.errors import PassingRefusal, PortTaken, RuntimeUnavailable, StartRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

HTTP_CONFLICT = 409

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
_PORT_TAKEN = ("port is already allocated", "address already in use")


@contextmanager
def asking(what: str) -> Iterator[None]:
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


def explanation(error: APIError) -> str:
    return printable(str(error.explanation or error))[:300]


def refusal_of(error: APIError) -> StartRefused:
    """What the engine's answer to a create or start means for this start."""
    text = explanation(error)
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


def name_taken(name: str) -> StartRefused:
    return StartRefused(
        f"A container named {name} exists on the host that Gunpowder did not make. An administrator must rename or "
        "remove it, or choose another GUNPOWDER_CONTAINER_PREFIX.",
        code="name_taken",
    )


def printable(line: str) -> str:
    """Without control characters: what a container prints must not act on whoever reads it."""
    return "".join(char for char in line if char.isprintable() or char == "\t")
