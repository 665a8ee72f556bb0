"""Starts web: `python -m gunpowder.serve`. Each replica takes a slot, a socket that nginx already lists.

So replicas come and go without a reload of nginx. The lock on a slot dies with its process.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

from uvicorn_worker import UvicornWorker

SLOTS = 4  # as many as nginx/nginx.conf.template lists
SOCKETS = Path(os.environ.get("GUNPOWDER_WEB_SOCKETS", "/run/gunpowder/web"))


class Worker(UvicornWorker):  # type: ignore[misc]  # ships no types
    """Plain HTTP and streams: WebSockets go from nginx to the editors directly."""

    CONFIG_KWARGS = {"loop": "uvloop", "http": "httptools", "lifespan": "off", "ws": "none"}  # noqa: RUF012


def take_slot() -> Path:
    """Lock the first free slot for the life of this process and return its socket's path."""
    for number in range(1, SLOTS + 1):
        lock = os.open(SOCKETS / f"{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            continue
        os.set_inheritable(lock, True)
        return SOCKETS / f"{number}.sock"
    sys.exit(f"All {SLOTS} slots in {SOCKETS} are taken: more replicas of web run than nginx knows.")


def main() -> None:
    os.environ["GUNPOWDER_DATABASE_POOL"] = "true"
    socket = take_slot()
    arguments = [
        "gunicorn",
        "gunpowder.asgi:application",
        f"--bind=unix:{socket}",
        "--bind=0.0.0.0:8000",  # the compose network's: health checks and Prometheus; nginx uses the socket
        "--worker-class=gunpowder.serve.Worker",
        f"--workers={os.environ.get('GUNPOWDER_WEB_WORKERS') or '2'}",
        "--preload",  # imported once, shared by all: less memory, a quicker start
        "--umask=7",
        "--worker-tmp-dir=/dev/shm",
        "--graceful-timeout=5",
        "--timeout=60",
        "--keep-alive=75",
    ]
    os.execvp(arguments[0], arguments)  # noqa: S606 - no shell, a fixed list


if __name__ == "__main__":
    main()
