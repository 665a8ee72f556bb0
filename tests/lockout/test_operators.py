"""Lock-out and who runs the place: unlocking, logs, sessions, other ways to try a password."""

from __future__ import annotations

import io
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import aauthenticate
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.db.models import F
from django.test import Client
from structlog.testing import capture_logs

from tests.lockout.trying import by_api, by_page, spend
from workspaces import cookies
from workspaces.errors import LockedOut
from workspaces.lockout import PLACE
from workspaces.models import KnownPlace, LoginAllowance

pytestmark = pytest.mark.django_db


def unlocked(name: str = "alice") -> str:
    out = io.StringIO()
    call_command("workspaces", "unlock", name, stdout=out)
    return out.getvalue().strip()


def test_an_operator_lets_somebody_try_again(user: Any, staff: Any) -> None:
    spend()
    assert by_api("pw-alice").status_code == 429
    assert unlocked() == f"user {user.pk}: may try again"
    assert by_api("pw-alice").status_code == 200
    assert unlocked() == f"user {user.pk}: nothing was held against this account"
    spend()
    admin = Client()
    admin.force_login(staff)
    form = {"action": "forget_wrong_passwords", "_selected_action": [str(user.pk), str(staff.pk)]}
    page = admin.post("/admin/auth/user/", form, follow=True)
    said = "Forgot the wrong passwords of 1 account(s); nothing was held against the other 1."
    assert said in page.content.decode()
    assert by_api("pw-alice").status_code == 200


def test_nothing_stored_tells_a_name_an_address_or_a_password(user: Any) -> None:
    by_api("hunter2", name="my secret password", address="192.0.2.44")
    by_api("pw-alice", address="192.0.2.44")
    assert (LoginAllowance.objects.count(), KnownPlace.objects.count()) == (4, 1)
    stored = str([list(model.objects.values_list()) for model in (LoginAllowance, KnownPlace)])
    for word in ("secret", "hunter2", "alice", "192.0.2.44"):
        assert word not in stored


def test_nothing_a_log_says_tells_a_name_or_a_password() -> None:
    with capture_logs() as lines:
        spend("my secret password")
        assert by_api("hunter2", name="my secret password").status_code == 429
    logged = str(lines)
    assert "login_locked_out" in logged
    assert "secret" not in logged
    assert "hunter2" not in logged


def test_a_session_from_before_the_lock_out_lives_on(user: Any) -> None:
    browser = Client()
    browser.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    assert browser.get("/").status_code == 200


def test_a_session_is_one_for_the_release_before_too(user: Any, settings: Any) -> None:
    browser = Client()
    by_page(browser, "pw-alice")
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
    assert browser.get("/").status_code == 200


def test_the_way_of_asynchronous_views_is_the_same(user: Any) -> None:
    for _ in range(PLACE.most):
        assert async_to_sync(aauthenticate)(username="alice", password="wrong") is None
    with pytest.raises(LockedOut):
        async_to_sync(aauthenticate)(username="alice", password="pw-alice")


def test_who_found_a_session_of_staff_does_not_guess_the_password_in_it(staff: Any) -> None:
    browser = Client()
    browser.force_login(staff)
    new = {"new_password1": "an-other-one-7", "new_password2": "an-other-one-7"}
    path = "/admin/password_change/"
    assert "Change my password" in browser.get(path).content.decode()
    for _ in range(PLACE.most):
        page = browser.post(path, {**new, "old_password": "wrong"})
        assert page.status_code == 200
        assert "Your old password was entered incorrectly" in page.content.decode()
    refused = browser.post(path, {**new, "old_password": f"pw-{staff.username}"})
    assert refused.status_code == 429
    assert "Error 429" in refused.content.decode()
    assert "Wait 6 minutes, then try again. Nothing was saved" in refused.content.decode()
    LoginAllowance.objects.update(full_at=F("full_at") - PLACE.every)
    changed = browser.post(path, {**new, "old_password": f"pw-{staff.username}"})
    assert changed.status_code == 302
    assert changed.cookies[cookies.DEVICE]["path"] == "/login", "known here by the new one"
    staff.refresh_from_db()
    assert staff.check_password("an-other-one-7")


def test_only_who_may_change_users_makes_them_forgotten(user: Any, staff: Any) -> None:
    staff.is_superuser = False
    staff.save()
    staff.user_permissions.add(Permission.objects.get(codename="view_user"))
    spend()
    browser = Client()
    browser.force_login(staff)
    form = {"action": "forget_wrong_passwords", "_selected_action": [str(user.pk)]}
    browser.post("/admin/auth/user/", form, follow=True)
    assert by_api("pw-alice").status_code == 429
