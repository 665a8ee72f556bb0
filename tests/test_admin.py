from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from workspaces import access, lifecycle, ticket
from workspaces.models import Ticket, Transition, Usage, WorkerBeat, Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.django_db
LIST = "/admin/workspaces/workspace/"


def act(client: Client, action: str, *rows: Workspace) -> str:
    """Choose an action for some rows; what the page that follows says."""
    chosen = {"action": action, "_selected_action": [row.pk for row in rows]}
    response = client.post(LIST, chosen, follow=True)
    assert response.status_code == 200
    return "\n".join(str(message) for message in response.context["messages"])


@pytest.mark.parametrize("model", ["workspace", "transition", "ticket", "workerbeat"])
def test_every_list_renders(admin: Client, running: Workspace, model: str) -> None:
    ticket.issue(running, login="", now=timezone.now())
    WorkerBeat.objects.create(name="sweeps@host", at=timezone.now(), runtime_ok=True)
    response = admin.get(f"/admin/workspaces/{model}/")
    assert response.status_code == 200
    assert "1 " in response.content.decode() or model == "transition"


def test_every_detail_page_renders(admin: Client, running: Workspace) -> None:
    ticket.issue(running, login="", now=timezone.now())
    WorkerBeat.objects.create(name="sweeps@host", at=timezone.now(), runtime_ok=True)
    keys = {"workspace": running.pk, "ticket": Ticket.objects.get().pk, "workerbeat": "sweeps_40host"}
    for model, key in {**keys, "transition": Transition.objects.latest("pk").pk}.items():
        assert admin.get(f"/admin/workspaces/{model}/{key}/change/").status_code == 200, model


def test_the_list_shows_what_an_operator_looks_for(admin: Client, running: Workspace) -> None:
    page = admin.get(LIST).content.decode()
    for shown in ("alice", "running", str(running.port), running.container):
        assert shown in page
    assert running.editor_secret not in page
    assert running.editor_secret not in admin.get(f"{LIST}{running.pk}/change/").content.decode()


@pytest.mark.parametrize("query", ["?q=alice", "?state__exact=running", "?q=nobody", "?wanted__exact=stopped"])
def test_the_list_can_be_searched_and_filtered(admin: Client, running: Workspace, query: str) -> None:
    response = admin.get(LIST + query)
    assert response.status_code == 200
    found = f"{LIST}{running.pk}/change/" in response.content.decode()
    assert found is (query in {"?q=alice", "?state__exact=running"})


def test_a_search_for_nothing_that_text_can_hold_is_no_error(admin: Client, running: Workspace) -> None:
    for query in ("?q=%00", "?q=" + "x" * 5000, "?p=999", "?o=99", "?nothing=1"):
        assert admin.get(LIST + query, follow=True).status_code == 200, query


def test_the_list_costs_the_same_whatever_it_holds(
    admin: Client, make_user: Callable[..., Any], django_assert_max_num_queries: Any
) -> None:
    for _ in range(30):
        access.ensure_workspace_for(make_user())
    with django_assert_max_num_queries(14):
        admin.get(LIST)


def test_a_state_cannot_be_edited(admin: Client, running: Workspace) -> None:
    before = Workspace.objects.filter(pk=running.pk).values().get()
    forged = {
        "state": "stopped",
        "wanted": "stopped",
        "port": "",
        "user": "1",
        "generation": "99",
        "editor_secret": "x",
        "transitions-TOTAL_FORMS": "0",
        "transitions-INITIAL_FORMS": "0",
    }
    assert admin.post(f"{LIST}{running.pk}/change/", forged).status_code in {200, 302}
    assert Workspace.objects.filter(pk=running.pk).values().get() == before
    assert 'name="state"' not in admin.get(f"{LIST}{running.pk}/change/").content.decode()


@pytest.mark.parametrize("model", ["workspace", "transition", "ticket", "workerbeat"])
def test_nothing_can_be_added_or_deleted_by_hand(admin: Client, running: Workspace, model: str) -> None:
    assert admin.get(f"/admin/workspaces/{model}/add/").status_code == 403
    assert admin.post(f"/admin/workspaces/{model}/add/", {}).status_code == 403
    assert admin.post(f"{LIST}{running.pk}/delete/", {"post": "yes"}).status_code == 403
    row = Transition.objects.latest("pk")
    forged = {"reason": "idle", "to_state": "failed"}
    assert admin.post(f"/admin/workspaces/transition/{row.pk}/change/", forged).status_code == 403
    act(admin, "delete_selected", running)
    assert Workspace.objects.count() == 1
    assert Transition.objects.count() == 2


def test_start_stop_and_restart_go_through_the_lifecycle(
    admin: Client, staff: Any, user: Any, runtime: Any, sent: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    row = access.ensure_workspace_for(user)
    with django_capture_on_commit_callbacks(execute=True):
        assert "Asked 1 workspace(s) to start" in act(admin, "start_selected", row)
    row.refresh_from_db()
    assert (row.state, [name for name, _ in sent]) == ("starting", ["workspaces.start"])
    lifecycle.perform_start(row.pk, row.generation, runtime=runtime)
    for action in ("restart_selected", "stop_selected"):
        act(admin, action, row)
        row.refresh_from_db()
        assert row.state == "stopping"
    assert row.wanted == "stopped"
    by_staff = Transition.objects.filter(actor=staff).values_list("reason", flat=True)
    assert set(by_staff) == {"staff", "restart"}


def test_an_action_that_cannot_work_says_so_and_goes_on_with_the_others(
    admin: Client, user: Any, make_user: Callable[..., Any]
) -> None:
    rows = [access.ensure_workspace_for(owner) for owner in (make_user("mallory"), user)]
    get_user_model()._default_manager.filter(username="mallory").update(is_active=False)
    page = act(admin, "start_selected", *rows)
    assert "mallory: This account is disabled." in page
    assert "Asked 1 workspace(s) to start" in page
    assert sorted(Workspace.objects.values_list("state", flat=True)) == ["starting", "stopped"]


def test_staff_without_the_right_may_not_act(running: Workspace, make_user: Callable[..., Any]) -> None:
    client = Client()
    client.force_login(make_user("clerk", is_staff=True))
    assert client.post(LIST, {"action": "stop_selected", "_selected_action": [running.pk]}).status_code == 403
    running.refresh_from_db()
    assert running.state == "running"


def test_others_do_not_get_in(running: Workspace, user: Any) -> None:
    client = Client()
    client.force_login(user)
    assert client.get(LIST).status_code == 302
    assert client.get(LIST)["Location"].startswith("/admin/login/")


def test_a_user_with_a_workspace_can_be_deleted_with_everything_of_theirs(
    admin: Client, running: Workspace, user: Any, staff: Any
) -> None:
    now = timezone.now()
    ticket.issue(running, login="", now=now)
    Usage.objects.create(
        workspace=running,
        sampled_at=now,
        generation=1,
        cpu_seconds=1,
        cpu_percent=1,
        memory_bytes=1,
        memory_limit_bytes=1,
        pids=1,
        disk_bytes=1,
    )
    APIClient().post("/api/v1/auth/token", {"username": "alice", "password": "pw-alice"})
    theirs = lifecycle.request_start(staff, actor=user)
    assert admin.get(f"/admin/auth/user/{user.pk}/delete/").status_code == 200
    response = admin.post(f"/admin/auth/user/{user.pk}/delete/", {"post": "yes"})
    assert response.status_code == 302, response.content.decode()
    assert not get_user_model()._default_manager.filter(pk=user.pk).exists()
    assert list(Workspace.objects.all()) == [theirs]
    assert Transition.objects.get().actor is None


def test_users_can_be_deleted_from_the_list_too(admin: Client, running: Workspace, user: Any) -> None:
    chosen = {"action": "delete_selected", "_selected_action": [user.pk], "post": "yes"}
    admin.post("/admin/auth/user/", chosen)
    assert not Workspace.objects.exists()


def test_the_history_beside_a_workspace_is_its_newest_fifty(
    admin: Client, running: Workspace, make_user: Callable[..., Any], bring_up: Callable[[Any], Workspace]
) -> None:
    bring_up(make_user("bob"))
    now = timezone.now()
    running.transitions.all().delete()
    for number in range(60):
        running.transitions.create(
            from_state="running", to_state="stopping", reason="idle", generation=7000 + number, time=now
        )
    page = admin.get(f"{LIST}{running.pk}/change/").content.decode()
    shown = [number for number in range(60) if f">{7000 + number}<" in page]
    assert shown == list(range(10, 60))


def test_what_a_container_said_cannot_become_markup(admin: Client, running: Workspace) -> None:
    Workspace.objects.filter(pk=running.pk).update(
        state="failed", port=None, error_code="crashed", error_message="<script>alert(1)</script>"
    )
    for path in (LIST, f"{LIST}{running.pk}/change/"):
        assert "<script>alert" not in admin.get(path).content.decode()


def test_logging_out_of_the_admin_ends_the_editor_sessions_too(staff: Any, client: Any) -> None:
    client.force_login(staff)
    answer = client.post("/api/v1/code-server/start")
    token = answer.cookies["gunpowder_ticket"].value
    assert ticket.find_valid([token], now=timezone.now())
    assert client.post("/admin/logout/").status_code == 302
    assert not ticket.find_valid([token], now=timezone.now())


def test_the_admin_has_no_log_in_of_its_own(client: Any, user: Any) -> None:
    assert client.get("/admin/login/?next=/admin/").headers["Location"] == "/login?next=%2Fadmin%2F"
    client.force_login(user)
    assert client.get("/admin/login/?next=/admin/").status_code == 403
