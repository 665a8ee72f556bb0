"""A user's name is read by one rule, wherever it is typed: page, API, filters of staff, command line."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from tests.api.shapes import assert_error
from workspaces import access, lifecycle, savings, ticket
from workspaces.models import UserLimits
from workspaces.naming import user_name

pytestmark = pytest.mark.django_db
TOKEN = "/api/v1/auth/token"
LISTED = "/api/v1/workspaces"
STORED = "\u00c5lice"  # with one letter for the ring
SPELLINGS = [STORED, "A\u030alice", f"  {STORED}\t", "\uff21\u030alice", "\u212blice"]
OTHERS = ["alice", "\u00e5lice", "\u00c5lice2", "A lice", "\u00c5 lice"]


@pytest.fixture
def ring() -> Any:
    return get_user_model().objects.create_user(STORED, password="pw-ring")


def enters(name: str) -> tuple[bool, bool]:
    """Whether the API and the log-in page let them in."""
    by_api = APIClient().post(TOKEN, {"username": name, "password": "pw-ring"}).status_code == 200
    by_page = Client().post("/login", {"username": name, "password": "pw-ring"}).status_code == 302
    return by_api, by_page


@pytest.mark.parametrize("name", SPELLINGS, ids=ascii)
def test_every_spelling_of_a_name_gets_in_by_either_door(ring: Any, name: str) -> None:
    assert enters(name) == (True, True)


@pytest.mark.parametrize("name", OTHERS, ids=ascii)
def test_another_name_gets_in_by_neither(ring: Any, name: str) -> None:
    assert enters(name) == (False, False)


@pytest.mark.parametrize("name", SPELLINGS, ids=ascii)
def test_staff_find_them_by_every_spelling(ring: Any, name: str, staff_api: APIClient) -> None:
    access.ensure_workspace_for(ring)
    found = staff_api.get(LISTED, {"username": name}).json()["results"]
    assert [row["user_id"] for row in found] == [ring.pk]
    out = io.StringIO()
    call_command("workspaces", "show", name, stdout=out)
    assert f"/code/user/{ring.pk}/" in out.getvalue()


@pytest.mark.parametrize("name", SPELLINGS, ids=ascii)
@pytest.mark.parametrize("listed", ["auth/user", "workspaces/workspace", "workspaces/userlimits"])
def test_the_admins_search_finds_them_by_every_spelling(ring: Any, name: str, listed: str, admin: Client) -> None:
    rows = {
        "auth/user": ring,
        "workspaces/workspace": access.ensure_workspace_for(ring),
        "workspaces/userlimits": UserLimits.objects.create(user=ring),
    }
    page = admin.get(f"/admin/{listed}/", {"q": name}).content.decode()
    assert f"/admin/{listed}/{rows[listed].pk}/change/" in page


@pytest.mark.parametrize("listed", ["transition", "ticket"])
def test_so_do_the_lists_of_what_was_done_in_their_name(ring: Any, listed: str, admin: Client, staff: Any) -> None:
    now = timezone.now()
    for user in (ring, staff):
        workspace = access.ensure_workspace_for(user)
        ticket.issue(workspace, login="", now=now)
        lifecycle.request_start(user, actor=user)
    for name in SPELLINGS:
        page = admin.get(f"/admin/workspaces/{listed}/", {"q": name}).content.decode()
        assert f"1 {listed}" in page, ascii(name)


def test_a_field_for_a_user_offers_them_too(ring: Any, admin: Client) -> None:
    for name in SPELLINGS:
        asked = {"app_label": "workspaces", "model_name": "userlimits", "field_name": "user", "term": name}
        found = admin.get("/admin/autocomplete/", asked).json()["results"]
        assert [row["text"] for row in found] == [STORED], ascii(name)


@pytest.mark.parametrize("name", SPELLINGS, ids=ascii)
def test_the_savings_find_them_by_every_spelling(name: str) -> None:
    window = savings.Window.of_days(1, now=timezone.now())
    ran = savings.Figures(run=timedelta(hours=1))
    found = [savings.UserSavings(user_id=1, username=STORED, by_day={window.days()[0]: ran})]
    assert savings.summarise(found, window=window).users_named(name)


def test_a_name_that_grows_when_it_is_read_is_refused_in_words(anonymous: APIClient) -> None:
    grows = "\ufdfa" * 20  # 18 letters each
    assert len(user_name(grows)) > 150
    assert_error(anonymous.post(TOKEN, {"username": grows, "password": "x"}), 400)
