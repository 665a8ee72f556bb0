"""The contract's shapes, as assertions."""

from __future__ import annotations

import re
from typing import Any

WORKSPACE_FIELDS = {
    "user_id",
    "state",
    "url",
    "port",
    "container",
    "image",
    "queued_position",
    "queued_for",
    "queued_seconds",
    "requested_at",
    "started_at",
    "stopped_at",
    "last_activity_at",
    "stops_at",
    "keep_until",
    "stop_reason",
    "error",
}
TIMES = ("requested_at", "started_at", "stopped_at", "last_activity_at", "stops_at", "keep_until")
RFC3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def assert_workspace(body: dict[str, Any], *, user: Any, state: str) -> None:
    assert body.keys() >= WORKSPACE_FIELDS
    assert (body["user_id"], body["state"], body["url"]) == (user.pk, state, f"/code/user/{user.pk}/")
    for name in TIMES:
        assert body[name] is None or RFC3339_UTC.fullmatch(body[name]), (name, body[name])
    assert body["error"] is None or body["error"].keys() == {"code", "message"}


def assert_error(response: Any, status: int, code: str = "") -> dict[str, Any]:
    """The one error shape; returns the body."""
    assert response.status_code == status, (response.status_code, response.content)
    assert response["Content-Type"].startswith("application/json")
    body: dict[str, Any] = response.json()
    assert body.keys() == {"code", "message", "detail"}, body
    assert re.fullmatch(r"[a-z][a-z0-9_]*", body["code"]), body
    assert isinstance(body["message"], str)
    assert body["message"]
    assert isinstance(body["detail"], dict)
    assert not code or body["code"] == code, body
    return body
