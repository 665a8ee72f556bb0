from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings

from workspaces import access, lifecycle
from workspaces.api.representation import represent, rfc3339
from workspaces.api.serializers import WorkspaceOut
from workspaces.errors import StartRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from workspaces.models import Workspace
    from workspaces.runtimes.memory import MemoryRuntime

PROMISED = {
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


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (None, None),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 60, tzinfo=UTC), "2026-01-02T03:04:05.000060Z"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T01:04:05Z"),
    ],
)
def test_times_are_rfc_3339_in_utc(moment: datetime | None, text: str | None) -> None:
    assert rfc3339(moment) == text


pytestmark = pytest.mark.django_db


def test_before_the_first_start_it_is_stopped_and_complete(user: Any) -> None:
    shown = represent(access.get_workspace_for(user))
    assert shown.keys() >= PROMISED
    assert (shown["user_id"], shown["state"], shown["url"]) == (user.pk, "stopped", f"/code/user/{user.pk}/")
    assert shown["container"] == f"{settings.ENV.container_prefix}-{user.pk}"
    assert shown["image"] == settings.ENV.workspace_image
    empty = PROMISED - {"user_id", "state", "url", "container", "image"}
    assert {shown[name] for name in empty} == {None}


def test_running_it_says_where_since_when_and_until_when(running: Workspace) -> None:
    shown = represent(running)
    assert running.started_at is not None
    assert (shown["state"], shown["port"]) == ("running", 11000 + running.user_id)
    assert shown["started_at"] == shown["last_activity_at"] == rfc3339(running.started_at)
    assert shown["stops_at"] == rfc3339(running.started_at + timedelta(minutes=30))
    assert (shown["error"], shown["stop_reason"], shown["keep_until"]) == (None, None, None)


def test_what_is_kept_stops_later(running: Workspace, now: datetime) -> None:
    kept = lifecycle.request_keep(running, minutes=120, now=now)
    shown = represent(kept)
    assert shown["keep_until"] == shown["stops_at"] == rfc3339(now + timedelta(minutes=120))


def test_a_failure_is_shown_with_code_and_sentence(user: Any, runtime: MemoryRuntime) -> None:
    workspace = lifecycle.request_start(user, actor=user)
    runtime.refuse = StartRefused("The image is not there.", code="image_missing")
    lifecycle.perform_start(workspace.pk, 1, runtime=runtime)
    workspace.refresh_from_db()
    shown = represent(workspace)
    assert (shown["state"], shown["port"]) == ("failed", None)
    assert shown["error"] == {"code": "image_missing", "message": "The image is not there."}


def test_once_stopped_it_says_why_and_no_longer_until_when(running: Workspace, runtime: MemoryRuntime) -> None:
    lifecycle.request_stop(running, actor=None)
    lifecycle.perform_stop(running.pk, running.generation, runtime=runtime)
    running.refresh_from_db()
    shown = represent(running)
    assert (shown["state"], shown["stop_reason"], shown["stops_at"]) == ("stopped", "user", None)
    assert shown["stopped_at"] is not None


@pytest.mark.parametrize("state", ["stopped", "starting", "running", "stopping", "failed"])
def test_every_state_is_json_and_what_the_openapi_document_says(running: Workspace, state: str) -> None:
    running.state = state
    shown = represent(running)
    json.dumps(shown)
    assert set(shown) == {str(name) for name in WorkspaceOut().fields}
    assert shown["state_sentence"]


def test_no_secret_is_ever_shown(running: Workspace, bring_up: Callable[[Any], Workspace]) -> None:
    assert running.editor_secret not in json.dumps(represent(running))
