"""Prepares the stack's volumes: secrets that do not exist yet, and who may use which folder. Standard library only.

Runs as root before everything else, with no network. Nothing that exists is ever replaced: the secrets live beside the
data that they open, so a second checkout, or one without its `.env`, opens an old volume all the same.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

SECRETS = Path(os.environ.get("GUNPOWDER_SECRETS_DIR") or "/run/gunpowder/secrets")

ROOT = 0
DATABASES = 999  #: user and group of Postgres and Redis, as in the official images
APP = 10001  #: user and group of web, beat and migrate
NGINX = 10002  #: user of nginx; its group is APP, for the web socket

#: No look-alikes (0 o, 1 l i): people type these.
READABLE = "abcdefghjkmnpqrstuvwxyz23456789"


def long_secret() -> str:
    return secrets.token_urlsafe(48)


def typeable() -> str:
    return "-".join("".join(secrets.choice(READABLE) for _ in range(4)) for _ in range(4))


class Secret(NamedTuple):
    make: Callable[[], str]
    owner: int
    group: int
    mode: int


# nginx is in the group APP, so what only the application may read is readable by its owner alone.
SECRET_FILES = {
    "postgres_password": Secret(long_secret, APP, DATABASES, 0o440),
    "redis_password": Secret(long_secret, APP, DATABASES, 0o440),
    "secret_key": Secret(long_secret, APP, APP, 0o400),
    "gate_key": Secret(long_secret, NGINX, APP, 0o440),
    "admin_password": Secret(typeable, APP, APP, 0o400),
    "demo_password": Secret(typeable, APP, APP, 0o400),
}


class Folder(NamedTuple):
    owner: int
    group: int
    mode: int


FOLDERS = {
    SECRETS: Folder(ROOT, ROOT, 0o711),
    Path("/run/postgresql"): Folder(DATABASES, DATABASES, 0o755),
    Path("/run/redis"): Folder(DATABASES, DATABASES, 0o755),
    Path("/run/gunpowder/web"): Folder(APP, APP, 0o770),
    Path("/volumes/postgres"): Folder(DATABASES, DATABASES, 0o700),
    Path("/volumes/redis"): Folder(DATABASES, DATABASES, 0o700),
}


def prepare_folder(path: Path, folder: Folder) -> None:
    now = path.stat()
    if (now.st_uid, now.st_gid) != (folder.owner, folder.group):
        os.chown(path, folder.owner, folder.group)
    if now.st_mode & 0o7777 != folder.mode:
        path.chmod(folder.mode)


def prepare_secret(path: Path, secret: Secret) -> bool:
    """Whether the secret had to be made."""
    made = not (path.exists() and path.stat().st_size)
    if made:
        # Complete or not there at all: a half-written secret must not survive a power cut.
        temporary = path.with_name(f".{path.name}")
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secret.make())
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    os.chown(path, secret.owner, secret.group)
    path.chmod(secret.mode)
    return made


def main() -> int:
    for path, folder in FOLDERS.items():
        if path.is_dir():
            prepare_folder(path, folder)
    database = Path("/volumes/postgres/PG_VERSION")
    if database.exists() and not (SECRETS / "postgres_password").exists():
        print(
            "The database volume holds data, but the volume with its password is empty.\n"
            "A new password would not open it. Restore the `secrets` volume (docs/operations.md), or delete both with"
            " `make purge`.",
            file=sys.stderr,
        )
        return 1
    made = [name for name, secret in SECRET_FILES.items() if prepare_secret(SECRETS / name, secret)]
    print(f"volumes are ready; secrets made: {', '.join(made) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
