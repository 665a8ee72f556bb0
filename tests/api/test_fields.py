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
        ("get", f"{OWN}/status", {"user": "bob"}),
        ("get", f"{OWN}/stats", {"since": "1"}),
        ("get", f"{OWN}/events", {"since": "1"}),
        ("get", "/api/v1/auth/me", {"fields": "id"}),
        ("get", "/api/v1/schema", {"version": "2\n"}),
        ("get", "/api/v1/schema", {"version": "\x00"}),
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


def test_one_users_workspace_is_asked_for_without_fields(staff_api: APIClient, running: Workspace) -> None:
    body = assert_error(staff_api.get(f"/api/v1/workspaces/{running.user_id}", {"username": "bob"}), 400, "invalid")
    assert set(body["detail"]) == {"username"}


@pytest.mark.parametrize(
    "query", ["script=x&version=2", "version=%0a", "lang=%00", "urls=//elsewhere", "script&script"]
)
def test_the_page_that_shows_the_document_takes_none_of_the_librarys_own(anonymous: APIClient, query: str) -> None:
    assert anonymous.get(f"/api/v1/docs?{query}").status_code == 400
    assert anonymous.get("/api/v1/docs").status_code == anonymous.get("/api/v1/docs?script=").status_code == 200


@pytest.mark.parametrize(("kind", "status"), [("json", 200), ("yaml", 200), ("%00", 404), ("json&format=yaml", 400)])
def test_the_document_comes_in_two_forms(anonymous: APIClient, kind: str, status: int) -> None:
    assert anonymous.get(f"/api/v1/schema?format={kind}").status_code == status


@pytest.mark.parametrize("query", ["state=running&state=stopped", "username=a&username=b", "cursor=&cursor="])
def test_a_field_that_is_there_twice_is_refused(staff_api: APIClient, query: str) -> None:
    """Of two the last one would count, and the first for whoever reads it on the way."""
    body = assert_error(staff_api.get(f"/api/v1/workspaces?{query}"), 400, "invalid")
    assert list(body["detail"].values()) == [["Given more than once."]]


def test_a_body_with_two_fields_of_one_name_is_refused(api: APIClient, running: Workspace) -> None:
    body = '{"when": "command_ends", "when": "now"}'
    answer = api.post(f"{OWN}/stop", body, content_type="application/json")
    assert 'more than one "when"' in assert_error(answer, 400)["message"]
    running.refresh_from_db()
    assert running.state == "running"


@pytest.mark.parametrize("size", ["abc", "-1", "0", "%00", "1e400", "9" * 5000])
@pytest.mark.parametrize("path", [f"{OWN}/history", "/api/v1/workspaces"])
def test_a_page_size_that_is_none_is_refused(staff_api: APIClient, path: str, size: str) -> None:
    assert set(assert_error(staff_api.get(f"{path}?page_size={size}"), 400, "invalid")["detail"]) == {"page_size"}


@pytest.mark.parametrize("cursor", ["AAAA", "%00", "x", "b=1"])
@pytest.mark.parametrize("path", [f"{OWN}/history", "/api/v1/workspaces"])
def test_a_cursor_that_says_nothing_is_none_of_ours(staff_api: APIClient, path: str, cursor: str) -> None:
    assert_error(staff_api.get(f"{path}?cursor={cursor}"), 404)


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
def test_what_is_no_object_is_refused(api: APIClient, running: Workspace, body: str) -> None:
    for call in ("stop", "start", "restart", "keep"):
        assert_error(api.post(f"{OWN}/{call}", body, content_type="application/json"), 400)
    running.refresh_from_db()
    assert running.state == "running"


FORM = "application/x-www-form-urlencoded"
PARTS = "multipart/form-data; boundary=x"
FIELD = '--x\r\nContent-Disposition: form-data; name="when"\r\n\r\ncommand_ends\r\n--x--\r\n'
FILE = '--x\r\nContent-Disposition: form-data; name="when"; filename="a"\r\n\r\ncommand_ends\r\n--x--\r\n'
SAYS_SOMETHING = (
    ("when=command_ends", FORM),
    (FIELD, PARTS),
    (FILE, PARTS),
    ('{"when": "command_ends"}', PARTS),
    ("--", PARTS),
    ("--", FORM),
    ("x", "text/plain"),
)


@pytest.mark.parametrize("call", ["start", "stop", "restart"])
def test_a_form_is_refused_unless_it_says_nothing(api: APIClient, running: Workspace, call: str) -> None:
    """Many a program sends `{}` as a form, for want of another word."""
    for sent, kind in SAYS_SOMETHING:
        assert_error(api.post(f"{OWN}/{call}", sent, content_type=kind), 415)
    running.refresh_from_db()
    assert running.state == "running"
    for sent, kind in (("{}", FORM), ("", FORM), (" null\n", FORM), ("--x--\r\n", PARTS), ("", "text/plain")):
        assert api.post(f"{OWN}/{call}", sent, content_type=kind).status_code in {200, 202}, (sent, kind)


def test_staffs_restart_minds_what_is_no_object(staff_api: APIClient, running: Workspace) -> None:
    path = f"/api/v1/workspaces/{running.user_id}/restart"
    assert_error(staff_api.post(path, [{"when": "command_ends"}]), 400)


def test_of_many_unknown_fields_some_are_named(staff_api: APIClient) -> None:
    fields = {"x" * 500 + str(number): 1 for number in range(1000)}
    answer = staff_api.post(f"{OWN}/stop", fields)
    assert_error(answer, 400, "invalid")
    assert len(answer.content) < 10_000


def test_the_pages_of_a_list_are_no_unknown_field(staff_api: APIClient) -> None:
    assert staff_api.get("/api/v1/workspaces", {"cursor": ""}).status_code == 200
