"""Runs functions at the same moment, each in a thread with a database connection of its own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from django.db import connections

from tests.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_SECONDS = 30 * PATIENCE


def race(*contestants: Callable[[], Any]) -> list[Any]:
    """Start all at one barrier and return their results in order; an exception of one is raised here."""
    barrier = threading.Barrier(len(contestants))

    def run(contestant: Callable[[], Any]) -> Any:
        try:
            barrier.wait(timeout=PATIENCE_SECONDS)
            return contestant()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(max_workers=len(contestants)) as pool:
        running = [pool.submit(run, contestant) for contestant in contestants]
        return [future.result(timeout=PATIENCE_SECONDS) for future in running]
