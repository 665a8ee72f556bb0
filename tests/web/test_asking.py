"""The contract's table "Asking for an editor", and the gate in front of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.test import Client
from django.utils import timezone

from tests.web.nginx import ASSET, KEY, NAVIGATION, ask_gate, explain
from workspaces import access, ticket
from workspaces.models import Transition, Workspace
from workspaces.web import nginx_only

if TYPE_CHECKING:
    from collections.abc import Callable

    WithTicket = Callable[..., Client]

pytestmark = pytest.mark.django_db
WEBSOCKET = {"X-Original-Upgrade": "websocket", "Connection": "Upgrade"}


def state_of(user: Any) -> str:
    return str(Workspace.objects.values_list("state", flat=True).get(user=user))


# --- who may ask at all ---


@pytest.mark.parametrize("path", ["/_gate", "/_explain"])
@pytest.mark.parametrize("key", [None, "", "x", "only-for-test", "only-for-tests ", "\xe9" * 14])
def test_only_nginx_may_ask(user: Any, with_ticket: WithTicket, path: str, key: str | None) -> None:
    headers = {"X-Gate-Workspace": str(user.pk), **({} if key is None else {"X-Gate-Key": key})}
    response = with_ticket(user).get(path, headers=headers)
    assert response.status_code == 404
    assert "X-Workspace-Upstream" not in response


def test_without_a_key_of_our_own_nobody_is_believed(
    user: Any, with_ticket: WithTicket, configure: Callable[..., None], tmp_path: Any
) -> None:
    configure(secrets_dir=tmp_path)
    nginx_only.gate_key.cache_clear()
    try:
        for key in ("", "only-for-tests"):
            assert ask_gate(with_ticket(user), user.pk, **{"X-Gate-Key": key}).status_code == 404
    finally:
        nginx_only.gate_key.cache_clear()


# --- the gate ---


def test_the_gate_sends_the_own_ticket_to_the_running_editor(running: Workspace, with_ticket: WithTicket) -> None:
    response = ask_gate(with_ticket(running.user), running.user_id)
    assert response.status_code == 204
    assert response["X-Workspace-Upstream"] == f"127.0.0.1:{running.port}"
    assert running.editor_secret in response["X-Workspace-Cookie"]
    assert response["X-Gate-Outcome"] == "open"


def assert_closed(response: Any, status: int) -> None:
    assert response.status_code == status
    assert "X-Workspace-Upstream" not in response
    assert "X-Workspace-Cookie" not in response


def test_the_gate_is_closed_to_everybody_else(
    running: Workspace, make_user: Callable[..., Any], with_ticket: WithTicket
) -> None:
    bob = make_user("bob")
    session = Client()
    session.force_login(running.user)
    assert_closed(ask_gate(Client(), running.user_id), 401)
    assert_closed(ask_gate(session, running.user_id), 401)
    assert_closed(ask_gate(with_ticket(bob), running.user_id), 403)
    assert_closed(ask_gate(with_ticket(running.user), bob.pk), 403)
    assert_closed(ask_gate(with_ticket(bob), bob.pk), 403)


@pytest.mark.parametrize("spelling", ["0{}", "+{}", " {}", "{} ", "{}.0", "", "x", "\uff11", "9" * 20, "{}/", "-{}"])
def test_an_id_has_one_spelling(running: Workspace, with_ticket: WithTicket, spelling: str) -> None:
    client = with_ticket(running.user)
    name = spelling.format(running.user_id)
    if name.strip() != str(running.user_id):  # spaces around a header's value are no part of it
        assert_closed(ask_gate(client, name), 401)
        assert explain(client, name, **NAVIGATION).status_code == 404


@pytest.mark.parametrize("count", [1, 20])
def test_planted_cookies_before_the_real_one_do_not_lock_its_owner_out(
    running: Workspace, user: Any, count: int
) -> None:
    token = ticket.issue(running, login="", now=timezone.now())
    planted = "".join(f"{ticket.COOKIE}={word}; " for word in ["", '"', "x", "\xff\xfe", "a=b"] * (count // 5 + 1))
    response = ask_gate(Client(), user.pk, Cookie=f"{planted}{ticket.COOKIE}={token}")
    assert response.status_code == 204


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "",
        "http://testserver.evil.example",
        "http://testserver:81",
        "testserver",
        "https://testserver",
        "ftp://testserver",
        "http://user@testserver",
        "http://testserver/",
    ],
)
def test_a_page_of_another_origin_opens_no_websocket(running: Workspace, with_ticket: WithTicket, origin: str) -> None:
    client = with_ticket(running.user)
    assert_closed(ask_gate(client, running.user_id, Origin=origin, **WEBSOCKET), 401)
    refused = explain(client, running.user_id, uri=f"/code/user/{running.user_id}/ws", Origin=origin, **WEBSOCKET)
    assert (refused.status_code, refused.json()["code"]) == (403, "origin_refused")


def test_our_own_pages_and_programs_open_websockets(running: Workspace, with_ticket: WithTicket) -> None:
    client = with_ticket(running.user)
    for origin in ("http://testserver", "HTTP://TestServer"):
        assert ask_gate(client, running.user_id, Origin=origin, **WEBSOCKET).status_code == 204
    assert ask_gate(client, running.user_id, **WEBSOCKET).status_code == 204
    behind_tls = {**WEBSOCKET, "Host": "testserver", "X-Forwarded-Proto": "https"}
    assert ask_gate(client, running.user_id, Origin="https://testserver", **behind_tls).status_code == 204
    assert ask_gate(client, running.user_id, Origin="http://testserver", **behind_tls).status_code == 401


# --- the table: what a page navigation is ---


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"},
    ],
)
def test_these_are_page_navigations(user: Any, headers: dict[str, str]) -> None:
    response = explain(Client(), user.pk, **headers)
    assert (response.status_code, response["Location"]) == (302, f"/login?next=/code/user/{user.pk}/")


@pytest.mark.parametrize(
    ("headers", "method", "uri"),
    [
        ({}, "GET", ""),
        ({"Accept": "*/*"}, "GET", ""),
        ({"Sec-Fetch-Mode": "cors", "Accept": "text/html"}, "GET", ""),
        ({"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "script"}, "GET", ""),
        ({"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "embed"}, "GET", ""),
        ({**NAVIGATION, "Sec-Purpose": "prefetch"}, "GET", ""),
        ({**NAVIGATION, "Sec-Purpose": "prefetch;prerender"}, "GET", ""),
        ({"Sec-Fetch-Site": "none", "Accept": "text/html"}, "GET", ""),
        (NAVIGATION, "POST", ""),
        (NAVIGATION, "HEAD", ""),
        (NAVIGATION, "GET", "static/x.js"),
        (NAVIGATION, "GET", "/"),
        (ASSET, "GET", ""),
        (WEBSOCKET, "GET", ""),
    ],
)
def test_everything_else_is_anything_else_and_never_starts(
    user: Any, with_ticket: WithTicket, headers: dict[str, str], method: str, uri: str
) -> None:
    path = f"/code/user/{user.pk}/{uri}"
    refused = explain(Client(), user.pk, uri=path, method=method, **headers)
    assert (refused.status_code, refused.json()["code"]) == (401, "ticket_required")
    asleep = explain(with_ticket(user), user.pk, uri=path, method=method, **headers)
    assert (asleep.status_code, asleep.json()["code"]) == (503, "workspace_not_running")
    assert int(asleep["Retry-After"]) > 0
    assert state_of(user) == "stopped"
    assert not Transition.objects.exists()


def test_the_way_back_keeps_the_query(user: Any) -> None:
    uri = f"/code/user/{user.pk}/?folder=/home/a&x=%2F"
    location = explain(Client(), user.pk, uri=uri, **NAVIGATION)["Location"]
    assert location == f"/login?next=/code/user/{user.pk}/%3Ffolder%3D/home/a%26x%3D%252F"
    client = Client()
    client.force_login(user)
    assert client.get(location)["Location"] == uri


@pytest.mark.parametrize("junk", ["?\xff\xfe", "?a\x01b", "?" + "x" * 8000, "?\u20ac", "?next=//evil.example"])
def test_a_strange_query_never_breaks_the_way_to_the_login(user: Any, junk: str) -> None:
    response = explain(Client(), user.pk, uri=f"/code/user/{user.pk}/{junk}", **NAVIGATION)
    assert response.status_code == 302
    assert response["Location"].startswith("/login?next=/code/user/")


def test_an_address_that_no_log_in_follows_leads_back_without_its_query(user: Any) -> None:
    path = f"/code/user/{user.pk}/"
    for uri in (path + "?" + "x" * 2100, path + "?a?" + "x" * 8000):
        assert explain(Client(), user.pk, uri=uri, **NAVIGATION)["Location"] == f"/login?next={path}"


# --- the table: whose ticket ---


@pytest.mark.parametrize("by", ["session", "ticket"])
def test_somebody_elses_editor_is_not_there(
    running: Workspace, make_user: Callable[..., Any], with_ticket: WithTicket, by: str
) -> None:
    bob = make_user("bob")
    client = Client()
    if by == "session":
        client.force_login(bob)
    else:
        client = with_ticket(bob)
    page = explain(client, running.user_id, **NAVIGATION)
    assert page.status_code == 404
    assert b"<html" in page.content
    other = explain(client, running.user_id, uri=f"/code/user/{running.user_id}/x.js", **ASSET)
    assert (other.status_code, other.json()["code"]) == (404, "not_found")
    nobody = explain(client, 999_999, **NAVIGATION)
    assert (nobody.status_code, nobody.content) == (page.status_code, page.content)


def test_the_own_session_without_a_ticket_goes_through_the_login(user: Any) -> None:
    client = Client()
    client.force_login(user)
    assert explain(client, user.pk, **NAVIGATION).status_code == 302
    assert explain(client, user.pk, **ASSET).status_code == 401


def test_the_own_ticket_counts_although_a_foreign_session_is_there(
    running: Workspace, make_user: Callable[..., Any], with_ticket: WithTicket
) -> None:
    client = with_ticket(running.user)
    client.force_login(make_user("bob"))
    assert ask_gate(client, running.user_id).status_code == 204


def test_a_disabled_users_ticket_and_session_are_none(user: Any, with_ticket: WithTicket) -> None:
    client = with_ticket(user)
    client.force_login(user)
    user.is_active = False
    user.save()
    assert explain(client, user.pk, **ASSET).status_code == 401
    assert explain(client, user.pk, **NAVIGATION).status_code == 302
    assert state_of(user) == "stopped"


# --- the table: the own ticket ---


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_the_own_page_starts_what_does_not_run_and_shows_how_it_goes(
    user: Any,
    with_ticket: WithTicket,
    sent: list[Any],
    django_capture_on_commit_callbacks: Any,
    state: str,
) -> None:
    client = with_ticket(user)
    Workspace.objects.filter(user=user).update(state=state)
    with django_capture_on_commit_callbacks(execute=True):
        response = explain(client, user.pk, **NAVIGATION)
    page = response.content.decode()
    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"
    assert "Starting your editor" in page
    assert 'data-mode="waiting"' in page
    assert 'http-equiv="refresh"' in page
    assert state_of(user) == "starting"
    assert [name for name, _ in sent] == ["workspaces.start"]


def test_a_second_tab_starts_nothing_more(user: Any, with_ticket: WithTicket) -> None:
    client = with_ticket(user)
    assert {explain(client, user.pk, **NAVIGATION).status_code for _ in range(5)} == {200}
    assert Transition.objects.count() == 1


def test_a_forgotten_tab_gets_a_503_in_every_state(user: Any, with_ticket: WithTicket) -> None:
    client = with_ticket(user)
    for state in ("stopped", "starting", "stopping", "failed"):
        Workspace.objects.filter(user=user).update(state=state)
        response = explain(client, user.pk, uri=f"/code/user/{user.pk}/x", **WEBSOCKET)
        assert (response.status_code, response.json()["detail"]) == (503, {"state": state})
        assert response["Retry-After"] == "2"
        assert state_of(user) == state


def test_an_editor_that_runs_but_does_not_answer_is_looked_at_now(
    running: Workspace, with_ticket: WithTicket, sent: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    client = with_ticket(running.user)
    with django_capture_on_commit_callbacks(execute=True):
        page = explain(client, running.user_id, **NAVIGATION)
    assert page.status_code == 200
    assert 'data-mode="reconnecting"' in page.content.decode()
    assert sent == [("workspaces.check", (running.pk,))]
    other = explain(client, running.user_id, **ASSET)
    assert (other.status_code, other.json()["code"]) == (503, "workspace_unreachable")


def test_a_browser_without_scripts_sees_a_failure_instead_of_repeating_it(user: Any, with_ticket: WithTicket) -> None:
    client = with_ticket(user)
    Workspace.objects.filter(user=user).update(state="failed", error_code="oom", error_message="It ran out.")
    response = explain(client, user.pk, uri=f"/code/user/{user.pk}/?gunpowder=look", **NAVIGATION)
    page = response.content.decode()
    assert "It ran out." in page
    assert "http-equiv" not in page
    assert state_of(user) == "failed"


def test_a_start_too_many_is_a_page_that_asks_for_patience(
    user: Any, with_ticket: WithTicket, configure: Callable[..., None]
) -> None:
    client = with_ticket(user)
    configure(starts_per_minute=0)
    page = explain(client, user.pk, **NAVIGATION)
    assert page.status_code == 200
    assert 'data-mode="refused"' in page.content.decode()
    assert state_of(user) == "stopped"


def test_what_a_container_said_cannot_become_markup(user: Any, with_ticket: WithTicket) -> None:
    client = with_ticket(user)
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    Workspace.objects.filter(user=user).update(state="failed", error_code="crashed", error_message=evil)
    page = explain(client, user.pk, uri=f"/code/user/{user.pk}/?gunpowder=look", **NAVIGATION).content.decode()
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "&lt;img src=x" in page


def test_the_page_never_holds_the_editors_secret(running: Workspace, with_ticket: WithTicket) -> None:
    page = explain(with_ticket(running.user), running.user_id, **NAVIGATION)
    assert running.editor_secret not in page.content.decode()


def test_reading_a_page_needs_few_queries(
    user: Any, with_ticket: WithTicket, django_assert_max_num_queries: Any
) -> None:
    client = with_ticket(user)
    access.ensure_workspace_for(user)
    with django_assert_max_num_queries(1):
        assert client.get("/_gate", headers={**KEY, "X-Gate-Workspace": str(user.pk)}).status_code == 403
