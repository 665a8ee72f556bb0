"""Starts the demo user's workspace through the public API and opens it, as the user's browser would.

`make up` runs this in the worker's container, which shares the host's network with nginx. Standard library only.
Prints what a person needs next; exits non-zero with a sentence when something does not work.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from http.client import HTTPMessage

PORT = os.environ.get("GUNPOWDER_PORT") or "8080"
BASE = f"http://127.0.0.1:{PORT}"
HOST = (os.environ.get("GUNPOWDER_ALLOWED_HOSTS") or "localhost").split(",")[0].strip().lstrip("*.")
SECRETS = Path(os.environ.get("GUNPOWDER_SECRETS_DIR") or "/run/gunpowder/secrets")
PATIENCE = float(os.environ.get("GUNPOWDER_START_TIMEOUT_SECONDS") or 60) + 60


class Failure(Exception):
    """Ends the run with a sentence."""


def password(name: str) -> str:
    given = os.environ.get(f"GUNPOWDER_{name.upper()}_PASSWORD", "")
    return given or (SECRETS / f"{name}_password").read_text(encoding="utf-8").strip()


def ask(
    method: str, path: str, *, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, HTTPMessage, bytes]:
    """One request through nginx; an HTTP error is an answer like any other."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(BASE + path, data=data, method=method)
    for name, value in {
        "Host": f"{HOST}:{PORT}",
        "Content-Type": "application/json",
        **(headers or {}),
    }.items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def log_in() -> dict[str, str]:
    status, _, body = ask("POST", "/api/v1/auth/token", body={"username": "demo", "password": password("demo")})
    if status != 200:
        raise Failure(
            f"The demo user could not log in ({status}: {body.decode(errors='replace')[:200]}). If its password was "
            "changed, give it as GUNPOWDER_DEMO_PASSWORD."
        )
    return {"Authorization": f"Bearer {json.loads(body)['access']}"}


def start(auth: dict[str, str]) -> tuple[dict[str, Any], str]:
    status, headers, body = ask("POST", "/api/v1/code-server/start", body={}, headers=auth)
    if status not in {200, 202}:
        raise Failure(f"The start was not accepted ({status}: {body.decode(errors='replace')[:300]}).")
    cookie = (headers.get("Set-Cookie") or "").split(";")[0]
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        workspace = json.loads(ask("GET", "/api/v1/code-server/status", headers=auth)[2])
        if workspace["state"] == "running":
            return workspace, cookie
        if workspace["state"] == "failed":
            raise Failure(f"The workspace did not start: {workspace['error']['message']}")
        time.sleep(0.1)
    raise Failure(f"The workspace was not running after {PATIENCE:.0f} s. See `docker compose logs worker`.")


def open_editor(workspace: dict[str, Any], cookie: str) -> None:
    status, _, body = ask("GET", workspace["url"], headers={"Cookie": cookie, "Accept": "text/html"})
    if status != 200 or b"workbench" not in body:
        raise Failure(f"The editor did not open through nginx ({status}). See `docker compose logs nginx web`.")


def main() -> None:
    if (os.environ.get("GUNPOWDER_DEMO_USER") or "true").lower() in {"0", "false", "no", "off"}:
        print(f"  Gunpowder:  http://{HOST}:{PORT}/   (no demo user, so no first workspace was tried)")
        print(f"  Admin:      http://{HOST}:{PORT}/admin/   admin / {password('admin')}")
        return
    auth = log_in()
    begun = time.monotonic()
    workspace, cookie = start(auth)
    running = time.monotonic()
    open_editor(workspace, cookie)
    opened = time.monotonic()
    print(f"workspace running after {running - begun:.1f} s, editor open after {opened - begun:.1f} s")
    print()
    print(f"  Gunpowder:  http://{HOST}:{PORT}/")
    print(f"  Editor:     http://{HOST}:{PORT}{workspace['url']}")
    print(f"  Log in as   demo / {password('demo')}")
    print(f"  Admin:      http://{HOST}:{PORT}/admin/   admin / {password('admin')}")


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(str(failure))
