"""Hears from the runtime that a container ended, and has it looked at: a second later, not at the next reconcile pass.

What is heard is a hint and nothing more. It may be lost, doubled or late: who acts on it looks first, and the reconcile
pass goes on looking by itself. Two watchers do no harm, and none costs only time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NoReturn

import structlog
from django.db import close_old_connections

from workspaces import dispatch
from workspaces.errors import RuntimeUnavailable
from workspaces.models import Workspace
from workspaces.states import ACTIVE, State

if TYPE_CHECKING:
    from workspaces.runtimes.base import Change, Runtime

logger = structlog.get_logger(__name__)

# Seconds before listening again where nobody speaks any more, or never did.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0


def watch(runtime: Runtime) -> NoReturn:
    """Listen for ever, again and again; nothing that goes wrong ends it."""
    pause = FIRST_PAUSE
    while True:
        began = time.monotonic()
        try:
            listen_once(runtime)
        except RuntimeUnavailable as error:
            logger.warning("engine_events_lost", error=error.message)
        except Exception:
            # A database that restarts, an event of a form that nobody foresaw: reconcile finds what was missed.
            logger.exception("engine_events_lost")
        # Whoever spoke for a while and then stopped was not away.
        pause = FIRST_PAUSE if time.monotonic() - began > LONGEST_PAUSE else min(2 * pause, LONGEST_PAUSE)
        time.sleep(pause)


def listen_once(runtime: Runtime) -> None:
    """One conversation, until the runtime ends it. Raises RuntimeUnavailable when it does not begin."""
    changes = runtime.changes()
    # What happened while nobody listened is told by nobody.
    dispatch.reconcile()
    for change in changes:
        try:
            heard(change)
        finally:
            close_old_connections()  # hours may pass until the next one


def heard(change: Change) -> None:
    """Have somebody look, where this is not what was just asked for. Safe to call again; decides nothing by itself."""
    row = Workspace.objects.filter(container=change.name).first()
    if change.began:
        if row is None or row.state not in ACTIVE:
            dispatch.reconcile()
    elif row is not None and row.state == State.RUNNING:
        dispatch.check(row)
