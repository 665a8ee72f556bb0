"""django-celery-beat's scheduler, made to forget what code no longer names and to prove that it turns."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django_celery_beat.models import PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler

ALIVE_FILE = Path("/tmp/alive-beat")  # noqa: S108 - a tmpfs of the container's own


class Scheduler(DatabaseScheduler):  # type: ignore[misc]  # ships no types
    def setup_schedule(self) -> None:
        """Write the code's entries, and remove entries of ours that code no longer has: they would run for ever."""
        super().setup_schedule()
        PeriodicTask.objects.filter(name__startswith="workspaces.").exclude(
            name__in=self.app.conf.beat_schedule
        ).delete()

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        seconds = super().tick(*args, **kwargs)
        ALIVE_FILE.touch()
        os.utime(ALIVE_FILE)
        return seconds
