"""What is wrong, said in sentences, and put right where a program may: `manage.py workspaces doctor [--fix]`.

`rows` compares database, engine and gate, `services` looks at the platform's own processes, and the runtime tells of
the place where workspaces run (`Runtime.examine`: engine, image, kernel, disk, folders).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils import timezone

from workspaces import conf, lifecycle, sweeps
from workspaces.doctor import rows, services
from workspaces.doctor.findings import Finding, Fix, of_fact, well, wrong
from workspaces.errors import RuntimeUnavailable, WorkspaceError
from workspaces.models import Workspace
from workspaces.states import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from workspaces.passes import Report
    from workspaces.runtimes.base import Runtime

# The order matters: what is given up or stopped first is no longer there to be reconciled.
ORDER = (Fix.STOP_DISABLED, Fix.GIVE_UP, Fix.RECONCILE, Fix.RESTART, Fix.PURGE)


def examine(*, runtime: Runtime, now: datetime) -> list[Finding]:
    """Look at everything; never changes anything. Usually a second; up to a minute where much does not answer."""
    return [
        *_runtime(runtime),
        *rows.lifecycle(now=now),
        rows.ports_left(),
        services.workers(now=now),
        services.beat(now=now),
        services.database_clock(),
        services.addresses(),
        *services.edge(),
    ]


def _runtime(runtime: Runtime) -> list[Finding]:
    have_files = frozenset(Workspace.objects.exclude(container="").values_list("user_id", flat=True))
    try:
        runtime.ping()
        facts = runtime.examine(image=conf.env().workspace_image, user_ids=have_files)
        compared = rows.containers(runtime=runtime)
    except RuntimeUnavailable as error:
        # Nothing is known of containers, so nothing is said of them either.
        return [wrong("engine", error.message)]
    return [well("engine", "answers"), *map(of_fact, facts), *compared]


def repair(findings: Iterable[Finding], *, runtime: Runtime) -> list[str]:
    """Do what the findings say that can be done, each kind once, through the same doors as everybody else.

    The findings may be a minute old: everything is looked at again before it is acted upon.
    Returns what was done, a sentence each. Safe to repeat, and beside anything else that runs.
    """
    wanted: dict[Fix, set[int]] = {}
    for finding in findings:
        wanted.setdefault(finding.fix, set()).update(finding.users)
    done: list[str] = []
    for fix in ORDER:
        if fix not in wanted:
            continue
        if fix is Fix.RESTART:
            done += _restart(wanted[fix], runtime=runtime)
        else:
            done += _told(_sweep(fix, runtime=runtime, now=timezone.now()))
    return done


def _sweep(fix: Fix, *, runtime: Runtime, now: datetime) -> Report:
    if fix is Fix.STOP_DISABLED:
        return sweeps.stop_disabled(now=now)
    if fix is Fix.GIVE_UP:
        return sweeps.fail_overdue(runtime=runtime, now=now)
    if fix is Fix.PURGE:
        return sweeps.purge_expired(now=now)
    return sweeps.reconcile(runtime=runtime, now=now)


def _told(report: Report) -> list[str]:
    if report.skipped:
        return [f"{report.sweep}: not done. {report.skipped}"]
    return [
        f"{report.sweep}: " + ", ".join(f"{name} {value}" for name, value in action.items() if value not in (None, ""))
        for action in report.actions
    ]


def _restart(users: Iterable[int], *, runtime: Runtime) -> list[str]:
    done = []
    for row in Workspace.objects.running().filter(user_id__in=users).select_related("user").order_by("user_id"):
        try:
            if not rows.is_elsewhere(row, runtime.observe(row.container)):
                continue
            lifecycle.request_restart(row.user, actor=None, reason=Reason.STAFF)
            done.append(f"restart: asked for user {row.user_id}")
        except WorkspaceError as error:
            done.append(f"restart: not done for user {row.user_id}. {error.message}")
    return done
