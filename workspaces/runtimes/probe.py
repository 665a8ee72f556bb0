"""Asks an editor for its health over a bare socket: exact path, closed at once, bounded in time and size.

Measured on code-server 4.139.1: any other spelling of the path, and a connection kept alive, count as activity.
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

from workspaces.runtimes.base import Health

if TYPE_CHECKING:
    from workspaces.runtimes.base import Endpoint

SECONDS = 3.0
_MAX_BYTES = 8192
_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
NOT_READY = Health(ready=False)
_TCP_TABLE = Path("/proc/net/tcp")
_ESTABLISHED = "01"


def probe(endpoint: Endpoint) -> Health:
    """Return the editor's health; anything unexpected is `ready=False`, never an exception."""
    try:
        answer = _ask(endpoint, deadline=time.monotonic() + SECONDS)
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


def connected(endpoint: Endpoint) -> bool:
    """Whether somebody is connected to `endpoint` now: an open tab, through nginx on this host.

    The editor's own heartbeat is a minute coarse, so an idle limit near that would stop an editor in use.
    """
    try:
        table = _TCP_TABLE.read_text(encoding="ascii")
    except OSError:
        return False
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


def _ask(endpoint: Endpoint, *, deadline: float) -> bytes:
    answer = b""
    with socket.create_connection((endpoint.host, endpoint.port), timeout=1.0) as connection:
        connection.sendall(_REQUEST)
        while len(answer) < _MAX_BYTES:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            connection.settimeout(left)
            part = connection.recv(_MAX_BYTES)
            if not part:
                break
            answer += part
    return answer


def _moment(value: object) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return None
    try:
        return datetime.fromtimestamp(value / 1000, tz=UTC)
    except (OverflowError, ValueError, OSError):
        return None
