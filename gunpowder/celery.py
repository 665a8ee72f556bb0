"""The Celery app, and the proof of life of each worker.

Every worker consumes a queue of its own, `alive.{name}`, and sends itself a task there. Only a worker that publishes,
consumes, runs tasks and reaches the database stamps its row: "alive but consumes nothing" does not look healthy.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import celeryd_after_setup, setup_logging, worker_ready, worker_shutting_down
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gunpowder.settings")

app = Celery("gunpowder")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

ALIVE_SECONDS = 10.0
_stopping = threading.Event()


def alive_file(name: str) -> Path:
    """The file that the health check of worker `name` (`kind@host`) looks at."""
    return Path("/tmp") / f"alive-{name.split('@', maxsplit=1)[0]}"  # noqa: S108 - a tmpfs of the container's own


@setup_logging.connect
def use_django_logging(**_: Any) -> None:
    """Keep Celery from installing handlers of its own next to ours."""
    from logging.config import dictConfig

    from django.conf import settings

    dictConfig(settings.LOGGING)


@celeryd_after_setup.connect
def consume_own_queue(sender: str, instance: Any, **_: Any) -> None:
    instance.app.amqp.queues.select_add(f"alive.{sender}")


@worker_ready.connect
def prove_life(sender: Any, **_: Any) -> None:
    threading.Thread(target=_prove_life, args=(sender.hostname,), daemon=True, name="prove-life").start()


@worker_shutting_down.connect
def stop_proving(**_: Any) -> None:
    _stopping.set()


def _prove_life(name: str) -> None:
    while not _stopping.is_set():
        # No broker: no stamp, which is what the health check is for.
        with contextlib.suppress(KombuError, RedisError, OSError):
            app.send_task(
                "workspaces.beat",
                args=[name, str(alive_file(name))],
                queue=f"alive.{name}",
                expires=3 * ALIVE_SECONDS,
                retry=False,
            )
        _stopping.wait(ALIVE_SECONDS)
