"""States, reasons and the legal transitions; pure.

stopped  -> starting            request_start
failed   -> starting, stopping  request_start, request_stop
starting -> running             perform_start
starting -> failed              perform_start, fail_overdue
starting -> stopping            request_stop
running  -> stopping            request_stop, stop_idle, listen, stop_disabled
running  -> stopped             reconcile (gone from outside)
running  -> failed              reconcile (crash, out of memory, no health)
stopping -> stopped             perform_stop
stopping -> starting            perform_stop (a start or restart came meanwhile)
stopping -> running             perform_stop (idle stops only: the user came back)
stopping -> failed              fail_overdue
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class State(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    FAILED = "failed"


class Wanted(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"


ACTIVE = frozenset({State.STARTING, State.RUNNING, State.STOPPING})
SETTLED = frozenset({State.STOPPED, State.FAILED})

TRANSITIONS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.STOPPED: frozenset({State.STARTING}),
        State.FAILED: frozenset({State.STARTING, State.STOPPING}),
        State.STARTING: frozenset({State.RUNNING, State.FAILED, State.STOPPING}),
        State.RUNNING: frozenset({State.STOPPING, State.STOPPED, State.FAILED}),
        State.STOPPING: frozenset({State.STOPPED, State.STARTING, State.RUNNING, State.FAILED}),
    }
)


def sources_of(target: State) -> frozenset[State]:
    """The states from which `target` may be entered."""
    return frozenset(source for source, targets in TRANSITIONS.items() if target in targets)


class Reason(StrEnum):
    """Why a transition happened; part of the public contract, so a code is never renamed."""

    USER = "user"
    STAFF = "staff"
    RESTART = "restart"
    READY = "ready"
    IDLE = "idle"
    ACTIVITY = "activity"
    WORK_BUDGET = "work_budget"
    FINISHED = "finished"
    LIFETIME = "lifetime"
    REMOVED = "removed"
    EXITED = "exited"
    OOM = "oom"
    CRASHED = "crashed"
    UNHEALTHY = "unhealthy"
    START_TIMEOUT = "start_timeout"
    START_FAILED = "start_failed"
    STOP_FAILED = "stop_failed"
    ENGINE = "engine"
    DISABLED = "disabled"


SENTENCES: Mapping[str, str] = MappingProxyType(
    {
        Reason.USER: "You asked for it.",
        Reason.STAFF: "An administrator asked for it.",
        Reason.RESTART: "A restart was asked for.",
        Reason.READY: "The editor answered.",
        Reason.IDLE: "Nobody had used it for a while. Your files are as you left them.",
        Reason.WORK_BUDGET: "Work had gone on for as long as it may with nobody there. Your files are kept.",
        Reason.FINISHED: "Its command had ended, as you had asked. Your files are as you left them.",
        Reason.ACTIVITY: "You came back just before it was stopped.",
        Reason.LIFETIME: "It had reached the longest time that a workspace may run. Your files are as you left them.",
        Reason.REMOVED: "Its container was removed from outside. Your files are untouched.",
        Reason.EXITED: "Its container was stopped from outside. Your files are untouched.",
        Reason.OOM: "It ran out of memory.",
        Reason.CRASHED: "The editor ended unexpectedly.",
        Reason.UNHEALTHY: "The editor stopped answering.",
        Reason.START_TIMEOUT: "The editor did not answer in time.",
        Reason.START_FAILED: "The container could not be started.",
        Reason.STOP_FAILED: "The container could not be stopped.",
        Reason.ENGINE: "The container engine was restarted.",
        Reason.DISABLED: "The account was disabled.",
    }
)
