"""The contract's table "Asking for an editor", every row and column of it, through nginx."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed

from tests.e2e.stack import ASSET, NAVIGATION, SESSION, TICKET, Person, Stack, is_editor
from tests.suite.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx
    from websockets.sync.client import ClientConnection

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

# Ways to ask; the contract counts the first four as page navigations.
NAVIGATIONS = {
    "page": NAVIGATION,
    "frame": {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    "no-dest": {"Sec-Fetch-Mode": "navigate"},
    "old-browser": {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"},
}
OTHERS = {
    "asset": ("GET", "_static/x.js", ASSET),
    "page-below": ("GET", "some/page", NAVIGATION),
    "xhr": ("GET", "", {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Accept": "text/html"}),
    "prefetch": ("GET", "", {**NAVIGATION, "Sec-Purpose": "prefetch;prerender"}),
    "program": ("GET", "", {"Accept": "*/*"}),
    "post": ("POST", "", NAVIGATION),
    "head": ("HEAD", "", NAVIGATION),
    "embedded": ("GET", "", {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "embed"}),
}
BAD_TICKETS = ("x", "A" * 43, "'\"><script>", "%00", "é".encode().decode("latin-1"))

navigations = pytest.mark.parametrize("headers", NAVIGATIONS.values(), ids=NAVIGATIONS.keys())
others = pytest.mark.parametrize(("method", "tail", "headers"), OTHERS.values(), ids=OTHERS.keys())


@pytest.fixture(scope="module")
def carol(stack: Stack) -> Person:
    """Somebody with a ticket and no running editor. Nothing here may start it."""
    person = stack.add_user()
    assert person.ticket
    return person


def session_of(person: Person) -> dict[str, str]:
    return {"Cookie": f"{SESSION}={person.session.cookies[SESSION]}"}


def expect_error(answer: httpx.Response, status: int, *, method: str = "GET") -> None:
    """A status in the one error shape; a HEAD has no body."""
    assert answer.status_code == status, answer.text[:300]
    if method != "HEAD":
        assert set(answer.json()) == {"code", "message", "detail"}
    assert answer.headers["cache-control"] == "no-store"


# --- nobody's ticket ---


@navigations
def test_without_a_ticket_a_page_leads_to_the_log_in(alice: Person, headers: dict[str, str]) -> None:
    answer = alice.anonymous.get(alice.path, headers=headers)
    assert (answer.status_code, answer.headers["location"]) == (302, f"/login?next={alice.path}")


@others
def test_without_a_ticket_anything_else_is_401(alice: Person, method: str, tail: str, headers: dict[str, str]) -> None:
    expect_error(alice.anonymous.request(method, alice.path + tail, headers=headers), 401, method=method)


@pytest.mark.parametrize("ticket", BAD_TICKETS)
def test_a_bad_ticket_is_none(alice: Person, ticket: str) -> None:
    cookie = {"Cookie": f"{TICKET}={ticket}".encode("latin-1").decode("latin-1")}
    raw = alice.stack.ask_raw(alice.path, headers={**NAVIGATION, **cookie})
    assert (raw.status, raw.headers["location"]) == (302, f"/login?next={alice.path}")
    assert alice.stack.ask_raw(f"{alice.path}_static/x.js", headers={**ASSET, **cookie}).status == 401


def test_without_a_ticket_a_websocket_is_401(alice: Person) -> None:
    assert alice.handshake() == 401
    assert alice.handshake(Cookie=f"{TICKET}={'A' * 43}") == 401


def test_a_user_who_does_not_exist_looks_like_any_other(alice: Person) -> None:
    nobody = alice.anonymous.get("/code/user/999999/", headers=NAVIGATION)
    assert (nobody.status_code, nobody.headers["location"]) == (302, "/login?next=/code/user/999999/")
    expect_error(alice.anonymous.get("/code/user/999999/x.js", headers=ASSET), 401)
    for cookie in (alice.cookie, session_of(alice)):
        assert alice.anonymous.get("/code/user/999999/", headers={**NAVIGATION, **cookie}).status_code == 404


# --- somebody else's ---


@navigations
@pytest.mark.parametrize("credential", ["ticket", "session"])
def test_a_page_of_somebody_else_is_404(alice: Person, bob: Person, headers: dict[str, str], credential: str) -> None:
    cookie = bob.cookie if credential == "ticket" else session_of(bob)
    answer = alice.anonymous.get(alice.path, headers={**headers, **cookie})
    assert answer.status_code == 404
    assert "set-cookie" not in answer.headers


@others
@pytest.mark.parametrize("credential", ["ticket", "session"])
def test_anything_else_of_somebody_else_is_404(
    alice: Person, bob: Person, method: str, tail: str, headers: dict[str, str], credential: str
) -> None:
    cookie = bob.cookie if credential == "ticket" else session_of(bob)
    answer = alice.anonymous.request(method, alice.path + tail, headers={**headers, **cookie})
    expect_error(answer, 404, method=method)


def test_a_websocket_of_somebody_else_is_404(alice: Person, bob: Person) -> None:
    assert alice.handshake(**bob.cookie) == 404
    assert alice.handshake(**session_of(bob)) == 404


def test_the_way_through_the_log_in_to_somebody_elses_editor_ends_at_404(alice: Person, bob: Person) -> None:
    """Sending them on would bring them back to the log-in page, for ever."""
    answer = bob.session.get("/login", params={"next": alice.path}, headers=NAVIGATION, follow_redirects=True)
    assert answer.status_code == 404
    assert len(answer.history) <= 2


# --- own ticket, not running ---


@others
def test_nothing_but_a_page_starts_an_editor(carol: Person, method: str, tail: str, headers: dict[str, str]) -> None:
    answer = carol.editor(tail, headers=headers, method=method)
    expect_error(answer, 503, method=method)
    assert int(answer.headers["retry-after"]) >= 1
    assert carol.status()["state"] == "stopped"
    assert carol.inspect() == {}


def test_a_forgotten_tabs_reconnects_start_nothing(carol: Person) -> None:
    assert [carol.handshake(**carol.cookie) for _ in range(3)] == [503] * 3
    assert carol.status()["state"] == "stopped"
    assert carol.history() == []


def test_the_slash_is_added_and_the_query_kept(carol: Person) -> None:
    answer = carol.anonymous.get(f"/code/user/{carol.id}?folder=/tmp&x=%2F", headers=NAVIGATION)
    assert (answer.status_code, answer.headers["location"]) == (302, f"{carol.path}?folder=/tmp&x=%2F")


def test_a_page_starts_the_editor_shows_it_and_goes_in(stack: Stack) -> None:
    person = stack.add_user()
    answer = person.editor(headers=NAVIGATION)
    assert answer.status_code == 200
    assert "Starting your editor" in answer.text
    assert answer.headers["cache-control"] == "no-store"
    person.wait_for("running")
    assert person.editor_opens()


# --- own ticket, running ---


def test_the_own_ticket_opens_the_editor_however_it_is_asked(alice: Person) -> None:
    answer = alice.editor(headers=NAVIGATION)
    assert (answer.status_code, answer.headers["location"]) == (302, "./?folder=/home/coder/workspace")
    assert alice.editor_opens()
    assert alice.editor("vscode-remote-resource?path=/home/coder/workspace/whose.txt").text.strip() == alice.mark
    assert alice.handshake(**alice.cookie) == 101


def test_a_websocket_must_come_from_our_own_pages(alice: Person) -> None:
    """The browser sends the ticket along wherever the page came from."""
    port = alice.stack.port
    assert alice.handshake(**alice.cookie, Origin=f"http://127.0.0.1:{port}") == 101
    for origin in (
        "http://evil.example",
        f"http://127.0.0.1:{port + 1}",
        f"https://127.0.0.1:{port}",
        "null",
        f"http://127.0.0.1:{port}.evil.example",
    ):
        assert alice.handshake(**alice.cookie, Origin=origin) == 403, origin


def test_a_live_session_without_a_ticket_gets_in_without_a_second_log_in(alice: Person, stack: Stack) -> None:
    client = stack.client()
    alice.log_in(client)
    assert TICKET not in client.cookies
    answer = client.get(alice.path, headers=NAVIGATION, follow_redirects=True)
    assert is_editor(answer)
    assert [step.headers["location"] for step in answer.history] == [
        f"/login?next={alice.path}",
        alice.path,
        "./?folder=/home/coder/workspace",
    ]
    assert TICKET in client.cookies


def test_a_log_in_on_the_way_to_the_editor_ends_in_the_editor(alice: Person, stack: Stack) -> None:
    client = stack.client()
    asked = client.get(f"{alice.path}?folder=/home/coder/workspace", headers=NAVIGATION, follow_redirects=True)
    assert str(asked.url).startswith(f"{stack.url}/login?next=")
    to = asked.url.params["next"]
    arrived = client.get(alice.log_in(client, to=to).headers["location"], headers=NAVIGATION)
    assert is_editor(arrived)


# --- each key opens its own door only ---


def test_the_ticket_opens_nothing_but_the_editor(alice: Person) -> None:
    client, token = alice.anonymous, alice.ticket
    for headers in (alice.cookie, {"Authorization": f"Bearer {token}"}, {"Cookie": f"{SESSION}={token}"}):
        for path in ("auth/me", "code-server/status", "code-server/history", "workspaces"):
            expect_api_error(client.get(f"/api/v1/{path}", headers=headers), 401)
        expect_api_error(client.post("/api/v1/code-server/stop", headers=headers), 401)
        assert client.get("/", headers=headers).status_code == 302
        assert client.get("/admin/", headers=headers).status_code == 302
    assert alice.status()["state"] == "running"


def expect_api_error(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text[:300]
    assert set(answer.json()) == {"code", "message", "detail"}


def test_nothing_but_the_ticket_opens_the_editor(alice: Person) -> None:
    client, access = alice.anonymous, alice.tokens["access"]
    tries = {
        "token": ({"Authorization": f"Bearer {access}"}, ""),
        "refresh token": ({"Authorization": f"Bearer {alice.tokens['refresh']}"}, ""),
        "token in the cookie": ({"Cookie": f"{TICKET}={access}"}, ""),
        "session": (session_of(alice), ""),
        "session in the ticket's place": ({"Cookie": f"{TICKET}={alice.session.cookies[SESSION]}"}, ""),
        "ticket in the URL": ({}, f"?ticket={alice.ticket}&{TICKET}={alice.ticket}&token={access}&tkn={access}"),
        "ticket as a token": ({"Authorization": f"Bearer {alice.ticket}"}, ""),
        "cookie of another name": ({"Cookie": f"X{TICKET}={alice.ticket}"}, ""),
    }
    for name, (headers, query) in tries.items():
        assert client.get(f"{alice.path}x.js{query}", headers={**ASSET, **headers}).status_code == 401, name
        assert client.get(alice.path + query, headers={**NAVIGATION, **headers}).status_code == 302, name
        assert alice.handshake(**headers) == 401, name


def test_the_small_api_beside_the_editor_obeys_the_ticket(alice: Person, bob: Person, carol: Person) -> None:
    """Answered by web, never by the container; a start must come from our own origin."""
    client, own = alice.anonymous, f"{alice.path}_gunpowder/status"
    assert client.get(own, headers=alice.cookie).json()["state"] == "running"
    expect_api_error(client.get(own), 401)
    expect_api_error(client.get(own, headers={"Authorization": f"Bearer {alice.tokens['access']}"}), 401)
    expect_api_error(client.get(own, headers=bob.cookie), 404)
    start = f"{carol.path}_gunpowder/start"
    for origin in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        expect_api_error(client.post(start, headers={**carol.cookie, **origin}), 403)
    assert carol.status()["state"] == "stopped"
    renewed = client.post(f"{alice.path}_gunpowder/start", headers={**alice.cookie, "Origin": alice.stack.url})
    assert renewed.status_code == 200
    assert f"Path={alice.path}" in renewed.headers["set-cookie"]
    expect_api_error(client.get(f"{alice.path}_gunpowder/nothing", headers=alice.cookie), 404)


# --- disabled ---


def test_a_disabled_users_doors_close_within_seconds(stack: Stack) -> None:
    person = stack.add_user()
    person.start_and_wait()
    session = session_of(person)
    assert person.editor_opens()
    doors: dict[str, Callable[[], bool]] = {
        "token": lambda: person.api.get("status").status_code == 401,
        "session": lambda: person.anonymous.get("/api/v1/auth/me", headers=session).status_code == 401,
        "page": lambda: person.anonymous.get("/", headers=session).status_code == 302,
        "refresh": lambda: refresh(person) == 401,
        "asset": lambda: person.editor("x.js").status_code == 401,
        "editor": lambda: person.editor(headers=NAVIGATION).headers.get("location", "").startswith("/login"),
        "websocket": lambda: person.handshake(**person.cookie) == 401,
        "beside the editor": lambda: person.editor("_gunpowder/status").status_code == 401,
    }
    with person.websocket() as opened:
        disable(person)
        for name, closed in doors.items():
            eventually(f"closed to a disabled user: {name}", closed, within=10)
        eventually("the container has ended", lambda: person.inspect()["State"]["Status"] == "exited", within=20)
        with pytest.raises(ConnectionClosed):
            drain(opened)
    answer = staff(stack).get(f"/api/v1/workspaces/{person.id}")
    assert (answer.json()["state"], answer.json()["stop_reason"]) == ("stopped", "disabled")


def drain(opened: ClientConnection) -> None:
    """Read on until it is closed: what was on its way still arrives."""
    while True:
        opened.recv(timeout=5)


def refresh(person: Person) -> int:
    answer = person.anonymous.post("/api/v1/auth/token/refresh", json={"refresh": person.tokens["refresh"]})
    return answer.status_code


def disable(person: Person) -> None:
    person.stack.exec_in_web(
        "from django.contrib.auth import get_user_model\n"
        f"get_user_model()._default_manager.filter(pk={person.id}).update(is_active=False)\n"
    )


def staff(stack: Stack) -> httpx.Client:
    person = stack.add_user()
    stack.exec_in_web(
        "from django.contrib.auth import get_user_model\n"
        f"get_user_model()._default_manager.filter(pk={person.id}).update(is_staff=True, is_superuser=True)\n"
    )
    return stack.client(Authorization=f"Bearer {person.tokens['access']}")
