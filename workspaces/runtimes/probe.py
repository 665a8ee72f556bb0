"""Asks an editor for its health and its report over a bare socket: exact path, closed at once, bounded.

Measured on code-server 4.139.1: any other spelling of the path, and a connection kept alive, count as activity (the
workspace's image adds the report's path to the one that does not).
The answer comes from inside a container, so it is treated as hostile.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from workspaces import naming
from workspaces.errors import RuntimeUnavailable
from workspaces.runtimes.base import HEALTH_SECONDS, Health
from workspaces.runtimes.report import MAX_BYTES as MAX_REPORT_BYTES
from workspaces.runtimes.report import parse_report

if TYPE_CHECKING:
    from workspaces.runtimes.base import Endpoint, Report

_MAX_BYTES = 8192
_HEAD = "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n"
_HEALTH = _HEAD.format(path="/healthz", more="").encode()
_REPORT = f"/vscode-remote-resource?path={naming.REPORT_FILE}"
NOT_READY = Health(ready=False)
_TCP_TABLE = Path("/proc/net/tcp")
_ESTABLISHED = "01"


def probe(endpoint: Endpoint, *, seconds: float = HEALTH_SECONDS) -> Health:
    """Return the editor's health; anything unexpected is `ready=False`, never an exception."""
    try:
        answer = _ask(endpoint, _HEALTH, seconds=seconds, most=_MAX_BYTES)
    except OSError:
        return NOT_READY
    return parse(answer)


def parse(answer: bytes) -> Health:
    """Read `{"status": …, "lastHeartbeat": milliseconds}` out of a raw HTTP answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b"\r\n", 1)[0].split(b" ")
    if len(status) < 2 or status[1] != b"200":  # noqa: PLR2004 - "HTTP/1.1 200"
        return NOT_READY
    start, end = body.find(b"{"), body.rfind(b"}")
    try:
        found = json.loads(body[start : end + 1])
    except (ValueError, RecursionError):
        return NOT_READY
    if not isinstance(found, dict) or found.get("status") not in {"alive", "expired"}:
        return NOT_READY
    return Health(ready=True, last_heartbeat_at=_moment(found.get("lastHeartbeat")))


def read_report(endpoint: Endpoint, *, secret: str, seconds: float = HEALTH_SECONDS) -> Report:
    """Return what the workspace says of itself. Raises RuntimeUnavailable when there was no whole answer in time."""
    more = f"Cookie: code-server-session={secret}\r\nAccept-Encoding: identity\r\n"
    try:
        answer = _ask(endpoint, _HEAD.format(path=_REPORT, more=more).encode(), seconds=seconds, most=MAX_REPORT_BYTES)
    except OSError as error:
        raise RuntimeUnavailable(f"The workspace at {endpoint} did not answer ({type(error).__name__}).") from error
    if not answer:
        raise RuntimeUnavailable(f"The workspace at {endpoint} hung up without an answer.")
    return parse_report(answer, now=datetime.now(tz=UTC))


def connected(endpoint: Endpoint) -> bool | None:
    """Whether somebody is connected to `endpoint` now: an open tab, through nginx on this host.

    The editor's own heartbeat is a minute coarse, so an idle limit near that would stop an editor in use. None where
    the kernel does not tell.
    """
    try:
        table = _TCP_TABLE.read_text(encoding="ascii")
    except OSError:
        return None
    return connected_in(table, endpoint, not_of=os.getuid())


def connected_in(table: str, endpoint: Endpoint, *, not_of: int) -> bool:
    """The same for the text of the kernel's table; connections of user `not_of`, our own probes, do not count."""
    address = int.from_bytes(socket.inet_aton(endpoint.host), sys.byteorder)
    remote = f"{address:08X}:{endpoint.port:04X}"
    rows = (line.split() for line in table.splitlines()[1:])
    return any(row[2] == remote and row[3] == _ESTABLISHED and int(row[7]) != not_of for row in rows)


def port_free(endpoint: Endpoint) -> bool:
    """Whether nothing listens at `endpoint` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe_socket:
        # Without this a connection that has just ended (TIME_WAIT) would look like a listener.
        probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe_socket.bind((endpoint.host, endpoint.port))
        except OSError:
            return False
    return True


def _ask(endpoint: Endpoint, request: bytes, *, seconds: float, most: int) -> bytes:
    """Send `request` and return at most `most` bytes of the answer. Raises TimeoutError after `seconds` in all."""
    deadline = time.monotonic() + seconds
    answer = b""
    with socket.create_connection((endpoint.host, endpoint.port), timeout=1.0) as connection:
        connection.sendall(request)
        while len(answer) < most:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
            part = connection.recv(most)
            if not part:
                break
            answer += part
    return answer[:most]


def _moment(value: object) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return None
    try:
        return datetime.fromtimestamp(value / 1000, tz=UTC)
    except (OverflowError, ValueError, OSError):
        return None
