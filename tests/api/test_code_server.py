"""The user's own workspace: what tests/api/test_own_workspace.py leaves open."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from celery import current_app
from celery.signals import before_task_publish
from django.utils import timezone

from tests.api.shapes import RFC3339_UTC, assert_error, assert_workspace
from workspaces import conf, gate, lifecycle, sweeps, tasks, ticket
from workspaces.models import Ticket, Transition, Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rest_framework.test import APIClient

    from workspaces.runtimes.memory import MemoryRuntime

pytestmark = pytest.mark.django_db
BASE = "/api/v1/code-server/"


def fail(workspace: Workspace) -> None:
    """Let the workspace be `failed`, as after a crash."""
    Workspace.objects.filter(pk=workspace.pk).update(
        state="failed", port=None, error_code="oom", error_message="It ran out of memory.", stop_reason="oom"
    )


def settle(user: Any, runtime: MemoryRuntime) -> None:
    """Let the worker finish what it was asked."""
    row = Workspace.objects.get(user=user)
    if row.state == "starting":
        lifecycle.perform_start(row.pk, row.generation, runtime=runtime)
    elif row.state == "stopping":
        lifecycle.perform_stop(row.pk, row.generation, runtime=runtime)


def test_any_number_of_starts_queues_one(
    bearer: APIClient, user: Any, sent: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        answers = [bearer.post(BASE + "start") for _ in range(12)]
    assert {answer.status_code for answer in answers} == {202}
    row = Workspace.objects.get(user=user)
    assert sent == [("workspaces.start", (row.pk, row.generation))]
    assert (Transition.objects.count(), row.generation) == (1, 1)
    assert_workspace(answers[0].json(), user=user, state="starting")
    assert answers[0].json()["port"] is None


def test_the_ticket_of_a_start_opens_the_running_editor(api: APIClient, running: Workspace, user: Any) -> None:
    response = api.post(BASE + "start")
    assert response.status_code == 200
    assert_workspace(response.json(), user=user, state="running")
    cookie = response.cookies[ticket.COOKIE]
    assert 0 < cookie["max-age"] <= 12 * 3600
    assert cookie["domain"] == ""
    answer = gate.decide(user_id=user.pk, tokens=[cookie.value], now=timezone.now())
    assert answer.outcome is gate.Outcome.OPEN
    assert cookie.value not in response.content.decode()
    assert running.editor_secret not in response.content.decode()


def test_a_renewed_ticket_leaves_the_older_tabs_theirs(api: APIClient, running: Workspace) -> None:
    first, second = (api.post(BASE + "start").cookies[ticket.COOKIE].value for _ in range(2))
    assert len({first, second}) == len(ticket.find_valid([first, second], now=timezone.now())) == 2


def test_only_start_gives_a_ticket(api: APIClient, running: Workspace) -> None:
    for method, path in [("get", "status"), ("get", "history"), ("get", "stats"), ("post", "restart")]:
        assert ticket.COOKIE not in getattr(api, method)(BASE + path).cookies
    assert not Ticket.objects.exists()


def test_a_refused_start_gives_no_ticket(api: APIClient, configure: Callable[..., None]) -> None:
    assert conf.env().starts_per_minute >= 10
    configure(starts_per_minute=0)
    for path in ("start", "restart"):
        refused = api.post(BASE + path)
        body = assert_error(refused, 429, "throttled")
        assert int(refused["Retry-After"]) == body["detail"]["retry_after"] > 0
        assert ticket.COOKIE not in refused.cookies


def test_a_restart_of_what_runs_counts_as_a_start(
    api: APIClient, running: Workspace, configure: Callable[..., None]
) -> None:
    configure(starts_per_minute=1)
    assert {api.post(BASE + "start").status_code for _ in range(5)} == {200}
    assert_error(api.post(BASE + "restart"), 429, "throttled")
    assert api.get(BASE + "status").json()["state"] == "running"


def test_a_running_workspace_says_where_it_is_and_when_it_stops(api: APIClient, running: Workspace, user: Any) -> None:
    body = api.get(BASE + "status").json()
    assert_workspace(body, user=user, state="running")
    assert body["port"] == running.port
    assert body["container"].endswith(f"-{user.pk}")
    assert datetime.fromisoformat(body["stops_at"]) > datetime.fromisoformat(body["started_at"])


def test_a_start_during_a_stop_is_accepted_and_wins(
    api: APIClient, running: Workspace, user: Any, runtime: MemoryRuntime
) -> None:
    assert api.post(BASE + "stop").status_code == 202
    assert api.post(BASE + "start").status_code == 202
    settle(user, runtime)
    settle(user, runtime)
    assert api.get(BASE + "status").json()["state"] == "running"


@pytest.mark.parametrize("state", ["none", "stopped", "running", "failed"])
def test_a_restart_ends_in_running_from_everywhere(
    api: APIClient, user: Any, runtime: MemoryRuntime, bring_up: Callable[[Any], Workspace], state: str
) -> None:
    if state != "none":
        row = bring_up(user)
        if state == "failed":
            fail(row)
        elif state == "stopped":
            api.post(BASE + "stop")
            settle(user, runtime)
    assert api.post(BASE + "restart").status_code == 202
    for _ in range(2):
        settle(user, runtime)
    assert_workspace(api.get(BASE + "status").json(), user=user, state="running")
    assert len(runtime.running_names()) == 1


# --- keep ---


@pytest.mark.parametrize("minutes", [481, 999_999])
def test_more_than_eight_hours_is_cut(api: APIClient, running: Workspace, now: datetime, minutes: int) -> None:
    response = api.post(BASE + "keep", {"minutes": minutes})
    assert response.status_code == 200, response.content
    kept = datetime.fromisoformat(response.json()["keep_until"])
    assert timedelta(minutes=470) < kept - now < timedelta(minutes=481)


def test_nothing_is_kept_past_the_maximum_lifetime(
    api: APIClient, running: Workspace, configure: Callable[..., None]
) -> None:
    configure(max_lifetime_hours=1.0)
    kept = datetime.fromisoformat(api.post(BASE + "keep", {"minutes": 300}).json()["keep_until"])
    assert running.started_at is not None
    assert kept <= running.started_at + timedelta(hours=1)


@pytest.mark.parametrize("minutes", [0, 0.5, 1 / 3, 0.1 + 0.2, "15"])
def test_minutes_may_be_fractions(api: APIClient, running: Workspace, minutes: float | str) -> None:
    assert api.post(BASE + "keep", {"minutes": minutes}).status_code == 200


@pytest.mark.parametrize("minutes", [-0.001, "1e400", 10**30, "\x00", True])
def test_absurd_minutes_are_a_400_and_keep_nothing(api: APIClient, running: Workspace, minutes: Any) -> None:
    body = assert_error(api.post(BASE + "keep", {"minutes": minutes}), 400, "invalid")
    assert "minutes" in body["detail"]
    running.refresh_from_db()
    assert running.keep_until is None


def test_what_is_only_starting_cannot_be_kept(api: APIClient) -> None:
    api.post(BASE + "start")
    assert_error(api.post(BASE + "keep", {"minutes": 5}), 409, "not_running")


# --- logs and stats ---

# Celery's result backend still says `setex`.
ANSWERING = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


@pytest.fixture
def a_worker_that_answers(runtime: MemoryRuntime) -> Iterator[None]:
    """Runs what is asked of it at once, and answers through the real result backend."""

    def answer(sender: str, body: Any, headers: dict[str, Any], **_: Any) -> None:
        if sender == tasks.read_logs.name:
            current_app.backend.store_result(headers["id"], tasks.read_logs(*body[0]), "SUCCESS")

    before_task_publish.connect(answer)
    yield
    before_task_publish.disconnect(answer)


@ANSWERING
def test_the_log_holds_the_last_lines_of_the_own_container(
    api: APIClient, running: Workspace, runtime: MemoryRuntime, a_worker_that_answers: None
) -> None:
    lines = [f"line {n}" for n in range(300)]
    runtime._containers[running.container].lines = lines
    assert api.get(BASE + "logs").json() == {"lines": lines[-200:]}
    assert api.get(BASE + "logs?tail=3").json() == {"lines": lines[-3:]}


@ANSWERING
def test_an_engine_that_does_not_answer_is_a_503_at_once(
    api: APIClient, running: Workspace, runtime: MemoryRuntime, a_worker_that_answers: None
) -> None:
    runtime.reachable = False
    began = time.monotonic()
    assert_error(api.get(BASE + "logs"), 503, "runtime_unavailable")
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("tail", ["NaN", "1e3", "%00", "9" * 5000, "1;2", "0x10"])
def test_an_absurd_tail_reaches_no_worker(api: APIClient, running: Workspace, sent: list[Any], tail: str) -> None:
    assert "tail" in assert_error(api.get(f"{BASE}logs?tail={tail}"), 400, "invalid")["detail"]
    assert not sent


def test_a_sample_of_the_worker_becomes_the_stats(api: APIClient, running: Workspace, runtime: MemoryRuntime) -> None:
    sweeps.sample_usage(runtime=runtime, now=timezone.now())
    found = api.get(BASE + "stats").json()
    assert (found["memory_bytes"], found["pids"]) == (2**20, 1)
    assert RFC3339_UTC.fullmatch(found["sampled_at"])


def test_stats_before_the_first_start_are_unknown(api: APIClient) -> None:
    assert set(api.get(BASE + "stats").json().values()) == {None}


# --- history ---


def test_the_history_goes_back_as_it_went_forth(api: APIClient, running: Workspace, now: datetime) -> None:
    for number in range(5):  # all at one time: no row may be lost or shown twice
        running.transitions.create(
            from_state="running", to_state="stopping", reason="idle", generation=100 + number, time=now
        )
    first = api.get(BASE + "history?page_size=3").json()
    assert (len(first["results"]), first["previous"]) == (3, None)
    second = api.get(first["next"]).json()
    third = api.get(second["next"]).json()
    assert (len(third["results"]), third["next"]) == (1, None)
    seen = [str(row) for page in (first, second, third) for row in page["results"]]
    assert len(set(seen)) == len(seen) == 7
    assert api.get(second["previous"]).json()["results"] == first["results"]


@pytest.mark.parametrize(
    "cursor",
    [
        "bz05OTk5OTk5OTk5OTk5OTk5OTk5OSZwPTIwMjUtMDEtMDE=",  # o=9999999999999999999999&p=2025-01-01
        "cD0wMDAxLTAxLTAxVDAwOjAwOjAwKzE0OjAw",  # p=0001-01-01T00:00:00+14:00
        "cj0xJnA9OTk5OS0xMi0zMVQyMzo1OTo1OS0xNDowMA==",  # r=1&p=9999-12-31T23:59:59-14:00
        "cD0=",  # p=
        "\U0001f600",
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/code-server/history", "/api/v1/workspaces"])
@pytest.mark.filterwarnings("ignore:DateTimeField .* received a naive datetime:RuntimeWarning")
def test_a_strange_cursor_is_no_error_of_ours(
    staff_api: APIClient, staff: Any, bring_up: Callable[[Any], Workspace], path: str, cursor: str
) -> None:
    bring_up(staff)
    response = staff_api.get(path, {"cursor": cursor})
    if response.status_code != 200:
        assert_error(response, 404, "not_found")
