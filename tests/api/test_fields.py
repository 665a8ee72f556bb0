"""A field that there is not is refused, by name: a typing error must not look like success."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.api.shapes import assert_error

if TYPE_CHECKING:
    from rest_framework.test import APIClient

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
        ("get", f"{OWN}/logs", {"lines": "5"}),
        ("get", f"{OWN}/savings", {"day": "5"}),
        ("get", "/api/v1/workspaces", {"user": "alice"}),
        ("get", "/api/v1/workspaces/savings", {"name": "alice"}),
    ],
)
def test_an_unknown_field_is_named(staff_api: APIClient, method: str, path: str, fields: dict[str, Any]) -> None:
    known = {"username", "password", "refresh", "token", "minutes"}
    body = assert_error(getattr(staff_api, method)(path, fields), 400, "invalid")
    assert set(body["detail"]) == set(fields) - known


def test_of_many_unknown_fields_some_are_named(staff_api: APIClient) -> None:
    fields = {"x" * 500 + str(number): 1 for number in range(1000)}
    answer = staff_api.post(f"{OWN}/stop", fields)
    assert_error(answer, 400, "invalid")
    assert len(answer.content) < 10_000


def test_the_pages_of_a_list_are_no_unknown_field(staff_api: APIClient) -> None:
    assert staff_api.get("/api/v1/workspaces", {"cursor": ""}).status_code == 200
