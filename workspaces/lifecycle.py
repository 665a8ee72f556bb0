"""What may happen next. `request_*` records intent and returns (for HTTP); `perform_*` does the slow work (workers).

Every function may be called again, late, twice at once or by another process: a state changes only by the
conditional update of `WorkspaceQuerySet.change_state`, and whoever finds its generation gone does nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import structlog
from django.db.models import F, Q
from django.utils import timezone

from workspaces import access, conf, dispatch, locks, naming, ports
from workspaces.errors import (
    AccessDenied,
    NotRunning,
    PortTaken,
    RuntimeUnavailable,
    StartRefused,
    StartsTooOften,
)
from workspaces.models import Transition, Workspace
from workspaces.runtimes.base import Phase
from workspaces.spec import build_spec
from workspaces.states import Reason, State, Wanted

if TYPE_CHECKING:
    from datetime import datetime

    from workspaces.runtimes.base import Observation, Runtime

logger = structlog.get_logger(__name__)

# How often a waiting start looks: the editor answers 0.3 s after its container runs (design measurements).
POLL_SECONDS = 0.1
# Between two looks at the row and the container while waiting for the editor.
LOOK_SECONDS = 0.5
PORT_ATTEMPTS = 10
# A start whose workers keep dying is given up instead of killing workers for ever.
MAX_ATTEMPTS = 5
# Exit codes of a process that was told to end: SIGINT, SIGKILL, SIGTERM. Nobody's crash.
TOLD_TO_END = frozenset({0, 130, 137, 143})
# The kernel ends for memory by SIGKILL, so these cannot be that.
TOLD_POLITELY = frozenset({0, 130, 143})


class Outcome(StrEnum):
    """How a `perform_*` call ended; all of them are normal."""

    DONE = "done"
    STALE = "stale"  # the row has moved on; nothing was to do
    BUSY = "busy"  # another process works on this container
    FAILED = "failed"  # the row says why


# --- requests: intent, in milliseconds -------------------------------------------------------------------------


def request_start(
    user: Any, *, actor: Any, reason: Reason = Reason.USER, starts_per_minute: int | None = None
) -> Workspace:
    """Ask for the user's workspace to run. Idempotent: any number of calls gives one container.

    `starts_per_minute` limits transitions into `starting`; a call that changes nothing is never limited.
    Raises AccessDenied for a disabled user, StartsTooOften beyond the limit.
    """
    workspace = access.ensure_workspace_for(user)
    now = timezone.now()
    for _ in range(3):  # somebody else may win a transition; then the state has changed and we look again
        state = State(workspace.state)
        if state in {State.STARTING, State.RUNNING}:
            return workspace
        if state is State.STOPPING:
            if _want(workspace, wanted=Wanted.RUNNING):
                return workspace
        else:
            if starts_per_minute is not None:
                _limit_starts(workspace, now=now, per_minute=starts_per_minute)
            moved = _begin_start(workspace, allowed=state, reason=reason, actor=actor, now=now)
            if moved is not None:
                return moved
        workspace.refresh_from_db()
    return workspace


def request_stop(workspace: Workspace, *, actor: Any, reason: Reason = Reason.USER) -> Workspace:
    """Ask for the workspace to stop; wins over a start in progress. Already stopped: nothing to do."""
    if not workspace.is_saved:
        return workspace
    for _ in range(3):
        state = State(workspace.state)
        if state is State.STOPPED:
            return workspace
        if state is State.STOPPING:
            if _want(workspace, wanted=Wanted.STOPPED, stop_reason=reason):
                return workspace
        else:
            moved = _begin_stop(workspace, allowed=state, reason=reason, actor=actor, wanted=Wanted.STOPPED)
            if moved is not None:
                return moved
        workspace.refresh_from_db()
    return workspace


def request_restart(
    user: Any, *, actor: Any, reason: Reason = Reason.USER, starts_per_minute: int | None = None
) -> Workspace:
    """Stop, then start again with the settings of today; a stopped workspace is just started (for `reason`)."""
    workspace = access.get_workspace_for(user)
    if workspace.state == State.RUNNING:
        if not user.is_active:
            raise AccessDenied("This account is disabled. Ask your administrator to enable it.")
        if starts_per_minute is not None:
            _limit_starts(workspace, now=timezone.now(), per_minute=starts_per_minute)
        moved = _begin_stop(workspace, allowed=State.RUNNING, reason=Reason.RESTART, actor=actor, wanted=Wanted.RUNNING)
        if moved is not None:
            return moved
    return request_start(user, actor=actor, reason=reason, starts_per_minute=starts_per_minute)


def request_keep(workspace: Workspace, *, minutes: float, now: datetime) -> Workspace:
    """Do not idle-stop before `now + minutes`: at most eight hours ahead, never past the maximum lifetime.

    Raises NotRunning.
    """
    until = now + min(timedelta(minutes=minutes), conf.MAX_KEEP)
    if workspace.started_at is not None:
        until = min(until, workspace.started_at + conf.limits().lifetime)
    if not workspace.is_saved or not Workspace.objects.filter(
        pk=workspace.pk, state=State.RUNNING, generation=workspace.generation
    ).update(keep_until=until):
        raise NotRunning("The workspace is not running, so there is nothing to keep. Start it first.")
    workspace.refresh_from_db()
    return workspace


def stop_if_quiet(workspace: Workspace, *, reason: Reason, now: datetime) -> Workspace | None:
    """Stop for idleness, unless anything was seen or kept since `workspace` was read; None then."""
    unchanged = Q(last_activity_at=workspace.last_activity_at, keep_until=workspace.keep_until)
    detail = {name: moment.isoformat() for name, moment in vars(workspace.clocks()).items() if moment is not None}
    return _begin_stop(
        workspace,
        allowed=State.RUNNING,
        reason=reason,
        actor=None,
        wanted=Wanted.STOPPED,
        where=unchanged,
        detail=detail,
        now=now,
    )


def _begin_start(
    workspace: Workspace, *, allowed: State, reason: Reason, actor: Any, now: datetime
) -> Workspace | None:
    moved = Workspace.objects.change_state(
        pk=workspace.pk,
        to=State.STARTING,
        allowed=frozenset({allowed}),
        generation=workspace.generation,
        reason=reason,
        actor=actor,
        now=now,
        changes=_new_start(workspace, now=now),
    )
    if moved is not None:
        dispatch.start(moved)
    return moved


def _new_start(workspace: Workspace, *, now: datetime) -> dict[str, Any]:
    """What a row holds when a start begins."""
    return {
        "generation": workspace.generation + 1,
        "wanted": Wanted.RUNNING,
        "requested_at": now,
        "dispatched_at": now,
        "admitted_at": None,
        "attempts": 0,
        "started_at": None,
        "stop_reason": "",
        "error_code": "",
        "error_message": "",
        "keep_until": None,
        "unhealthy_since": None,
        "stages": [{"stage": "queued", "at": now.isoformat()}],
    }


def _begin_stop(
    workspace: Workspace,
    *,
    allowed: State,
    reason: Reason,
    actor: Any,
    wanted: Wanted,
    where: Q | None = None,
    detail: dict[str, Any] | None = None,
    now: datetime | None = None,
) -> Workspace | None:
    now = now or timezone.now()
    moved = Workspace.objects.change_state(
        pk=workspace.pk,
        to=State.STOPPING,
        allowed=frozenset({allowed}),
        generation=workspace.generation,
        reason=reason,
        actor=actor,
        now=now,
        where=where or Q(),
        detail=detail,
        changes={
            "wanted": wanted,
            "stop_reason": reason,
            "error_code": "",  # a stop of what has failed puts the failure away
            "error_message": "",
            "dispatched_at": now,
            "attempts": 0,
        },
    )
    if moved is not None:
        dispatch.stop(moved)
    return moved


def _want(workspace: Workspace, **intent: Any) -> bool:
    """Record the intent on a row that is still stopping; False if it has moved on."""
    rows = Workspace.objects.filter(pk=workspace.pk, state=State.STOPPING, generation=workspace.generation).update(
        **intent
    )
    for name, value in intent.items():
        setattr(workspace, name, value)
    return bool(rows)


def _limit_starts(workspace: Workspace, *, now: datetime, per_minute: int) -> None:
    recent = Transition.objects.filter(
        workspace=workspace, to_state=State.STARTING, time__gt=now - timedelta(minutes=1)
    ).count()
    if recent >= per_minute:
        raise StartsTooOften(
            f"This workspace was started {recent} times within a minute. Wait a moment, then start it again.",
            retry_after=30,
        )


# --- performing: the slow work, one process per container at a time ---------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Start:
    """One admitted start and what it needs."""

    workspace: Workspace
    runtime: Runtime
    env: Any
    deadline: float  # monotonic

    @property
    def pk(self) -> int:
        return self.workspace.pk

    @property
    def generation(self) -> int:
        return self.workspace.generation


def perform_start(workspace_id: int, generation: int, *, runtime: Runtime) -> Outcome:
    """Bring a `starting` row to `running` or `failed`.

    1. Admit: the start timeout counts from here, not from the queue.
    2. Hold a port, build the spec, let the runtime make it run; another port if that one is taken.
    3. Wait until the editor answers, watching row and container: a stop wins, a crash is told at once.
    4. Say `running`, with all clocks at now. If the row has moved on meanwhile, stop what was started.
    Raises RuntimeUnavailable when nothing could be learnt; the row stays `starting` and the call may be repeated.
    """
    with locks.operation(workspace_id) as mine:
        if not mine:
            return Outcome.BUSY
        workspace = _admit(workspace_id, generation, now=timezone.now())
        if workspace is None:
            logger.info("start_stale", workspace_id=workspace_id, generation=generation)
            return Outcome.STALE
        env = conf.env()
        start = _Start(
            workspace=workspace,
            runtime=runtime,
            env=env,
            deadline=time.monotonic() + env.start_timeout_seconds,
        )
        try:
            if workspace.attempts > MAX_ATTEMPTS:
                raise StartRefused(
                    f"The start was interrupted {workspace.attempts - 1} times and was given up. Start it again.",
                    code="start_interrupted",
                )
            observation = _launch(start)
            if observation is not None:
                _await_editor(start, observation)
                if _say_running(start, observation):
                    return Outcome.DONE
        except StartRefused as refusal:
            return _fail(start, code=refusal.code, message=refusal.message)
        except RuntimeUnavailable:
            # Nothing was learnt, so this was no attempt: an engine that is away does not use a start up.
            Workspace.objects.filter(pk=start.pk, generation=generation).update(attempts=F("attempts") - 1)
            raise
        # The row has moved on while we worked. Whoever moved it also sent a stop; it waits for our lock.
        return _abandon(start)


def _admit(workspace_id: int, generation: int, *, now: datetime) -> Workspace | None:
    workspace = (
        Workspace.objects.filter(pk=workspace_id, state=State.STARTING, generation=generation)
        .select_related("user")
        .first()
    )
    if workspace is None:
        return None
    workspace.attempts += 1
    workspace.admitted_at = now
    _add_stage(workspace, "preparing", now=now)
    workspace.save(update_fields=["attempts", "admitted_at"])
    return workspace


def _add_stage(workspace: Workspace, stage: str, *, now: datetime) -> None:
    """Note progress for people who watch; never worth failing for."""
    workspace.stages = [*workspace.stages, {"stage": stage, "at": now.isoformat()}][-50:]
    Workspace.objects.filter(pk=workspace.pk, state=State.STARTING, generation=workspace.generation).update(
        stages=workspace.stages
    )


def _launch(start: _Start) -> Observation | None:
    """Let the container run at a held port; None when the start is no longer wanted."""
    taken: set[int] = set()
    # A start taken over from a dead worker finds its own container on the port: that is not "in use".
    there = start.runtime.observe(_name(start.workspace))
    own = there.endpoint if there.alive and there.user_id == start.workspace.user_id else None
    for _ in range(PORT_ATTEMPTS):
        endpoint = ports.hold_port(
            start.workspace,
            generation=start.generation,
            base=start.env.port_base,
            port_range=start.env.port_range,
            reserved=frozenset({start.env.port}),
            port_free=lambda place: place == own or start.runtime.port_free(place),
            now=timezone.now(),
            avoid=frozenset(taken),
        )
        if endpoint is None:
            return None
        _add_stage(start.workspace, "creating", now=timezone.now())
        try:
            return start.runtime.ensure_running(build_spec(start.workspace, endpoint=endpoint, env=start.env))
        except PortTaken:
            logger.info("port_taken", workspace=start.workspace.user_id, port=endpoint.port)
            taken.add(endpoint.port)
    raise StartRefused(
        f"{PORT_ATTEMPTS} ports in a row turned out to be in use by other programs. Start it again, "
        "or ask an administrator to look at what listens in GUNPOWDER_PORT_RANGE.",
        code="port_taken",
    )


def _await_editor(start: _Start, observation: Observation) -> None:
    """Return when the editor answers or the row has moved on; raises StartRefused with what went wrong."""
    if observation.endpoint is None:
        raise StartRefused("The container runs but has no port. Start it again.", code="no_endpoint")
    _add_stage(start.workspace, "waiting", now=timezone.now())
    look_at = time.monotonic() + LOOK_SECONDS
    while not start.runtime.health(observation.endpoint).ready:
        if time.monotonic() >= look_at:
            look_at = time.monotonic() + LOOK_SECONDS
            if not _still_wanted(start):
                return
            refuse_if_gone(start.runtime, observation.name)
        if time.monotonic() >= start.deadline:
            raise StartRefused(
                f"The editor did not answer within {start.env.start_timeout_seconds:g} seconds. Start it again; if it "
                "keeps happening, an administrator can tell more.",
                code=str(Reason.START_TIMEOUT),
            )
        time.sleep(POLL_SECONDS)


def _still_wanted(start: _Start) -> bool:
    return Workspace.objects.filter(pk=start.pk, state=State.STARTING, generation=start.generation).exists()


def refuse_if_gone(runtime: Runtime, name: str) -> None:
    """Raise StartRefused if the container that should come up has ended, and say how."""
    seen = runtime.observe(name)
    if seen.alive:
        return
    reason, code, message = explain_end(seen)
    tail = " ".join(runtime.logs(name, tail=5))[-400:]
    last_words = f"Its last words: {tail}" if tail else ""
    raise StartRefused(
        f"{message or 'The container was taken away while it started.'} {last_words}".strip(),
        code=code or str(reason),
    )


def _say_running(start: _Start, observation: Observation) -> bool:
    now = timezone.now()
    _add_stage(start.workspace, "ready", now=now)
    moved = Workspace.objects.change_state(
        pk=start.pk,
        to=State.RUNNING,
        allowed=frozenset({State.STARTING}),
        generation=start.generation,
        reason=Reason.READY,
        now=now,
        changes={
            "started_at": now,
            "presence_at": now,
            "work_at": now,
            "connection_at": now,
            "last_activity_at": now,
            "container": observation.name,
            "container_id": observation.container_id,
            "image": start.env.workspace_image,
            "attempts": 0,
        },
    )
    return moved is not None


def _fail(start: _Start, *, code: str, message: str) -> Outcome:
    """`starting` -> `failed`; the container of that generation is stopped first."""
    start.runtime.ensure_stopped(
        _name(start.workspace), generation=start.generation, grace=start.env.stop_grace_seconds
    )
    known = {str(reason) for reason in Reason}
    moved = Workspace.objects.change_state(
        pk=start.pk,
        to=State.FAILED,
        allowed=frozenset({State.STARTING}),
        generation=start.generation,
        reason=Reason(code) if code in known else Reason.START_FAILED,
        now=timezone.now(),
        detail={"code": code},
        changes={
            "port": None,
            "stopped_at": timezone.now(),
            "error_code": code,
            "error_message": message,
        },
    )
    logger.warning("start_failed", workspace=start.workspace.user_id, generation=start.generation, code=code)
    return Outcome.FAILED if moved is not None else _abandon(start)


def _name(workspace: Workspace) -> str:
    return naming.container_name(conf.env().container_prefix, workspace.user_id)


def _abandon(start: _Start) -> Outcome:
    """A stop overtook this start: finish that stop here, under the lock that it would wait for."""
    logger.info("start_overtaken", workspace=start.workspace.user_id, generation=start.generation)
    _finish_stop(start.pk, start.generation, runtime=start.runtime)
    return Outcome.STALE


def perform_stop(workspace_id: int, generation: int, *, runtime: Runtime) -> Outcome:
    """Bring a `stopping` row to `stopped`, or to `starting` when a start came meanwhile (the last intent wins).

    Raises RuntimeUnavailable when nothing could be learnt; the row stays `stopping` and the call may be repeated.
    """
    with locks.operation(workspace_id) as mine:
        if not mine:
            return Outcome.BUSY
        return _finish_stop(workspace_id, generation, runtime=runtime)


def _finish_stop(workspace_id: int, generation: int, *, runtime: Runtime) -> Outcome:
    workspace = Workspace.objects.filter(pk=workspace_id, state=State.STOPPING, generation=generation).first()
    if workspace is None:
        logger.info("stop_stale", workspace_id=workspace_id, generation=generation)
        return Outcome.STALE
    if workspace.stop_reason == Reason.IDLE and _came_back(workspace, runtime=runtime):
        return Outcome.DONE
    env = conf.env()
    runtime.ensure_stopped(_name(workspace), generation=generation, grace=env.stop_grace_seconds)
    return _settle_stopped(workspace)


def _settle_stopped(workspace: Workspace) -> Outcome:
    """After the container has ended: `stopped`, or `starting` again if that is what is wanted now."""
    now = timezone.now()
    stopped = Workspace.objects.change_state(
        pk=workspace.pk,
        to=State.STOPPED,
        allowed=frozenset({State.STOPPING}),
        generation=workspace.generation,
        reason=Reason(workspace.stop_reason or Reason.USER),
        now=now,
        where=Q(wanted=Wanted.STOPPED),
        changes={
            "port": None,
            "stopped_at": now,
            "keep_until": None,
        },
    )
    if stopped is not None:
        return Outcome.DONE
    again = Workspace.objects.change_state(
        pk=workspace.pk,
        to=State.STARTING,
        allowed=frozenset({State.STOPPING}),
        generation=workspace.generation,
        reason=Reason.RESTART,
        now=now,
        where=Q(wanted=Wanted.RUNNING),
        changes=(_new_start(workspace, now=now) | {"stopped_at": now}),
    )
    if again is not None:
        dispatch.start(again)
        return Outcome.DONE
    return Outcome.STALE


def _came_back(workspace: Workspace, *, runtime: Runtime) -> bool:
    """Look once more just before SIGTERM: activity newer than the decision keeps the container."""
    endpoint = workspace.endpoint
    if endpoint is None:
        return False
    beat = runtime.health(endpoint).last_heartbeat_at
    seen = [moment for moment in (beat, workspace.connection_at, workspace.presence_at) if moment is not None]
    newest = min(max(seen, default=workspace.changed_at), timezone.now())
    if newest <= workspace.changed_at:
        return False
    kept = Workspace.objects.change_state(
        pk=workspace.pk,
        to=State.RUNNING,
        allowed=frozenset({State.STOPPING}),
        generation=workspace.generation,
        reason=Reason.ACTIVITY,
        now=timezone.now(),
        changes={
            "wanted": Wanted.RUNNING,
            "stop_reason": "",
            "connection_at": newest,
            "last_activity_at": newest,
        },
    )
    return kept is not None


# --- what reconcile found ---------------------------------------------------------------------------------------


def explain_end(seen: Observation) -> tuple[Reason, str, str]:
    """Why a container ended: the reason, and for failures a code and a sentence ("" when it was told to end)."""
    if seen.phase in {Phase.ABSENT, Phase.REMOVING}:
        return Reason.REMOVED, "", ""
    # The engine's mark stays after any process was ended for memory; one told to end later did not die of it.
    if seen.out_of_memory and seen.exit_code not in TOLD_POLITELY:
        return (
            Reason.OOM,
            "oom",
            (
                "The workspace ran out of memory and was ended. Your files are untouched. Start it again, and run "
                "less at once or ask an administrator for more memory."
            ),
        )
    if seen.exit_code in TOLD_TO_END:
        return Reason.EXITED, "", ""
    return (
        Reason.CRASHED,
        "crashed",
        f"The editor ended unexpectedly (exit code {seen.exit_code}). Your files are untouched. Start it again.",
    )


def settle_gone(workspace: Workspace, seen: Observation, *, now: datetime) -> Workspace | None:
    """A `running` row whose container was seen gone twice: `stopped`, or `failed` with a code."""
    reason, code, message = explain_end(seen)
    return _settle_running(workspace, reason=reason, code=code, message=message, now=now)


def settle_unhealthy(workspace: Workspace, *, runtime: Runtime, now: datetime) -> Workspace | None:
    """A `running` row whose editor has not answered for too long: stop the container, say `failed`.

    Does nothing, and returns None, if somebody works on it or the row has moved on.
    """
    with locks.operation(workspace.pk) as mine:
        current = Workspace.objects.running().filter(pk=workspace.pk, generation=workspace.generation)
        if not mine or not current.exists():
            return None
        runtime.ensure_stopped(
            workspace.container, generation=workspace.generation, grace=conf.env().stop_grace_seconds
        )
        message = "The editor stopped answering and was ended. Your files are untouched. Start it again."
        return _settle_running(workspace, reason=Reason.UNHEALTHY, code="unhealthy", message=message, now=now)


def _settle_running(
    workspace: Workspace, *, reason: Reason, code: str, message: str, now: datetime
) -> Workspace | None:
    return Workspace.objects.change_state(
        pk=workspace.pk,
        to=State.FAILED if code else State.STOPPED,
        allowed=frozenset({State.RUNNING}),
        generation=workspace.generation,
        reason=reason,
        now=now,
        changes={
            "wanted": Wanted.STOPPED,
            "port": None,
            "stopped_at": now,
            "stop_reason": reason,
            "error_code": code,
            "error_message": message,
            "keep_until": None,
        },
    )


def fail_start(workspace: Workspace, *, runtime: Runtime, code: str, message: str) -> Outcome:
    """Give up a start that nobody works on any more. Does nothing if somebody does."""
    with locks.operation(workspace.pk) as mine:
        if not mine:
            return Outcome.BUSY
        start = _Start(workspace=workspace, runtime=runtime, env=conf.env(), deadline=0)
        # The row was read before the lock: whoever held it may have finished the start since.
        return _fail(start, code=code, message=message) if _still_wanted(start) else Outcome.STALE


def fail_stop(workspace: Workspace, *, message: str, now: datetime) -> Workspace | None:
    """`stopping` -> `failed`: the runtime answers, but the container does not end."""
    return Workspace.objects.change_state(
        pk=workspace.pk,
        to=State.FAILED,
        allowed=frozenset({State.STOPPING}),
        generation=workspace.generation,
        reason=Reason.STOP_FAILED,
        now=now,
        changes={
            "wanted": Wanted.STOPPED,
            "port": None,
            "error_code": "stop_failed",
            "error_message": message,
        },
    )
