"""What an operator asks for at the command line and that needs the runtime; answers are plain JSON values."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from workspaces import conf, sweeps
from workspaces.doctor import examine
from workspaces.errors import RuntimeUnavailable

if TYPE_CHECKING:
    from datetime import datetime


def has_runtime() -> bool:
    """Whether this process may ask the runtime itself; web and beat may not."""
    return conf.env().runtime == "memory" or os.access(conf.env().docker_socket, os.R_OK | os.W_OK)


def run(verb: str, *, dry_run: bool, now: datetime) -> Any:
    """Do `sweep`, `reconcile` or `doctor` here and now.

    A sweep answers `{sweep, skipped, actions}`, where `skipped` says why nothing was done; the doctor a list of
    `{what, ok, sentence}`.
    """
    runtime = conf.runtime()
    if verb == "doctor":
        return [vars(finding) for finding in examine(runtime=runtime, now=now)]
    try:
        runtime.ping()
    except RuntimeUnavailable as error:
        return {"sweep": verb, "skipped": error.message, "actions": []}
    report = (
        sweeps.stop_idle(runtime=runtime, now=now, dry_run=dry_run)
        if verb == "sweep"
        else sweeps.reconcile(runtime=runtime, now=now)
    )
    shown = {"sweep": report.sweep, "skipped": report.skipped, "actions": report.actions}
    return json.loads(json.dumps(shown, default=str))
