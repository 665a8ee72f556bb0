from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Permission
from django.utils import timezone
from rest_framework.test import APIClient

from tests.api.shapes import assert_error, assert_workspace
from workspaces import access, ticket
from workspaces.models import Ticket, Transition, Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.django_db
BASE = "/api/v1/workspaces"


def ids(response: Any) -> list[int]:
    assert response.status_code == 200, response.content
    return [row["user_id"] for row in response.json()["results"]]


def test_for_everybody_else_there_is_no_such_thing(api: APIClient, user: Any, staff: Any, running: Any) -> None:
    for method, path in [
        ("get", BASE),
        ("get", f"{BASE}/{user.pk}"),
        ("get", f"{BASE}/{staff.pk}"),
        ("get", f"{BASE}/999999"),
        ("post", f"{BASE}/{user.pk}/start"),
        ("post", f"{BASE}/{user.pk}/stop"),
        ("post", f"{BASE}/{user.pk}/restart"),
    ]:
        assert_error(getattr(api, method)(path), 404, "not_found")
    running.refresh_from_db()
    assert running.state == "running"


def test_staff_who_lost_the_flag_lose_the_view(staff_api: APIClient, staff: Any) -> None:
    assert staff_api.get(BASE).status_code == 200
    staff.is_staff = False
    staff.save()
    assert_error(staff_api.get(BASE), 404, "not_found")


@pytest.fixture
def clerk(make_user: Callable[..., Any]) -> Any:
    return make_user("clerk", is_staff=True)


def may(clerk: Any, *names: str) -> APIClient:
    """A client of staff with these rights, as an administrator gives them in the admin."""
    clerk.user_permissions.set(Permission.objects.filter(content_type__app_label="workspaces", codename__in=names))
    client = APIClient()
    client.force_login(clerk)
    return client


def test_staff_without_the_right_to_see_workspaces_see_none(clerk: Any, running: Workspace) -> None:
    client = may(clerk)
    for path in (BASE, f"{BASE}/{running.user_id}", f"{BASE}/savings"):
        assert_error(client.get(path), 404, "not_found")
    for call in ("start", "stop", "restart"):
        assert_error(client.post(f"{BASE}/{running.user_id}/{call}"), 404, "not_found")
    assert client.get(f"/savings?user={running.user_id}").status_code == 404
    assert "All users" not in client.get("/savings").content.decode()
    assert may(clerk, "view_workspace").get(f"/savings?user={running.user_id}").status_code == 200
    running.refresh_from_db()
    assert running.state == "running"


def test_staff_who_may_only_look_do_not_start_or_stop(clerk: Any, running: Workspace) -> None:
    client = may(clerk, "view_workspace")
    assert ids(client.get(BASE)) == [running.user_id]
    for call in ("start", "stop", "restart"):
        assert_error(client.post(f"{BASE}/{running.user_id}/{call}"), 403, "permission_denied")
    running.refresh_from_db()
    assert running.state == "running"


@pytest.mark.parametrize("rights", [("view_workspace", "change_workspace"), ("change_workspace",)])
def test_staff_with_the_right_to_change_see_and_stop_it(
    clerk: Any, running: Workspace, rights: tuple[str, ...]
) -> None:
    client = may(clerk, *rights)
    assert client.get("/admin/workspaces/workspace/").status_code == 200  # the admin says the same
    assert ids(client.get(BASE)) == [running.user_id]
    assert client.post(f"{BASE}/{running.user_id}/stop").status_code == 202


def test_the_rights_of_one_who_is_no_staff_count_for_nothing(make_user: Callable[..., Any], running: Workspace) -> None:
    client = may(make_user("former"), "view_workspace", "change_workspace")
    assert_error(client.get(BASE), 404, "not_found")
    assert_error(client.post(f"{BASE}/{running.user_id}/stop"), 404, "not_found")


def test_only_who_may_see_all_savings_is_led_to_them(clerk: Any, running: Workspace) -> None:
    for rights, led in (((), False), (("view_workspace",), True)):
        page = may(clerk, *rights).get(f"/savings?user={clerk.pk}").content.decode()
        assert ("All users" in page) is led


def test_staff_stop_a_workspace_when_its_command_ends(staff_api: APIClient, running: Workspace) -> None:
    answer = staff_api.post(f"{BASE}/{running.user_id}/stop", {"when": "command_ends"})
    assert (answer.status_code, answer.json()["state"], answer.json()["stop_when_done"]) == (202, "running", True)


@pytest.mark.parametrize("user_id", ["0", "999999", "9223372036854775807", "9223372036854775808", "9" * 400])
def test_an_unknown_user_is_a_404(staff_api: APIClient, user_id: str) -> None:
    assert_error(staff_api.get(f"{BASE}/{user_id}"), 404, "not_found")
    for action in ("start", "stop", "restart"):
        assert_error(staff_api.post(f"{BASE}/{user_id}/{action}"), 404, "not_found")


def test_the_list_has_the_latest_change_first(
    staff_api: APIClient, make_user: Callable[..., Any], bring_up: Callable[[Any], Workspace]
) -> None:
    users = [make_user() for _ in range(3)]
    for user in users:
        bring_up(user)
    body = staff_api.get(BASE).json()
    assert body.keys() == {"next", "previous", "results"}
    assert [row["user_id"] for row in body["results"]] == [user.pk for user in reversed(users)]
    assert_workspace(body["results"][0], user=users[-1], state="running")


def test_the_list_can_be_filtered(
    staff_api: APIClient, user: Any, running: Workspace, make_user: Callable[..., Any]
) -> None:
    other = access.ensure_workspace_for(make_user("bob"))
    quiet = timezone.now() - timedelta(hours=1)
    assert ids(staff_api.get(BASE, {"state": "running"})) == [user.pk]
    assert ids(staff_api.get(BASE, {"state": "stopped"})) == [other.user_id]
    assert ids(staff_api.get(BASE, {"username": "bob"})) == [other.user_id]
    assert ids(staff_api.get(BASE, {"username": "bo"})) == []
    assert ids(staff_api.get(BASE, {"idle_since": quiet.isoformat()})) == []
    Workspace.objects.filter(pk=running.pk).update(last_activity_at=quiet - timedelta(minutes=1))
    assert ids(staff_api.get(BASE, {"idle_since": quiet.isoformat()})) == [user.pk]
    assert ids(staff_api.get(BASE, {"idle_since": quiet.isoformat(), "state": "stopped"})) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("state", "asleep"),
        ("state", "\x00"),
        ("username", "\x00"),
        ("username", "x" * 151),
        ("idle_since", "yesterday"),
        ("idle_since", "0001-01-01T00:00:00+14:00"),
        ("idle_since", "9999-12-31T23:59:59-14:00"),
        ("idle_since", "9" * 300),
    ],
)
def test_a_filter_of_a_wrong_form_is_a_400(staff_api: APIClient, name: str, value: str) -> None:
    assert name in assert_error(staff_api.get(BASE, {name: value}), 400, "invalid")["detail"]


def test_the_list_is_paged(staff_api: APIClient, make_user: Callable[..., Any]) -> None:
    rows = [access.ensure_workspace_for(make_user()) for _ in range(5)]
    moment = timezone.now()
    Workspace.objects.update(changed_at=moment)  # equal times must not repeat or lose a row
    seen: list[int] = []
    url: str | None = BASE + "?page_size=2"
    while url:
        page = staff_api.get(url).json()
        seen += [row["user_id"] for row in page["results"]]
        url = page["next"]
    assert sorted(seen) == sorted(row.user_id for row in rows)


def test_a_page_costs_the_same_whatever_it_holds(
    staff_api: APIClient, make_user: Callable[..., Any], django_assert_max_num_queries: Any
) -> None:
    for _ in range(20):
        access.ensure_workspace_for(make_user())
    with django_assert_max_num_queries(5):
        assert len(ids(staff_api.get(BASE))) == 20


def test_a_user_without_a_workspace_is_shown_as_stopped(staff_api: APIClient, user: Any) -> None:
    assert_workspace(staff_api.get(f"{BASE}/{user.pk}").json(), user=user, state="stopped")
    assert not Workspace.objects.exists()


def test_staff_start_stop_and_restart_for_others_and_get_no_ticket(
    staff_api: APIClient, user: Any, bring_up: Callable[[Any], Workspace]
) -> None:
    responses = [staff_api.post(f"{BASE}/{user.pk}/start")]
    bring_up(user)
    responses += [staff_api.post(f"{BASE}/{user.pk}/{action}") for action in ("start", "restart", "stop", "stop")]
    assert [response.status_code for response in responses] == [202, 200, 202, 202, 202]
    assert not any(ticket.COOKIE in response.cookies for response in responses)
    assert not Ticket.objects.exists()
    assert_workspace(responses[-1].json(), user=user, state="stopping")


def test_the_history_names_who_did_it_for_whom(staff_api: APIClient, api: APIClient, user: Any) -> None:
    staff_api.post(f"{BASE}/{user.pk}/start")
    (row,) = api.get("/api/v1/code-server/history").json()["results"]
    assert (row["reason"], row["actor"]) == ("staff", "root")


def test_a_restart_by_staff_names_them_too(staff_api: APIClient, staff: Any, user: Any, running: Workspace) -> None:
    assert staff_api.post(f"{BASE}/{user.pk}/restart").status_code == 202
    newest = Transition.objects.first()
    assert newest is not None
    assert (newest.reason, newest.actor) == ("restart", staff)


def test_a_disabled_users_workspace_cannot_be_started_by_anybody(
    staff_api: APIClient, make_user: Callable[..., Any]
) -> None:
    mallory = make_user("mallory", is_active=False)
    for action in ("start", "restart"):
        assert_error(staff_api.post(f"{BASE}/{mallory.pk}/{action}"), 403, "permission_denied")
    assert staff_api.post(f"{BASE}/{mallory.pk}/stop").status_code == 200
    assert not Transition.objects.exists()
