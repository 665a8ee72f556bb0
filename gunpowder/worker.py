"""Starts worker: `python -m gunpowder.worker`. Two Celery nodes and a watcher of the engine in one container.

They share what they imported. Two nodes, because a long start must never keep a sweep waiting. When one of the three
ends by itself the others are stopped and the process exits, so that the restart policy sees it; SIGTERM and SIGINT ask
for a warm shutdown.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import structlog
from django.conf import settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

logger = structlog.get_logger(__name__)

#: Starts are admitted by `workspaces.admission`; these are for stops, which then never wait for a start.
STOP_PROCESSES = 2
#: Three for sweeps: a slow sweep and a slow sample must not keep anybody's Keep or Stop waiting.
SWEEP_PROCESSES = 3


def nodes() -> dict[str, str]:
    """The processes of each node, by the node's and its queue's name."""
    return {"lifecycle": str(settings.ENV.start_concurrency + STOP_PROCESSES), "sweeps": str(SWEEP_PROCESSES)}


def _call_this(name: str) -> None:
    """What `ps -e` and `top` show of this process and of those it forks. Only Linux has that, and it is only a name."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name, encoding="ascii")


def _run_node(name: str, processes: str) -> NoReturn:
    """Be this node until it ends; never returns into what the parent was doing."""
    from gunpowder.celery import app

    _call_this(name)
    status = 0
    try:
        arguments = ["worker", "--without-gossip", "--without-mingle", f"--loglevel={settings.ENV.log_level}"]
        app.worker_main([*arguments, f"--queues={name}", f"--hostname={name}@%h", f"--concurrency={processes}"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:  # noqa: BLE001 - whatever it was, it is told, and this process must end here
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _run_watch() -> NoReturn:
    """Hear what the engine tells until a signal ends this process; nothing of it needs to be finished."""
    from workspaces import conf, watch

    _call_this("watch")
    try:
        watch.watch(conf.runtime())
    except BaseException:  # noqa: BLE001 - as above
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)


def main() -> int:
    """Run all three; returns the exit status: 0 after a signal, otherwise that of the one which ended by itself."""
    from gunpowder.celery import app

    app.loader.import_default_modules()
    app.finalize()
    # What is shared stays shared: a collection writes into every object it looks at, and so copies its page.
    gc.collect()
    gc.freeze()
    running: set[int] = set()
    told = False

    def stop(_: int, __: FrameType | None) -> None:
        nonlocal told
        told = True
        for pid in running:
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                os.kill(pid, signal.SIGTERM)

    # Not before all run: a signal in between would miss the last.
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    parts: list[Callable[[], NoReturn]] = [partial(_run_node, name, many) for name, many in nodes().items()]
    for run in (*parts, _run_watch):
        pid = os.fork()
        if pid == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            run()
        running.add(pid)
    for number in signals:
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    status = 0
    while running:
        pid, ended = os.wait()
        if pid not in running:
            continue
        running.discard(pid)
        if not told:
            status = os.waitstatus_to_exitcode(ended)
            logger.error("celery_node_ended", status=status, next="the others are stopped and this process exits")
            status = 1 if status <= 0 else status
            stop(signal.SIGTERM, None)
    return status


if __name__ == "__main__":
    sys.exit(main())
