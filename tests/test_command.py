"""`manage.py workspaces …` and `manage.py ensure_accounts`."""

from __future__ import annotations

import json
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError

from tests.api.shapes import assert_workspace
from tests.idling import left_alone
from workspaces.models import Transition, Workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from workspaces.runtimes.memory import MemoryRuntime

pytestmark = pytest.mark.django_db


def run(*words: str) -> str:
    out = StringIO()
    call_command("workspaces", *words, stdout=out, stderr=out)
    return out.getvalue()


def run_json(*words: str) -> Any:
    return json.loads(run(*words, "--json"))


# --- list and show ---


def test_the_list_is_a_table_with_the_latest_change_first(
    running: Workspace, make_user: Callable[..., Any], bring_up: Callable[[Any], Workspace]
) -> None:
    bring_up(make_user("bob"))
    head, first, second = run("list").splitlines()
    assert head.split()[:4] == ["user_id", "username", "state", "port"]
    assert first.split()[1:3] == ["bob", "running"]
    assert second.split()[1:4] == ["alice", "running", str(running.port)]


def test_the_list_for_programs_holds_whole_objects(running: Workspace, user: Any) -> None:
    (row,) = run_json("list")
    assert row["username"] == "alice"
    assert_workspace(row, user=user, state="running")


def test_the_list_can_be_filtered_and_be_empty(running: Workspace) -> None:
    assert len(run_json("list", "--state", "running")) == 1
    assert run_json("list", "--state", "failed") == []
    assert len(run("list", "--state", "failed").splitlines()) == 1
    with pytest.raises(CommandError, match="invalid choice"):
        run("list", "--state", "asleep")


@pytest.mark.parametrize("by", ["username", "id"])
def test_show_tells_one_workspace_and_its_history(running: Workspace, user: Any, by: str) -> None:
    name = "alice" if by == "username" else str(user.pk)
    text = run("show", name)
    assert f"state  {running.state}" in text
    assert "stopped -> starting  user by alice" in text
    assert "The editor answered." in text
    found = run_json("show", name)
    assert_workspace(found, user=user, state="running")
    assert [(event["from"], event["to"]) for event in found["history"]] == [
        ("starting", "running"),
        ("stopped", "starting"),
    ]


def test_show_works_before_the_first_start(user: Any) -> None:
    assert_workspace(run_json("show", "alice"), user=user, state="stopped")
    assert "stopped" in run("show", "alice")
    assert not Workspace.objects.exists()


@pytest.mark.parametrize("verb", ["show", "start", "stop", "restart"])
@pytest.mark.parametrize("name", ["nobody", "999999", "9" * 30, "", "-", "\uff11\uff12\uff13\uff14"])
def test_an_unknown_user_is_a_sentence(user: Any, verb: str, name: str) -> None:
    with pytest.raises(CommandError, match=r"There is no user .* shows who has a workspace\."):
        run(verb, "--", name)


# --- start, stop, restart ---


def test_starting_goes_through_the_lifecycle(
    user: Any, sent: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        assert run("start", "alice") == f"user {user.pk}: starting\n"
        assert_workspace(run_json("start", "alice"), user=user, state="starting")
    assert [name for name, _ in sent] == ["workspaces.start"]
    assert (Transition.objects.get().reason, Transition.objects.get().actor) == ("staff", None)


def test_stopping_and_restarting_too(running: Workspace, user: Any) -> None:
    assert run("restart", "alice") == f"user {user.pk}: stopping\n"
    running.refresh_from_db()
    assert running.wanted == "running"
    assert_workspace(run_json("stop", str(user.pk)), user=user, state="stopping")
    running.refresh_from_db()
    assert (running.wanted, running.stop_reason) == ("stopped", "staff")


def test_stopping_what_never_ran_is_no_error(user: Any) -> None:
    assert run("stop", "alice") == f"user {user.pk}: stopped\n"


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_a_disabled_user_is_a_sentence_with_its_code(make_user: Callable[..., Any], verb: str) -> None:
    make_user("mallory", is_active=False)
    with pytest.raises(CommandError, match=r"This account is disabled\. .*\(access_denied\)"):
        run(verb, "mallory")


# --- sweep and reconcile ---


def test_a_dry_sweep_only_says_what_would_stop(running: Workspace, user: Any) -> None:
    assert run("sweep", "--dry-run") == "nothing to do\n"
    left_alone(running)
    text = run("sweep", "--dry-run")
    assert f"workspace={user.pk}" in text
    assert "saves_memory_bytes=419430400" in text
    assert "action=would_stop  reason=idle" in text
    report = run_json("sweep", "--dry-run")
    assert (report["sweep"], report["skipped"]) == ("stop_idle", "")
    assert [(one["workspace"], one["action"], one["reason"]) for one in report["actions"]] == [
        (user.pk, "would_stop", "idle")
    ]
    running.refresh_from_db()
    assert running.state == "running"


def test_a_sweep_stops_what_is_idle(running: Workspace, user: Any) -> None:
    left_alone(running)
    (action,) = run_json("sweep")["actions"]
    assert (action["workspace"], action["action"], action["reason"]) == (user.pk, "stop", "idle")
    running.refresh_from_db()
    assert (running.state, running.stop_reason) == ("stopping", "idle")


def test_show_explains_a_stop_with_every_clock_that_was_seen(running: Workspace) -> None:
    left_alone(running)
    run("sweep")
    text = run("show", "alice")
    assert "Stopped after 2 h without activity. " in text
    shown = run_json("show", "alice")
    detail = shown["history"][0]["detail"]
    assert shown["decision"] == detail
    assert detail["verdict"] == "stop"
    assert set(detail["clocks"]) >= {"started_at", "presence_at", "work_at", "connection_at", "keep_until"}


def test_show_explains_why_one_was_spared(running: Workspace, runtime: MemoryRuntime) -> None:
    left_alone(running)
    runtime.inside(running.container).commands = ("make",)
    run("sweep")
    spared = run_json("show", "alice")["last_spared"]
    assert (spared["verdict"], spared["working_on"]) == ("spared", ["make"])
    assert spared["sentence"].startswith("Not stopped: make is at work.")


@pytest.mark.parametrize("as_json", [False, True])
def test_reconcile_settles_what_went_away_from_outside(
    running: Workspace, user: Any, runtime: MemoryRuntime, *, as_json: bool
) -> None:
    runtime.ensure_removed(running.container)
    if as_json:
        report = run_json("reconcile")
        assert report["sweep"] == "reconcile"
        assert user.pk in [action["workspace"] for action in report["actions"]]
    else:
        assert f"workspace={user.pk}" in run("reconcile")
    running.refresh_from_db()
    assert (running.state, running.stop_reason) == ("stopped", "removed")


def test_reconcile_with_nothing_to_do_says_so(running: Workspace) -> None:
    assert run("reconcile") == "nothing to do\n"


@pytest.mark.parametrize("words", [["reconcile"], ["reconcile", "--json"]])
def test_an_engine_that_does_not_answer_is_an_error_and_changes_nothing(
    running: Workspace, runtime: MemoryRuntime, words: list[str]
) -> None:
    runtime.reachable = False
    with pytest.raises(CommandError, match="not to answer"):
        run(*words)
    running.refresh_from_db()
    assert running.state == "running"


# --- wrong calls ---


@pytest.mark.parametrize("words", [[], ["dance"], ["show"], ["list", "--verbose"]])
def test_a_wrong_call_is_refused(words: list[str]) -> None:
    with pytest.raises(CommandError):
        run(*words)


# --- accounts ---


def ensure_accounts() -> str:
    out = StringIO()
    call_command("ensure_accounts", stdout=out, stderr=out)
    return out.getvalue()


def test_accounts_are_made_once_and_then_left_alone(configure: Callable[..., None]) -> None:
    configure(admin_password="first-admin", demo_password="first-demo", demo_user=True)
    assert ensure_accounts().splitlines() == ["made the account admin", "made the account demo"]
    users = get_user_model()._default_manager
    admin, demo = users.get(username="admin"), users.get(username="demo")
    assert admin.check_password("first-admin")
    assert demo.check_password("first-demo")
    assert (admin.is_staff, admin.is_superuser) == (True, True)
    assert (demo.is_staff, demo.is_superuser) == (False, False)
    configure(admin_password="second", demo_password="second")
    assert ensure_accounts() == ""
    assert users.count() == 2
    assert users.get(username="admin").check_password("first-admin")


def test_without_a_demo_user_only_the_admin_is_made(configure: Callable[..., None]) -> None:
    configure(admin_password="x-admin", demo_user=False)
    ensure_accounts()
    assert [user.get_username() for user in get_user_model()._default_manager.all()] == ["admin"]


def test_without_a_password_no_account_is_made_and_it_says_so(configure: Callable[..., None], tmp_path: Path) -> None:
    configure(admin_password="", demo_password="", demo_user=True, secrets_dir=tmp_path)
    text = ensure_accounts()
    assert "admin: no password" in text
    assert "demo: no password" in text
    assert not get_user_model()._default_manager.exists()


def test_a_generated_password_is_taken_where_none_was_given(configure: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "admin_password").write_text("generated-one", encoding="utf-8")
    configure(admin_password="", demo_user=False, secrets_dir=tmp_path)
    ensure_accounts()
    assert get_user_model()._default_manager.get(username="admin").check_password("generated-one")
