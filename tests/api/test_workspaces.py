"""The same for staff; for everybody else there is no such thing."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.shape import assert_error
from workspaces import lifecycle
from workspaces.models import Ticket, Transition, Workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from rest_framework.test import APIClient

    from workspaces.runtimes.memory import MemoryRuntime

pytestmark = pytest.mark.django_db
BASE = "/api/v1/workspaces"


@pytest.mark.parametrize(("method", "tail"), [("get", ""), ("get", "/{}"), *(("post", f"/{{}}/{v}") for v in ("start", "stop", "restart"))])
def test_for_everybody_else_it_does_not_exist(
    api: APIClient, anonymous: APIClient, staff: Any, running: Workspace, method: str, tail: str
) -> None:
    for user_id in (running.user_id, staff.pk, 10**9):
        assert_error(getattr(api, method)(BASE + tail.format(user_id)), 404, "not_found")
        assert_error(getattr(anonymous, method)(BASE + tail.format(user_id)), 401)
    running.refresh_from_db()
    assert running.state == "running"


@pytest.mark.parametrize("user_id", ["0", "999999999", "9" * 18, "9" * 19, "9" * 5000, "-1", "x", "1.5", "%00", "١"])
def test_an_unknown_user_is_404(staff_api: APIClient, user_id: str) -> None:
    assert_error(staff_api.get(f"{BASE}/{user_id}"), 404, "not_found")
    assert_error(staff_api.post(f"{BASE}/{user_id}/start"), 404, "not_found")
    assert_error(staff_api.post(f"{BASE}/{user_id}/stop"), 404, "not_found")


def test_a_user_who_never_started_is_shown_as_stopped(staff_api: APIClient, user: Any) -> None:
    answer = staff_api.get(f"{BASE}/{user.pk}")
    assert (answer.status_code, answer.json()["state"], answer.json()["user_id"]) == (200, "stopped", user.pk)


def test_staff_start_and_stop_and_enter_nothing(
    staff_api: APIClient, user: Any, staff: Any, runtime: MemoryRuntime
) -> None:
    answer = staff_api.post(f"{BASE}/{user.pk}/start")
    assert (answer.status_code, answer.json()["state"], answer.json()["user_id"]) == (202, "starting", user.pk)
    assert "gunpowder_ticket" not in answer.cookies
    assert not Ticket.objects.exists()
    lifecycle.perform_start(user.workspace.pk, 1, runtime=runtime)
    assert staff_api.post(f"{BASE}/{user.pk}/start").status_code == 200
    assert staff_api.post(f"{BASE}/{user.pk}/stop").status_code == 202
    lifecycle.perform_stop(user.workspace.pk, 1, runtime=runtime)
    answer = staff_api.post(f"{BASE}/{user.pk}/stop")
    assert (answer.status_code, answer.json()["stop_reason"]) == (200, "staff")
    assert {(row.reason, row.actor) for row in Transition.objects.exclude(actor=None)} == {("staff", staff)}


def test_a_restart_by_staff_says_that_it_was_staff(
    staff_api: APIClient, user: Any, staff: Any, running: Workspace
) -> None:
    answer = staff_api.post(f"{BASE}/{user.pk}/restart")
    assert (answer.status_code, answer.json()["state"]) == (202, "stopping")
    assert Transition.objects.latest("id").actor == staff


def test_staff_cannot_start_for_a_disabled_user(staff_api: APIClient, user: Any) -> None:
    user.is_active = False
    user.save()
    assert_error(staff_api.post(f"{BASE}/{user.pk}/start"), 403, "permission_denied")
    assert staff_api.post(f"{BASE}/{user.pk}/stop").status_code == 200


@pytest.fixture
def several(
    make_user: Callable[..., Any], bring_up: Callable[[Any], Workspace], runtime: MemoryRuntime, now: datetime
) -> list[Workspace]:
    rows = [bring_up(make_user(f"worker-{number}")) for number in range(4)]
    lifecycle.request_stop(rows[3], actor=None)
    for number, row in enumerate(rows):
        Workspace.objects.filter(pk=row.pk).update(
            changed_at=now + timedelta(minutes=number), last_activity_at=now - timedelta(hours=number)
        )
    return rows


def test_the_list_shows_the_latest_change_first(staff_api: APIClient, several: list[Workspace]) -> None:
    body = staff_api.get(BASE).json()
    assert set(body) == {"next", "previous", "results"}
    assert [row["user_id"] for row in body["results"]] == [row.user_id for row in reversed(several)]


def test_the_list_is_paged(staff_api: APIClient, several: list[Workspace]) -> None:
    first = staff_api.get(f"{BASE}?page_size=3").json()
    second = staff_api.get(first["next"]).json()
    assert (len(first["results"]), len(second["results"]), second["next"]) == (3, 1, None)
    assert staff_api.get(second["previous"]).json()["results"] == first["results"]


def test_the_list_is_filtered(staff_api: APIClient, several: list[Workspace], now: datetime) -> None:
    def users(query: str) -> list[int]:
        return [row["user_id"] for row in staff_api.get(f"{BASE}?{query}").json()["results"]]

    assert users("state=stopping") == [several[3].user_id]
    assert users("state=failed") == []
    assert users("username=worker-1") == [several[1].user_id]
    assert users("username=nobody") == []
    since = (now - timedelta(minutes=90)).isoformat().replace("+00:00", "Z")
    assert users(f"idle_since={since}") == [several[2].user_id]
    assert users("state=running&username=worker-0") == [several[0].user_id]


@pytest.mark.parametrize(
    ("query", "field"),
    [("state=odd", "state"), ("idle_since=yesterday", "idle_since"), (f"username={'x' * 151}", "username"), ("username=%00", "username")],
)
def test_a_senseless_filter_is_400_and_named(staff_api: APIClient, query: str, field: str) -> None:
    assert field in assert_error(staff_api.get(f"{BASE}?{query}"), 400, "invalid")["detail"]


@pytest.mark.parametrize("cursor", ["x", "cD1uZXZlcg==", "cD0lMDA="])
def test_a_made_up_cursor_is_4xx(staff_api: APIClient, several: list[Workspace], cursor: str) -> None:
    answer = staff_api.get(BASE, {"cursor": cursor})
    assert answer.status_code in {400, 404}, answer.content
    assert_error(answer, answer.status_code)
