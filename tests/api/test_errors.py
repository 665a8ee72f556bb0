"""Errors in the one shape: what tests/api/test_bad_requests.py leaves open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from asgiref.sync import async_to_sync

from gunpowder.asgi import application
from tests.api.shapes import assert_error

if TYPE_CHECKING:
    from rest_framework.test import APIClient

pytestmark = pytest.mark.django_db
KEEP = "/api/v1/code-server/keep"
JSON = "application/json"


def test_an_unknown_path_needs_no_login_and_no_csrf_token(anonymous: APIClient) -> None:
    anonymous.handler.enforce_csrf_checks = True
    assert_error(anonymous.post("/api/v1/nothing"), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [("get", "/api/v1/auth/token"), ("patch", "/api/v1/auth/me"), ("delete", "/api/v1/auth/logout")],
)
def test_a_wrong_method_of_the_login_is_a_405(api: APIClient, method: str, path: str) -> None:
    response = getattr(api, method)(path)
    assert_error(response, 405, "method_not_allowed")
    assert response["Allow"]


@pytest.mark.parametrize("body", ["[]", '"x"', "7", "null", "true", '{"minutes": {"a": [1]}}', "", "{}"])
def test_json_of_a_wrong_type_is_a_400_that_names_fields(api: APIClient, running: Any, body: str) -> None:
    assert assert_error(api.post(KEEP, body, content_type=JSON), 400, "invalid")["detail"]


@pytest.mark.django_db(transaction=True)
def test_everything_is_utf_8_whatever_charset_is_claimed() -> None:
    """Asked as the server asks: Django's test clients make their requests in a way of their own."""

    async def ask(charset: str) -> None:
        transport = httpx.ASGITransport(application)  # type: ignore[arg-type]  # the same call, spelt with dict
        headers = {"Content-Type": f"application/json; charset={charset}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver", headers=headers) as client:
            unknown = await client.get("/api/v1/nothing?x=%31")
            refused = await client.post("/api/v1/auth/token", content=b'{"username": "nobody", "password": "x"}')
        assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found"), charset
        assert (refused.status_code, refused.json()["code"]) == (401, "wrong_credentials"), charset

    for charset in ("utf-16", "zlib", "hex", "bz2", "rot13", "idna", "undefined", "no-such", ""):
        async_to_sync(ask)(charset)


@pytest.mark.parametrize("who", ["session", "program"])
@pytest.mark.parametrize("size", [1_100_000, 5_000_000])
def test_an_oversized_body_is_a_413(api: APIClient, bearer: APIClient, running: Any, who: str, size: int) -> None:
    body = '{"minutes": 5, "x": "' + "x" * size + '"}'
    client = api if who == "session" else bearer
    assert_error(client.post(KEEP, body, content_type=JSON), 413, "too_large")
    running.refresh_from_db()
    assert running.keep_until is None


def test_a_body_that_cannot_be_read_is_refused_where_nothing_is_asked_for(api: APIClient) -> None:
    assert_error(api.post("/api/v1/code-server/start", b"\x00{[", content_type=JSON), 400)


@pytest.mark.parametrize("query", ["?format=xml", "?format=%00"])
def test_another_format_is_not_there(api: APIClient, query: str) -> None:
    assert_error(api.get("/api/v1/code-server/status" + query), 404, "not_found")
