"""The editor's answer comes from inside a container: whatever it is, the probe says ready or not, and in time."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.suite.waiting import pause
from workspaces.runtimes import probe
from workspaces.runtimes.base import HEALTH_SECONDS, Endpoint, Health

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
BEAT = datetime(2026, 1, 1, 12, tzinfo=UTC)
MILLISECONDS = str(int(BEAT.timestamp() * 1000)).encode()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            HEAD + b'{"status":"alive","lastHeartbeat":' + MILLISECONDS + b"}",
            Health(ready=True, last_heartbeat_at=BEAT),
        ),
        (HEAD + b'{"status":"expired","lastHeartbeat":0}', Health(ready=True)),
        (HEAD + b'1f\r\n{"status":"alive"}\r\n0\r\n\r\n', Health(ready=True)),  # chunked
        (HEAD + b'{"status":"alive","lastHeartbeat":"soon"}', Health(ready=True)),
        (HEAD + b'{"status":"alive","lastHeartbeat":true}', Health(ready=True)),
        (HEAD + b'{"status":"alive","lastHeartbeat":-5}', Health(ready=True)),
        (HEAD + b'{"status":"alive","lastHeartbeat":1e300}', Health(ready=True)),
        (HEAD + b'{"status":"alive","lastHeartbeat":NaN}', Health(ready=True)),
        (HEAD + b'{"status":"alive","lastHeartbeat":Infinity}', Health(ready=True)),
        (HEAD + b'{"status":"alive","lastHeartbeat":' + b"9" * 4000 + b"}", Health(ready=True)),
        (HEAD + b'{"status":"odd"}', probe.NOT_READY),
        (HEAD + b"[]", probe.NOT_READY),
        (HEAD + b"{" * 4000, probe.NOT_READY),
        (HEAD + b'{"a":' * 1500 + b"1" + b"}" * 1500, probe.NOT_READY),
        (HEAD, probe.NOT_READY),
        (b'HTTP/1.1 302 Found\r\n\r\n{"status":"alive"}', probe.NOT_READY),
        (b"HTTP/1.1 500 Oops\r\n\r\n", probe.NOT_READY),
        (b"SSH-2.0-OpenSSH_9.2\r\n", probe.NOT_READY),
        (b"", probe.NOT_READY),
        (b"\x00\xff" * 100, probe.NOT_READY),
    ],
)
def test_what_an_answer_means(answer: bytes, expected: Health) -> None:
    assert probe.parse(answer) == expected


@given(st.binary(max_size=500))
def test_no_answer_raises(noise: bytes) -> None:
    for answer in (noise, HEAD + noise, HEAD + b'{"status":"alive","lastHeartbeat":' + noise + b"}"):
        assert isinstance(probe.parse(answer), Health)


@contextlib.contextmanager
def _server(serve: Callable[[socket.socket], None]) -> Iterator[Endpoint]:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield Endpoint(host="127.0.0.1", port=listener.getsockname()[1])
        thread.join(timeout=10)
        assert not thread.is_alive()


def _drain(connection: socket.socket) -> bytes:
    return connection.recv(65536)


def test_the_question_is_the_exact_path_and_closes() -> None:
    asked: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        asked.append(_drain(connection))
        connection.sendall(HEAD + b'{"status":"alive"}')

    with _server(serve) as endpoint:
        assert probe.probe(endpoint).ready
    assert asked[0].startswith(b"GET /healthz HTTP/1.1\r\n")
    assert b"Connection: close" in asked[0]


def test_nobody_listening_is_not_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = Endpoint(host="127.0.0.1", port=listener.getsockname()[1])
    assert probe.probe(endpoint) == probe.NOT_READY
    assert probe.port_free(endpoint)


def test_a_listener_makes_a_port_busy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not probe.port_free(Endpoint(host="127.0.0.1", port=listener.getsockname()[1]))


def test_a_flood_is_cut_off() -> None:
    def serve(connection: socket.socket) -> None:
        _drain(connection)
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b"x" * 65536)

    with _server(serve) as endpoint:
        assert not probe.probe(endpoint).ready


def test_silence_and_a_trickle_end_in_time() -> None:
    def trickle(connection: socket.socket) -> None:
        _drain(connection)
        with contextlib.suppress(OSError):
            for _ in range(40):
                connection.sendall(b"H")
                pause(0.2, because="it trickles")

    began = time.monotonic()
    with _server(trickle) as endpoint:
        assert not probe.probe(endpoint).ready
        assert time.monotonic() - began < HEALTH_SECONDS + 1.5
