from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from tests.api.shapes import assert_error
from tests.web.nginx import ask_gate
from workspaces import ticket
from workspaces.models import WorkerBeat, Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.django_db
CHECKS = {"database", "broker", "worker", "runtime"}


def stamp(name: str, *, age: float = 0, runtime_ok: bool = True) -> None:
    """Let a worker have shown that it consumes, so many seconds ago."""
    WorkerBeat.objects.create(name=name, at=timezone.now() - timedelta(seconds=age), runtime_ok=runtime_ok)


@pytest.fixture
def workers(db: None) -> None:
    stamp("lifecycle@host")
    stamp("sweeps@host")


def readiness() -> Any:
    return Client().get("/readyz")


def wrong(response: Any) -> set[str]:
    """What the answer says is wrong; each with a sentence."""
    assert response["Content-Type"] == "application/json"
    body = response.json()
    assert body["checks"].keys() == CHECKS
    found = {name for name, check in body["checks"].items() if not check["ok"]}
    assert all(body["checks"][name]["message"].endswith(".") for name in found)
    assert (response.status_code, body["status"]) == ((503, "unavailable") if found else (200, "ok"))
    return found


def test_a_living_process_says_so_without_asking_anybody(django_assert_num_queries: Any, settings: Any) -> None:
    settings.REDIS_URL = "unix:///nowhere/redis.sock"
    with django_assert_num_queries(0):
        response = Client().get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_it_is_ready_when_everything_answers(workers: None) -> None:
    assert wrong(readiness()) == set()


def test_without_workers_it_is_not_ready() -> None:
    assert wrong(readiness()) == {"worker", "runtime"}


@pytest.mark.parametrize(("there", "missing"), [("lifecycle", "sweeps"), ("sweeps", "lifecycle")])
def test_one_kind_of_worker_is_not_enough_and_the_other_is_named(there: str, missing: str) -> None:
    stamp(f"{there}@host")
    response = readiness()
    assert wrong(response) == {"worker"}
    assert missing in response.json()["checks"]["worker"]["message"]
    assert there not in response.json()["checks"]["worker"]["message"]


def test_a_worker_that_consumes_nothing_any_more_does_not_count() -> None:
    stamp("lifecycle@host")
    stamp("sweeps@host", age=120)
    assert wrong(readiness()) == {"worker"}
    stamp("sweeps@other")
    assert wrong(readiness()) == set()


def test_workers_that_reach_no_engine_are_not_ready() -> None:
    stamp("lifecycle@host", runtime_ok=False)
    stamp("sweeps@host", runtime_ok=False)
    assert wrong(readiness()) == {"runtime"}


@pytest.mark.parametrize("url", ["unix:///nowhere/redis.sock", "redis://127.0.0.1:1/0"])
def test_without_redis_it_is_not_ready(workers: None, settings: Any, url: str) -> None:
    settings.REDIS_URL = url
    response = readiness()
    assert wrong(response) == {"broker"}
    assert "Redis" in response.json()["checks"]["broker"]["message"]


def test_the_metrics_are_prometheus_text(
    running: Workspace, make_user: Callable[..., Any], bring_up: Callable[[Any], Workspace], workers: None
) -> None:
    bring_up(make_user())
    stamp("sweeps@gone", age=600)
    response = Client().get("/metrics")
    assert response["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = response.content.decode().splitlines()
    assert all(re.fullmatch(r'# (HELP|TYPE) .+|[a-z_]+(\{[a-z]+="[a-z]+"\})? [0-9.]+', line) for line in lines), lines
    assert 'gunpowder_workspaces{state="running"} 2' in lines
    assert 'gunpowder_workspaces{state="failed"} 0' in lines
    assert "gunpowder_workers 2" in lines


# --- the database is away, for real ---


@pytest.fixture
def database_away(transactional_db: None) -> Iterator[Callable[[], None]]:
    """Call it, and Postgres is gone until the test ends."""
    host = connection.settings_dict["HOST"]

    def take_away() -> None:
        connection.close()
        connection.settings_dict["HOST"] = "/nowhere"

    yield take_away
    connection.close()
    connection.settings_dict["HOST"] = host


@pytest.fixture
def browser(user: Any, database_away: Callable[[], None]) -> Client:
    """A browser with a live session, after which the database went away."""
    client = Client(raise_request_exception=False)
    client.force_login(user)
    database_away()
    return client


def test_without_its_database_it_lives_but_is_not_ready(database_away: Callable[[], None]) -> None:
    database_away()
    assert Client().get("/healthz").status_code == 200
    assert wrong(readiness()) == {"database", "worker", "runtime"}


@pytest.mark.parametrize("path", ["status", "start", "stats", "history", "logs"])
def test_the_api_says_that_the_database_is_away(browser: Client, path: str) -> None:
    call = browser.post if path == "start" else browser.get
    response = call(f"/api/v1/code-server/{path}")
    assert_error(response, 503, "database_unavailable")
    assert response["Retry-After"]


def test_a_login_says_that_the_database_is_away(browser: Client) -> None:
    credentials = {"username": "alice", "password": "pw-alice"}
    response = browser.post("/api/v1/auth/token", credentials, content_type="application/json")
    assert_error(response, 503, "database_unavailable")


@pytest.mark.parametrize("path", ["/", "/login", "/admin/"])
def test_a_page_says_that_the_database_is_away(browser: Client, path: str) -> None:
    response = browser.get(path)
    assert response.status_code == 503
    assert response["Retry-After"]
    assert "The database does not answer." in response.content.decode()
    assert "<html" in response.content.decode()


def test_the_gate_stays_closed_while_the_database_is_away(
    running: Workspace, user: Any, database_away: Callable[[], None]
) -> None:
    client = Client(raise_request_exception=False)
    client.cookies[ticket.COOKIE] = ticket.issue(running, login="", now=timezone.now())
    assert ask_gate(client, user.pk).status_code == 204
    database_away()
    closed = ask_gate(client, user.pk)
    assert closed.status_code == 503
    assert "X-Workspace-Upstream" not in closed


def test_when_the_database_is_back_everything_goes_on(user: Any, database_away: Callable[[], None]) -> None:
    client = Client(raise_request_exception=False)
    client.force_login(user)
    host = connection.settings_dict["HOST"]
    database_away()
    assert client.get("/").status_code == 503
    connection.settings_dict["HOST"] = host
    assert client.get("/").status_code == 200
