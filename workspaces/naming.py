"""Names that the contract fixes; pure."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

HOME = PurePosixPath("/home/coder")
FILES = HOME / "workspace"
EDITOR_PORT = 8080
FIRST_PROCESS = PurePosixPath("/usr/local/bin/workspace-init")  # of a workspace's image
# What the workspace says lies in a small file system of its own, what it is told in a folder it cannot write.
REPORT_FOLDER = PurePosixPath("/run/gunpowder")
REPORT_FILE = REPORT_FOLDER / "report.json"
NOTICE_FOLDER = PurePosixPath("/run/gunpowder-status")
NOTICE_FILE = "status.json"

_OF_A_NETWORK = "-network"
LABEL_WORKSPACE = "gunpowder.workspace"
LABEL_INSTANCE = "gunpowder.instance"
LABEL_SPEC = "gunpowder.spec"
LABEL_GENERATION = "gunpowder.generation"


def user_name(typed: str) -> str:
    """The name that somebody means, however they type it: as the log-in page and the admin read it.

    NFKC, without blanks around it. May be longer than what was typed.
    """
    return unicodedata.normalize("NFKC", typed.strip())


def container_name(prefix: str, user_id: int) -> str:
    return f"{prefix}-{user_id}"


def own_names(recorded: str, *, prefix: str, user_id: int) -> frozenset[str]:
    """The names that a workspace's container may have: the one that its row recorded, and today's."""
    return frozenset({recorded, container_name(prefix, user_id)})


def files_folder(user_id: int) -> str:
    return f"user_{user_id}"


def home_folder(user_id: int) -> str:
    return f"home_{user_id}"


def notice_folder(user_id: int) -> str:
    return f"notice_{user_id}"


def network_name(container: str) -> str:
    """Of the network in which this container is alone."""
    return f"{container}{_OF_A_NETWORK}"


def alone_in(network: str) -> str:
    """The container that is alone in this network; "" for a network of another kind."""
    return network.removesuffix(_OF_A_NETWORK) if network.endswith(_OF_A_NETWORK) else ""


def editor_path(user_id: int) -> str:
    """Where the user's browser finds the editor; also the ticket cookie's path."""
    return f"/code/user/{user_id}/"
