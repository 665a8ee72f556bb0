"""Health checks of the application's containers: `python health.py web | worker | beat | hasher`.

Standard library only.
Exit status 0 and silence when all is well; 1 and one line that says what is wrong otherwise.
"""

from __future__ import annotations

import os
import socket
import sys
import time

#: A node that is alive touches its file every 10 to 15 seconds.
STALE_SECONDS = 60

#: A hash takes half a second.
HUNG_SECONDS = 30

ALIVE_FILES = {
    "worker": ("/tmp/alive-lifecycle", "/tmp/alive-sweeps"),
    "beat": ("/tmp/alive-beat",),
}


def web() -> str | None:
    # By hand: http.client imports TLS and an e-mail parser, which is most of what such a check would cost.
    try:
        with socket.create_connection(("127.0.0.1", 8000), timeout=4) as connection:
            # The host name is one that every configuration allows.
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            answer = connection.makefile("rb").readline(1024)
    except OSError as error:
        return f"web does not answer: {error}"
    words = answer.split()
    if len(words) > 1 and words[1] == b"200":
        return None
    return f"web answers {answer.decode(errors='replace').strip() or 'nothing'}"


def alive(paths: tuple[str, ...]) -> str | None:
    for path in paths:
        try:
            age = time.time() - os.stat(path).st_mtime  # noqa: PTH116 - pathlib costs more than this check
        except OSError as error:
            return f"no sign of life: {error}"
        if age > STALE_SECONDS:
            return f"{path} is {age:.0f} s old"
    return None


def hasher() -> str | None:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(4)
            connection.connect("/run/gunpowder/hasher/hasher.sock")
            connection.sendall(b"{}\n")
            answer = connection.makefile("rb").readline(1024)
    except OSError as error:
        return f"hasher does not answer: {error}"
    # By hand, as above: {"waiting": 2, "working": 0.3}
    words = answer.decode(errors="replace").strip(" {}\n").replace(",", "").split()
    if len(words) != 4 or words[0] != '"waiting":':
        return f"hasher answers {answer!r}"
    return None if float(words[3]) < HUNG_SECONDS else f"hasher works on one hash since {words[3]} s"


def main(arguments: list[str]) -> int:
    service = arguments[0] if arguments else ""
    if service == "web":
        problem = web()
    elif service == "hasher":
        problem = hasher()
    elif service in ALIVE_FILES:
        problem = alive(ALIVE_FILES[service])
    else:
        problem = f"unknown service {service!r}"
    if problem:
        print(problem)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
