"""The SDK's connection to the engine, closed when nobody answers.

The SDK leaves a socket that it could not connect to the garbage collector; while the engine is away each try adds one.
"""

from __future__ import annotations

import socket
from typing import Any

from docker.transport.unixconn import UnixHTTPConnection


def _connect(self: Any) -> None:
    """As the SDK does it, but for what happens when it fails."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(self.timeout)
        connection.connect(self.unix_socket)
    except BaseException:
        connection.close()
        raise
    self.sock = connection


def close_what_does_not_connect() -> None:
    """Replace the SDK's way to connect, for every client of this process. Again: nothing more happens."""
    UnixHTTPConnection.connect = _connect  # type: ignore[method-assign]  # that is the purpose
