"""Sweeps: each asks one question about rows and answers it in one bounded batch, every row in its own try.

What they share is in `passes.py`; the ones about idleness are in `idle_sweeps.py`.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog
from django.contrib.sessions.models import Session
from django.core.exceptions import ObjectDoesNotExist
from django.db.models import F

from workspaces import activity, admission, conf, dispatch, families, lifecycle, lockout, locks, naming, rules, ticket
from workspaces.activity import Seen
from workspaces.errors import RuntimeUnavailable, StopRefused
from workspaces.models import PortRest, Usage, WorkerBeat, Workspace
from workspaces.passes import BATCH, PARALLEL_PROBES, Report, each_row, single_flight
from workspaces.ports import REST
from workspaces.runtimes.base import HEALTH_SECONDS
from workspaces.states import ACTIVE, Reason, State

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from workspaces.querysets import WorkspaceQuerySet
    from workspaces.runtimes.base import Endpoint, Health, Observation, Runtime
    from workspaces.runtimes.base import Usage as Sample

logger = structlog.get_logger(__name__)

KILLED = 137  # 128 + SIGKILL
# The engine learns a moment after an end that it was for want of memory: for so long one that was killed is looked at.
OOM_NEWS_SECONDS = 2.0
# A message that nobody picked up after this is sent again; longer than any healthy queue waits.
RESEND_AFTER = timedelta(seconds=8)
# An editor that has not answered for this long is ended: the promise is 20 to 60 s.
UNHEALTHY_AFTER = timedelta(seconds=30)
# But before that it gets this long for a last answer. On a busy host one that opens a window for its user was seen to
# need more than the usual 3 s, several times in a row: slow is not silent.
LAST_ANSWER_SECONDS = 15.0


def stop_disabled(*, now: datetime) -> Report:
    """Whose account was disabled while a workspace ran? Close their editor sessions and stop it."""
    with single_flight("stop_disabled") as (report, mine):
        if not mine:
            return report

        def work(row: Workspace) -> None:
            ticket.revoke_user(row.user, now=now)
            lifecycle.request_stop(row, actor=None, reason=Reason.DISABLED)
            report.add(row.user_id, "stop", reason=str(Reason.DISABLED))

        each_row(Workspace.objects.of_disabled_users().select_related("user")[:BATCH], work)
    return report


def fail_overdue(*, runtime: Runtime, now: datetime) -> Report:
    """Which starts and stops take too long although nobody works on them? Give them up, with a reason."""
    env = conf.env()
    with single_flight("fail_overdue") as (report, mine):
        if not mine:
            return report
        runtime.ping()

        def give_up_start(row: Workspace) -> None:
            outcome = lifecycle.fail_start(
                row,
                runtime=runtime,
                code=str(Reason.START_TIMEOUT),
                message=f"The start was not finished within {env.start_timeout_seconds:g} seconds. Start it again.",
            )
            report.add(row.user_id, "fail_start", outcome=str(outcome))

        def give_up_stop(row: Workspace) -> None:
            try:
                lifecycle.perform_stop(row.pk, row.generation, runtime=runtime)
            except StopRefused as refusal:
                lifecycle.fail_stop(row, message=refusal.message, now=now)
                report.add(row.user_id, "fail_stop")

        starts, stops = overdue(now=now)
        each_row(starts[:BATCH], give_up_start)
        each_row(stops[:BATCH], give_up_stop)
    return report


def overdue(*, now: datetime) -> tuple[WorkspaceQuerySet, WorkspaceQuerySet]:
    """The starts and the stops that take longer than any healthy one."""
    env = conf.env()
    # A worker that still waits for the editor gives up by itself at the timeout and needs the grace to clean up.
    start_limit = env.start_timeout_seconds + env.stop_grace_seconds + 10
    stop_limit = 3 * env.stop_grace_seconds + 30
    return (
        Workspace.objects.start_overdue(now=now, timeout=start_limit),
        Workspace.objects.stop_overdue(now=now, timeout=stop_limit),
    )


def reconcile(*, runtime: Runtime, now: datetime) -> Report:
    """Do rows and containers agree? Compare from both sides and heal what does not.

    1. Starts and stops whose message may be lost are sent again.
    2. `running` rows: container gone (looked twice) or editor silent for too long.
    3. Containers that run without a row that wants them are stopped; those without any row are removed.
    """
    with single_flight("reconcile") as (report, mine):
        if not mine:
            return report
        began = time.monotonic()
        _resend(report, runtime=runtime, now=now)
        # Containers first, rows second: a start that finishes in between is never mistaken for a loss.
        seen = {observation.name: observation for observation in runtime.observe_all()}
        rows = list(Workspace.objects.running().order_by("pk"))
        gone = [row for row in rows if not is_alive(seen.get(row.container))]
        # Until then (monotonic) the engine may still say why, to all of them together.
        news_until = time.monotonic() + OOM_NEWS_SECONDS
        each_row(gone, lambda row: _settle_if_gone(report, row, runtime=runtime, now=now, news_until=news_until))
        alive = [row for row in rows if is_alive(seen.get(row.container))]
        healths = probe_all(runtime, [row.endpoint for row in alive])
        # A slow engine must not make a first silence look older than it is.
        probed_at = now + timedelta(seconds=time.monotonic() - began)
        _judge_health(report, alive, healths, runtime=runtime, now=probed_at)
        _remove_orphans(report, seen.values(), runtime=runtime)
    return report


def check_one(workspace_id: int, *, runtime: Runtime, now: datetime) -> Report:
    """The reconcile pass for one row, now: somebody met an editor that does not answer, or heard that it ended."""
    report = Report("check_one")
    row = Workspace.objects.running().filter(pk=workspace_id).first()
    if row is not None:
        _settle_if_gone(report, row, runtime=runtime, now=now, news_until=time.monotonic() + OOM_NEWS_SECONDS)
    report.log()
    return report


def is_alive(seen: Observation | None) -> bool:
    """Whether a container that was, or was not, in the list is there and has not ended."""
    return seen is not None and seen.alive


def _may_be_for_memory(seen: Observation) -> bool:
    return seen.exit_code == KILLED and not seen.out_of_memory


def _resend(report: Report, *, runtime: Runtime, now: datetime) -> None:
    def work(row: Workspace) -> None:
        with locks.operation(row.pk) as idle:
            if not idle:  # somebody works on it right now
                return
        (dispatch.start if row.state == State.STARTING else dispatch.stop)(row)
        report.add(row.user_id, "resend", state=row.state)

    for user_id in admission.call_next(runtime=runtime, now=now):
        report.add(user_id, "resend", state=str(State.STARTING))
    each_row(Workspace.objects.unsettled(quiet_since=now - RESEND_AFTER).order_by("dispatched_at")[:BATCH], work)


def _settle_if_gone(report: Report, row: Workspace, *, runtime: Runtime, now: datetime, news_until: float) -> None:
    """Look a second time at once, then say what happened."""
    again = runtime.observe(row.container)
    while _may_be_for_memory(again) and time.monotonic() < news_until:
        time.sleep(OOM_NEWS_SECONDS / 10)
        again = runtime.observe(row.container)
    if again.alive:
        return
    if lifecycle.settle_gone(row, again, now=now) is not None:
        report.add(row.user_id, "gone", phase=str(again.phase), exit_code=again.exit_code)


def _judge_health(
    report: Report,
    rows: list[Workspace],
    healths: dict[Endpoint | None, Health],
    *,
    runtime: Runtime,
    now: datetime,
) -> None:
    """`now` is the moment at which the editors were asked."""

    def answers(row: Workspace) -> bool:
        return row.endpoint in healths and healths[row.endpoint].ready

    def silent_for_too_long(row: Workspace) -> bool:
        return not answers(row) and row.unhealthy_since is not None and now - row.unhealthy_since >= UNHEALTHY_AFTER

    suspects = [row.endpoint for row in rows if silent_for_too_long(row)]
    healths = healths | probe_all(runtime, suspects, seconds=LAST_ANSWER_SECONDS)

    def work(row: Workspace) -> None:
        mine = Workspace.objects.running().filter(pk=row.pk, generation=row.generation)
        if answers(row):
            if row.unhealthy_since is not None:
                mine.update(unhealthy_since=None)
        elif row.unhealthy_since is None:
            mine.update(unhealthy_since=now)
        elif silent_for_too_long(row):
            lifecycle.settle_unhealthy(row, runtime=runtime, now=now)
            report.add(row.user_id, "unhealthy")

    each_row(rows, work)


def _remove_orphans(report: Report, seen: Iterable[Observation], *, runtime: Runtime) -> None:
    """Stop what runs though nobody wants it; remove what has no row at all. Files are never touched.

    A container with our label under another name than its workspace's is a stray: it is stopped, whatever its row says.
    """
    ours = [(observation.user_id, observation) for observation in seen if observation.user_id is not None]
    rows = {row.user_id: row for row in Workspace.objects.filter(user_id__in=[user_id for user_id, _ in ours])}
    for user_id, observation in ours:
        try:
            _judge(report, observation, row=rows.get(user_id), runtime=runtime)
        except (StopRefused, ObjectDoesNotExist):
            logger.exception("orphan_not_stopped", container=observation.name)


def _judge(report: Report, observation: Observation, *, row: Workspace | None, runtime: Runtime) -> None:
    grace = conf.env().stop_grace_seconds
    if row is None:
        runtime.ensure_removed(observation.name)
        report.add(observation.user_id, "remove_orphan", container=observation.name)
        return
    if not observation.alive:
        return
    prefix = conf.env().container_prefix
    if observation.name not in naming.own_names(row.container, prefix=prefix, user_id=row.user_id):
        runtime.ensure_stopped(observation.name, generation=observation.generation, grace=grace)
        report.add(row.user_id, "stop_stray", container=observation.name)
    elif row.state not in ACTIVE:
        with locks.operation(row.pk) as mine:
            row.refresh_from_db()
            # It may have been stopped since the list was made, by this very pass.
            if mine and row.state not in ACTIVE and runtime.observe(observation.name).alive:
                runtime.ensure_stopped(observation.name, generation=row.generation, grace=grace)
                report.add(row.user_id, "stop_orphan", container=observation.name)


def probe_all(
    runtime: Runtime, endpoints: Iterable[Endpoint | None], *, seconds: float = HEALTH_SECONDS
) -> dict[Endpoint | None, Health]:
    """Ask many editors at once; each has its own deadline in the runtime."""
    places = [endpoint for endpoint in endpoints if endpoint is not None]
    if not places:
        return {}
    with ThreadPoolExecutor(max_workers=PARALLEL_PROBES) as pool:
        return dict(zip(places, pool.map(partial(runtime.health, seconds=seconds), places), strict=True))


def sample_usage(*, runtime: Runtime, now: datetime) -> Report:
    """What does each running workspace use? Written to rows, because the API has no engine.

    Processor time above `work_cpu_percent` is work, so it moves that clock.
    """
    with single_flight("sample_usage") as (report, mine):
        if not mine:
            return report
        rows = list(
            Workspace.objects.running()
            .select_related("usage")
            .order_by(F("usage__sampled_at").asc(nulls_first=True))[:BATCH]
        )
        with ThreadPoolExecutor(max_workers=PARALLEL_PROBES) as pool:
            samples = list(pool.map(lambda row: _sample(runtime, row.container), rows))
        in_force = rules.load([row.user_id for row in rows], now=now)
        for row, sample in zip(rows, samples, strict=True):
            if sample is None:
                continue
            percent = _store_usage(row, sample, now=now)
            if percent >= conf.env().work_cpu_percent:
                activity.update(row, Seen(work_at=now, work_source=processor(percent)), rules=in_force, now=now)
    return report


def processor(percent: float) -> str:
    """How use of the processor is called where people read it."""
    return f"processor at {percent:.0f} %"


def _sample(runtime: Runtime, name: str) -> Sample | None:
    try:
        return runtime.usage(name)
    except RuntimeUnavailable:
        return None


def _store_usage(row: Workspace, sample: Sample, *, now: datetime) -> float:
    """Write the sample; returns the processor use since the one before, in percent of one processor."""
    before: Usage | None = getattr(row, "usage", None)
    percent, measured = 0.0, False
    at = sample.read_at or now
    if before is not None and before.generation == row.generation and at > before.sampled_at:
        used = max(sample.cpu_seconds - before.cpu_seconds, 0.0)
        percent, measured = round(100 * used / (at - before.sampled_at).total_seconds(), 1), True
    Usage.objects.update_or_create(
        workspace=row,
        defaults={
            "sampled_at": at,
            "generation": row.generation,
            "cpu_seconds": sample.cpu_seconds,
            "cpu_percent": percent,
            "cpu_measured": measured,
            "memory_bytes": sample.memory_bytes,
            "memory_limit_bytes": sample.memory_limit_bytes,
            "pids": sample.pids,
            "disk_bytes": sample.disk_bytes,
        },
    )
    return percent


def purge_expired(*, now: datetime) -> Report:
    """Which rows can nobody use any more? Delete them, so that no table grows for ever."""
    with single_flight("purge_expired") as (report, mine):
        if not mine:
            return report
        report.add(None, "tickets", count=ticket.purge(now=now))
        report.add(None, "log-ins", count=families.purge(now=now))
        report.add(None, "lock-out", count=lockout.purge(now=now))
        report.add(None, "sessions", count=Session.objects.filter(expire_date__lt=now).delete()[0])
        report.add(None, "ports", count=PortRest.objects.filter(released_at__lt=now - 2 * REST).delete()[0])
        report.add(None, "workers", count=WorkerBeat.objects.filter(at__lt=now - timedelta(days=1)).delete()[0])
    return report
