"""Log-in, log-out, the Code Editor tab, and the pages for errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.test import Client
from django.utils import timezone

from tests.api.shapes import assert_error
from workspaces import ticket
from workspaces.models import Ticket, Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.django_db


@pytest.fixture
def browser() -> Client:
    return Client(enforce_csrf_checks=True)


def submit(client: Client, path: str, **fields: str) -> Any:
    """Send a form as a page of ours does."""
    if "gunpowder_csrf" not in client.cookies:
        client.get("/login")
    return client.post(path, {**fields, "csrfmiddlewaretoken": client.cookies["gunpowder_csrf"].value})


def log_in(client: Client, username: str = "alice", **fields: str) -> Any:
    return submit(client, "/login", username=username, password="pw-" + username, **fields)


def valid_tickets() -> int:
    return int(Ticket.objects.valid(now=timezone.now()).count())


# --- log-in ---


def test_a_stranger_is_sent_to_the_login_and_then_home(browser: Client, user: Any) -> None:
    assert browser.get("/")["Location"] == "/login?next=/"
    assert log_in(browser)["Location"] == "/"
    home = browser.get("/")
    assert home.status_code == 200
    assert "alice" in home.content.decode()


@pytest.mark.parametrize(("name", "word"), [("alice", "no"), ("nobody", "x"), ("mallory", "pw-mallory"), ("", "")])
def test_a_refused_login_says_one_sentence_and_keeps_the_name(
    browser: Client, user: Any, make_user: Callable[..., Any], name: str, word: str
) -> None:
    make_user("mallory", is_active=False)
    response = submit(browser, "/login", username=name, password=word)
    page = response.content.decode()
    assert response.status_code == 200
    assert 'role="alert"' in page
    assert not name or f'value="{name}"' in page
    assert "pw-mallory" not in page
    assert ("do not belong to an active account" in page) is bool(name)


@pytest.mark.parametrize("name", ["a\x00b", "\u20ac" * 5000, "<script>alert(1)</script>", '"><img src=x>'])
def test_a_strange_name_is_refused_like_any_other(browser: Client, user: Any, name: str) -> None:
    response = submit(browser, "/login", username=name, password="\x00")
    assert response.status_code == 200
    assert "<script>alert" not in response.content.decode()
    assert "<img src=x" not in response.content.decode()


def test_too_many_logins_from_one_address_must_wait(browser: Client, user: Any) -> None:
    statuses: list[int] = []
    while len(statuses) < 200 and 429 not in statuses:
        statuses.append(submit(browser, "/login", username="alice", password="no").status_code)
    assert statuses[:30] == [200] * 30
    response = log_in(browser)
    assert response.status_code == 429
    assert int(response["Retry-After"]) > 0
    assert "alice" in response.content.decode()


def test_logging_in_on_the_way_to_the_own_editor_gives_its_ticket(browser: Client, user: Any) -> None:
    target = f"/code/user/{user.pk}/?folder=/x"
    response = log_in(browser, next=target)
    assert (response.status_code, response["Location"]) == (302, target)
    cookie = response.cookies[ticket.COOKIE]
    assert (cookie["path"], cookie["httponly"], cookie["samesite"]) == (f"/code/user/{user.pk}/", True, "Lax")
    assert ticket.find_valid([cookie.value], now=timezone.now())


def test_a_live_session_gets_a_ticket_without_a_second_login(user: Any) -> None:
    client = Client()
    client.force_login(user)
    response = client.get(f"/login?next=/code/user/{user.pk}/", headers={"X-Forwarded-Proto": "https"})
    assert response["Location"] == f"/code/user/{user.pk}/"
    assert response.cookies[ticket.COOKIE]["secure"]


@pytest.mark.parametrize("owner", ["other", "nobody", "01", "x"])
def test_the_way_to_an_editor_that_is_not_ones_own_ends_in_a_404_and_no_loop(
    browser: Client, user: Any, make_user: Callable[..., Any], owner: str
) -> None:
    named = {"other": str(make_user("bob").pk), "nobody": "999999"}.get(owner, owner)
    assert log_in(browser, next=f"/code/user/{named}/").status_code == 404
    response = browser.get(f"/login?next=/code/user/{named}/")
    assert response.status_code == 404
    assert not Ticket.objects.exists()


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "///evil.example",
        "https://evil.example/",
        "http:///evil.example",
        "https:evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "\x01//evil.example",
        "javascript:alert(1)",
        "data:text/html,x",
        "http://testserver@evil.example/",
        "http://testserver.evil.example/",
        "//testserver:1@evil.example/code/user/1/",
        "/login",
        "/login?next=//evil.example",
        "/logout",
        "\x00",
        "",
    ],
)
def test_no_login_leads_out_of_this_site_or_round_in_a_circle(browser: Client, user: Any, target: str) -> None:
    after_form = log_in(browser, next=target)
    after_session = browser.get("/login?next=" + quote(target))
    for response in (after_form, after_session):
        assert response.status_code == 302
        parts = urlsplit(response["Location"])
        assert (parts.scheme, parts.netloc) in {("", ""), ("http", "testserver")}
        assert not response["Location"].startswith(("//", "/\\", "/\t"))
        assert parts.path not in {"/login", "/logout"}


def test_a_form_without_its_token_is_refused_with_a_page(browser: Client, user: Any) -> None:
    response = browser.post("/login", {"username": "alice", "password": "pw-alice"})
    assert response.status_code == 403
    assert "out of date" in response.content.decode()
    browser.get("/login")
    assert browser.get("/")["Location"] == "/login?next=/"


def test_a_form_of_a_foreign_origin_is_refused(browser: Client, user: Any) -> None:
    browser.get("/login")
    token = browser.cookies["gunpowder_csrf"].value
    fields = {"username": "alice", "password": "pw-alice", "csrfmiddlewaretoken": token}
    assert browser.post("/login", fields, headers={"Origin": "http://evil.example"}).status_code == 403


def test_a_session_that_was_planted_before_the_login_is_not_the_one_after_it(browser: Client, user: Any) -> None:
    planted = SessionStore()
    planted.create()
    browser.cookies["gunpowder_session"] = str(planted.session_key)
    log_in(browser)
    assert browser.cookies["gunpowder_session"].value != planted.session_key
    assert browser.cookies["gunpowder_session"]["httponly"]
    assert browser.cookies["gunpowder_session"]["samesite"] == "Lax"


# --- log-out ---


def test_logging_out_ends_the_session_and_its_tickets_only(browser: Client, user: Any) -> None:
    log_in(browser, next=f"/code/user/{user.pk}/")
    elsewhere = Client()
    elsewhere.force_login(user)
    elsewhere.get(f"/login?next=/code/user/{user.pk}/")
    assert valid_tickets() == 2
    response = submit(browser, "/logout")
    assert (response.status_code, response["Location"]) == (302, "/login")
    assert response.cookies[ticket.COOKIE]["max-age"] == 0
    assert response.cookies[ticket.COOKIE]["path"] == f"/code/user/{user.pk}/"
    assert browser.get("/").status_code == 302
    assert elsewhere.get("/").status_code == 200
    assert valid_tickets() == 1


def test_logging_out_needs_a_post_with_its_token(browser: Client, user: Any) -> None:
    log_in(browser)
    assert browser.get("/logout").status_code == 405
    assert browser.post("/logout").status_code == 403
    assert browser.get("/").status_code == 200


def test_a_stranger_may_log_out(browser: Client) -> None:
    assert submit(browser, "/logout")["Location"] == "/login"


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_logging_in_anew_ends_the_tickets_of_the_old_session(
    browser: Client, user: Any, make_user: Callable[..., Any], name: str
) -> None:
    make_user("bob")
    log_in(browser, next=f"/code/user/{user.pk}/")
    assert valid_tickets() == 1
    log_in(browser, name)
    assert valid_tickets() == 0


# --- the Code Editor tab ---


def test_the_tab_shows_the_state_of_this_moment(running: Workspace, user: Any) -> None:
    client = Client()
    client.force_login(user)
    response = client.get("/")
    page = response.content.decode()
    assert f"/code/user/{user.pk}/" in page
    assert "Your editor is ready." in page
    assert running.editor_secret not in page
    assert "no-cache" in response["Cache-Control"]


def test_looking_at_the_tab_makes_nothing(user: Any) -> None:
    client = Client()
    client.force_login(user)
    assert "Stopped. Your files are kept." in client.get("/").content.decode()
    assert client.head("/").status_code == 200
    assert client.post("/").status_code == 405
    assert not Workspace.objects.exists()
    assert not Ticket.objects.exists()


def test_a_name_cannot_become_markup(make_user: Callable[..., Any]) -> None:
    client = Client()
    client.force_login(make_user("<img src=x onerror=alert(1)>"))
    page = client.get("/").content.decode()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


# --- errors and headers ---


def test_an_unknown_page_is_a_page_that_leads_back(browser: Client) -> None:
    response = browser.get("/nowhere")
    page = response.content.decode()
    assert response.status_code == 404
    assert "There is nothing here" in page
    assert 'href="/"' in page


def test_an_unknown_host_is_told_nothing(browser: Client) -> None:
    response = browser.get("/", headers={"Host": "evil.example"})
    assert response.status_code == 400
    assert "not understood" in response.content.decode()
    assert "evil.example" not in response.content.decode()


def test_programs_get_errors_as_json(browser: Client, user: Any) -> None:
    assert_error(browser.get("/api/nothing"), 404, "not_found")
    browser.force_login(user)
    assert_error(browser.post("/api/v1/code-server/start"), 403, "permission_denied")


def test_an_error_of_ours_says_nothing_about_itself(browser: Client, user: Any, settings: Any) -> None:
    browser.force_login(user)
    browser.raise_request_exception = False
    settings.ENV = None  # what a bug looks like
    page = browser.get("/")
    assert page.status_code == 500
    assert "Something went wrong on our side" in page.content.decode()
    answer = browser.get("/api/v1/code-server/status")
    assert_error(answer, 500, "server_error")
    for response in (page, answer):
        assert "container_prefix" not in response.content.decode()
        assert "Traceback" not in response.content.decode()


@pytest.mark.parametrize("path", ["/login", "/", "/nowhere", "/api/v1/auth/me", "/api/v1/docs", "/admin/login/"])
def test_every_answer_says_what_it_may_load_and_who_may_frame_it(user: Any, path: str) -> None:
    client = Client()
    client.force_login(user)
    client.logout()
    response = client.get(path)
    policy = response["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'self'" in policy
    assert "object-src 'none'" in policy
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Frame-Options"] == "SAMEORIGIN"
    assert response["Referrer-Policy"] == "same-origin"


def test_our_pages_load_nothing_from_elsewhere_and_run_nothing_inline(running: Workspace, user: Any) -> None:
    client = Client()
    pages = [client.get("/login").content.decode(), client.get("/nowhere").content.decode()]
    client.force_login(user)
    pages.append(client.get("/").content.decode())
    for page in pages:
        assert "http://" not in page.replace("http://www.w3.org/", "")
        assert "https://" not in page
        assert "<style" not in page
        assert " style=" not in page
        assert " onclick=" not in page
        for tag in page.split("<script")[1:]:
            head = tag.partition(">")[0]
            assert "src=" in head or 'type="application/json"' in head
