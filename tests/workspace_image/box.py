"""One container of the workspace's image as the platform runs it, and a platform for it to talk to."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from tests.contract.places import worker_number
from tests.suite.programs import Background, docker
from tests.suite.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPORT = "/run/gunpowder/report.json"
EXTENSION = "/opt/code-server/lib/vscode/extensions/gunpowder"
# As workspaces/runtimes/docker_objects.py has them.
HARDENED = (
    *("--user", "1000:1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only"),
    *("--memory", "768m", "--pids-limit", "256", "--env", "GUNPOWDER_AUTH=none"),
    *("--tmpfs", "/tmp:rw,nosuid,nodev,exec,mode=1777,size=64m"),  # noqa: S108 - the container's own
    *("--tmpfs", "/run:rw,nosuid,nodev,noexec,size=16m,mode=0755"),
)
FOLDER = "/run/gunpowder:rw,nosuid,nodev,noexec,size=256k,nr_inodes=64,mode=0700,uid=1000,gid=1000"
# Stands in for the platform's folder where a script tells what it then hears.
TOLD_FOLDER = "/run/gunpowder-status:rw,mode=0700,uid=1000,gid=1000"
HOME_FOLDER = "/home/coder:rw,nosuid,nodev,exec,mode=0700,uid=1000,gid=1000,size=64m"


def script(name: str) -> str:
    return (Path(__file__).parent / name).read_text()


class Box:
    """The container, the folder in which it is told things, and hands that act in it as its user."""

    def __init__(self) -> None:
        self.image = os.environ["GUNPOWDER_TEST_WORKSPACE_IMAGE"]
        run = os.environ["GUNPOWDER_TEST_ID"]
        self.name = f"{run}-image-w{worker_number()}"
        self.labels = ("--label", f"gunpowder.test={run}")
        self.told = Path(os.environ["GUNPOWDER_TEST_DATA"]) / f"image-w{worker_number()}"
        self.url = ""
        self._background: list[Background] = []

    # --- its life ---

    def up(self) -> None:
        self.told.mkdir(parents=True)
        told = f"type=bind,source={self.told},target=/run/gunpowder-status,readonly"
        options = (*self.labels, *HARDENED, "--tmpfs", FOLDER, "--tmpfs", HOME_FOLDER, "--mount", told)
        docker("run", "--detach", "--name", self.name, *options, "--publish", "127.0.0.1::8080", self.image)
        self.url = f"http://{docker('port', self.name, '8080').split()[0]}"
        try:
            eventually("the editor answers", self._has_come_up, within=90, every=0.5)
        except AssertionError as problem:
            raise AssertionError(f"{problem}\n{docker('logs', '--tail', '20', self.name)}") from None

    def _has_come_up(self) -> bool:
        """code-server gives up when its inner process needs more than ten seconds, as on a very busy machine."""
        if docker("inspect", "--format", "{{.State.Running}}", self.name).strip() == "false":
            docker("start", self.name)
            self.url = f"http://{docker('port', self.name, '8080').split()[0]}"
        return self.healthy()

    def down(self) -> None:
        for each in self._background:
            each.end()
        docker("rm", "--force", "--volumes", self.name)
        shutil.rmtree(self.told)

    def alone(self, command: str, *options: str) -> Background:
        """Run `command` in a container of its own, which is gone afterwards."""
        start = ("docker", "run", "--rm", "--init", *self.labels, *HARDENED, "--tmpfs", HOME_FOLDER, *options)
        return self._keep(Background(*start, "--entrypoint", "bash", self.image, "-c", command))

    # --- in it ---

    def background(self, command: str) -> Background:
        return self._keep(Background("docker", "exec", self.name, "bash", "-c", command))

    def attempt(self, command: str) -> tuple[int, str]:
        """Run `command`; its exit status, and what it printed to both."""
        return Background("docker", "exec", self.name, "bash", "-c", command).result()

    def run(self, command: str) -> str:
        status, said = self.attempt(command)
        assert status == 0, f"{command}: status {status}\n{said}"
        return said

    def node(self, text: str, *arguments: str) -> Any:
        """The JSON that the script `text` prints in the image's own Node."""
        return json.loads(docker("exec", "--env", f"SCRIPT={text}", self.name, "node", "-e", text, *arguments))

    def _keep(self, made: Background) -> Background:
        self._background.append(made)
        return made

    # --- over its port, as the platform does ---

    def get(self, path: str, *, method: str = "GET") -> httpx.Response:
        close = {"Connection": "close"}  # a connection that stays open is activity by itself
        return httpx.request(method, f"{self.url}{path}", headers=close, timeout=30, follow_redirects=True)

    def healthy(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self.get("/healthz").status_code == 200
        return False

    def last_heartbeat(self) -> int:
        return int(self.get("/healthz").json()["lastHeartbeat"])

    def read_report(self) -> str:
        return self.get(f"/vscode-remote-resource?path={REPORT}").text

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.read_report())
        return found

    # --- the platform's side ---

    def tell(self, **news: Any) -> None:
        """Replace what the workspace is told."""
        building = self.told / ".building"
        building.write_text(json.dumps({"version": 1, **news}))
        building.rename(self.told / "status.json")

    @contextlib.contextmanager
    def platform(self, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        """Answer each new request with what `answer` makes of it; yields the requests in their order."""
        heard: list[dict[str, Any]] = []
        over = threading.Event()
        known = {self._requested().get("id")}

        def listen() -> None:
            while not over.wait(0.1):
                request = self._requested()
                if request.get("id") in known:
                    continue
                known.add(request["id"])
                heard.append(request)
                self.tell(answer={"id": request["id"], **answer(request)})

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield heard
        finally:
            over.set()
            thread.join()

    def _requested(self) -> dict[str, Any]:
        """The request in the report; nothing where there is no report just now."""
        try:
            found: dict[str, Any] = self.report().get("request", {})
        except ValueError:
            return {}
        return found


def yes(request: dict[str, Any]) -> dict[str, Any]:
    return {"ok": True, "message": f"Heard {request['verb']}."}


def milliseconds(minutes_from_now: float) -> int:
    return int((time.time() + 60 * minutes_from_now) * 1000)
