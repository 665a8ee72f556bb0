"""The id that the gate sees is the id that is routed on, however the path is spelled; and errors have one shape."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

import pytest

from tests.e2e.stack import ASSET, MARK, NAVIGATION, Person, RawAnswer, Stack
from tests.suite.programs import attempt
from tests.suite.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

# From A to B. {a} and {b} are the ids; each is followed by the path of B's file.
DETOURS = (
    "/code/user/{a}/../{b}/",
    "/code/user/{a}/%2e%2e/{b}/",
    "/code/user/{a}/%2E%2e/{b}/",
    "/code/user/{a}/.%2e/{b}/",
    "/code/user/{a}/..%2f{b}/",
    "/code/user/{a}/%2e%2e%2f{b}%2f",
    "/code/user/{a}/%252e%252e/{b}/",
    "/code/user/{a}/%252e%252e%252f{b}/",
    "/code/user/{a}/..\\{b}/",
    "/code/user/{a}/..%5c{b}/",
    "/code/user/{a}/..;/{b}/",
    "/code/user/{a}/..;x=y/{b}/",
    "/code/user/{a}/;/../{b}/",
    "/code/user/{a}/x/../../{b}/",
    "/code/user/{a}/./../{b}/",
    "/code/user/{a}//../../{b}/",
    "/code/user/{a}/..//{b}/",
    "/code/user/{a}%2f..%2f{b}/",
    "/code/user/{a}/..%00/{b}/",
    "/code/user/{a}/../../user/{b}/",
    "/code/../code/user/{b}/",
    "/./code/user/{b}/",
    "//code/user/{b}/",
    "/code//user/{b}/",
    "/code/user//{b}/",
    "/code/user/{b}//",
    "/code/user/{b};/",
    "/code/user/{b}%20/",
    "/code/user/{b}%0d%0aX-Gate-Workspace:%20{a}/",
    "/%63ode/user/{b}/",
    "/code/user/{a}/#/../../{b}/",
    "http://127.0.0.1/code/user/{b}/",
    "http://evil.example/code/user/{a}/../{b}/",
    "http://127.0.0.1/code/user/{a}/%2e%2e/{b}/",
)
# The one spelling of an id is decimal ASCII without a sign or a leading zero.
ODD_IDS = (
    "0{id}",
    "00{id}",
    "+{id}",
    "-{id}",
    "%2B{id}",
    "{id}.0",
    "{id}e0",
    "0x{id}",
    "%20{id}",
    "{id}%20",
    "%D9%A{id}",  # Arabic-Indic digits
    "%EF%BC%9{id}",  # full-width digits
    "{id}%00",
    "{id}%0d",
    "{id}%0a",
    "{id}%c2%a0",
    "1" * 20,
    "9" * 18,
    "9" * 400,
    "",
    "0",
    "None",
    "{id},{id}",
    "{id}/..",
)


def expect_not_opened(answer: RawAnswer, whose: Person, asked: str) -> None:
    """Whatever was answered, it was a clean no, and not a byte of that person's."""
    assert whose.mark.encode() not in answer.body, asked
    assert answer.status in {302, 400, 401, 403, 404, 503}, f"{asked}: {answer}"
    assert "x-workspace-upstream" not in answer.headers


def ask(stack: Stack, target: str, headers: Mapping[str, str], *, method: str = "GET") -> RawAnswer:
    return stack.ask_raw(target.encode().decode("latin-1"), headers=headers, method=method)


@pytest.mark.parametrize("detour", DETOURS)
def test_no_spelling_leads_from_one_editor_to_another(alice: Person, bob: Person, detour: str) -> None:
    asked = detour.format(a=alice.id, b=bob.id) + MARK
    for headers in (ASSET, NAVIGATION):
        expect_not_opened(ask(alice.stack, asked, {**headers, **alice.cookie}), bob, asked)
        expect_not_opened(ask(alice.stack, asked, headers), bob, asked)


@pytest.mark.parametrize("odd", ODD_IDS)
def test_an_id_has_one_spelling(alice: Person, odd: str) -> None:
    asked = f"/code/user/{odd.format(id=alice.id)}/{MARK}"
    expect_not_opened(ask(alice.stack, asked, {**ASSET, **alice.cookie}), alice, asked)
    bare = f"/code/user/{odd.format(id=alice.id)}"
    assert ask(alice.stack, bare, {**NAVIGATION, **alice.cookie}).status in {302, 400, 404}


def test_the_paths_of_the_editor_itself_arrive_untouched(alice: Person) -> None:
    """Encoded slashes and doubled ones are the editor's business as long as the id is not in doubt."""
    for path in ("%2Fhome%2Fcoder%2Fworkspace%2Fwhose.txt", "/home/coder/workspace/%77hose.txt"):
        answer = ask(alice.stack, f"{alice.path}vscode-remote-resource?path={path}", {**ASSET, **alice.cookie})
        assert (answer.status, answer.body.decode().strip()) == (200, alice.mark), path
    for tail in ("a%2Fb", "a//b", "a%20b/%C3%A9", "..a/b", "a../b", "a;b"):
        assert ask(alice.stack, alice.path + tail, {**ASSET, **alice.cookie}).status == 404, tail


def test_an_absolute_request_line_is_judged_by_its_path(alice: Person, bob: Person) -> None:
    own = ask(alice.stack, f"{alice.stack.url}{alice.path}{MARK}", {**ASSET, **alice.cookie})
    assert (own.status, own.body.decode().strip()) == (200, alice.mark)
    for host in ("evil.example", "127.0.0.1:1"):
        answer = ask(alice.stack, f"http://{host}{bob.path}{MARK}", {**ASSET, **alice.cookie})
        expect_not_opened(answer, bob, host)


def test_what_two_programs_could_read_differently_is_refused(stack: Stack, alice: Person) -> None:
    line, cookie = f"GET {alice.path}{MARK} HTTP/1.1\r\n", f"Cookie: {alice.cookie['Cookie']}\r\n"
    host = f"Host: 127.0.0.1:{stack.port}\r\n"
    doubtful = {
        "two Hosts": f"{line}{host}{host}{cookie}\r\n",
        "no Host": f"{line}{cookie}\r\n",
        "two lengths": f"{line}{host}{cookie}Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        "length and chunks": f"{line}{host}{cookie}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "odd transfer encoding": f"{line}{host}{cookie}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "a space in the path": f"GET {alice.path}{MARK} x HTTP/1.1\r\n{host}{cookie}\r\n",
        "not HTTP": "\x16\x03\x01\x02\x00\r\n\r\n",
    }
    for name, request in doubtful.items():
        answer = RawAnswer(stack.raw(request.encode("latin-1")))
        assert answer.status in {400, 501}, f"{name}: {answer}"


# --- what a client may not say ---


def test_a_client_cannot_say_where_it_is_routed(alice: Person, bob: Person) -> None:
    names = ("X-Workspace-Upstream", "X_Workspace_Upstream", "X-Gate-Workspace", "X_Gate_Workspace", "X-Original-Uri")
    values = (f"127.0.0.1:{bob.own_port}", f"127.0.0.1:{bob.own_port}", str(bob.id), str(bob.id), bob.path + MARK)
    spoofed = dict(zip(names, values, strict=True))
    answer = ask(alice.stack, alice.path + MARK, {**ASSET, **alice.cookie, **spoofed})
    assert answer.body.decode().strip() == alice.mark
    expect_not_opened(ask(alice.stack, bob.path + MARK, {**ASSET, **alice.cookie, **spoofed}), bob, "spoofed")
    expect_not_opened(ask(alice.stack, bob.path + MARK, {**ASSET, **spoofed}), bob, "spoofed, no ticket")


@pytest.mark.parametrize("path", ["/_gate", "/_explain", "/_gate/", "/_gate?x", "/%5fgate", "/_error/json/400x", "/_"])
def test_what_is_between_nginx_and_web_answers_nobody_else(alice: Person, path: str) -> None:
    claims = {"X-Gate-Key": "guess", "X_Gate_Key": "guess", "X-Gate-Workspace": str(alice.id)}
    for method in ("GET", "POST"):
        answer = ask(alice.stack, path, {**claims, **alice.cookie}, method=method)
        # A POST without our form is refused by the web app's own guard before anything else.
        assert answer.status in ({404} if method == "GET" else {403, 404}), answer
        assert not {"x-workspace-upstream", "x-workspace-cookie", "x-gate-outcome"} & set(answer.headers)


def test_the_gate_answers_nobody_on_the_inner_network_without_the_key(stack: Stack, alice: Person) -> None:
    code = (
        "import http.client, sys\n"
        "c = http.client.HTTPConnection('127.0.0.1', 8000)\n"
        f"headers = {{'Host': '127.0.0.1', 'X-Gate-Workspace': '{alice.id}', 'Cookie': sys.argv[1]}}\n"
        "for key in (None, '', 'guess'):\n"
        "    c.request('GET', '/_gate', headers=headers | ({} if key is None else {'X-Gate-Key': key}))\n"
        "    r = c.getresponse(); r.read(); print(r.status)\n"
    )
    assert stack.exec_in("web", "python", "-c", code, alice.cookie["Cookie"]).split() == ["404"] * 3


def test_figures_are_for_the_inner_network(stack: Stack) -> None:
    for path in ("/metrics", "/metrics/", "/%6detrics", "/metrics?x", "//metrics", "/./metrics", "/api/../metrics"):
        assert ask(stack, path, {}).status == 404, path
    inside = stack.exec_in(
        "web",
        "python",
        "-c",
        "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8000/metrics').read().decode())",
    )
    assert 'gunpowder_workspaces{state="running"}' in inside


# --- errors ---


def test_errors_that_nginx_makes_under_api_have_the_one_shape(stack: Stack) -> None:
    big = b"x" * (2 * 2**20)
    head = "POST /api/v1/auth/token HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    head += f"Content-Length: {len(big)}\r\n\r\n"
    answers = {
        413: RawAnswer(stack.raw(head.encode() + big)),
        414: ask(stack, "/api/v1/" + "a" * 20_000, {}),
        400: RawAnswer(stack.raw(b"GET /api/v1/auth/me HTTP/1.1\r\nConnection: close\r\n\r\n")),
        404: ask(stack, "/api/v1/nothing", {}),
    }
    for status, answer in answers.items():
        assert answer.status == status, answer
        assert answer.headers["content-type"] == "application/json", answer
        assert set(json.loads(answer.body)) == {"code", "message", "detail"}
    long_header = ask(stack, "/api/v1/auth/me", {"X-Long": "a" * 20_000})
    assert long_header.status in {400, 431}
    assert set(json.loads(long_header.body)) == {"code", "message", "detail"}


def test_errors_elsewhere_are_pages(stack: Stack) -> None:
    for target, status in (("/nothing", 404), ("/" + "a" * 20_000, 414), ("/apiary", 404)):
        answer = ask(stack, target, {"Accept": "text/html"})
        assert answer.status == status
        assert answer.headers["content-type"].startswith("text/html"), target


def test_a_host_that_is_not_ours_is_refused_everywhere(stack: Stack, alice: Person) -> None:
    for path in ("/", "/login", "/api/v1/auth/me", alice.path, alice.path + MARK):
        answer = ask(stack, path, {**NAVIGATION, **alice.cookie, "Host": "evil.example"})
        assert answer.status == 400, f"{path}: {answer}"
        assert alice.mark.encode() not in answer.body
    assert set(json.loads(ask(stack, "/api/v1/auth/me", {"Host": "evil.example"}).body)) == {
        "code",
        "message",
        "detail",
    }


LONG = {
    "as it is": "/?" + "a" * 15_000,
    "longer when it is repeated": "/?" + "%22" * 5_000,
    "in the admin": "/admin/?" + '"' * 15_000,
    "for a page without its slash": "/admin/auth/user?" + "a" * 15_000,
    "of an editor": "/code/user/1/?" + "&" * 15_000,
    "of an editor, as long as is repeated": "/code/user/1/?" + "&" * 2_000,
}


@pytest.mark.parametrize("kind", LONG)
def test_a_long_address_is_answered(stack: Stack, kind: str) -> None:
    """By a redirect, which repeats it and is longer still, or by a page that says that it cannot be meant."""
    answer = stack.ask_raw(LONG[kind], headers=NAVIGATION)
    if answer.status == 400:
        assert b"This request was not understood" in answer.body
    else:
        assert answer.status in {301, 302}, answer


def test_after_the_log_in_an_editor_gets_its_query_back(stack: Stack) -> None:
    there = stack.ask_raw("/code/user/1/?folder=/a%20b&x=" + "y" * 1_500, headers=NAVIGATION).headers["location"]
    assert there.startswith("/login?next=/code/user/1/%3Ffolder%3D/a%2520b%26x%3Dyyy")
    beyond = stack.ask_raw("/code/user/1/?" + "y" * 2_100, headers=NAVIGATION).headers["location"]
    assert beyond == "/login?next=/code/user/1/"


def test_cookies_of_any_length_are_no_error(alice: Person) -> None:
    """Where nginx has no room to remember them by, it asks the gate each time, and says nothing of it."""
    stack, word = alice.stack, secrets.token_hex(8)
    cookie = f"{alice.cookie['Cookie']}; long={'x' * 9_000}"
    for _ in range(2):
        assert alice.editor("healthz", headers={**ASSET, "Cookie": cookie}).status_code == 200
    stack.ask_raw(f"/static/{word}", headers=NAVIGATION)

    def logged() -> str:
        log = attempt("docker", "logs", "--tail", "100", stack.service("nginx"), within=20, together=True).stdout
        return log if word in log else ""

    assert "is not enough" not in eventually("nginx has logged what came after", logged, within=20)


def test_no_query_is_in_the_log_of_nginx(alice: Person) -> None:
    """Neither of requests nor of errors, with whatever stands around it: it may hold what opens a door."""
    stack, word = alice.stack, "q" + secrets.token_hex(8)
    marker = f"no-such-file-{word[:8]}"
    stack.ask_raw(f"/?tkn={word}", headers=NAVIGATION)
    stack.ask_raw(f'/static/{marker}?a="b"&tkn={word}', headers={"Referer": f'{stack.url}/login?a="b"&next={word}'})
    for query in (f"tkn={word}", f'"?tkn={word}', f"\u00ff?tkn={word}"):
        large = f"POST /?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\nConnection: close\r\n\r\n"
        stack.raw(large.encode("latin-1"))

    def logged() -> str:
        log = attempt("docker", "logs", "--tail", "400", stack.service("nginx"), within=20, together=True).stdout
        return log if marker in log and "too large body" in log else ""

    seen = eventually("nginx has logged the errors", logged, within=20)
    assert word not in seen
    assert f'"GET /static/{marker}?...", host:' in seen
