"""What is wrong, said in sentences: database against engine, image, folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workspaces import conf
from workspaces.errors import RuntimeUnavailable
from workspaces.models import WorkerBeat, Workspace
from workspaces.states import ACTIVE

if TYPE_CHECKING:
    from datetime import datetime

    from workspaces.runtimes.base import Observation, Runtime

STALE_WORKER_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Finding:
    what: str
    ok: bool
    sentence: str


def examine(*, runtime: Runtime, now: datetime) -> list[Finding]:
    """Look at everything; never changes anything."""
    return [_runtime(runtime), *_containers(runtime), _folders(), _workers(now)]


def _runtime(runtime: Runtime) -> Finding:
    try:
        runtime.ping()
    except RuntimeUnavailable as error:
        return Finding(what="runtime", ok=False, sentence=error.message)
    return Finding(what="runtime", ok=True, sentence="answers")


def _containers(runtime: Runtime) -> list[Finding]:
    try:
        seen = {observation.name: observation for observation in runtime.observe_all()}
    except RuntimeUnavailable as error:
        return [Finding(what="containers", ok=False, sentence=f"unknown: {error.message}")]
    rows = list(Workspace.objects.all())
    gone = [row.user_id for row in rows if row.state == "running" and not _alive(seen, row.container)]
    settled = {row.user_id for row in rows if row.state not in ACTIVE}
    known = {row.user_id for row in rows}
    strays = [o.name for o in seen.values() if o.alive and (o.user_id in settled or o.user_id not in known)]
    return [
        Finding(
            what="rows without containers",
            ok=not gone,
            sentence=f"users {gone} are `running` without a container; `workspaces reconcile` settles them"
            if gone
            else "none",
        ),
        Finding(
            what="containers without rows",
            ok=not strays,
            sentence=f"{strays} run though nobody asked; `workspaces reconcile` stops them" if strays else "none",
        ),
    ]


def _alive(seen: dict[str, Observation], name: str) -> bool:
    return name in seen and seen[name].alive


def _folders() -> Finding:
    root = Path(conf.env().workspace_mount)
    if not root.is_dir():
        return Finding(
            what="workspace root",
            ok=False,
            sentence=f"{root} is missing; is GUNPOWDER_WORKSPACE_ROOT mounted?",
        )
    return Finding(what="workspace root", ok=True, sentence=f"{root} is there")


def _workers(now: datetime) -> Finding:
    stale = [b.name for b in WorkerBeat.objects.all() if (now - b.at).total_seconds() > STALE_WORKER_SECONDS]
    live = WorkerBeat.objects.count() - len(stale)
    if not live:
        return Finding(what="workers", ok=False, sentence="none has consumed its queue within a minute")
    return Finding(what="workers", ok=True, sentence=f"{live} consume their queues")
