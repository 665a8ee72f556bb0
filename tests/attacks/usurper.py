"""Runs inside a workspace as its user, in the editor's place, and answers whatever bytes it is asked to answer.

The path says what: /say/PIECE.PIECE…?hold, each piece compressed, in URL-safe base64. No import beyond the standard
library's.
"""

import base64
import contextlib
import hashlib
import json
import socket
import threading
import time
import zlib

PORT = 8080
SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # of RFC 6455
NEVER = threading.Event()


def head_of(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            break
        data += part
    return data


def accept_for(head: bytes) -> bytes:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"sec-websocket-key":
            return base64.b64encode(hashlib.sha1(value.strip() + SALT, usedforsecurity=False).digest())
    return b"none"


def answer(connection: socket.socket) -> None:
    with connection:
        connection.settimeout(20)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = head_of(connection)
        target = head.split(b" ", 2)[1] if head.count(b" ") > 1 else b"/"
        if target.startswith(b"/healthz"):
            body = json.dumps({"status": "alive", "lastHeartbeat": int(time.time() * 1000)}).encode()
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            )
            connection.sendall(body)
            return
        _, asked, said = target.partition(b"/say/")
        if not asked:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nusurper")
            return
        said, _, query = said.partition(b"?")
        for number, piece in enumerate(said.split(b".")):
            if number:
                NEVER.wait(0.02)
            said_now = zlib.decompress(base64.urlsafe_b64decode(piece))
            connection.sendall(said_now.replace(b"@ACCEPT@", accept_for(head)))
        if query == b"hold":
            connection.settimeout(1)
            while connection.recv(65536):
                pass


def answer_quietly(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # whoever asked has gone
        answer(connection)


if __name__ == "__main__":
    for _ in range(200):
        try:
            server = socket.create_server(("0.0.0.0", PORT), backlog=200)  # noqa: S104 - as the editor does
            break
        except OSError:
            NEVER.wait(0.05)
    while True:
        threading.Thread(target=answer_quietly, args=(server.accept()[0],), daemon=True).start()
