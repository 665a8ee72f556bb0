"""Sweeps: each asks one question about rows and answers it in one bounded batch, every row in its own try.

A poisoned row is logged with its id and blocks nobody. `RuntimeUnavailable` ends a pass that needs the runtime:
nothing is known, so nothing changes.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any

import structlog
from django.contrib.sessions.models import Session
from django.core.exceptions import ObjectDoesNotExist
from django.db import DatabaseError
from django.db.models import F
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken

from workspaces import activity, conf, dispatch, idleness, lifecycle, locks, naming, ticket
from workspaces.errors import RuntimeUnavailable, StopRefused, WorkspaceError
from workspaces.models import PortRest, Usage, WorkerBeat, Workspace
from workspaces.ports import REST
from workspaces.states import ACTIVE, Reason, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from workspaces.runtimes.base import Endpoint, Health, Observation, Runtime
    from workspaces.runtimes.base import Usage as Sample

logger = structlog.get_logger(__name__)

BUSY = "Another process runs this sweep at the moment; one at a time is enough."
BATCH = 200
KILLED = 137  # 128 + SIGKILL
OOM_NEWS_SECONDS = 0.5
PARALLEL_PROBES = 16
# A message that nobody picked up after this is sent again; longer than any healthy queue waits.
RESEND_AFTER = timedelta(seconds=8)
# An editor that has not answered for this long is ended: the promise is 20 to 60 s.
UNHEALTHY_AFTER = timedelta(seconds=30)


@dataclass
class Report:
    """What a sweep did: a list of `{workspace, action, …}`, for the log, `--json` and the tests."""

    sweep: str
    skipped: str = ""
    actions: list[dict[str, Any]] = field(default_factory=list)

    def add(self, workspace: int | None, action: str, **more: Any) -> None:
        self.actions.append({"workspace": workspace, "action": action, **more})

    def log(self) -> None:
        if self.skipped == BUSY:
            logger.info("sweep_busy", sweep=self.sweep)
        elif self.skipped:
            logger.warning("sweep_skipped", sweep=self.sweep, why=self.skipped)
        elif self.actions:
            logger.info("sweep_done", sweep=self.sweep, actions=self.actions[:20], count=len(self.actions))


@contextmanager
def _single_flight(name: str) -> Iterator[tuple[Report, bool]]:
    report = Report(name)
    with locks.sweep(name) as mine:
        if not mine:
            report.skipped = BUSY
        try:
            yield report, mine
        except RuntimeUnavailable as error:
            report.skipped = f"the runtime does not answer: {error.message}"
    report.log()


def _each(rows: Iterable[Workspace], work: Callable[[Workspace], None]) -> None:
    """Run `work` per row; one bad row is logged and passed over, an unreachable runtime ends the pass."""
    for row in rows:
        try:
            work(row)
        except RuntimeUnavailable:
            raise
        except (WorkspaceError, DatabaseError, ValueError, ObjectDoesNotExist):  # the last: deleted since it was read
            logger.exception("sweep_row_failed", workspace=row.user_id)


def stop_idle(*, runtime: Runtime, now: datetime, dry_run: bool = False) -> Report:
    """Which running workspaces has nobody used for too long, or ran too long? Stop them.

    Candidates come from an index; each candidate's heartbeat is read, and the decision is made again under the
    conditional update. A probe that fails holds the workspace: unknown is not idle.
    """
    limits = conf.limits()
    with _single_flight("stop_idle") as (report, mine):
        if not mine:
            return report
        quiet = Workspace.objects.idle_since(now - limits.idle)[:BATCH]
        old = Workspace.objects.older_than_lifetime(now - limits.lifetime)[:BATCH]
        rows = list({row.pk: row for row in chain(quiet, old)}.values())
        healths = probe_all(runtime, [row.endpoint for row in rows])

        def work(row: Workspace) -> None:
            health = healths.get(row.endpoint)
            if health is not None and health.last_heartbeat_at is not None:
                activity.record_connection(row, at=health.last_heartbeat_at, now=now)
                row.refresh_from_db()
            reason = idleness.decide(row.clocks(), limits, now=now)
            if reason is None:
                return
            if reason is Reason.IDLE and (health is None or not health.ready):
                report.add(row.user_id, "held", why="the editor did not answer, and unknown is not idle")
                return
            if dry_run:
                report.add(row.user_id, "would_stop", reason=str(reason), last_activity_at=row.last_activity_at)
            elif lifecycle.stop_if_quiet(row, reason=reason, now=now) is not None:
                report.add(row.user_id, "stop", reason=str(reason))

        _each(rows, work)
    return report


def stop_disabled(*, now: datetime) -> Report:
    """Whose account was disabled while a workspace ran? Close their editor sessions and stop it."""
    with _single_flight("stop_disabled") as (report, mine):
        if not mine:
            return report

        def work(row: Workspace) -> None:
            ticket.revoke_user(row.user, now=now)
            lifecycle.request_stop(row, actor=None, reason=Reason.DISABLED)
            report.add(row.user_id, "stop", reason=str(Reason.DISABLED))

        _each(Workspace.objects.of_disabled_users().select_related("user")[:BATCH], work)
    return report


def fail_overdue(*, runtime: Runtime, now: datetime) -> Report:
    """Which starts and stops take too long although nobody works on them? Give them up, with a reason."""
    env = conf.env()
    with _single_flight("fail_overdue") as (report, mine):
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

        # A worker that still waits for the editor gives up by itself at the timeout and needs the grace to clean up.
        start_limit = env.start_timeout_seconds + env.stop_grace_seconds + 10
        _each(Workspace.objects.start_overdue(now=now, timeout=start_limit)[:BATCH], give_up_start)
        _each(
            Workspace.objects.stop_overdue(now=now, timeout=3 * env.stop_grace_seconds + 30)[:BATCH],
            give_up_stop,
        )
    return report


def reconcile(*, runtime: Runtime, now: datetime) -> Report:
    """Do rows and containers agree? Compare from both sides and heal what does not.

    1. Starts and stops whose message may be lost are sent again.
    2. `running` rows: container gone (looked twice) or editor silent for too long.
    3. Containers that run without a row that wants them are stopped; those without any row are removed.
    """
    with _single_flight("reconcile") as (report, mine):
        if not mine:
            return report
        _resend(report, now=now)
        # Containers first, rows second: a start that finishes in between is never mistaken for a loss.
        seen = {observation.name: observation for observation in runtime.observe_all()}
        rows = list(Workspace.objects.running().order_by("pk"))
        _each(
            [row for row in rows if not _alive(seen.get(row.container))],
            lambda row: _settle_if_gone(report, row, runtime=runtime, now=now),
        )
        _check_health(report, [row for row in rows if _alive(seen.get(row.container))], runtime=runtime, now=now)
        _remove_orphans(report, seen.values(), runtime=runtime)
    return report


def check_one(workspace_id: int, *, runtime: Runtime, now: datetime) -> Report:
    """The reconcile pass for one row, now: somebody met an editor that does not answer."""
    report = Report("check_one")
    row = Workspace.objects.running().filter(pk=workspace_id).first()
    if row is not None and not runtime.observe(row.container).alive:
        _settle_if_gone(report, row, runtime=runtime, now=now)
    report.log()
    return report


def _alive(seen: Observation | None) -> bool:
    return seen is not None and seen.alive


def _resend(report: Report, *, now: datetime) -> None:
    def work(row: Workspace) -> None:
        with locks.operation(row.pk) as idle:
            if not idle:  # somebody works on it right now
                return
        (dispatch.start if row.state == State.STARTING else dispatch.stop)(row)
        report.add(row.user_id, "resend", state=row.state)

    _each(Workspace.objects.unsettled(quiet_since=now - RESEND_AFTER).order_by("dispatched_at")[:BATCH], work)


def _settle_if_gone(report: Report, row: Workspace, *, runtime: Runtime, now: datetime) -> None:
    """Look a second time at once, then say what happened."""
    again = runtime.observe(row.container)
    if again.exit_code == KILLED and not again.out_of_memory:
        # The engine learns that it was for want of memory a moment after it sees the end.
        time.sleep(OOM_NEWS_SECONDS)
        again = runtime.observe(row.container)
    if again.alive:
        return
    if lifecycle.settle_gone(row, again, now=now) is not None:
        report.add(row.user_id, "gone", phase=str(again.phase), exit_code=again.exit_code)


def _check_health(report: Report, rows: list[Workspace], *, runtime: Runtime, now: datetime) -> None:
    healths = probe_all(runtime, [row.endpoint for row in rows])

    def work(row: Workspace) -> None:
        health = healths.get(row.endpoint)
        mine = Workspace.objects.running().filter(pk=row.pk, generation=row.generation)
        if health is not None and health.ready:
            if row.unhealthy_since is not None:
                mine.update(unhealthy_since=None)
        elif row.unhealthy_since is None:
            mine.update(unhealthy_since=now)
        elif now - row.unhealthy_since >= UNHEALTHY_AFTER:
            lifecycle.settle_unhealthy(row, runtime=runtime, now=now)
            report.add(row.user_id, "unhealthy")

    _each(rows, work)


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
    own_names = {row.container, naming.container_name(conf.env().container_prefix, row.user_id)}
    if observation.name not in own_names:
        runtime.ensure_stopped(observation.name, generation=observation.generation, grace=grace)
        report.add(row.user_id, "stop_stray", container=observation.name)
    elif row.state not in ACTIVE:
        with locks.operation(row.pk) as mine:
            row.refresh_from_db()
            # It may have been stopped since the list was made, by this very pass.
            if mine and row.state not in ACTIVE and runtime.observe(observation.name).alive:
                runtime.ensure_stopped(observation.name, generation=row.generation, grace=grace)
                report.add(row.user_id, "stop_orphan", container=observation.name)


def probe_all(runtime: Runtime, endpoints: Iterable[Endpoint | None]) -> dict[Endpoint | None, Health]:
    """Ask many editors at once; each has its own deadline in the runtime."""
    places = [endpoint for endpoint in endpoints if endpoint is not None]
    if not places:
        return {}
    with ThreadPoolExecutor(max_workers=PARALLEL_PROBES) as pool:
        return dict(zip(places, pool.map(runtime.health, places), strict=True))


def sample_usage(*, runtime: Runtime, now: datetime) -> Report:
    """What does each running workspace use? Written to rows, because the API has no engine."""
    with _single_flight("sample_usage") as (report, mine):
        if not mine:
            return report
        rows = list(
            Workspace.objects.running()
            .select_related("usage")
            .order_by(F("usage__sampled_at").asc(nulls_first=True))[:BATCH]
        )
        with ThreadPoolExecutor(max_workers=PARALLEL_PROBES) as pool:
            samples = pool.map(lambda row: _sample(runtime, row.container), rows)
            for row, sample in zip(rows, samples, strict=True):
                if sample is not None:
                    _store_usage(row, sample, now=now)
    return report


def _sample(runtime: Runtime, name: str) -> Sample | None:
    try:
        return runtime.usage(name)
    except RuntimeUnavailable:
        return None


def _store_usage(row: Workspace, sample: Sample, *, now: datetime) -> None:
    before: Usage | None = getattr(row, "usage", None)
    percent = 0.0
    if before is not None and before.generation == row.generation and now > before.sampled_at:
        used = max(sample.cpu_seconds - before.cpu_seconds, 0.0)
        percent = round(100 * used / (now - before.sampled_at).total_seconds(), 1)
    Usage.objects.update_or_create(
        workspace=row,
        defaults={
            "sampled_at": now,
            "generation": row.generation,
            "cpu_seconds": sample.cpu_seconds,
            "cpu_percent": percent,
            "memory_bytes": sample.memory_bytes,
            "memory_limit_bytes": sample.memory_limit_bytes,
            "pids": sample.pids,
            "disk_bytes": sample.disk_bytes,
        },
    )


def purge_expired(*, now: datetime) -> Report:
    """Which rows can nobody use any more? Delete them, so that no table grows for ever."""
    with _single_flight("purge_expired") as (report, mine):
        if not mine:
            return report
        report.add(None, "tickets", count=ticket.purge(now=now))
        report.add(None, "tokens", count=OutstandingToken.objects.filter(expires_at__lt=now).delete()[0])
        report.add(None, "sessions", count=Session.objects.filter(expire_date__lt=now).delete()[0])
        report.add(None, "ports", count=PortRest.objects.filter(released_at__lt=now - 2 * REST).delete()[0])
        report.add(None, "workers", count=WorkerBeat.objects.filter(at__lt=now - timedelta(days=1)).delete()[0])
    return report
