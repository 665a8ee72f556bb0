"""A whole compose stack of its own for the tests, and the people who use it."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import time
from contextlib import contextmanager
from functools import cached_property
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.suite.patience import PATIENCE, SLOW
from tests.suite.programs import Overdue, attempt, docker, run
from tests.suite.waiting import eventually, pause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
TICKET = "gunpowder_ticket"
SESSION = "gunpowder_session"
PASSWORD = "correct horse battery staple"
PEOPLE = 64
# What a browser sends when a person opens a page, and when a page loads something.
NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Accept": "text/html"}
ASSET = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script", "Accept": "*/*"}
# The editor serves files over HTTP: whose file comes back tells whose editor answered.
MARK_FILE = "whose.txt"
MARK = f"vscode-remote-resource?path=/home/coder/workspace/{MARK_FILE}"
# A connection of the workbench: the editor accepts the handshake and waits for its protocol.
SOCKET_QUERY = "?reconnectionToken=00000000-0000-4000-8000-000000000000&reconnection=false&skipWebSocketFrames=false"
IMAGES = ("APP", "NGINX", "POSTGRES", "REDIS", "WORKSPACE")
DIAGNOSES = 3
SERVICES = ("nginx", "web", "hasher", "worker", "beat", "migrate", "postgres", "redis")


# Sends a signal to the processes of the worker that do starts and stops: to the node and its pool, or only to the pool.
SIGNAL_LIFECYCLE = r"""
import os, signal, sys

def text(pid, name):
    try:
        return open(f"/proc/{pid}/{name}").read()
    except OSError:
        return ""

def parent(pid):
    return text(pid, "stat").rpartition(")")[2].split()[1]

pids = [pid for pid in os.listdir("/proc") if pid.isdigit()]
nodes = {pid for pid in pids if text(pid, "comm").strip() == "lifecycle"}
children = {pid for pid in nodes if parent(pid) in nodes}
assert children and len(children) < len(nodes), "there is no node, or it has no pool"
for pid in nodes if sys.argv[2] == "all" else children:
    os.kill(int(pid), signal.Signals["SIG" + sys.argv[1]])
print(len(nodes), len(children))
"""


def is_editor(answer: httpx.Response) -> bool:
    """Whether this is the workbench's own page, and not one of ours or a log-in."""
    return answer.status_code == 200 and "vscode-workbench-web-configuration" in answer.text


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - bound for a moment, never listened on
        except OSError:
            return False
    return True


def free_ports(count: int, *, low: int, high: int) -> int:
    """The first of `count` ports in a row that nothing uses; below the kernel's range for outgoing connections."""
    for _ in range(200):
        first = random.randrange(low, high - count)  # noqa: S311 - no secret, only another place than the last run's
        if all(_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError(f"no {count} free ports in a row between {low} and {high}")


class Stack:
    """One compose project from docker-compose.yml, with its own names, ports and data."""

    def __init__(self, name: str, *, ports: int, **settings: str) -> None:
        test_id, data = os.environ["GUNPOWDER_TEST_ID"], Path(os.environ["GUNPOWDER_TEST_DATA"])
        self.project = f"{test_id}-{name}"
        self.prefix = f"{test_id}-{name}-user"
        self.root = data / f"e2e-{name}"
        self.port = free_ports(1, low=ports, high=ports + 400)
        self.port_base = free_ports(PEOPLE + 8, low=ports + 400, high=ports + 900)
        self.port_range = (ports + 900, ports + 999)
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings = {
            "GUNPOWDER_PORT": str(self.port),
            "GUNPOWDER_PORT_BASE": str(self.port_base),
            "GUNPOWDER_PORT_RANGE": "{}-{}".format(*self.port_range),
            "GUNPOWDER_CONTAINER_PREFIX": self.prefix,
            "GUNPOWDER_WORKSPACE_ROOT": str(self.root),
            "GUNPOWDER_TEST_RESTART": "no",  # what a killed run leaves must not come back with the engine
            # Health checks start processes: on a slow machine those of a stack would leave nothing for the tests.
            "GUNPOWDER_HEALTH_INTERVAL": "45s" if SLOW else "5s",
            **settings,
        }
        self.people: list[Person] = []  # who has been added
        self._accounts: list[tuple[int, str]] = []
        self._clients: list[httpx.Client] = []
        self._diagnoses = 0
        self._down = False

    # --- the project ---

    def up(self) -> None:
        """Start everything, wait until it is healthy, and make the people of the tests."""
        began = time.monotonic()
        self.root.mkdir(parents=True, exist_ok=True)
        for image in IMAGES:
            docker("image", "inspect", "--format", "{{.Id}}", os.environ[f"GUNPOWDER_TEST_{image}_IMAGE"])
        try:
            self.compose("up", "--detach", "--wait", "--wait-timeout", str(int(300 * PATIENCE)), within=320)
            eventually("/readyz says ok", self._ready, within=60, every=0.5)
            self._accounts = self._make_accounts()
        except (AssertionError, Overdue) as problem:
            raise AssertionError(f"{problem}\n{self.diagnosis()}") from None
        print(f"\nstack {self.project}: up on port {self.port} in {time.monotonic() - began:.1f} s")

    def down(self) -> None:
        """Remove everything: services, volumes, workspaces, networks, files. Down already: nothing to do."""
        if self._down:
            return
        self._down = True
        for client in self._clients:
            client.close()
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "2", within=120)
        mine = f"label=gunpowder.instance={self.project}"
        containers = docker("ps", "--all", "--quiet", "--filter", mine).split()
        if containers:
            docker("rm", "--force", "--volumes", *containers)
        networks = docker("network", "ls", "--quiet", "--filter", mine).split()
        if networks:
            docker("network", "rm", *networks)
        shutil.rmtree(self.root, ignore_errors=True)

    def compose(self, *arguments: str, within: float = 60, **settings: str) -> str:
        """Plain compose on this project; nothing of the suite's own settings, nor of a .env, gets in."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        images = {f"GUNPOWDER_{image}_IMAGE": os.environ[f"GUNPOWDER_TEST_{image}_IMAGE"] for image in IMAGES}
        engine = {"GUNPOWDER_DOCKER_SOCKET": os.environ.get("GUNPOWDER_DOCKER_SOCKET", "/var/run/docker.sock")}
        command = ["docker", "compose", "--env-file", "/dev/null", "--project-name", self.project]
        command += ["--file", str(ROOT / "docker-compose.yml"), *arguments]
        return run(*command, within=within, environment=kept | images | engine | self._settings | settings)

    def service(self, name: str) -> str:
        """The container of one service."""
        return f"{self.project}-{name}-1"

    def come_back(self, name: str, *, within: float = 30) -> None:
        """Start a service once it has ended, as the restart policy does outside of tests."""
        container = self.service(name)
        eventually(
            f"{container} has ended",
            lambda: docker("inspect", "--format", "{{.State.Running}}", container).strip() == "false",
            within=within,
        )
        docker("start", container)

    def exec_in(self, service: str, *command: str, within: float = 60) -> str:
        return docker("exec", self.service(service), *command, within=within)

    def exec_in_web(self, code: str) -> str:
        """Run Python inside the web service's Django."""
        return self.exec_in("web", "python", "manage.py", "shell", "--verbosity", "0", "--command", code)

    def redis(self, *command: str) -> str:
        password = "$(cat /run/gunpowder/secrets/redis_password)"
        asked = f'REDISCLI_AUTH="{password}" redis-cli -s /run/redis/redis.sock "$@"'
        return self.exec_in("redis", "sh", "-c", asked, "redis", *command)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False, timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def _make_accounts(self) -> list[tuple[int, str]]:
        made = self.exec_in_web(
            "import json\n"
            "from django.contrib.auth import get_user_model\n"
            "from django.contrib.auth.hashers import make_password\n"
            f"model, password = get_user_model(), make_password({PASSWORD!r})\n"
            f"rows = [model(username=f'person-{{number}}', password=password) for number in range({PEOPLE})]\n"
            "print(json.dumps([[row.pk, row.username] for row in model._default_manager.bulk_create(rows)]))\n"
        )
        return [(int(pk), str(name)) for pk, name in json.loads(made.splitlines()[-1])]

    # --- people ---

    def give_limits(self, limits: dict[int, dict[str, float]]) -> None:
        """What an administrator can give users in the admin, by id."""
        self.exec_in_web(
            "from workspaces.models import UserLimits\n"
            f"for user_id, limits in {limits!r}.items():\n"
            "    UserLimits.objects.update_or_create(user_id=user_id, defaults=limits)\n"
        )

    @contextmanager
    def visitors(self) -> Iterator[None]:
        """Who is added meanwhile is stopped afterwards: an editor that nobody needs any more slows all the others."""
        here = len(self.people)
        yield
        for person in self.people[here:]:
            person.leave()

    def add_user(self) -> Person:
        """Somebody new, who has never started anything."""
        pk, name = self._accounts.pop(0)
        self.people.append(Person(self, user_id=pk, name=name))
        return self.people[-1]

    def client(self, **headers: str) -> httpx.Client:
        """A client without any log-in, which remembers cookies like a browser. The stack closes it."""
        client = httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=20 * PATIENCE)
        self._clients.append(client)
        return client

    def raw(self, request: bytes, *, within: float = 10) -> bytes:
        """Send exactly these bytes and return all that comes back until the server closes."""
        answer = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=within * PATIENCE) as connection:
            connection.sendall(request)
            while part := connection.recv(65536):
                answer += part
        return answer

    def ask_raw(self, target: str, *, headers: Mapping[str, str] | None = None, method: str = "GET") -> RawAnswer:
        """Ask for a request target exactly as written; no library tidies it up."""
        lines = [f"{method} {target} HTTP/1.1"]
        sent = {"Host": f"127.0.0.1:{self.port}", "Connection": "close", **(headers or {})}
        lines += [f"{name}: {value}" for name, value in sent.items()]
        return RawAnswer(self.raw(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")))

    # --- when something went wrong ---

    def workspaces(self) -> list[str]:
        """The names of all workspace containers of this stack, running or not."""
        mine = f"label=gunpowder.instance={self.project}"
        return docker("ps", "--all", "--filter", mine, "--format", "{{.Names}}").split()

    def diagnosis(self) -> str:
        """What a person needs to see why a test failed. Three times: the hundredth says nothing new."""
        self._diagnoses += 1
        if self._diagnoses > DIAGNOSES:
            return "(see the first failures of this stack)"
        parts = ["--- services", _whatever(self.compose, "ps", "--all")]
        for service in SERVICES:
            parts += [f"--- log of {service}", _whatever(_log, self.service(service), "40")]
        for name in self.workspaces():
            state = _whatever(docker, "inspect", "--format", "{{json .State}}", name)
            parts += [f"--- workspace {name}", state, _whatever(_log, name, "20")]
        return "\n".join(parts)


def _log(container: str, lines: str) -> str:
    return attempt("docker", "logs", "--tail", lines, container, within=20, together=True).stdout


def _whatever(ask: Callable[..., str], *arguments: str) -> str:
    """A diagnosis never fails itself."""
    try:
        return ask(*arguments)
    except (AssertionError, OSError, Overdue) as problem:
        return f"({problem})"


def _joined(chunks: bytes) -> bytes:
    """The body that a chunked answer carries."""
    body = b""
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        length = int(size, 16)
        body, chunks = body + rest[:length], rest[length + 2 :]
    return body


def signal_lifecycle(stack: Stack, name: str, *, whom: str = "all") -> str:
    """Signal what does starts and stops; returns how many processes that are, and how many of them the pool's.

    Fails where there are none.
    """
    return stack.exec_in("worker", "python", "-c", SIGNAL_LIFECYCLE, name, whom).strip()


class RawAnswer:
    def __init__(self, answer: bytes) -> None:
        head, _, self.body = answer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        self.status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
        pairs = [line.partition(":") for line in lines[1:]]
        self.headers = {name.lower(): value.strip() for name, _, value in pairs}
        if self.headers.get("transfer-encoding") == "chunked":
            self.body = _joined(self.body)

    def __repr__(self) -> str:
        return f"<{self.status} {self.headers.get('location', '')} {self.body[:200]!r}>"


class Person:
    """Somebody with an account: what they do over HTTP, and what happens in their container."""

    def __init__(self, stack: Stack, *, user_id: int, name: str) -> None:
        self.stack = stack
        self.id = user_id
        self.name = name
        self.password = PASSWORD
        self.path = f"/code/user/{user_id}/"
        self.container = f"{stack.prefix}-{user_id}"
        self.own_port = stack.port_base + user_id

    # --- as a program: the API with a token ---

    @cached_property
    def tokens(self) -> dict[str, str]:
        answer = self.stack.client().post("/api/v1/auth/token", json={"username": self.name, "password": self.password})
        assert answer.status_code == 200, answer.text
        found: dict[str, str] = answer.json()
        return found

    @cached_property
    def api(self) -> httpx.Client:
        """Calls below /api/v1/code-server/ with a token and no cookies."""
        client = self.stack.client(Authorization=f"Bearer {self.tokens['access']}")
        client.base_url = httpx.URL(f"{self.stack.url}/api/v1/code-server/")
        return client

    def call(self, name: str, *, expect: Sequence[int] = (200, 202), **arguments: Any) -> dict[str, Any]:
        """POST one of the calls; any answer but the expected ones fails."""
        answer = self._ask("POST", name, **arguments)
        assert answer.status_code in expect, f"{name}: {answer.status_code} {answer.text}"
        found: dict[str, Any] = answer.json()
        return found

    def status(self) -> dict[str, Any]:
        answer = self._ask("GET", "status")
        assert answer.status_code == 200, f"status: {answer.status_code} {answer.text}"
        found: dict[str, Any] = answer.json()
        return found

    def history(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask("GET", "history").json()["results"]
        return found

    def _ask(self, method: str, name: str, **arguments: Any) -> httpx.Response:
        """Ask, with a new log-in when the token is too old for it.

        Again while the database of a slow machine does not answer within the three seconds that it gets.
        """
        began = time.monotonic()
        while True:
            answer = self.api.request(method, name, **arguments)
            late = time.monotonic() - began > 10 * PATIENCE
            if answer.status_code == 401 and "token_not_valid" in answer.text and not late:
                del self.tokens
                self.api.headers["Authorization"] = f"Bearer {self.tokens['access']}"
                continue
            away = answer.status_code == 503 and "database_unavailable" in answer.text
            if not away or not SLOW or late:
                return answer
            pause(1, because="a slow machine's database did not answer in time")

    def wait_for(self, state: str, *, within: float = 60) -> dict[str, Any]:
        """The workspace once it is in `state`; fails at once where it can only stay in another."""

        def look() -> dict[str, Any]:
            now = self.status()
            if now["state"] == "failed" != state:
                raise AssertionError(f"{self.name} should become {state}, but failed: {now['error']}")
            seen.append(now)
            return now if now["state"] == state else {}

        seen = list[dict[str, Any]]()
        try:
            return eventually(f"{self.name} becomes {state}", look, within=within)
        except AssertionError as problem:
            raise AssertionError(f"{problem}\n{seen[-1:]}") from None

    def start(self) -> dict[str, Any]:
        return self.call("start")

    def start_and_wait(self, *, within: float = 60) -> dict[str, Any]:
        self.start()
        return self.wait_for("running", within=within)

    def leave(self) -> None:
        """Have it stopped if it runs, without waiting for that. Who never asked for anything, or may not, is let be."""
        if "api" in self.__dict__:
            self.api.post("stop")

    def stop_and_wait(self, *, within: float = 30) -> dict[str, Any]:
        self.call("stop")
        return self.wait_for("stopped", within=within)

    # --- as a browser: the page, a session, the ticket ---

    def log_in(self, client: httpx.Client, *, to: str = "") -> httpx.Response:
        """Fill in the log-in page; returns the answer to the form."""
        client.get("/login").raise_for_status()
        form = {
            "username": self.name,
            "password": self.password,
            "csrfmiddlewaretoken": client.cookies["gunpowder_csrf"],
        }
        answer = client.post("/login", data={**form, "next": to} if to else form, headers={"Origin": self.stack.url})
        assert answer.status_code == 302, answer.text
        return answer

    @cached_property
    def session(self) -> httpx.Client:
        """Logged in through the page. Nobody has asked for an editor, so there is no ticket."""
        client = self.stack.client()
        self.log_in(client)
        return client

    @cached_property
    def ticket(self) -> str:
        """The editor's cookie, got on the way through the log-in page: that starts nothing."""
        answer = self.log_in(self.stack.client(), to=self.path)
        assert answer.headers["location"] == self.path
        return answer.cookies[TICKET]

    @property
    def cookie(self) -> dict[str, str]:
        return {"Cookie": f"{TICKET}={self.ticket}"}

    @cached_property
    def anonymous(self) -> httpx.Client:
        """A client that only says who asks where a request says so itself."""
        client = self.stack.client()
        client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        return client

    def editor(self, tail: str = "", *, headers: Mapping[str, str] = ASSET, method: str = "GET") -> httpx.Response:
        """Ask for something of the own editor with the own ticket."""
        return self.anonymous.request(method, self.path + tail, headers={**headers, **self.cookie})

    def editor_opens(self) -> bool:
        """Whether the real editor answers at the own path."""
        return is_editor(self.editor("?folder=/home/coder/workspace", headers=NAVIGATION))

    @contextmanager
    def websocket(self, **headers: str) -> Iterator[ClientConnection]:
        """An open connection to the own editor, as the workbench makes it."""
        with self._connect({**self.cookie, **headers}) as opened:
            yield opened

    def handshake(self, **headers: str) -> int:
        """The status of a WebSocket handshake at this person's editor, with nothing but `headers`."""
        try:
            with self._connect(headers):
                return 101
        except InvalidStatus as refusal:
            return refusal.response.status_code
        except (InvalidHandshake, EOFError):
            return 0

    def _connect(self, headers: Mapping[str, str]) -> ClientConnection:
        url = f"ws://127.0.0.1:{self.stack.port}{self.path}{SOCKET_QUERY}"
        # The editor does not answer a close: waiting for that is in vain.
        return connect(url, additional_headers=headers, proxy=None, open_timeout=10 * PATIENCE, close_timeout=0.1)

    # --- inside the container ---

    def shell(self, script: str, *, within: float = 30) -> str:
        """Run a shell script in the container as its user, like a terminal would."""
        return docker("exec", "--user", "1000:1000", self.container, "bash", "-c", script, within=within)

    def python(self, code: str, *arguments: str, within: float = 60) -> str:
        return docker("exec", "--user", "1000:1000", self.container, "python3", "-c", code, *arguments, within=within)

    @property
    def mark(self) -> str:
        """A word that only this person's files hold."""
        return f"this-is-{self.name}"

    def leave_mark(self) -> None:
        self.shell(f"echo {self.mark} > ~/workspace/{MARK_FILE}")

    def inspect(self) -> dict[str, Any]:
        """The engine's own words about the container, or {} when there is none."""
        found: list[dict[str, Any]] = json.loads(_inspect(self.container))
        return found[0] if found else {}


def _inspect(name: str) -> str:
    return attempt("docker", "container", "inspect", name, within=20).stdout.strip() or "[]"
