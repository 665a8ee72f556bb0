"""The workspace object of the contract."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from workspaces import conf, idleness, naming
from workspaces.states import SENTENCES, State

if TYPE_CHECKING:
    from workspaces.models import Workspace

STATE_SENTENCES = {
    State.STOPPED: "Stopped. Your files are kept.",
    State.STARTING: "Your editor is being started.",
    State.RUNNING: "Your editor is ready.",
    State.STOPPING: "Your editor is being stopped; files are kept.",
    State.FAILED: "It could not be kept running.",
}


def rfc3339(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def represent(workspace: Workspace) -> dict[str, Any]:
    """JSON-safe. Web knows nothing that is not in the row, so this never asks the runtime."""
    running = workspace.state == State.RUNNING
    error = {"code": workspace.error_code, "message": workspace.error_message} if workspace.error_code else None
    return {
        "user_id": workspace.user_id,
        "state": str(workspace.state),
        "url": workspace.url,
        "port": workspace.port,
        "container": workspace.container or naming.container_name(conf.env().container_prefix, workspace.user_id),
        "image": workspace.image or conf.env().workspace_image,
        "queued_position": None,
        "requested_at": rfc3339(workspace.requested_at),
        "started_at": rfc3339(workspace.started_at),
        "stopped_at": rfc3339(workspace.stopped_at),
        "last_activity_at": rfc3339(workspace.last_activity_at),
        "stops_at": rfc3339(idleness.stops_at(workspace.clocks(), conf.limits())) if running else None,
        "keep_until": rfc3339(workspace.keep_until) if running else None,
        "stop_reason": workspace.stop_reason or None,
        "error": error,
        "state_sentence": STATE_SENTENCES[State(workspace.state)],
        "stop_sentence": SENTENCES.get(workspace.stop_reason, ""),
        "stages": workspace.stages,
    }
