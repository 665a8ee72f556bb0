"""Lock-out through the doors: page and API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.db.models import F
from django.test import Client

from tests.api.shapes import assert_error
from workspaces import passwords
from workspaces.clients import client_network
from workspaces.errors import PasswordsBusy, PasswordsUnavailable
from workspaces.lockout import PLACE
from workspaces.models import LoginAllowance

if TYPE_CHECKING:
    from collections.abc import Callable


from tests.lockout.trying import by_api, by_page, spend

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2a3:4:5:6:7", "2001:db8:1:200::/56"),
        ("2001:db8:1:2ff::1", "2001:db8:1:200::/56"),
        ("2001:db8:1:300::1", "2001:db8:1:300::/56"),
        ("unknown", "unknown"),
    ],
)
def test_a_site_is_one_client(address: str, network: str) -> None:
    assert client_network(address) == network


def test_by_either_door_it_is_the_same_account(user: Any) -> None:
    browser = Client()
    for number in range(PLACE.most):
        answer = by_page(browser, "wrong") if number % 2 else by_api("wrong", name=" alice ")
        assert answer.status_code in {200, 401}
    refused = by_api("pw-alice")
    body = assert_error(refused, 429, "throttled")
    assert "Too many wrong passwords for this account from here" in body["message"]
    assert 300 < int(refused["Retry-After"]) == body["detail"]["retry_after"] <= 360
    page = by_page(browser, "pw-alice")
    text = page.content.decode()
    assert page.status_code == 429
    assert 300 < int(page["Retry-After"]) <= 360
    assert "Wait 6 minutes" in text
    assert 'value="alice"' in text
    assert "pw-alice" not in text
    assert by_api("pw-alice", address="192.0.2.2").status_code == 200


def test_an_account_that_there_is_not_is_locked_out_in_the_same_words(user: Any) -> None:
    get_user_model()._default_manager.create_user("mallory", password="pw-mallory", is_active=False)
    bodies = []
    for number, name in enumerate(("alice", "nobody", "mallory")):  # an address may try 120 times a minute
        spend(name, f"192.0.2.{number}")
        bodies.append(by_api("wrong", name=name, address=f"192.0.2.{number}").json())
        assert 300 < bodies[-1].pop("detail")["retry_after"] <= 360
    assert bodies[0] == bodies[1] == bodies[2]


def test_one_site_is_one_client_at_the_door_too(user: Any) -> None:
    spend(address="2001:db8:1:2a3::1")
    assert by_api("pw-alice", address="2001:db8:1:2ff::9").status_code == 429
    assert by_api("pw-alice", address="2001:db8:1:300::1").status_code == 200
    codes = [by_api("x", name=f"n-{n}", address=f"2001:db8:1:2a3::{n:x}").status_code for n in range(130)]
    assert codes[-1] == 429, "and for how often anybody may try"


def test_a_refusal_looks_at_no_password(user: Any) -> None:
    spend()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(get_user_model(), "check_password", None)
        patch.setattr(get_user_model(), "set_password", None)
        assert by_api("pw-alice").status_code == 429
        assert by_api("pw-alice", address="192.0.2.1").status_code == 429


def test_a_wrong_password_is_looked_at_once(user: Any) -> None:
    """The backend that stands behind ours in the settings must never be asked."""
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(get_user_model(), "check_password", lambda _, password: asked.append(password))
        assert by_api("wrong").status_code == 401
    assert asked == ["wrong"]


def test_an_account_that_there_is_not_costs_as_many_questions(
    user: Any, django_assert_num_queries: Callable[..., Any]
) -> None:
    for name in ("alice", "nobody"):
        spend(name)
        with django_assert_num_queries(8):
            assert by_api("wrong", name=name).status_code == 429


def test_the_right_password_costs_nothing_and_many_at_once_are_let_in(user: Any) -> None:
    assert {by_api("pw-alice").status_code for _ in range(PLACE.most + 10)} == {200}


@pytest.mark.parametrize("name", ["alice", "nobody"])
@pytest.mark.parametrize(
    ("trouble", "status"), [(PasswordsBusy("busy", retry_after=3), 429), (PasswordsUnavailable("away"), 503)]
)
def test_what_was_not_looked_at_costs_nothing(
    user: Any, settings: Any, name: str, trouble: Exception, status: int
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise trouble

    user.password = PBKDF2PasswordHasher().encode("pw-alice", "salt", 1)
    user.save()

    settings.PASSWORD_HASHERS = ["workspaces.passwords.ApartPBKDF2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords.ApartPBKDF2, "encode", refuse)
        patch.setattr(passwords.ApartPBKDF2, "verify", refuse)
        for _ in range(3):
            assert by_api("x", name=name).status_code == status
    assert not LoginAllowance.objects.exclude(tries=0).exists()


def test_a_new_password_is_not_held_to_what_was_tried_before(user: Any) -> None:
    spend()
    assert by_api("pw-alice").status_code == 429
    user.set_password("another")
    user.save()
    assert by_api("another").status_code == 200


def test_a_turn_comes_back_with_time(user: Any) -> None:
    spend()
    LoginAllowance.objects.update(full_at=F("full_at") - PLACE.every)
    assert by_api("pw-alice").status_code == 200
    assert by_api("wrong").status_code == 401
    assert by_api("wrong").status_code == 429
