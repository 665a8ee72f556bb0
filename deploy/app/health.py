"""Health checks of the application's containers: `python health.py web | worker | beat`. Standard library only.

Exit status 0 and silence when all is well; 1 and one line that says what is wrong otherwise.
"""

from __future__ import annotations

import http.client
import sys
import time
from pathlib import Path

#: A node that is alive touches its file every 10 to 15 seconds.
STALE_SECONDS = 60

ALIVE_FILES = {
    "worker": ("/tmp/alive-lifecycle", "/tmp/alive-sweeps"),
    "beat": ("/tmp/alive-beat",),
}


def web() -> str | None:
    connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=4)
    try:
        # The host name is one that every configuration allows.
        connection.request("GET", "/healthz", headers={"Host": "127.0.0.1"})
        status = connection.getresponse().status
    except OSError as error:
        return f"web does not answer: {error}"
    finally:
        connection.close()
    return None if status == 200 else f"web answers {status}"


def alive(paths: tuple[str, ...]) -> str | None:
    for path in paths:
        try:
            age = time.time() - Path(path).stat().st_mtime
        except OSError as error:
            return f"no sign of life: {error}"
        if age > STALE_SECONDS:
            return f"{path} is {age:.0f} s old"
    return None


def main(arguments: list[str]) -> int:
    service = arguments[0] if arguments else ""
    if service == "web":
        problem = web()
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
