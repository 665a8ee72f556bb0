from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone

from tests.api.shapes import RFC3339_UTC, assert_error
from workspaces import access
from workspaces.models import Transition

if TYPE_CHECKING:
    from collections.abc import Callable

    from rest_framework.test import APIClient

pytestmark = pytest.mark.django_db
OWN = "/api/v1/code-server/savings"
ALL = "/api/v1/workspaces/savings"
HOUR = timedelta(hours=1)
FIELDS = {"days", "since", "until", "run_hours", "saved_hours", "saved_percent", "by_day"}


def ran(user: Any, *, hours: float) -> None:
    """Let a user's editor have run for some hours until an idle stop three days ago."""
    workspace = access.ensure_workspace_for(user)
    end = timezone.now() - 72 * HOUR
    Transition.objects.bulk_create(
        Transition(workspace=workspace, from_state=before, to_state=to, reason=reason, time=moment, generation=1)
        for moment, before, to, reason in [
            (end - hours * HOUR, "starting", "running", "ready"),
            (end, "running", "stopping", "idle"),
            (end, "stopping", "stopped", "idle"),
        ]
    )


def body_of(response: Any) -> dict[str, Any]:
    assert response.status_code == 200, response.content
    found: dict[str, Any] = response.json()
    return found


def test_a_user_gets_their_own_figures(api: APIClient, user: Any, make_user: Callable[..., Any]) -> None:
    ran(user, hours=2)
    ran(make_user("bob"), hours=5)
    body = body_of(api.get(OWN))
    assert body.keys() == FIELDS
    assert (body["days"], body["run_hours"], body["saved_hours"], body["saved_percent"]) == (30, 2.0, 22.0, 91)
    assert RFC3339_UTC.fullmatch(body["since"])
    assert RFC3339_UTC.fullmatch(body["until"])
    assert len(body["by_day"]) == 30
    assert [each["day"] for each in body["by_day"]] == sorted(each["day"] for each in body["by_day"])
    assert all(each.keys() == {"day", "run_hours", "saved_hours"} for each in body["by_day"])
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", each["day"]) for each in body["by_day"])
    assert sum(each["saved_hours"] for each in body["by_day"]) == pytest.approx(22, abs=0.001)


def test_before_the_first_run_all_is_zero(api: APIClient) -> None:
    body = body_of(api.get(OWN, {"days": 7}))
    assert (body["days"], body["run_hours"], body["saved_hours"], body["saved_percent"]) == (7, 0.0, 0.0, None)
    assert {(each["run_hours"], each["saved_hours"]) for each in body["by_day"]} == {(0.0, 0.0)}


def test_a_token_opens_it_and_nothing_does_not(anonymous: APIClient, bearer: APIClient) -> None:
    assert bearer.get(OWN).status_code == 200
    assert_error(bearer.get(ALL), 404, "not_found")
    anonymous.credentials()
    for path in (OWN, ALL):
        assert_error(anonymous.get(path), 401)


def test_for_everybody_but_staff_there_is_no_sum(api: APIClient) -> None:
    assert_error(api.get(ALL), 404, "not_found")
    assert_error(api.get(ALL, {"days": "x"}), 404, "not_found")


def test_staff_get_all_together_and_each(staff_api: APIClient, user: Any, make_user: Callable[..., Any]) -> None:
    bob = make_user("bob")
    ran(user, hours=2)
    ran(bob, hours=5)
    make_user("never-ran")
    body = body_of(staff_api.get(ALL, {"days": 90}))
    assert body.keys() == FIELDS | {"user_count", "users"}
    assert (body["days"], body["run_hours"], body["saved_hours"], body["saved_percent"]) == (90, 7.0, 41.0, 85)
    assert body["user_count"] == 2
    assert body["users"] == [
        {"user_id": user.pk, "username": "alice", "run_hours": 2.0, "saved_hours": 22.0, "saved_percent": 91},
        {"user_id": bob.pk, "username": "bob", "run_hours": 5.0, "saved_hours": 19.0, "saved_percent": 79},
    ]


def test_the_users_can_be_filtered_and_limited(staff_api: APIClient, user: Any, make_user: Callable[..., Any]) -> None:
    ran(user, hours=2)
    ran(make_user("bob"), hours=5)
    found = body_of(staff_api.get(ALL, {"username": "B"}))
    assert ([each["username"] for each in found["users"]], found["user_count"]) == (["bob"], 1)
    assert found["run_hours"] == 7.0
    first = body_of(staff_api.get(ALL, {"limit": 1}))
    assert ([each["username"] for each in first["users"]], first["user_count"]) == (["alice"], 2)


@pytest.mark.parametrize("days", ["0", "367", "-1", "x", "1.5", "9" * 2000, "\x00"])
def test_days_that_are_none_are_a_400(api: APIClient, staff_api: APIClient, days: str) -> None:
    for client, path in ((api, OWN), (staff_api, ALL)):
        assert "days" in assert_error(client.get(path, {"days": days}), 400, "invalid")["detail"]


@pytest.mark.parametrize(
    ("name", "value"), [("limit", "0"), ("limit", "1001"), ("username", "x" * 151), ("username", "\x00")]
)
def test_a_filter_of_a_wrong_form_is_a_400(staff_api: APIClient, name: str, value: str) -> None:
    assert name in assert_error(staff_api.get(ALL, {name: value}), 400, "invalid")["detail"]


def test_the_document_has_both_calls(anonymous: APIClient) -> None:
    schema = anonymous.get("/api/v1/schema", {"format": "json"}).json()
    for path, name in ((OWN, "SavingsOut"), (ALL, "AllSavingsOut")):
        call = schema["paths"][path]["get"]
        assert call["description"]
        assert call["responses"].keys() >= {"200", "400", "401"}
        content = call["responses"]["200"]["content"]["application/json"]["schema"]
        assert content["$ref"].rpartition("/")[2] == name
        assert "days" in {each["name"] for each in call["parameters"]}
