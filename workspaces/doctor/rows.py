"""Do the rows agree with the containers, and with themselves?"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from workspaces import conf, naming, ports, sweeps
from workspaces.doctor.findings import Finding, Fix, advice, people, well, wrong
from workspaces.models import Ticket, TokenFamily, Workspace
from workspaces.states import State

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from workspaces.runtimes.base import Observation, Runtime

# Purged once an hour; twice that means that nobody does.
LEFT_OVER = timedelta(hours=2)
# Longer than a crowd of a hundred takes on a small host.
LONG_WAIT = timedelta(minutes=5)


def containers(*, runtime: Runtime) -> list[Finding]:
    """Rows without containers, containers without rows, and rows that name another place than the container's.

    Raises RuntimeUnavailable.
    """
    # Containers first, rows second, as in the reconcile pass; and who looks gone or elsewhere is looked at again.
    seen = {observation.name: observation for observation in runtime.observe_all()}
    active = Workspace.objects.active().only("user_id", "state", "container", "host", "port", "generation")
    rows = {row.user_id: row for row in active}
    running = [row for row in rows.values() if row.state == State.RUNNING]
    gone = _users(
        row.user_id
        for row in running
        if not sweeps.is_alive(seen.get(row.container))
        and not runtime.observe(row.container).alive
        and _still_runs(row)
    )
    prefix = conf.env().container_prefix
    wanted = {
        name for row in rows.values() for name in naming.own_names(row.container, prefix=prefix, user_id=row.user_id)
    }
    strays = sorted(o.name for o in seen.values() if o.alive and o.user_id is not None and o.name not in wanted)
    elsewhere = _users(row.user_id for row in running if is_elsewhere(row, seen.get(row.container)))
    return [
        wrong(
            "rows without containers",
            f"{people(gone)}: the row says `running`, but no container runs",
            fix=Fix.RECONCILE,
            users=gone,
        )
        if gone
        else well("rows without containers", "none"),
        wrong("containers without rows", f"{', '.join(strays[:10])}: nobody asked for what runs", fix=Fix.RECONCILE)
        if strays
        else well("containers without rows", "none"),
        wrong(
            "gate",
            f"{people(elsewhere)}: requests are sent to another place than the one where the editor listens",
            fix=Fix.RESTART,
            users=elsewhere,
        )
        if elsewhere
        else well("gate", "sends every request to where the editor listens"),
    ]


def _users(found: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(found))


def _still_runs(row: Workspace) -> bool:
    return Workspace.objects.running().filter(pk=row.pk, generation=row.generation).exists()


def is_elsewhere(row: Workspace, seen: Observation | None) -> bool:
    """Whether the container runs, and not where the row says."""
    return seen is not None and seen.alive and seen.endpoint is not None and seen.endpoint != row.endpoint


def lifecycle(*, now: datetime) -> list[Finding]:
    """Starts, stops and the queue; accounts that were disabled; rows that nobody can use any more."""
    return [_overdue(now), _queue(now), _disabled(), _left_over(now)]


def _overdue(now: datetime) -> Finding:
    stuck = _users(row.user_id for rows in sweeps.overdue(now=now) for row in rows)
    if stuck:
        sentence = f"{people(stuck)}: a start or a stop takes far too long, and nobody works on it"
        return wrong("starts and stops", sentence, fix=Fix.GIVE_UP, users=stuck)
    return well("starts and stops", "none takes too long")


def _queue(now: datetime) -> Finding:
    first = Workspace.objects.queued().first()
    if first is not None and first.requested_at is not None and now - first.requested_at > LONG_WAIT:
        waits = int((now - first.requested_at).total_seconds() // 60)
        why = (
            "the host has less memory than GUNPOWDER_MEMORY_RESERVE leaves free" if first.queued_for == "memory" else ""
        )
        return wrong(
            "start queue",
            f"{Workspace.objects.queued().count()} starts wait, the first for {waits} min"
            + (f": {why}; stop something, or add memory" if why else "; look at the worker's log"),
        )
    return well("start queue", "nobody waits for long")


def _disabled() -> Finding:
    found = _users(Workspace.objects.of_disabled_users().values_list("user_id", flat=True)[:100])
    if found:
        sentence = f"{people(found)}: the account is disabled, but a workspace runs"
        return wrong("disabled accounts", sentence, fix=Fix.STOP_DISABLED, users=found)
    return well("disabled accounts", "nothing runs for one")


def _left_over(now: datetime) -> Finding:
    tickets = Ticket.objects.filter(expires_at__lt=now - LEFT_OVER).count()
    logins = TokenFamily.objects.filter(expires_at__lt=now - LEFT_OVER).count()
    if tickets + logins:
        sentence = f"{tickets} tickets and {logins} log-ins ended long ago and are still there"
        return advice("old rows", sentence, fix=Fix.PURGE)
    return well("old rows", "deleted in time")


def ports_left() -> Finding:
    """Whether everybody who has an account could run at once."""
    env = conf.env()
    low, high = env.port_range
    ephemeral = ports.ephemeral_range()
    usable = sum(
        ports.allowed(port, reserved=frozenset({env.port}), ephemeral=ephemeral) for port in range(low, high + 1)
    )
    known = Workspace.objects.count()
    held = Workspace.objects.filter(port__isnull=False).count()
    sentence = f"{held} held; {usable} in GUNPOWDER_PORT_RANGE for {known} workspaces"
    if usable < known:
        return advice("ports", f"{sentence}: some may not start while the others run; widen the range")
    return well("ports", sentence)
