"""What may happen next. `request_*` records intent and returns (for HTTP); `perform_*` does the slow work (workers).

Every function may be called again, late, twice at once or by another process: a state changes only by the
conditional update of `WorkspaceQuerySet.change_state`, and whoever finds its generation gone does nothing.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import structlog
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from workspaces import access, activity, admission, conf, dispatch, locks, naming, notices, ports, rules
from workspaces.errors import (
    AccessDenied,
    NotRunning,
    PassingRefusal,
    PortTaken,
    RuntimeUnavailable,
    StartRefused,
    StartsTooOften,
    StopRefused,
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
# A start that is refused for something that passes is tried this often before it fails: with the pauses in `tasks.py`
# it then has had a quarter of a minute.
PASSING_ATTEMPTS = 4
# Exit codes of a process that was told to end: SIGINT, SIGKILL, SIGTERM. Nobody's crash.
TOLD_TO_END = frozenset({0, 130, 137, 143})
# The kernel ends for memory by SIGKILL, so these cannot be that.
TOLD_POLITELY = frozenset({0, 130, 143})
# Stops that somebody's return undoes, as long as the container runs.
UNDONE_BY_PRESENCE = frozenset({Reason.IDLE, Reason.WORK_BUDGET})


class Outcome(StrEnum):
    """How a `perform_*` call ended; all of them are normal."""

    DONE = "done"
    STALE = "stale"  # the row has moved on; nothing was to do
    WAITING = "waiting"  # not its turn yet; whoever makes room calls it
    BUSY = "busy"  # another process works on this container
    AGAIN = "again"  # it was refused for something that passes; try again in a moment
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

    Never shortens what was promised before; 0 withdraws it. Withdraws a stop that waits for a command to end.
    Raises NotRunning.
    """
    if minutes <= 0:
        return request_cancel(workspace, now=now)
    until = now + min(timedelta(minutes=minutes), conf.MAX_KEEP)
    return _attend(workspace, now=now, keep_until=until, stop_when_done=False)


def request_stop_when_done(workspace: Workspace, *, now: datetime) -> Workspace:
    """Stop as soon as no command runs in its terminals and the processor is quiet. Raises NotRunning."""
    return _attend(workspace, now=now, stop_when_done=True)


def request_cancel(workspace: Workspace, *, now: datetime) -> Workspace:
    """Withdraw a keep and a stop that waits for a command. Nothing was asked: nothing to do. Raises NotRunning."""
    return _attend(workspace, now=now, keep_until=None, stop_when_done=False)


def _attend(workspace: Workspace, *, now: datetime, **wishes: Any) -> Workspace:
    """Write what somebody wishes for a running workspace, and work out anew when it stops."""
    in_force = rules.load([workspace.user_id], now=now)
    with transaction.atomic():
        row = (
            Workspace.objects.select_for_update(of=("self",))
            .filter(pk=workspace.pk, state=State.RUNNING, generation=workspace.generation)
            .first()
            if workspace.is_saved
            else None
        )
        if row is None:
            raise NotRunning("The workspace is not running, so there is nothing to keep. Start it first.")
        promised = row.keep_until
        for name, value in wishes.items():
            setattr(row, name, value)
        if row.keep_until is not None and promised is not None:
            row.keep_until = max(row.keep_until, promised)
        activity.work_out(row, rules=in_force)
        if row.keep_until is not None and row.lifetime_ends_at is not None:
            row.keep_until = min(row.keep_until, row.lifetime_ends_at)
        row.save(update_fields=[*wishes, *activity.DERIVED])
    return row


def stop_if_unchanged(
    workspace: Workspace, *, reason: Reason, decision: dict[str, Any], now: datetime
) -> Workspace | None:
    """Stop for idleness or age, unless anything was seen or wished since `workspace` was read; None then."""
    unchanged = Q(
        presence_at=workspace.presence_at,
        work_at=workspace.work_at,
        keep_until=workspace.keep_until,
        stop_when_done=workspace.stop_when_done,
        presence_reported=workspace.presence_reported,
    )
    if not workspace.presence_reported:  # then a connection is what stands for a person
        unchanged &= Q(connection_at=workspace.connection_at)
    return _begin_stop(
        workspace,
        allowed=State.RUNNING,
        reason=reason,
        actor=None,
        wanted=Wanted.STOPPED,
        where=unchanged,
        decision=decision,
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
        "queued_for": "",
        "attempts": 0,
        "started_at": None,
        "stop_reason": "",
        "error_code": "",
        "error_message": "",
        "keep_until": None,
        "warned_at": None,
        "stop_when_done": False,
        "request_id": "",
        "answer": None,
        "last_decision": None,
        "last_spared": None,
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
    decision: dict[str, Any] | None = None,
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
        detail=decision,
        changes={
            "last_decision": decision,
            "warned_at": None,
            "stop_when_done": False,
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

    1. Admit, or leave it in the queue: the start timeout counts from here.
    2. Hold a port, build the spec, let the runtime make it run; another port if that one is taken.
    3. Wait until the editor answers, watching row and container: a stop wins, a crash is told at once.
    4. Say `running`, with all clocks at now. If the row has moved on meanwhile, stop what was started.
    Raises RuntimeUnavailable when nothing could be learnt; the row stays `starting` and the call may be repeated.
    """
    outcome = _perform_start(workspace_id, generation, runtime=runtime)
    # Also when this one must wait: those ahead of it may have lost their messages.
    if outcome is not Outcome.BUSY:
        admission.call_next(runtime=runtime, now=timezone.now())
    return outcome


def _perform_start(workspace_id: int, generation: int, *, runtime: Runtime) -> Outcome:
    with locks.operation(workspace_id) as mine:
        if not mine:
            return Outcome.BUSY
        workspace = _admit(workspace_id, generation, available=runtime.memory_available(), now=timezone.now())
        if workspace is None:
            logger.info("start_stale", workspace_id=workspace_id, generation=generation)
            return Outcome.STALE
        if workspace.queued_for:
            logger.info("start_waits", workspace=workspace.user_id, waits_for=workspace.queued_for)
            return Outcome.WAITING
        env = conf.env()
        start = _Start(
            workspace=workspace,
            runtime=runtime,
            env=env,
            deadline=time.monotonic() + env.start_timeout_seconds,
        )
        return _bring_up(start)


def _bring_up(start: _Start) -> Outcome:
    """Steps 2 to 4 of `perform_start`, and what follows when one of them ends in another way."""
    attempts = start.workspace.attempts
    try:
        if attempts > MAX_ATTEMPTS:
            raise StartRefused(
                f"The start was interrupted {attempts - 1} times and was given up. Start it again.",
                code="start_interrupted",
            )
        observation = _launch(start)
        if observation is not None:
            _await_editor(start, observation)
            if _say_running(start, observation):
                return Outcome.DONE
    except StartRefused as refusal:
        if isinstance(refusal, PassingRefusal) and attempts < PASSING_ATTEMPTS:
            logger.warning("start_again", workspace=start.workspace.user_id, code=refusal.code, error=refusal.message)
            return Outcome.AGAIN
        return _fail(start, code=refusal.code, message=refusal.message)
    except RuntimeUnavailable:
        # An engine that is away does not use a start up. One that answers, and yet this cannot be done, does: it
        # would keep its place in the queue for ever.
        if not _answers(start.runtime):
            mine = Workspace.objects.filter(pk=start.pk, generation=start.generation)
            mine.update(attempts=F("attempts") - 1)
        raise
    # The row has moved on while we worked. Whoever moved it also sent a stop; it waits for our lock.
    return _abandon(start)


def _answers(runtime: Runtime) -> bool:
    try:
        runtime.ping()
    except RuntimeUnavailable:
        return False
    return True


def _admit(workspace_id: int, generation: int, *, available: int | None, now: datetime) -> Workspace | None:
    """The row, admitted or with what it waits for in `queued_for`; None if it is not to be started any more."""
    with transaction.atomic():
        locks.wait_for_admission()
        workspace = (
            Workspace.objects.select_for_update(of=("self",))
            .filter(pk=workspace_id, state=State.STARTING, generation=generation)
            .select_related("user")
            .first()
        )
        if workspace is None:
            return None
        if workspace.admitted_at is None:
            waits = admission.must_wait(workspace, available=available)
            if waits is not None:
                if workspace.queued_for != waits:
                    workspace.queued_for = waits
                    workspace.save(update_fields=["queued_for"])
                return workspace
        workspace.queued_for = ""
        workspace.attempts += 1
        workspace.admitted_at = now
        workspace.save(update_fields=["queued_for", "attempts", "admitted_at"])
    _add_stage(workspace, "preparing", now=now)
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
    fresh = Workspace(
        user_id=start.workspace.user_id, started_at=now, presence_at=now, work_at=now, presence_reported=True
    )
    in_force = rules.load([fresh.user_id], now=now)
    activity.work_out(fresh, rules=in_force)
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
            "presence_source": "start",
            "presence_reported": True,
            "work_at": now,
            "work_source": "",
            "connection_at": now,
            **{name: getattr(fresh, name) for name in activity.DERIVED},
            "container": observation.name,
            "container_id": observation.container_id,
            "image": start.env.workspace_image,
            "attempts": 0,
        },
    )
    if moved is None:
        return False
    # What the container before was told, a warning perhaps, must not be the first that this one reads.
    notices.tell(moved, rules=in_force, runtime=start.runtime, now=now)
    return True


def _fail(start: _Start, *, code: str, message: str) -> Outcome:
    """`starting` -> `failed`; the container of that generation is stopped first.

    One that cannot be stopped does not keep the row, and its place in the queue: the orphan pass goes on trying.
    """
    name = _name(start.workspace)
    try:
        start.runtime.ensure_stopped(name, generation=start.generation, grace=start.env.stop_grace_seconds)
    except StopRefused as refusal:
        logger.warning("failed_start_not_stopped", workspace=start.workspace.user_id, error=refusal.message)
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
        outcome = _finish_stop(workspace_id, generation, runtime=runtime)
    admission.call_next(runtime=runtime, now=timezone.now())  # there is more memory now
    return outcome


def _finish_stop(workspace_id: int, generation: int, *, runtime: Runtime) -> Outcome:
    workspace = Workspace.objects.filter(pk=workspace_id, state=State.STOPPING, generation=generation).first()
    if workspace is None:
        logger.info("stop_stale", workspace_id=workspace_id, generation=generation)
        return Outcome.STALE
    if workspace.stop_reason in UNDONE_BY_PRESENCE and _came_back(workspace, runtime=runtime):
        return Outcome.DONE
    env = conf.env()
    runtime.ensure_stopped(_name(workspace), generation=generation, grace=env.stop_grace_seconds)
    # Within the grace period its user may have asked for the stop that was under way for another reason.
    workspace.refresh_from_db(fields=["stop_reason"])
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
    """Look once more just before SIGTERM: presence newer than the decision keeps the container.

    So does a start that was asked for since. An answer that does not come changes nothing: the decision was made with
    all that was needed.
    """
    endpoint = workspace.endpoint
    if endpoint is None:
        return False
    now = timezone.now()
    present_at = None
    if workspace.wanted == Wanted.RUNNING:
        present_at = now
    else:
        with contextlib.suppress(RuntimeUnavailable):
            present_at = runtime.report(endpoint, secret=workspace.editor_secret).present_at
    newest = max(moment for moment in (present_at, workspace.presence_at, workspace.changed_at) if moment is not None)
    if newest <= workspace.changed_at:
        return False
    workspace.presence_at = newest
    activity.work_out(workspace, rules=rules.load([workspace.user_id], now=now))
    kept = Workspace.objects.change_state(
        pk=workspace.pk,
        to=State.RUNNING,
        allowed=frozenset({State.STOPPING}),
        generation=workspace.generation,
        reason=Reason.ACTIVITY,
        now=now,
        where=Q(stop_reason=workspace.stop_reason),  # somebody may have asked for the stop meanwhile
        changes={
            "wanted": Wanted.RUNNING,
            "stop_reason": "",
            "last_decision": None,
            "presence_at": newest,
            **{name: getattr(workspace, name) for name in activity.DERIVED},
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
