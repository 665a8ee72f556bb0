"""Names that the contract fixes; pure."""

from __future__ import annotations

from pathlib import PurePosixPath

HOME = PurePosixPath("/home/coder")
FILES = HOME / "workspace"
EDITOR_PORT = 8080

LABEL_WORKSPACE = "gunpowder.workspace"
LABEL_INSTANCE = "gunpowder.instance"
LABEL_SPEC = "gunpowder.spec"
LABEL_GENERATION = "gunpowder.generation"


def container_name(prefix: str, user_id: int) -> str:
    return f"{prefix}-{user_id}"


def files_folder(user_id: int) -> str:
    return f"user_{user_id}"


def home_folder(user_id: int) -> str:
    return f"home_{user_id}"


def network_name(instance: str) -> str:
    return f"{instance}-workspaces"


def editor_path(user_id: int) -> str:
    """Where the user's browser finds the editor; also the ticket cookie's path."""
    return f"/code/user/{user_id}/"
