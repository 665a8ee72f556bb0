"""What a worker does when a message comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workspaces import lifecycle
from workspaces.models import Transition, Workspace

if TYPE_CHECKING:
    from workspaces.lifecycle import Outcome
    from workspaces.runtimes.memory import MemoryRuntime


def history_of(workspace: Workspace) -> list[tuple[str, str, str]]:
    rows = Transition.objects.filter(workspace=workspace).order_by("id")
    return [(row.from_state, row.to_state, row.reason) for row in rows]


def do_start(workspace: Workspace, runtime: MemoryRuntime) -> Outcome:
    outcome = lifecycle.perform_start(workspace.pk, workspace.generation, runtime=runtime)
    workspace.refresh_from_db()
    return outcome


def do_stop(workspace: Workspace, runtime: MemoryRuntime) -> Outcome:
    outcome = lifecycle.perform_stop(workspace.pk, workspace.generation, runtime=runtime)
    workspace.refresh_from_db()
    return outcome
