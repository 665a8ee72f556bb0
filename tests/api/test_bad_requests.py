"""Whatever is wrong with a request, the answer has the one shape and is never a 500."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection

from tests.api.shapes import assert_error

if TYPE_CHECKING:
    from rest_framework.test import APIClient

    from workspaces.models import Workspace

pytestmark = pytest.mark.django_db
KEEP = "/api/v1/code-server/keep"
TOKEN = "/api/v1/auth/token"

BROKEN: dict[str, bytes] = {
    "cut off": b'{"minutes": 5',
    "not JSON": b"minutes=5",
    "not UTF-8": b'{"minutes": "\xff\xfe"}',
    "not a number": b'{"minutes": NaN}',
    "a number too long to read": b'{"minutes": ' + b"9" * 5000 + b"}",
    "deeper than any document": b"[" * 200_000,
    "deep and well formed": b"[" * 100_000 + b"]" * 100_000,
    "only a byte order mark": b"\xef\xbb\xbf",
    "a NUL byte": b"\x00",
    "an object in an object": b'{"minutes": {"minutes": 5}}',
    "a key twice": b'{"minutes": 5, "minutes": "x"}',
    "half a character": rb'{"minutes": "\ud800", "username": "\udfff", "password": "x"}',
    "half a character in a name": rb'{"minutes": 5, "username": "a", "password": "x", "\ud800": 5}',
    "half a character deep inside": rb'{"minutes": 5, "username": "a", "password": "x", "more": [{"a": ["\udabc"]}]}',
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("path", [KEEP, TOKEN])
def test_a_broken_body_is_400(api: APIClient, running: Workspace, path: str, kind: str) -> None:
    assert_error(api.post(path, BROKEN[kind], content_type="application/json"), 400)


def test_half_a_character_is_refused_where_a_choice_is_asked(api: APIClient) -> None:
    answer = api.post("/api/v1/code-server/stop", rb'{"when": "\ud800"}', content_type="application/json")
    assert_error(answer, 400, "parse_error")


@pytest.mark.parametrize("charset", ["utf-16", "rot13", "base64", "idna", "no-such", "hex", "utf-7", "undefined"])
def test_an_odd_charset_is_no_500(api: APIClient, running: Workspace, charset: str) -> None:
    answer = api.post(KEEP, b'{"minutes": 5}', content_type=f"application/json; charset={charset}")
    assert answer.status_code in {200, 400, 415}, answer.content


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data", "x"]
)
def test_another_content_type_is_415(api: APIClient, running: Workspace, content_type: str) -> None:
    assert_error(api.post(KEEP, b"minutes=5", content_type=content_type), 415, "unsupported_media_type")


def test_an_oversized_body_is_4xx(anonymous: APIClient) -> None:
    body = b'{"username": "' + b"x" * (3 * 2**20) + b'", "password": "x"}'
    answer = anonymous.post(TOKEN, body, content_type="application/json")
    assert answer.status_code in {400, 413}
    assert_error(answer, answer.status_code)


def test_an_accept_that_we_cannot_serve_is_406(api: APIClient) -> None:
    assert_error(api.get("/api/v1/code-server/status", headers={"accept": "image/png"}), 406, "not_acceptable")


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html, */*;q=0.1", "application/*"])
def test_usual_accepts_are_served(api: APIClient, accept: str) -> None:
    assert api.get("/api/v1/code-server/status", headers={"accept": accept}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/",
        "/api/v1/nothing",
        "/api/v1/code-server",
        "/api/v1/code-server/status/",  # no trailing slash in this API
        "/api/v1/auth/token/",
        "/api/v1/workspaces/",
        "/api/v1/../../etc/passwd",
        "/api/v1/%00",
        "/api/v2/auth/me",
        "/api/nothing",
    ],
)
@pytest.mark.parametrize("method", ["get", "post", "put", "delete", "options"])
def test_an_unknown_path_is_404_whatever_the_method(api: APIClient, path: str, method: str) -> None:
    assert_error(getattr(api, method)(path), 404, "not_found")


@pytest.mark.parametrize("user_id", ["0", "9" * 18, "9" * 19, "9" * 5000, "-1", "x", "1.5", "%00", "\u0661", "01x"])
def test_an_unknown_user_is_404(staff_api: APIClient, user_id: str) -> None:
    base = f"/api/v1/workspaces/{user_id}"
    assert_error(staff_api.get(base), 404, "not_found")
    assert_error(staff_api.post(f"{base}/start"), 404, "not_found")
    assert_error(staff_api.post(f"{base}/stop"), 404, "not_found")


def test_an_unknown_host_is_400(api: APIClient) -> None:
    answer = api.get("/api/v1/code-server/status", headers={"host": "evil.example.org"})
    assert_error(answer, 400)


@pytest.mark.parametrize("call", ["code-server/status", "auth/me", "workspaces"])
def test_a_database_outage_is_503_in_the_one_shape(api: APIClient, call: str) -> None:
    def away(*_: Any) -> Any:
        from django.db import OperationalError

        raise OperationalError("the server closed the connection unexpectedly")

    with connection.execute_wrapper(away):
        answer = api.get(f"/api/v1/{call}")
    assert_error(answer, 503, "database_unavailable")
    assert answer["Retry-After"]


def test_every_answer_carries_its_requests_id(api: APIClient) -> None:
    mine = "0123456789abcdef" * 2
    assert api.get("/api/v1/auth/me", headers={"x-request-id": mine})["X-Request-Id"] == mine
    for forged in ("", "short", "x" * 32, "0" * 500):
        answered = api.get("/api/v1/auth/me", headers={"x-request-id": forged})["X-Request-Id"]
        assert answered != forged
        assert len(answered) == 32
