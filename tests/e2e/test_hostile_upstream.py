"""What runs in the container is hostile: code-server is replaced by a program that tells what it is sent, and lies."""

from __future__ import annotations

import json
import secrets
import socket
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.e2e.stack import ASSET, NAVIGATION, SESSION, TICKET, Person, Stack
from tests.e2e.usurping import usurp
from tests.suite.programs import attempt
from tests.suite.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

# In the editor's place: tells what it is sent, and answers what it is asked to.
USURPER = r"""
import http.server, json, socketserver, time, urllib.parse

class Hostile(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def say(self, body, headers=(), status=200):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_any(self):
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qsl(url.query)
        if url.path == "/healthz":
            beat = {"status": "alive", "lastHeartbeat": int(time.time() * 1000)}
            return self.say(json.dumps(beat).encode(), [("Content-Type", "application/json")])
        if url.path == "/answer":  # every pair of the query as a header
            return self.say(b"from the container", query)
        if url.path == "/stream":
            self.send_response(200)
            for name, value in query:
                self.send_header(name, value)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(4):
                self.wfile.write(b"7\r\nchunk-%d\r\n" % number)
                self.wfile.flush()
                time.sleep(0.5)
            self.wfile.write(b"0\r\n\r\n")
            return None
        size = 0
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while length := int(self.rfile.readline(), 16):
                size += len(self.rfile.read(length))
                self.rfile.readline()
            self.rfile.readline()
        left = int(self.headers.get("Content-Length", 0))
        while left:
            part = self.rfile.read(min(left, 1 << 20))
            size, left = size + len(part), left - len(part)
        told = {"method": self.command, "path": self.path, "headers": self.headers.items(), "size": size}
        self.say(json.dumps(told).encode(), [("Content-Type", "application/json")])

    do_GET = do_POST = do_PUT = do_OPTIONS = handle_any

class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    allow_reuse_address = True

for attempt in range(100):
    try:
        server = Server(("0.0.0.0", 8080), Hostile)
        break
    except OSError:
        time.sleep(0.05)
server.serve_forever()
"""
DANGEROUS = {
    "Set-Cookie": f"{TICKET}=evil; Path=/",
    "Service-Worker-Allowed": "/",
    "Clear-Site-Data": '"*"',
    "Strict-Transport-Security": "max-age=99999999; includeSubDomains",
    "Public-Key-Pins": "max-age=1",
    "Alt-Svc": 'h3=":443"; ma=86400',
    "Refresh": "0; url=http://evil.example/",
    "Report-To": '{"group":"x"}',
    "Reporting-Endpoints": 'x="http://evil.example/"',
    "NEL": '{"report_to":"x"}',
    "X-Accel-Expires": "3600",
    "X-Accel-Limit-Rate": "1",
    "X-Accel-Buffering": "yes",
    "X-Accel-Charset": "utf-7",
    "WWW-Authenticate": 'Basic realm="Gunpowder"',
    "Proxy-Authenticate": "Basic realm=x",
    "Authentication-Info": "nextnonce=x",
    "Access-Control-Allow-Origin": "https://evil.example",
    "Access-Control-Allow-Credentials": "true",
    "Accept-CH": "Sec-CH-UA-Model",
    "Critical-CH": "Sec-CH-UA-Model",
    "Set-Login": "logged-out",
    "Secure-Session-Registration": '(ES256);path="/x"',
    "Sec-Session-Registration": '(ES256);path="/x"',
    "Speculation-Rules": '"/rules.json"',
    "Use-As-Dictionary": 'match="/*"',
    "Activate-Storage-Access": "load",
    "Origin-Agent-Cluster": "?0",
    "Permissions-Policy": "camera=*",
    "Document-Policy": "js-profiling",
    "Timing-Allow-Origin": "*",
    "SourceMap": "/login",
    "Link": "</admin/>; rel=preload; as=fetch",
    "No-Vary-Search": "params",
    "Content-Security-Policy-Report-Only": "default-src 'none'; report-uri http://evil.example/",
    "Expect-CT": "max-age=1",
    "X-Frame-Options": "ALLOWALL",
    "X-XSS-Protection": "1; report=http://evil.example/",
    "X-DNS-Prefetch-Control": "on",
    "X-Gate-Outcome": "yours",
    "X-Gate-Key": "guess",
    "X-Workspace-Upstream": "127.0.0.1:1",
    "X-Workspace-Cookie": "x=y",
    "X-Request-Id": "f" * 32,
    "X-Powered-By": "evil",
    "Server": "evil",
    "Via": "1.1 evil",
    "Age": "1",
    "Upgrade": "h2c",
    "Sec-WebSocket-Accept": "x",
    "Trailer": "Set-Cookie",
    "Surrogate-Control": "max-age=999",
    "CDN-Cache-Control": "max-age=999",
    "Vendor-Header-Of-Tomorrow": "x",
}
# What a container may say about its own answer.
HARMLESS = {
    "Content-Type": "text/plain; charset=utf-8",
    "Content-Language": "tlh",
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "sandbox",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "ETag": '"1"',
    "Expires": "Thu, 01 Dec 1994 16:00:00 GMT",
    "Last-Modified": "Thu, 01 Dec 1994 16:00:00 GMT",
    "Accept-Ranges": "bytes",
    "Vary": "Accept-Encoding",
    "Location": "/elsewhere",
    "Retry-After": "5",
}
# How long a browser keeps it is the container's to say; that no cache of others does is ours.
CACHING = {
    "": "private, no-cache",
    "public": "private, no-cache",
    "public, max-age=31536000": "private, max-age=31536000",
    "max-age=60": "private, max-age=60",
    "public, max-age=31536000, immutable": "private, max-age=31536000, immutable",
    "immutable, max-age=5": "private, max-age=5, immutable",
    "s-maxage=999": "private, no-cache",
    "public, s-maxage=999, max-age=7": "private, max-age=7",
    "no-cache, max-age=7": "private, no-cache",
    "NO-STORE": "no-store",
    "max-age=1234567890123": "private, no-cache",
    'max-age=1"; public': "private, max-age=1",
    "x-max-age=5": "private, no-cache",
}
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Version": "13",
}
# What a client may claim and no container must hear.
CLAIMS = {
    "Authorization": "Bearer stolen",
    "Proxy-Authorization": "Basic eDp5",
    "X-Forwarded-For": "10.0.0.1",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Port": "1",
    "X-Forwarded-Prefix": "/x",
    "X-Forwarded-User": "root",
    "X-Real-Ip": "10.0.0.1",
    "Forwarded": "for=10.0.0.1",
    "Via": "1.1 evil",
    "X-Workspace-Upstream": "127.0.0.1:1",
    "X-Workspace-Cookie": "x=y",
    "X-Workspace-User": "1",
    "X_Workspace_User": "1",
    "X-Gate-Key": "guess",
    "X-Gate-Workspace": "1",
    "X_Gate_Key": "guess",
    "X-Original-Uri": "/",
    "X-Original-Method": "GET",
    "X-Csrftoken": "secret",
    "X-Request-Id": "f" * 32,
}


@pytest.fixture(scope="module")
def mallory(stack: Stack) -> Iterator[Person]:
    """Somebody who has replaced their editor by a program of their own."""
    person = stack.add_user()
    person.start_and_wait()
    usurp(person, USURPER)
    eventually("the other program answers", lambda: person.editor("echo").text.startswith('{"method"'), within=15)
    yield person
    person.leave()


def told(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text[:300]
    found: dict[str, Any] = answer.json()
    found["headers"] = {name.lower(): value for name, value in found["headers"]}
    return found


def test_nothing_of_the_platform_reaches_the_container(mallory: Person) -> None:
    cookies = [f"{TICKET}={mallory.ticket}", f"{SESSION}=stolen", "gunpowder_csrf=stolen", "other=1"]
    headers = {**ASSET, **CLAIMS, "Cookie": "; ".join(cookies)}
    heard = told(mallory.anonymous.get(f"{mallory.path}echo", headers=headers))["headers"]
    name, _, secret = heard.pop("cookie").partition("=")
    assert name == "code-server-session"
    assert ";" not in secret
    assert mallory.ticket not in json.dumps(heard)
    assert not {claim.lower() for claim in CLAIMS} & set(heard)
    assert not [name for name in heard if name.startswith(("x-", "x_", "forwarded", "proxy"))]
    assert heard["host"] == f"127.0.0.1:{mallory.stack.port}"


def test_a_handshake_tells_the_container_no_more(mallory: Person) -> None:
    headers = {**CLAIMS, **mallory.cookie, **HANDSHAKE}
    heard = told(mallory.anonymous.get(f"{mallory.path}echo", headers=headers))["headers"]
    assert (heard["upgrade"], heard["connection"]) == ("websocket", "upgrade")
    assert not {claim.lower() for claim in CLAIMS} & set(heard)
    assert heard["cookie"].startswith("code-server-session=")


@pytest.mark.parametrize("upgrade", ["h2c", "websocket, h2c", "TLS/1.0", "x"])
def test_no_other_upgrade_is_passed_on(mallory: Person, upgrade: str) -> None:
    headers = {
        **ASSET,
        **mallory.cookie,
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": upgrade,
        "HTTP2-Settings": "AA",
    }
    heard = told(mallory.anonymous.get(f"{mallory.path}echo", headers=headers))["headers"]
    assert "upgrade" not in heard
    assert heard.get("connection", "close") in {"close", "keep-alive"}


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS"])
def test_only_a_get_may_ask_for_a_tunnel(mallory: Person, method: str) -> None:
    headers = {**ASSET, **mallory.cookie, **HANDSHAKE}
    heard = told(mallory.anonymous.request(method, f"{mallory.path}echo", headers=headers))
    assert heard["method"] == method
    assert "upgrade" not in heard["headers"]


@pytest.mark.parametrize("name", DANGEROUS)
def test_a_header_that_acts_on_our_origin_does_not_come_out(mallory: Person, name: str) -> None:
    asked = httpx.QueryParams({name: DANGEROUS[name], "Content-Language": "tlh"})
    answer = mallory.editor(f"answer?{asked}")
    assert (answer.status_code, answer.text) == (200, "from the container")
    assert answer.headers["content-language"] == "tlh"
    assert answer.headers.get(name) in {None, "nginx"}  # which it says of itself


def test_a_header_that_says_something_of_its_own_answer_comes_out(mallory: Person) -> None:
    answer = mallory.editor(f"answer?{httpx.QueryParams(HARMLESS)}")
    assert {name: answer.headers.get(name) for name in HARMLESS} == HARMLESS
    assert (answer.headers["x-content-type-options"], answer.headers["referrer-policy"]) == ("nosniff", "same-origin")


@pytest.mark.parametrize("said", CACHING)
def test_what_is_one_users_stays_in_their_own_browser(mallory: Person, said: str) -> None:
    answer = mallory.editor(f"answer?{httpx.QueryParams({'Cache-Control': said} if said else {})}")
    assert answer.text == "from the container"
    assert answer.headers.get_list("cache-control") == [CACHING[said]]


def test_what_nginx_logs_of_a_refused_answer_has_no_query(mallory: Person) -> None:
    word = "q" + secrets.token_hex(8)
    answer = mallory.editor(f"answer?{httpx.QueryParams({'folder': word, 'ETag': chr(1)})}")
    assert answer.status_code == 503

    def logged() -> str:
        log = attempt(
            "docker", "logs", "--tail", "200", mallory.stack.service("nginx"), within=20, together=True
        ).stdout
        return "\n".join(line for line in log.splitlines() if "/answer?..." in line)

    seen = eventually("nginx has logged the refusal", logged, within=20)
    assert "upstream: " in seen
    assert word not in seen


@pytest.mark.parametrize(
    "target", ["/_gate", "/_explain", "/_error/json/400", "/login", "/static/workspaces/home.js", "@explain"]
)
def test_a_container_sends_nobody_to_an_inner_place(mallory: Person, target: str) -> None:
    for headers in (ASSET, NAVIGATION):
        answer = mallory.editor(f"answer?{httpx.QueryParams({'X-Accel-Redirect': target})}", headers=headers)
        assert (answer.status_code, answer.text) == (200, "from the container")
        assert "x-accel-redirect" not in answer.headers


@pytest.mark.parametrize("buffering", ["", "X-Accel-Buffering=yes"])
def test_a_stream_is_not_held_back(mallory: Person, buffering: str) -> None:
    with mallory.anonymous.stream(
        "GET", f"{mallory.path}stream?{buffering}", headers={**ASSET, **mallory.cookie}
    ) as answer:
        arrived = [time.monotonic() for _ in answer.iter_raw()]
    assert len(arrived) >= 4, "the chunks came in one piece"
    assert arrived[-1] - arrived[0] > 0.8


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_large_upload_arrives_whole(mallory: Person, chunked: bool) -> None:  # noqa: FBT001 - a parameter
    size = 30 * 2**20
    body = (b"x" * 2**20 for _ in range(30)) if chunked else b"x" * size
    answer = mallory.anonymous.post(f"{mallory.path}upload", content=body, headers={**ASSET, **mallory.cookie})
    assert told(answer)["size"] == size


def test_an_upload_that_may_not_in_is_refused_without_being_read(mallory: Person) -> None:
    """It would land in nginx's own small /tmp."""
    head = (
        f"POST {mallory.path}upload HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {2**40}\r\n\r\n"
    )
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", mallory.stack.port), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
    assert time.monotonic() - began < 5
    small = mallory.anonymous.post(f"{mallory.path}upload", content=b"x" * 2**19, headers=ASSET)
    assert small.status_code == 401


def test_the_raw_path_arrives_as_it_was_sent(mallory: Person) -> None:
    for tail in ("a%2Fb", "a//b", "%E2%82%AC?q=%2F..%2F", "a%25b", "a;b=c", "a+b", "~x?a=b?c"):
        answer = mallory.stack.ask_raw(f"{mallory.path}{tail}", headers={**ASSET, **mallory.cookie})
        assert json.loads(answer.body)["path"] == f"/{tail}"


def test_a_lie_about_its_health_starts_and_stops_nothing(mallory: Person) -> None:
    """It says that it is alive, so it stays; and its owner can still stop and start the real one."""
    assert mallory.status()["state"] == "running"
