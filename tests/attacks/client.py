"""One client that reads strictly, on a connection that it uses for a second request."""

from __future__ import annotations

import base64
import hashlib
import socket
import zlib
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from tests.attacks.answers import SWITCHED, Answer, Malformed, read
from tests.suite.patience import PATIENCE
from tests.suite.waiting import together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tests.attacks.forms import Form

SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # of RFC 6455
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = base64.b64encode(hashlib.sha1(KEY.encode() + SALT, usedforsecurity=False).digest())
WHOLE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


@dataclass(frozen=True)
class Way:
    """How a client asks."""

    name: str
    method: str = "GET"
    version: str = "1.1"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    upgrades: bool = False  # a whole handshake: a tunnel may be granted
    hurried: bool = False  # sends the second request along with the first


def _but(name: str, change: Mapping[str, str | None], *, method: str = "GET", version: str = "1.1") -> Way:
    headers = {key: value for key, value in {**WHOLE, **change}.items() if value is not None}
    return Way(name, method=method, version=version, headers=tuple(headers.items()))


PLAIN = Way("GET")
HANDSHAKE = Way("handshake", headers=tuple(WHOLE.items()), upgrades=True)
WAYS = (
    PLAIN,
    Way("HEAD", method="HEAD"),
    Way("POST", method="POST", headers=(("Content-Length", "0"),)),
    # What the container does not read must not become the next request, nor its answer the next answer.
    Way("POST with a body", method="POST", headers=(("Content-Length", "70000"),), body=b"x" * 70000),
    Way("POST in chunks", method="POST", headers=(("Transfer-Encoding", "chunked"),), body=b"5\r\nhello\r\n0\r\n\r\n"),
    Way("GET and at once the next", hurried=True),
    Way(
        "POST with a body and at once the next",
        "POST",
        headers=(("Content-Length", "9"),),
        body=b"GET / HTT",
        hurried=True,
    ),
    Way("GET 1.10", version="1.10"),
    Way("GET 1.2", version="1.2"),
    Way("GET 1.0", version="1.0"),
    Way("GET 1.0 kept open", version="1.0", headers=(("Connection", "keep-alive"),)),
    Way("GET and close", headers=(("Connection", "close"),)),
    Way("GET a part", headers=(("Range", "bytes=1-2"),)),
    HANDSHAKE,
    # What a proxy in between takes for a plain request, so a tunnel would be its next answers.
    _but("handshake without Connection", {"Connection": None}),
    _but("handshake with another Connection", {"Connection": "keep-alive"}),
    _but("handshake without a key", {"Sec-WebSocket-Key": None}),
    _but("handshake with half a key", {"Sec-WebSocket-Key": "abc"}),
    _but("handshake of another version", {"Sec-WebSocket-Version": "7"}),
    _but("handshake for h2c", {"Upgrade": "h2c"}),
    _but("handshake for two", {"Upgrade": "websocket, h2c"}),
    _but("handshake by POST", {"Content-Length": "0"}, method="POST"),
    _but("handshake in 1.0", {}, version="1.0"),
)


@dataclass(frozen=True)
class Edge:
    """Where to ask, and what a second request on the same connection must be answered by us."""

    port: int
    path: str  # in front of /say/…
    headers: tuple[tuple[str, str], ...] = ()
    own_path: str = "/_nginx_health"
    own_body: bytes = b"ok\n"


def _request(edge: Edge, way: Way, target: str) -> bytes:
    pairs = [("Host", f"127.0.0.1:{edge.port}"), *edge.headers, *way.headers]
    lines = [f"{way.method} {target} HTTP/{way.version}", *(f"{name}: {value}" for name, value in pairs)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + way.body


class Wire:
    """A connection and what has come on it so far."""

    def __init__(self, port: int, *, patience: float) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=patience)
        self.data = b""
        self.ended = False

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError:
            self.ended = True

    def more(self) -> None:
        """Wait for more, or for the end."""
        try:
            part = self._socket.recv(65536)
        except ConnectionError:
            part = b""
        self.data += part
        self.ended = self.ended or not part

    def answer(self, method: str) -> Answer:
        while True:
            found = read(self.data, method=method.encode(), ended=self.ended)
            if found:
                self.data = found.rest
                return found
            try:
                self.more()
            except TimeoutError:
                raise Malformed(f"no end of the response within its time: {self.data[:200]!r}") from None

    def close(self) -> None:
        self._socket.close()


def play(edge: Edge, form: Form, way: Way, *, check: Callable[[Answer], None], patience: float = 10) -> Answer:
    """Ask for a form and return how it was answered, having asked for something of ours on the same connection.

    `check` looks at the headers, a granted tunnel's too. Raises Malformed where the client is given anything but one
    well-formed response, or where anything of it is left on the connection.
    """
    said = ".".join(base64.urlsafe_b64encode(zlib.compress(piece)).decode() for piece in form.pieces)
    wire = Wire(edge.port, patience=patience * PATIENCE)
    try:
        own_request = _request(edge, PLAIN, edge.own_path)
        target = f"{edge.path}say/{said}{'?hold' if form.holds else ''}"
        wire.send(_request(edge, way, target) + (own_request if way.hurried else b""))
        answer = wire.answer(way.method)
        check(answer)
        if answer.status == SWITCHED:
            _check_tunnel(answer, way)
            return answer
        if not answer.whole:
            if not wire.ended:
                raise Malformed("a response was cut short, and the connection is still open")
            return answer
        if not way.hurried:
            wire.send(own_request)
        while not wire.data and not wire.ended:
            wire.more()
        if wire.ended and not wire.data:
            return answer
        own = wire.answer("GET")
        if own.status != 200 or own.body != edge.own_body or own.rest:
            raise Malformed(f"the next request was answered with {own}")
        return answer
    finally:
        wire.close()


def _check_tunnel(answer: Answer, way: Way) -> None:
    if not way.upgrades:
        raise Malformed("a tunnel that nobody asked for")
    granted = [answer.values(name) for name in (b"upgrade", b"connection", b"sec-websocket-accept")]
    if [[value.lower() for value in values] for values in granted[:2]] != [[b"websocket"], [b"upgrade"]]:
        raise Malformed(f"a tunnel that is none: {answer.headers}")
    if granted[2] != [ACCEPT]:
        raise Malformed(f"a tunnel with another key's answer: {answer.headers}")


@dataclass(frozen=True)
class Run:
    """What came of many cases."""

    answered: dict[int, int]  # how often each status
    broken: tuple[str, ...]  # what the client must never be given, with the bytes that led to it

    def __str__(self) -> str:
        statuses = ", ".join(f"{count} x {status}" for status, count in sorted(self.answered.items()))
        return f"{sum(self.answered.values())} answered ({statuses}), {len(self.broken)} broken"


def play_all(
    edge: Edge, cases: Iterable[tuple[Form, Way]], *, check: Callable[[Answer], None], within: float, clients: int = 12
) -> Run:
    """Play all cases, by several clients at once."""
    left = SimpleQueue[tuple["Form", Way]]()
    for case in cases:
        left.put(case)
    answered, broken = list[int](), list[str]()

    def work() -> None:
        while True:
            try:
                form, way = left.get_nowait()
            except Empty:
                return
            try:
                answered.append(play(edge, form, way, check=check).status)
            except Malformed as problem:
                broken.append(f"{form.name} | {way.name} | {problem} | {form.pieces!r:.2000}")

    together(*[work] * clients, within=within)
    return Run({status: answered.count(status) for status in set(answered)}, tuple(sorted(broken)))
