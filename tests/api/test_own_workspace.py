"""The user's own workspace over HTTP: each row of the contract's table."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone

from tests.api.shapes import assert_error
from tests.idling import left_alone
from workspaces import idle_sweeps, lifecycle, ticket
from workspaces.api.pagination import MAX_PAGE
from workspaces.models import Ticket, Transition, Usage, Workspace
from workspaces.states import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from rest_framework.test import APIClient

    from workspaces.runtimes.memory import MemoryRuntime

pytestmark = pytest.mark.django_db
BASE = "/api/v1/code-server"


def _finish(workspace: Workspace, runtime: MemoryRuntime) -> None:
    """Do what a worker would."""
    workspace.refresh_from_db()
    perform = lifecycle.perform_start if workspace.state == State.STARTING else lifecycle.perform_stop
    perform(workspace.pk, workspace.generation, runtime=runtime)
    workspace.refresh_from_db()


# --- start -------------------------------------------------------------------------------------------------------


def test_a_start_is_202_until_it_runs_and_200_then(api: APIClient, user: Any, runtime: MemoryRuntime) -> None:
    answers = [api.post(f"{BASE}/start") for _ in range(3)]
    assert [(answer.status_code, answer.json()["state"]) for answer in answers] == [(202, "starting")] * 3
    _finish(user.workspace, runtime)
    running = api.post(f"{BASE}/start")
    assert (running.status_code, running.json()["state"]) == (200, "running")
    assert running.json()["port"] == 11000 + user.pk
    assert (runtime.starts, Transition.objects.count()) == (1, 2)


def test_every_start_sets_the_editors_cookie(api: APIClient, user: Any, now: datetime) -> None:
    seen = set()
    for _ in range(2):
        cookie = api.post(f"{BASE}/start").cookies["gunpowder_ticket"]
        assert cookie["path"] == f"/code/user/{user.pk}/"
        assert cookie["httponly"]
        assert cookie["samesite"] == "Lax"
        assert not cookie["secure"]
        assert not cookie["domain"]
        assert 0 < cookie["max-age"] <= 12 * 3600
        seen.add(cookie.value)
    assert len(seen) == 2
    assert len(ticket.find_valid(seen, now=now)) == 2


def test_under_tls_the_cookie_is_secure(api: APIClient) -> None:
    answer = api.post(f"{BASE}/start", headers={"x-forwarded-proto": "https"})
    assert answer.cookies["gunpowder_ticket"]["secure"]


def test_the_cookie_never_shows_up_anywhere_else(api: APIClient) -> None:
    answer = api.post(f"{BASE}/start")
    assert answer.cookies["gunpowder_ticket"].value not in answer.content.decode()
    assert answer.cookies["gunpowder_ticket"].value not in str(list(Ticket.objects.values()))


@pytest.mark.parametrize("body", [b"", b"{}", b"null"])
def test_a_start_takes_no_body(api: APIClient, body: bytes) -> None:
    answer = api.post(f"{BASE}/start", body, content_type="application/json")
    assert answer.status_code == 202


def test_too_many_transitions_are_429_but_asking_again_is_not(
    api: APIClient, user: Any, runtime: MemoryRuntime, configure: Callable[..., None]
) -> None:
    configure(starts_per_minute=3)
    for _ in range(3):
        assert api.post(f"{BASE}/start").status_code == 202
        for _ in range(4):
            assert api.post(f"{BASE}/start").status_code == 202
        api.post(f"{BASE}/stop")
        _finish(user.workspace, runtime)
    answer = api.post(f"{BASE}/start")
    body = assert_error(answer, 429, "throttled")
    assert int(answer["Retry-After"]) == body["detail"]["retry_after"] > 0


def test_a_failed_start_is_shown_and_the_next_one_forgets_it(api: APIClient, user: Any, runtime: MemoryRuntime) -> None:
    from workspaces.errors import StartRefused

    api.post(f"{BASE}/start")
    runtime.refuse = StartRefused("The image is not there.", code="image_missing")
    _finish(user.workspace, runtime)
    assert api.get(f"{BASE}/status").json()["error"] == {"code": "image_missing", "message": "The image is not there."}
    assert api.post(f"{BASE}/start").json()["error"] is None


# --- status, stop, restart ---------------------------------------------------------------------------------------


def test_before_the_first_start_it_is_stopped_and_nothing_is_written(api: APIClient, user: Any) -> None:
    answer = api.get(f"{BASE}/status")
    assert (answer.status_code, answer.json()["state"], answer.json()["user_id"]) == (200, "stopped", user.pk)
    assert not Workspace.objects.exists()


def test_a_stop_is_202_until_it_has_stopped_and_200_then(api: APIClient, running: Workspace, runtime: Any) -> None:
    answers = [api.post(f"{BASE}/stop") for _ in range(2)]
    assert [(answer.status_code, answer.json()["state"]) for answer in answers] == [(202, "stopping")] * 2
    _finish(running, runtime)
    assert api.post(f"{BASE}/stop").status_code == 200
    status = api.get(f"{BASE}/status").json()
    assert (status["state"], status["stop_reason"], status["port"]) == ("stopped", "user", None)


def test_stopping_what_never_ran_is_200(api: APIClient) -> None:
    assert api.post(f"{BASE}/stop").status_code == 200


def test_a_restart_is_202_and_comes_back(api: APIClient, running: Workspace, runtime: Any) -> None:
    answer = api.post(f"{BASE}/restart")
    assert (answer.status_code, answer.json()["state"]) == (202, "stopping")
    _finish(running, runtime)
    _finish(running, runtime)
    assert api.get(f"{BASE}/status").json()["state"] == "running"
    assert running.generation == 2


def test_a_restart_of_what_is_stopped_is_a_start(api: APIClient) -> None:
    answer = api.post(f"{BASE}/restart")
    assert (answer.status_code, answer.json()["state"]) == (202, "starting")


# --- keep --------------------------------------------------------------------------------------------------------


def test_keeping_says_until_when(api: APIClient, running: Workspace, now: datetime) -> None:
    answer = api.post(f"{BASE}/keep", {"minutes": 90})
    assert answer.status_code == 200
    until = datetime.fromisoformat(answer.json()["keep_until"])
    assert abs(until - now - timedelta(minutes=90)) < timedelta(seconds=30)
    assert answer.json()["stops_at"] == answer.json()["keep_until"]


def test_keeping_withdraws_a_stop_that_waits(api: APIClient, running: Workspace) -> None:
    answer = api.post(f"{BASE}/stop", {"when": "command_ends"})
    assert (answer.status_code, answer.json()["state"], answer.json()["stop_when_done"]) == (202, "running", True)
    assert api.post(f"{BASE}/keep", {"minutes": 1}).json()["stop_when_done"] is False


def test_what_does_not_run_cannot_stop_when_its_command_ends(api: APIClient) -> None:
    assert_error(api.post(f"{BASE}/stop", {"when": "command_ends"}), 409, "not_running")


def test_a_stop_at_a_senseless_moment_is_400(api: APIClient, running: Workspace) -> None:
    assert_error(api.post(f"{BASE}/stop", {"when": "yesterday"}), 400, "invalid")
    assert api.get(f"{BASE}/status").json()["state"] == "running"


def test_status_and_history_say_why_it_was_stopped_with_the_clocks_that_were_seen(
    api: APIClient, running: Workspace, runtime: Any
) -> None:
    left_alone(running)
    idle_sweeps.stop_idle(runtime=runtime, now=timezone.now())
    status = api.get(f"{BASE}/status").json()
    assert status["explanation"].startswith("Stopped after 2 h without activity.")
    newest, *older = api.get(f"{BASE}/history").json()["results"]
    assert (newest["to"], newest["reason"], newest["explanation"]) == ("stopping", "idle", status["explanation"])
    assert newest["decision"] == status["decision"]
    assert newest["decision"]["clocks"]["presence_at"]
    assert all(row["decision"] is None for row in older)
    assert older[0]["explanation"] == "The editor answered."


def test_status_says_when_and_why_it_will_stop(api: APIClient, running: Workspace) -> None:
    status = api.get(f"{BASE}/status").json()
    assert (status["stops_reason"], status["warned"], status["explanation"]) == ("idle", False, None)
    assert status["stops_at"] < status["lifetime_ends_at"]


@pytest.mark.parametrize("minutes", [-1, "nan", "inf", "NaN", "-inf", "", None, "soon", [], {}, [5], "9" * 400, 1e300])
def test_a_senseless_time_to_keep_is_400(api: APIClient, running: Workspace, minutes: Any) -> None:
    body = assert_error(api.post(f"{BASE}/keep", {"minutes": minutes}), 400, "invalid")
    assert "minutes" in body["detail"]


def test_only_what_runs_can_be_kept(api: APIClient) -> None:
    assert_error(api.post(f"{BASE}/keep", {"minutes": 5}), 409, "not_running")


# --- logs, stats, history ----------------------------------------------------------------------------------------


def test_the_log_of_a_workspace_that_never_ran_is_empty(api: APIClient) -> None:
    assert api.get(f"{BASE}/logs").json() == {"lines": []}


@pytest.mark.parametrize("tail", ["0", "-1", "1001", "x", "1.5", "9" * 30])
def test_a_senseless_tail_is_400(api: APIClient, tail: str) -> None:
    body = assert_error(api.get(f"{BASE}/logs?tail={tail}"), 400, "invalid")
    assert "tail" in body["detail"]


def test_without_a_worker_the_log_is_503_within_seconds(api: APIClient, running: Workspace) -> None:
    asked = timezone.now()
    answer = api.get(f"{BASE}/logs")
    assert_error(answer, 503, "runtime_unavailable")
    assert answer["Retry-After"]
    assert timezone.now() - asked < timedelta(seconds=10)


def test_stats_are_those_of_the_last_sample(api: APIClient, running: Workspace, now: datetime) -> None:
    empty = api.get(f"{BASE}/stats").json()
    assert set(empty) >= {"cpu_percent", "memory_bytes", "memory_limit_bytes", "pids", "disk_bytes"}
    assert set(empty.values()) == {None}
    Usage.objects.create(
        workspace=running,
        sampled_at=now,
        generation=1,
        cpu_seconds=1,
        cpu_percent=12.5,
        memory_bytes=100,
        memory_limit_bytes=200,
        pids=3,
        disk_bytes=4,
    )
    found = api.get(f"{BASE}/stats").json()
    assert (found["cpu_percent"], found["memory_bytes"], found["pids"], found["disk_bytes"]) == (12.5, 100, 3, 4)
    lifecycle.request_stop(running, actor=None)
    ended = api.get(f"{BASE}/stats").json()
    assert (ended["cpu_percent"], ended["memory_bytes"], ended["pids"], ended["disk_bytes"]) == (0, 0, 0, 4)


def test_history_is_newest_first_and_says_who(api: APIClient, running: Workspace, user: Any) -> None:
    body = api.get(f"{BASE}/history").json()
    assert set(body) == {"next", "previous", "results"}
    newest, oldest = body["results"]
    assert (newest["from"], newest["to"], newest["reason"], newest["actor"]) == ("starting", "running", "ready", None)
    assert (oldest["from"], oldest["to"], oldest["reason"]) == ("stopped", "starting", "user")
    assert oldest["actor"] == "alice"
    assert newest["time"].endswith("Z")


def test_history_is_paged_without_gaps_while_rows_are_added(api: APIClient, running: Workspace, now: datetime) -> None:
    Transition.objects.all().delete()
    for number in range(25):
        _note(running, now + timedelta(seconds=number), number)
    seen: list[int] = []
    url: str | None = f"{BASE}/history?page_size=10"
    while url is not None:
        page = api.get(url).json()
        seen += [row["generation"] for row in page["results"]]
        _note(running, now + timedelta(hours=len(seen)), 999)
        url = page["next"]
    assert seen == list(range(24, -1, -1))


def _note(workspace: Workspace, time: datetime, generation: int) -> None:
    Transition.objects.create(
        workspace=workspace,
        from_state="running",
        to_state="stopping",
        reason="user",
        generation=generation,
        time=time,
    )


def _cursor(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


BAD_CURSORS = ["x", "%00", "é", _cursor("p=never"), _cursor("p=%00"), _cursor("o=-5&p=1"), _cursor("o=x")]


@pytest.mark.parametrize("cursor", BAD_CURSORS)
def test_a_made_up_cursor_is_404(api: APIClient, running: Workspace, cursor: str) -> None:
    assert_error(api.get(f"{BASE}/history", {"cursor": cursor}), 404)


def test_a_made_up_cursor_of_the_staffs_list_is_404(staff_api: APIClient, running: Workspace) -> None:
    for cursor in BAD_CURSORS:
        assert_error(staff_api.get("/api/v1/workspaces", {"cursor": cursor}), 404)


@pytest.mark.parametrize("size", ["201", "99999999999999999999"])
def test_a_page_has_a_size_that_nobody_makes_larger(api: APIClient, running: Workspace, size: str) -> None:
    now, kind = timezone.now(), {"from_state": "stopped", "to_state": "starting", "reason": "user", "generation": 1}
    Transition.objects.bulk_create(Transition(workspace=running, time=now, **kind) for _ in range(MAX_PAGE + 1))
    assert len(api.get(f"{BASE}/history?page_size={size}").json()["results"]) == MAX_PAGE


def test_nobody_sees_anybody_elses_history(
    api: APIClient, make_user: Callable[..., Any], bring_up: Callable[[Any], Workspace]
) -> None:
    bring_up(make_user("mallory"))
    assert api.get(f"{BASE}/history").json()["results"] == []


# --- nobody else -------------------------------------------------------------------------------------------------

CALLS = [
    ("post", "start"),
    ("get", "status"),
    ("post", "stop"),
    ("post", "restart"),
    ("post", "keep"),
    ("get", "logs"),
    ("get", "stats"),
    ("get", "history"),
    ("get", "events"),
]


@pytest.mark.parametrize(("method", "call"), CALLS)
def test_without_a_log_in_every_call_is_401(anonymous: APIClient, method: str, call: str) -> None:
    answer = getattr(anonymous, method)(f"{BASE}/{call}")
    assert_error(answer, 401, "not_authenticated")


@pytest.mark.parametrize(("method", "call"), CALLS)
def test_the_wrong_method_is_405_and_says_which_is_right(api: APIClient, method: str, call: str) -> None:
    wrong = "get" if method == "post" else "post"
    answer = getattr(api, wrong)(f"{BASE}/{call}")
    assert_error(answer, 405, "method_not_allowed")
    assert method.upper() in answer["Allow"]


@pytest.mark.parametrize("call", ["start", "stop", "restart"])
def test_a_disabled_user_is_401_everywhere(api: APIClient, user: Any, call: str) -> None:
    user.is_active = False
    user.save()
    assert_error(api.post(f"{BASE}/{call}"), 401)
    assert not Workspace.objects.exists()


def test_an_access_token_of_an_ended_login_starts_nothing(bearer: APIClient, tokens: dict[str, str]) -> None:
    assert bearer.post("/api/v1/auth/logout", {"refresh": tokens["refresh"]}).status_code == 204
    assert bearer.post("/api/v1/code-server/start").status_code == 401
    assert bearer.get("/api/v1/auth/me").status_code == 401


def test_the_staffs_list_is_ordered_as_asked(staff_api: APIClient, make_user: Any) -> None:
    for user in (make_user(), make_user()):
        staff_api.post(f"/api/v1/workspaces/{user.pk}/start")
    up = [row["user_id"] for row in staff_api.get("/api/v1/workspaces?ordering=user_id").json()["results"]]
    down = [row["user_id"] for row in staff_api.get("/api/v1/workspaces?ordering=-user_id").json()["results"]]
    assert up == sorted(up)
    assert down == up[::-1]
    assert staff_api.get("/api/v1/workspaces?ordering=password").status_code == 400
