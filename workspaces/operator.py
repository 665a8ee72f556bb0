"""What an operator asks for and that needs the runtime, at the command line or in the admin; answers are plain JSON."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from celery import current_app
from celery.exceptions import TimeoutError as CeleryTimeout
from django.utils import timezone

from workspaces import conf, doctor, idle_sweeps, sweeps
from workspaces.dispatch import UNSENDABLE
from workspaces.errors import NobodyAnswers, RuntimeUnavailable

if TYPE_CHECKING:
    from datetime import datetime

    from workspaces.runtimes.base import Runtime

# A sweep stops what it finds within seconds; a worker that is busy with one answers after it. nginx gives a page 65 s.
WORKER_SECONDS = 55


def has_runtime() -> bool:
    """Whether this process may ask the runtime itself; web and beat may not."""
    return conf.env().runtime == "memory" or os.access(conf.env().docker_socket, os.R_OK | os.W_OK)


def ask(verb: str, **options: bool) -> Any:
    """`run` here where there is an engine, else on a worker, so that it works in every service.

    Raises NobodyAnswers after `WORKER_SECONDS`.
    """
    if has_runtime():
        return run(verb, now=timezone.now(), **options)
    try:
        pending = current_app.send_task(
            "workspaces.run_for_operator", args=[verb], kwargs=options, retry=False, expires=WORKER_SECONDS
        )
        return pending.get(timeout=WORKER_SECONDS, disable_sync_subtasks=False)
    except (CeleryTimeout, *UNSENDABLE):
        raise NobodyAnswers(
            f"No worker answered within {WORKER_SECONDS:g} s, and this process has no engine of its own. Perhaps one "
            "is still at work on it: look again. Else look at `docker compose ps` and the worker's log."
        ) from None


def run(verb: str, *, now: datetime, dry_run: bool = False, fix: bool = False) -> Any:
    """Do `sweep`, `reconcile` or `doctor` here and now.

    A sweep answers `{sweep, skipped, actions}`, where `skipped` says why nothing was done; the doctor answers
    `{done, findings}`: sentences, and `{what, ok, verdict, sentence, fix, users}` each, as they are after the fix.
    """
    runtime = conf.runtime()
    if verb == "doctor":
        return _diagnose(runtime, now=now, fix=fix)
    try:
        runtime.ping()
    except RuntimeUnavailable as error:
        return {"sweep": verb, "skipped": error.message, "actions": []}
    report = (
        idle_sweeps.stop_idle(runtime=runtime, now=now, dry_run=dry_run)
        if verb == "sweep"
        else sweeps.reconcile(runtime=runtime, now=now)
    )
    shown = {"sweep": report.sweep, "skipped": report.skipped, "actions": report.actions}
    return json.loads(json.dumps(shown, default=str))


def _diagnose(runtime: Runtime, *, now: datetime, fix: bool) -> dict[str, Any]:
    findings = doctor.examine(runtime=runtime, now=now)
    done: list[str] = []
    if fix:
        done = doctor.repair(findings, runtime=runtime)
        findings = doctor.examine(runtime=runtime, now=timezone.now())
    return {"done": done, "findings": [finding.as_json() for finding in findings]}
