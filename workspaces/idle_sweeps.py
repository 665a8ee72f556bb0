"""The sweeps about idleness: `stop_idle` looks at who is due, `listen` hears what workspaces say.

Both decide with `idleness.decide`, and the stop itself is a conditional update: whoever came back since the row was
read keeps the container. Costs grow with the workspaces that are due (an index finds them), not with those there are.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from django.db.models import F, Q

from workspaces import activity, conf, decisions, idleness, lifecycle, notices, rules
from workspaces.activity import NOTHING_NEW, Seen
from workspaces.decisions import Verdict, duration
from workspaces.errors import RuntimeUnavailable, WorkspaceError
from workspaces.idleness import Signal
from workspaces.models import Usage, Workspace
from workspaces.passes import BATCH, PARALLEL_PROBES, Report, each_row, single_flight
from workspaces.runtimes.base import RequestVerb
from workspaces.states import Reason, State
from workspaces.sweeps import processor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from workspaces.querysets import WorkspaceQuerySet
    from workspaces.rules import Rules
    from workspaces.runtimes.base import Report as Said
    from workspaces.runtimes.base import Request, Runtime, Signals

logger = structlog.get_logger(__name__)
T = TypeVar("T")

# How many workspaces a turn of `listen` asks beside the warned ones; with more, each is asked in every Nth turn.
LISTENED_AT_ONCE = 300
# How often within the idle limit a workspace is looked at for commands while nobody is there.
LOOKS_WHILE_QUIET = 6
# Seconds within which the looks of one pass may begin. A look may take 15 s (`Runtime.signals`);
# together they stay below the soft limit of a sweep.
LOOKING_SECONDS = 20
# The same for the questions of `listen`.
ASKING_SECONDS = 2
# A longer answer than this, right or wrong, is one that lets us wait: many such must not take all turns.
PROMPT_SECONDS = 1
# Who let us wait is asked again after this.
PEACE_SECONDS = 10.0
# These stops are announced, always: `warn_before` at least lies between the warning and the stop.
ANNOUNCED = (Reason.IDLE, Reason.WORK_BUDGET)
# No command for this long after one was seen: it has ended, and not only given way to the next one of a script.
ENDED_AFTER = timedelta(seconds=6)
# A wish that reaches us later than this was for a moment that is over.
REQUEST_LIFETIME = timedelta(minutes=2)
# A sample of the processor older than this does not tell whether it is quiet now.
SAMPLE_LIFETIME = timedelta(seconds=90)
# What ran then may have ended, and something else may run.
STALE_AFTER = timedelta(minutes=2)
# What notices people says once a minute that it does. Three of these unheard, on a busy host perhaps: it has ended.
NOTICING = timedelta(minutes=3)
# Two samples closer than this tell more about their own timing than about the processor.
SAMPLE_DISTANCE = timedelta(seconds=5)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look at a workspace showed, and what it could not show."""

    seen: Seen
    unknown: frozenset[Signal] = frozenset()
    working_on: tuple[str, ...] = ()
    new_sample: float | None = None  # processor seconds, where the last sample is too old to be compared with
    read_at: datetime | None = None  # when that was so


BLIND = Look(seen=NOTHING_NEW, unknown=frozenset(Signal))


def stop_idle(*, runtime: Runtime, now: datetime, dry_run: bool = False) -> Report:
    """Which running workspaces are to be warned, or stopped because nobody used them or their time is over?

    1. Rows whose stop was worked out by other rules (a setting, a user's limits, a pause changed) get it anew; an end
       of the longest running time that this brings forward is announced.
    2. Who has reached the longest running time is stopped without a look: nothing that it could show would spare it.
    3. The others that are due come from an index and are looked at side by side; each is decided when its look ends:
       stopped, warned, held (something could not be learnt) or spared, with a record.
    4. Who became quiet a while ago is looked at for a command that began since.
    No look begins after `LOOKING_SECONDS`: what is left is the next sweep's, and the slowest hold up only themselves.
    """
    # A dry run neither waits for the real one nor holds it up.
    with single_flight("stop_idle", lock="stop_idle (dry run)" if dry_run else "") as (report, mine):
        if not mine:
            return report
        if not dry_run:
            # A share of its own: changes to the limits of many, one by one, must not keep all looks from beginning.
            _work_out_anew(_Budget(LOOKING_SECONDS / 4), runtime=runtime, now=now)
        clock = _Budget(LOOKING_SECONDS)
        done: set[int] = set()
        soon = now + conf.limits().warning
        while rows := _not_yet(Workspace.objects.to_be_decided(soon=soon, now=now), done):
            in_force = rules.load([row.user_id for row in rows], now=now)
            due = [row for row in rows if _is_due(row, in_force, now=now)]
            _decide_all(due, in_force, clock, runtime=runtime, report=report, now=now, dry_run=dry_run)
            if clock.spent:
                return report
        if rows := _not_yet(_quiet_for_a_while(now=now), done):
            in_force = rules.load([row.user_id for row in rows], now=now)
            _decide_all(rows, in_force, clock, runtime=runtime, report=report, now=now, dry_run=dry_run)
    return report


def listen(*, runtime: Runtime, now: datetime) -> Report:
    """What do workspaces say: is somebody there, and does somebody wish it to stay or to stop?

    Those that are warned, or wait for their command to end, are asked each time; the others in turns, so that one turn
    has a bounded cost. Each is heard when its answer comes. One that let us wait is left in peace for a while.
    """
    with single_flight("listen") as (report, mine):
        if not mine:
            return report
        rows = [row for row in _to_be_asked() if not _keeps_us_waiting(row)]
        in_force = rules.load([row.user_id for row in rows], now=now)
        heard = {}

        def answers() -> Iterator[Workspace]:
            for row, said in _as_they_come(rows, partial(_ask, runtime), _Budget(ASKING_SECONDS)):
                heard[row.pk] = said
                yield row

        def work(row: Workspace) -> None:
            _hear(row, heard[row.pk], rules=in_force, runtime=runtime, report=report, now=now)

        each_row(answers(), work)
    return report


def attend(*, runtime: Runtime, now: datetime) -> Report:
    """Is the time of a warned workspace over, or has the command ended that one waits for? To the second.

    Apart from `listen`, because a look takes longer than a question, and hearing a Keep must not wait for it.
    """
    with single_flight("attend") as (report, mine):
        if not mine:
            return report
        due = Q(stop_when_done=True) | Q(due_at__lte=now)
        rows = list(Workspace.objects.attended().filter(due).select_related("usage").order_by("due_at")[:BATCH])
        in_force = rules.load([row.user_id for row in rows], now=now)
        clock = _Budget(LOOKING_SECONDS)
        _decide_all(rows, in_force, clock, runtime=runtime, report=report, now=now, dry_run=False)
    return report


# --- looking ----------------------------------------------------------------------------------------------------


class _Budget:
    """Seconds within which questions may begin."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    @property
    def spent(self) -> bool:
        return time.monotonic() >= self._until


def _as_they_come(
    rows: Iterable[Workspace], ask: Callable[[Workspace], T], clock: _Budget
) -> Iterator[tuple[Workspace, T | None]]:
    """Ask about many rows side by side and yield each answer when it comes; None where there was none.

    Questions that have not begun when the clock runs out are not asked, and their rows are not yielded.
    """

    def one(row: Workspace) -> tuple[bool, T | None]:
        if clock.spent:
            return False, None
        try:
            return True, ask(row)
        except RuntimeUnavailable as error:
            logger.info("look_failed", workspace=row.user_id, why=error.message)
        except (ValueError, LookupError, TypeError, AttributeError):  # an answer of a form that nobody foresaw
            logger.exception("look_failed", workspace=row.user_id)
        return True, None

    pool = ThreadPoolExecutor(max_workers=PARALLEL_PROBES)
    try:
        asked = {pool.submit(one, row): row for row in rows}
        for future in as_completed(asked):
            was_asked, answer = future.result()
            if was_asked:
                yield asked[future], answer
    finally:
        # Whoever stops listening does not wait: each question ends by its own deadline.
        pool.shutdown(wait=False, cancel_futures=True)


def look_at(
    runtime: Runtime, rows: Iterable[Workspace], clock: _Budget, *, now: datetime
) -> Iterator[tuple[Workspace, Look]]:
    """Look at all of them side by side. One that could not be asked is a blind look, never an error."""
    for row, signals in _as_they_come(rows, lambda row: runtime.signals(row.container), clock):
        yield row, understand(row, signals, now=now)


def understand(row: Workspace, signals: Signals | None, *, now: datetime) -> Look:
    """What the signals of a running row mean. An editor that does not answer shows nothing at all."""
    if signals is None or not signals.ready:
        return BLIND
    unknown = set()
    report = signals.report
    if report is None:
        unknown.add(Signal.PRESENCE)
    # The editor's own heartbeat counts every request, so it is only asked where nothing tells of open connections.
    connection_at = now if signals.connected else None
    if signals.connected is None:
        connection_at = signals.last_heartbeat_at
        if connection_at is None:
            unknown.add(Signal.CONNECTION)
    percent, new_sample = _processor_percent(row, signals.cpu_seconds, now=signals.cpu_read_at or now)
    commands = signals.commands or ()
    work_source = ", ".join(commands)[:64]
    if not commands and percent is not None and percent >= conf.env().work_cpu_percent:
        work_source = processor(percent)
    if not work_source and (signals.commands is None or percent is None):
        unknown.add(Signal.WORK)
    return Look(
        seen=Seen(
            presence_at=report.present_at if report else None,
            presence_source=report.source if report else "",
            presence_reported=None if report is None else _is_noticed(report, connected=signals.connected, now=now),
            work_at=now if work_source else None,
            work_source=work_source,
            connection_at=connection_at,
        ),
        unknown=frozenset(unknown),
        working_on=commands,
        new_sample=new_sample,
        read_at=signals.cpu_read_at,
    )


def _is_noticed(said: Said, *, connected: bool | None, now: datetime) -> bool | None:
    """Whether the presence of a person is noticed in there; None: nothing new about that.

    An extension that was disabled, or that cannot write any more, leaves its last report behind. Somebody may be there
    all the same where the editor has a connection, which then stands in for presence.
    """
    if said.present_at is None:
        return False
    if said.alive_at is not None and now - said.alive_at <= NOTICING:
        return True
    return None if connected is False else False


def _processor_percent(
    row: Workspace, cpu_seconds: float | None, *, now: datetime
) -> tuple[float | None, float | None]:
    """Processor use since the last sample, in percent of one processor; None when that cannot be said.

    Where only the sample is missing or too old, this reading comes second: it is the sample of the next look.
    """
    if cpu_seconds is None:
        return None, None
    sample: Usage | None = getattr(row, "usage", None)
    if sample is None or sample.generation != row.generation or now - sample.sampled_at > SAMPLE_LIFETIME:
        return None, cpu_seconds
    age = now - sample.sampled_at
    if age < SAMPLE_DISTANCE:
        return (sample.cpu_percent if sample.cpu_measured else None), None
    return max(100 * (cpu_seconds - sample.cpu_seconds) / age.total_seconds(), 0), None


def _renew_sample(row: Workspace, cpu_seconds: float, *, now: datetime) -> None:
    """A sampler that is behind, or dead, delays a decision by one sweep and no more."""
    nothing = {"cpu_percent": 0, "memory_bytes": 0, "memory_limit_bytes": 0, "pids": 0, "disk_bytes": 0}
    fresh = {"sampled_at": now, "generation": row.generation, "cpu_seconds": cpu_seconds, "cpu_measured": False}
    Usage.objects.update_or_create(workspace=row, defaults=fresh, create_defaults=nothing | fresh)


# --- deciding ---------------------------------------------------------------------------------------------------


def _not_yet(rows: WorkspaceQuerySet, done: set[int]) -> list[Workspace]:
    """The next of them, each once a pass."""
    found = list(rows.exclude(pk__in=done).select_related("usage")[:BATCH])
    done.update(row.pk for row in found)
    return found


def _decide_all(
    rows: list[Workspace],
    in_force: Rules,
    clock: _Budget,
    *,
    runtime: Runtime,
    report: Report,
    now: datetime,
    dry_run: bool,
) -> None:
    over = [row for row in rows if row.lifetime_ends_at is not None and row.lifetime_ends_at <= now]
    others = [row for row in rows if row.lifetime_ends_at is None or row.lifetime_ends_at > now]
    looks = {row.pk: BLIND for row in over}

    def looked() -> Iterator[Workspace]:
        yield from over
        for row, look in look_at(runtime, others, clock, now=now):
            looks[row.pk] = look
            yield row

    def work(row: Workspace) -> None:
        look = looks[row.pk]
        if look.new_sample is not None and not dry_run:
            _renew_sample(row, look.new_sample, now=look.read_at or now)
        if row.stop_when_done and not dry_run:
            _stop_when_done(row, look, rules=in_force, runtime=runtime, report=report, now=now)
        else:
            consider(row, look, rules=in_force, runtime=runtime, report=report, now=now, dry_run=dry_run)

    each_row(looked(), work)


def consider(
    row: Workspace,
    look: Look,
    *,
    rules: Rules,
    runtime: Runtime,
    report: Report,
    now: datetime,
    dry_run: bool = False,
) -> Verdict | None:
    """Take in what was seen, decide, act, and keep the record. None when the row no longer runs."""
    current = _as_seen(row, look, rules=rules, now=now, dry_run=dry_run)
    if current is None:
        return None
    clocks = dataclasses.replace(current.clocks(), unknown=look.unknown)
    limits, pauses = rules.limits_for(row.user_id), rules.pauses_for(row.user_id)
    coming = idleness.forecast(clocks, limits, pauses=pauses, now=now)
    reason = idleness.decide(clocks, limits, now=now, pauses=pauses)
    announced = _announced(reason, current.warned_at, clocks, limits, pauses=pauses, now=now)
    brought_forward = announced is not None and reason is Reason.LIFETIME
    if announced is not None:
        coming, reason = dataclasses.replace(coming, at=announced), None
    verdict = Verdict.WARNED if brought_forward else _verdict(reason, coming, limits, now=now)
    decision = decisions.record(
        verdict,
        clocks=clocks,
        limits=limits,
        coming=coming,
        now=now,
        presence_source=current.presence_source,
        work_source=current.work_source,
        working_on=look.working_on,
        reason=reason,
    )
    if dry_run:
        _say_what_would_happen(report, current, decision, now=now)
        return verdict
    if reason is not None:
        if lifecycle.stop_if_unchanged(current, reason=reason, decision=decision, now=now) is not None:
            report.add(row.user_id, "stop", reason=str(reason), why=decision["sentence"])
        return verdict
    _keep_record(current, verdict, decision, warned_at=coming.at if verdict is Verdict.WARNED else None, now=now)
    if verdict in {Verdict.HELD, Verdict.WARNED}:
        report.add(row.user_id, str(verdict), why=decision["sentence"])
    notices.tell(current, rules=rules, runtime=runtime, now=now, working_on=look.working_on)
    return verdict


def _as_seen(row: Workspace, look: Look, *, rules: Rules, now: datetime, dry_run: bool) -> Workspace | None:
    if not dry_run:
        return activity.update(row, look.seen, rules=rules, now=now)
    activity.take_in(row, look.seen, rules=rules, now=now)
    return row


def _announced(
    reason: Reason | None,
    warned_at: datetime | None,
    clocks: idleness.Clocks,
    limits: idleness.Limits,
    *,
    pauses: Sequence[idleness.Pause],
    now: datetime,
) -> datetime | None:
    """When a stop that would be right now comes instead, because nobody there has had the time to say "keep" yet.

    None where nothing is to be announced, or was. It is late where nobody swept, or where a limit or a pause changed.
    """
    if warned_at is not None and warned_at <= now:
        return None
    if reason is Reason.LIFETIME:  # brought forward by a shorter one; else the workspace itself announced it
        return warned_at
    if reason not in ANNOUNCED:
        return None
    moment = idleness.after_pauses(warned_at or now + limits.warn_before, pauses)
    return min(moment, clocks.started_at + limits.lifetime)


def _verdict(reason: Reason | None, coming: idleness.Forecast, limits: idleness.Limits, *, now: datetime) -> Verdict:
    if reason is not None:
        return Verdict.STOP
    if now >= coming.at:
        return Verdict.HELD
    # The end of the longest running time is announced by the workspace itself, an hour before.
    if coming.reason is not Reason.LIFETIME and now >= coming.at - limits.warn_before:
        return Verdict.WARNED
    return Verdict.SPARED


def _keep_record(
    row: Workspace, verdict: Verdict, decision: dict[str, Any], *, warned_at: datetime | None, now: datetime
) -> None:
    row.last_decision = decision
    fields = ["last_decision"]
    if verdict is not Verdict.HELD:  # what was announced stays announced
        row.warned_at = warned_at
        fields.append("warned_at")
    if warned_at is not None and row.due_at != warned_at:
        row.due_at = warned_at
        fields.append("due_at")
    if verdict in {Verdict.SPARED, Verdict.HELD}:
        row.last_spared = decision
        fields.append("last_spared")
    if verdict is Verdict.HELD:
        # Looked at again by the next sweep, after those that are newly due: many of these must not block the others.
        # No reason goes with that moment: it is not one at which it stops.
        again = now + timedelta(seconds=conf.env().sweep_seconds)
        row.due_at, row.due_reason = min(again, row.lifetime_ends_at or again), ""
        fields += ["due_at", "due_reason"]
    Workspace.objects.running().filter(pk=row.pk, generation=row.generation).update(
        **{name: getattr(row, name) for name in fields}
    )


def _say_what_would_happen(report: Report, row: Workspace, decision: dict[str, Any], *, now: datetime) -> None:
    """For `--dry-run`: what would stop, why, and what that would save at most."""
    verdict = Verdict(decision["verdict"])
    if verdict is Verdict.SPARED:
        return
    more: dict[str, Any] = {}
    if verdict is Verdict.STOP:
        usage: Usage | None = getattr(row, "usage", None)
        more["saves_memory_bytes"] = usage.memory_bytes if usage is not None else None
        left = (row.lifetime_ends_at or now) - now
        more["saves_hours_at_most"] = round(max(left.total_seconds(), 0) / 3600, 1)
    action = {Verdict.STOP: "would_stop", Verdict.WARNED: "would_warn", Verdict.HELD: "would_hold"}[verdict]
    report.add(row.user_id, action, reason=decision["reason"], why=decision["sentence"], **more)


def _is_due(row: Workspace, in_force: Rules, *, now: datetime) -> bool:
    warning = in_force.limits_for(row.user_id).warn_before
    return row.due_at is not None and now >= row.due_at - warning


def _quiet_for_a_while(*, now: datetime) -> WorkspaceQuerySet:
    """Those whose last sign of use lies a sixth of the limit back: has a command begun since, does the old one go on?

    A stop is near only at the end of the limit; a command that ended before would never have been seen, and whoever
    comes back for a long build's end would find it just stopped. Where the look finds nothing, one or two more follow,
    and then none until a stop is near.
    """
    every = conf.limits().idle / LOOKS_WHILE_QUIET
    until = now - every
    return Workspace.objects.quiet_between(until - timedelta(seconds=2 * conf.env().sweep_seconds), until)


def _work_out_anew(clock: _Budget, *, runtime: Runtime, now: datetime) -> None:
    """Rules that changed move stops in both directions, so the rows that they govern are worked out anew."""
    while not clock.spent and (rows := list(Workspace.objects.marked_otherwise(rules.mark()).order_by("pk")[:BATCH])):
        in_force = rules.load([row.user_id for row in rows], now=now)
        for row in rows:
            current = activity.update(row, NOTHING_NEW, rules=in_force, now=now)
            if current is not None:
                _announce_the_end(current, row.lifetime_ends_at, rules=in_force, runtime=runtime, now=now)


def _announce_the_end(
    row: Workspace, before: datetime | None, *, rules: Rules, runtime: Runtime, now: datetime
) -> None:
    """Nobody is surprised by a shorter running time: one whose end it brings close, or behind us, is warned first."""
    after = row.lifetime_ends_at
    announced = now + rules.limits_for(row.user_id).warn_before
    if before is None or after is None or not after < announced < before:
        return
    row.warned_at = row.due_at = announced
    mine = Workspace.objects.running().filter(pk=row.pk, generation=row.generation)
    if mine.update(warned_at=announced, due_at=announced):
        notices.tell(row, rules=rules, runtime=runtime, now=now)


# --- hearing ----------------------------------------------------------------------------------------------------


def _to_be_asked() -> Iterable[Workspace]:
    running = Workspace.objects.running()
    turns = -(-running.count() // LISTENED_AT_ONCE) or 1
    # Counted, not read off the clock: passes that are skipped in a rhythm must not skip the same workspaces each time.
    in_turn = running.annotate(turn=F("pk") % turns).filter(turn=next(_turns) % turns).order_by("pk")
    attended = Workspace.objects.attended().order_by("due_at")[: 2 * LISTENED_AT_ONCE]
    return {row.pk: row for row in chain(attended, in_turn[: 2 * LISTENED_AT_ONCE])}.values()


_turns = itertools.count()
# Which workspaces let this process wait, and until when (monotonic seconds) they are not asked.
_waiting: dict[int, float] = {}


def _keeps_us_waiting(row: Workspace) -> bool:
    until = _waiting.get(row.pk)
    if until is not None and until <= time.monotonic():
        del _waiting[row.pk]
        return False
    return until is not None


def _ask(runtime: Runtime, row: Workspace) -> Said | None:
    if row.endpoint is None:
        return None
    began = time.monotonic()
    try:
        return runtime.report(row.endpoint, secret=row.editor_secret)
    finally:
        if time.monotonic() - began > PROMPT_SECONDS:
            _waiting[row.pk] = time.monotonic() + PEACE_SECONDS


def _hear(row: Workspace, said: Said | None, *, rules: Rules, runtime: Runtime, report: Report, now: datetime) -> None:
    if said is None:
        return
    current: Workspace | None = row
    # Whether anybody is connected is not asked here; a look finds that out.
    noticed = _is_noticed(said, connected=False, now=now)
    if _is_news(row, said, noticed=noticed, idle=rules.limits_for(row.user_id).idle):
        seen = Seen(presence_at=said.present_at, presence_source=said.source, presence_reported=noticed)
        current = activity.update(row, seen, rules=rules, now=now)
    if current is not None and said.request is not None and said.request.id != current.request_id:
        current = _take_up(current, said.request, report=report, now=now)
    if current is None:
        return
    # By its clocks: the `due_at` of one that is held only says when it is looked at again.
    far = rules.forecast(current).at - rules.limits_for(row.user_id).warn_before > now
    if current.state == State.RUNNING and row.warned_at is not None and far:
        # Somebody is there again, or wished it to stay: the warning is over.
        consider(
            current,
            Look(seen=NOTHING_NEW, working_on=_last_working_on(current, now=now) or ()),
            rules=rules,
            runtime=runtime,
            report=report,
            now=now,
        )
        return
    working_on = _last_working_on(current, now=now)
    notices.tell(current, rules=rules, runtime=runtime, now=now, working_on=working_on)


def _last_working_on(row: Workspace, *, now: datetime) -> tuple[str, ...] | None:
    """What the last look saw at work, or None where that was too long ago to be told as a fact."""
    seen = row.last_decision or {}
    if "at" not in seen or now - datetime.fromisoformat(seen["at"]) > STALE_AFTER:
        return None
    return tuple(seen.get("working_on", ()))


def _is_news(row: Workspace, said: Said, *, noticed: bool | None, idle: timedelta) -> bool:
    """At most one write a minute and workspace, unless it is warned: then every sign of life counts at once."""
    if noticed is not None and noticed is not row.presence_reported:
        return True
    if said.present_at is None:
        return False
    if row.presence_at is None:
        return True
    every = timedelta(0) if row.warned_at is not None else activity.write_interval(idle)
    return said.present_at - row.presence_at > every


def _take_up(row: Workspace, request: Request, *, report: Report, now: datetime) -> Workspace | None:
    """Do what somebody inside wishes, once, and answer. A wish can do no more than the owner's own API calls."""
    mine = Workspace.objects.running().filter(pk=row.pk, generation=row.generation)
    if not mine.exclude(request_id=request.id).update(request_id=request.id):
        return row
    try:
        message = _grant(row, request, now=now)
        answer = {"id": request.id, "ok": True, "message": message}
    except WorkspaceError as refusal:
        answer = {"id": request.id, "ok": False, "message": refusal.message}
    Workspace.objects.filter(pk=row.pk, generation=row.generation).update(answer=answer)
    report.add(row.user_id, "request", verb=str(request.verb), ok=answer["ok"])
    return Workspace.objects.filter(pk=row.pk, generation=row.generation).first()


def _grant(row: Workspace, request: Request, *, now: datetime) -> str:
    if request.asked_at is None or now - request.asked_at > REQUEST_LIFETIME:
        raise WorkspaceError("This was asked too long ago to be what you want now. Ask again.", code="too_late")
    match request.verb:
        case RequestVerb.KEEP:
            kept = lifecycle.request_keep(row, minutes=request.minutes, now=now)
            return f"Kept running for {duration((kept.keep_until or now) - now)}, used or not."
        case RequestVerb.STOP:
            lifecycle.request_stop(row, actor=row.user)
            return "Stopping now. Your files are kept."
        case RequestVerb.STOP_WHEN_DONE:
            lifecycle.request_stop_when_done(row, now=now)
            return "It stops as soon as no command runs in its terminals. Your files are kept."
        case RequestVerb.CANCEL:
            lifecycle.request_cancel(row, now=now)
            return "It stops when nobody uses it, as usual."


def _stop_when_done(
    row: Workspace, look: Look, *, rules: Rules, runtime: Runtime, report: Report, now: datetime
) -> None:
    """Stop when nothing has been at work for a moment; the usual rule holds all the while."""
    current = activity.update(row, look.seen, rules=rules, now=now)
    if current is None:
        return
    clocks = dataclasses.replace(current.clocks(), unknown=look.unknown)
    ended = Signal.WORK not in look.unknown and now - (current.work_at or now) >= ENDED_AFTER
    if not ended:
        if _is_due(current, rules, now=now):
            consider(current, look, rules=rules, runtime=runtime, report=report, now=now)
        return
    decision = decisions.record(
        Verdict.STOP,
        clocks=clocks,
        limits=rules.limits_for(row.user_id),
        coming=rules.forecast(current),
        now=now,
        presence_source=current.presence_source,
        work_source=current.work_source,
        reason=Reason.FINISHED,
    )
    if lifecycle.stop_if_unchanged(current, reason=Reason.FINISHED, decision=decision, now=now) is not None:
        report.add(row.user_id, "stop", reason=str(Reason.FINISHED), why=decision["sentence"])
