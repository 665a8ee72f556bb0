"""A field that there is not is refused, by name: a typing error must not look like success."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.api.shapes import assert_error

if TYPE_CHECKING:
    from rest_framework.test import APIClient

    from workspaces.models import Workspace

pytestmark = pytest.mark.django_db
OWN = "/api/v1/code-server"


@pytest.mark.parametrize(
    ("method", "path", "fields"),
    [
        ("post", "/api/v1/auth/token", {"username": "alice", "password": "pw-alice", "pasword": "x"}),
        ("post", "/api/v1/auth/token/refresh", {"refresh": "x", "Refresh": "x"}),
        ("post", "/api/v1/auth/token/verify", {"token": "x", "kind": "x"}),
        ("post", "/api/v1/auth/logout", {"refresh": "x", "all": True}),
        ("post", f"{OWN}/stop", {"When": "command_ends"}),
        ("post", f"{OWN}/keep", {"minutes": 5, "hours": 1}),
        ("post", f"{OWN}/start", {"image": "x"}),
        ("post", f"{OWN}/restart", {"when": "command_ends"}),
        ("get", f"{OWN}/logs", {"lines": "5"}),
        ("get", f"{OWN}/history", {"pagesize": "5"}),
        ("get", f"{OWN}/savings", {"day": "5"}),
        ("get", "/api/v1/workspaces", {"user": "alice"}),
        ("get", "/api/v1/workspaces/savings", {"name": "alice"}),
    ],
)
def test_an_unknown_field_is_named(staff_api: APIClient, method: str, path: str, fields: dict[str, Any]) -> None:
    known = {"username", "password", "refresh", "token", "minutes"}
    body = assert_error(getattr(staff_api, method)(path, fields), 400, "invalid")
    assert set(body["detail"]) == set(fields) - known


@pytest.mark.parametrize(("call", "known"), [("start", ""), ("stop", "when"), ("restart", "")])
def test_staffs_calls_name_them_too(staff_api: APIClient, running: Workspace, call: str, known: str) -> None:
    path = f"/api/v1/workspaces/{running.user_id}/{call}"
    body = assert_error(staff_api.post(path, {"whenn": "command_ends"}), 400, "invalid")
    assert set(body["detail"]) == {"whenn"}
    assert known in body["detail"]["whenn"][0]
    running.refresh_from_db()
    assert running.state == "running"


@pytest.mark.parametrize("call", ["start", "stop", "restart", "keep"])
def test_what_a_post_says_in_its_address_is_refused(api: APIClient, running: Workspace, call: str) -> None:
    """Where it would be overlooked: `stop?when=command_ends` stopped at once."""
    body = {"minutes": 5} if call == "keep" else {}
    found = assert_error(api.post(f"{OWN}/{call}?when=command_ends", body), 400, "invalid")
    assert set(found["detail"]) == {"when"}
    running.refresh_from_db()
    assert running.state == "running"


def test_a_misspelt_field_is_named_beside_the_one_that_is_missing(anonymous: APIClient) -> None:
    found = assert_error(anonymous.post("/api/v1/auth/token", {"username": "alice", "pasword": "x"}), 400, "invalid")
    assert set(found["detail"]) == {"password", "pasword"}


@pytest.mark.parametrize("body", ["null", ""])
def test_a_call_that_asks_for_nothing_may_be_given_nothing(api: APIClient, running: Workspace, body: str) -> None:
    for call in ("start", "restart", "stop"):
        answer = api.post(f"{OWN}/{call}", body, content_type="application/json")
        assert answer.status_code in {200, 202}, answer.content


@pytest.mark.parametrize("body", ['"now"', "7", "[1]", "{", "[]", "0", "false"])
def test_fields_that_are_none_are_refused_where_some_are_asked_for(
    api: APIClient, running: Workspace, body: str
) -> None:
    assert_error(api.post(f"{OWN}/stop", body, content_type="application/json"), 400)
    assert api.post(f"{OWN}/start", body, content_type="application/json").status_code == 200


def test_of_many_unknown_fields_some_are_named(staff_api: APIClient) -> None:
    fields = {"x" * 500 + str(number): 1 for number in range(1000)}
    answer = staff_api.post(f"{OWN}/stop", fields)
    assert_error(answer, 400, "invalid")
    assert len(answer.content) < 10_000


def test_the_pages_of_a_list_are_no_unknown_field(staff_api: APIClient) -> None:
    assert staff_api.get("/api/v1/workspaces", {"cursor": ""}).status_code == 200
