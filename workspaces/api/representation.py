"""The workspace object of the contract."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from workspaces import conf, naming
from workspaces.admission import Queue
from workspaces.decisions import Verdict
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


def represent(workspace: Workspace, *, queue: Queue | None = None) -> dict[str, Any]:
    """JSON-safe. Web knows nothing that is not in rows, so this never asks the runtime.

    Who represents many passes one `queue` for all; it is read only if somebody waits.
    """
    queue = queue or Queue()
    place = queue.place_of(workspace)
    running = workspace.state == State.RUNNING
    stops_at, stops_reason = workspace.stop_to_tell if running else (None, "")
    decision: dict[str, Any] = workspace.last_decision or {}
    if not running and decision.get("verdict") != Verdict.STOP:
        decision = {}  # it ended in another way: why it was once spared explains nothing
    error = {"code": workspace.error_code, "message": workspace.error_message} if workspace.error_code else None
    return {
        "user_id": workspace.user_id,
        "state": str(workspace.state),
        "url": workspace.url,
        "port": workspace.port,
        "container": workspace.container or naming.container_name(conf.env().container_prefix, workspace.user_id),
        "image": workspace.image or conf.env().workspace_image,
        "queued_position": place,
        "queued_for": (workspace.queued_for or None) if place else None,
        "queued_seconds": queue.seconds_for(workspace, place),
        "requested_at": rfc3339(workspace.requested_at),
        "started_at": rfc3339(workspace.started_at),
        "stopped_at": rfc3339(workspace.stopped_at),
        "last_activity_at": rfc3339(workspace.last_activity_at),
        "stops_at": rfc3339(stops_at),
        "stops_reason": stops_reason or None,
        "lifetime_ends_at": rfc3339(workspace.lifetime_ends_at) if running else None,
        "warned": running and workspace.warned_at is not None and stops_at == workspace.due_at,
        "keep_until": rfc3339(workspace.keep_until) if running else None,
        "stop_when_done": running and workspace.stop_when_done,
        "stop_reason": workspace.stop_reason or None,
        "error": error,
        "state_sentence": STATE_SENTENCES[State(workspace.state)],
        "stop_sentence": SENTENCES.get(workspace.stop_reason, ""),
        "explanation": decision.get("sentence"),
        "decision": decision or None,
        "last_spared": workspace.last_spared,
        "stages": workspace.stages,
    }
