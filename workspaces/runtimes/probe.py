"""Asks an editor for its health over a bare socket: exact path, closed at once, bounded in time and size.

Measured on code-server 4.139.1: any other spelling of the path, and a connection kept alive, count as activity.
The answer comes from inside a container, so it is treated as hostile.
"""

from __future__ import annotations

import json
import socket
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from workspaces.runtimes.base import Health

if TYPE_CHECKING:
    from workspaces.runtimes.base import Endpoint

SECONDS = 3.0
_MAX_BYTES = 8192
_REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
NOT_READY = Health(ready=False)


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
