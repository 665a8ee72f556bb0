"""How many wrong passwords an account bears, from where; and that its owner gets in all the while."""

from __future__ import annotations

import io
import ipaddress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from django.core import signing
from django.core.management import call_command
from django.db.models import F
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.test import APIClient
from structlog.testing import capture_logs

from tests.api.shapes import assert_error
from tests.suite.waiting import together
from workspaces import cookies, lockout, passwords
from workspaces.clients import client_network
from workspaces.errors import LockedOut, PasswordsBusy, PasswordsUnavailable
from workspaces.lockout import NEWCOMERS, NEWCOMERS_TRIES, PLACE, STRANGERS, Allowance, Place
from workspaces.models import KnownPlace, LoginAllowance

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpResponse

TOKEN = "/api/v1/auth/token"
THEN = datetime(2026, 3, 1, 9, tzinfo=UTC)
HOME = Place("address 192.0.2.1", known=True)
database = pytest.mark.django_db


def strange(number: int) -> Place:
    return Place(f"address {ipaddress.ip_address(number)}", known=False)


def tries(account: str, place: Place, *, now: datetime = THEN, most: int = 10_000) -> int:
    """How many tries there are at this moment, up to `most`."""
    for number in range(most):
        try:
            lockout.take(account, place, now=now)
        except LockedOut:
            return number
    return most


def by_api(password: str, *, name: str = "alice", address: str = "192.0.2.1") -> Any:
    return APIClient().post(TOKEN, {"username": name, "password": password}, headers={"x-real-ip": address})


def by_page(browser: Client, password: str, *, name: str = "alice", address: str = "192.0.2.1") -> HttpResponse:
    form = {"username": name, "password": password}
    return browser.post("/login", form, headers={"x-real-ip": address})  # type: ignore[return-value]


def spend(name: str = "alice", address: str = "192.0.2.1") -> None:
    """All wrong passwords that an address has for an account; through the same door as everybody."""
    assert {by_api("wrong", name=name, address=address).status_code for _ in range(PLACE.most)} == {401}


# --- an allowance, which is one moment ---


@given(
    st.integers(1, 200),
    st.integers(1, 1000),
    st.lists(st.tuples(st.integers(0, 5000), st.booleans()), max_size=60),
)
def test_an_allowance_gives_what_it_says_and_no_more(most: int, every: int, asked: list[tuple[int, bool]]) -> None:
    allowance = Allowance(most=most, every=timedelta(seconds=every))
    full_at, now, left = THEN, THEN, float(most)
    for seconds, right in asked:
        now += timedelta(seconds=seconds)
        left = min(most, left + seconds / every)
        assert allowance.has_one(full_at, now=now) is (left >= 1 - 1e-9)
        if not allowance.has_one(full_at, now=now):
            wait = allowance.wait(full_at, now=now)
            assert allowance.has_one(full_at, now=now + timedelta(seconds=wait))
            assert wait == 1 or not allowance.has_one(full_at, now=now + timedelta(seconds=wait - 1))
            continue
        full_at = allowance.take(full_at, now=now)
        assert allowance.possible(full_at, now=now) == full_at
        if right:
            full_at -= allowance.every
        else:
            left -= 1


# --- places ---


@database
def test_a_place_has_so_many_and_then_one_at_a_time() -> None:
    assert tries("a", HOME) == PLACE.most >= 30
    with pytest.raises(LockedOut) as locked:
        lockout.take("a", HOME, now=THEN)
    assert locked.value.retry_after == PLACE.every.total_seconds()
    assert tries("a", HOME, now=THEN + PLACE.every) == 1
    assert tries("a", HOME, now=THEN + timedelta(days=30)) == PLACE.most


@database
def test_no_place_spends_another_known_ones_nor_another_accounts() -> None:
    tries("a", HOME)
    for number in range(300):
        tries("a", strange(number), most=5)
    assert tries("a", Place("device d", known=True)) == PLACE.most
    assert tries("b", HOME) == PLACE.most
    assert tries("b", strange(0), most=5) == 5


@database
def test_strangers_have_so_many_together() -> None:
    found = sum(tries("a", strange(number)) for number in range(30))
    assert found == STRANGERS.most + 30 * NEWCOMERS_TRIES
    assert tries("a", strange(7), now=THEN + timedelta(hours=1)) == timedelta(hours=1) / STRANGERS.every


@database
def test_somebody_new_gets_in_while_a_hundred_others_guess() -> None:
    for number in range(99):
        tries("a", strange(number))
    assert tries("a", strange(500)) == NEWCOMERS_TRIES
    assert tries("a", strange(501)) == 0
    assert tries("a", strange(502), now=THEN + NEWCOMERS.every) == 1
    assert tries("a", HOME) == PLACE.most


@database
def test_who_tries_now_and_then_is_not_new_each_time() -> None:
    """Else three addresses that wait for a while each time could keep a newcomer out."""
    for hours in range(0, 20, 2):
        tries("a", strange(1), now=THEN + timedelta(hours=hours), most=3)
    now = THEN + timedelta(hours=20)
    newcomers = LoginAllowance.objects.get(key=lockout._key("allowance", "a", "newcomers"))
    assert newcomers.tries == NEWCOMERS_TRIES
    assert tries("a", strange(1), now=now + timedelta(days=2), most=3) == 3
    assert LoginAllowance.objects.get(key=newcomers.key).tries == NEWCOMERS_TRIES, "forgotten, and begun anew"


@database
def test_what_was_right_or_not_looked_at_is_given_back() -> None:
    for _ in range(3 * PLACE.most):
        lockout.take("a", strange(1), now=THEN).give_back()
    assert not LoginAllowance.objects.exclude(tries=0).exists()
    assert tries("a", strange(1)) > NEWCOMERS_TRIES


@database
def test_a_refusal_takes_nothing() -> None:
    for number in range(40):
        tries("a", strange(number))
    before = list(LoginAllowance.objects.order_by("key").values_list("key", "full_at", "tries"))
    assert tries("a", strange(3)) == 0
    assert list(LoginAllowance.objects.order_by("key").values_list("key", "full_at", "tries")) == before


@database
def test_a_clock_that_was_set_back_does_not_lock_for_as_long() -> None:
    tries("a", HOME, now=THEN + timedelta(days=365))
    assert tries("a", HOME, now=THEN) == 0
    assert tries("a", HOME, now=THEN + PLACE.every) == 1


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_no_more_get_a_try() -> None:
    def some(number: int) -> Callable[[], int]:
        return lambda: sum(tries("a", place, most=12) for place in (HOME, strange(number % 2)))

    found = sum(together(*[some(number) for number in range(8)], within=60))
    assert found == PLACE.most + min(8 * 12, 2 * PLACE.most)
    assert LoginAllowance.objects.count() == 1 + 2 + 2


# --- addresses ---


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


# --- through the doors ---


@database
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


@database
def test_an_account_that_there_is_not_is_locked_out_in_the_same_words(user: Any) -> None:
    get_user_model()._default_manager.create_user("mallory", password="pw-mallory", is_active=False)
    bodies = []
    for number, name in enumerate(("alice", "nobody", "mallory")):  # an address may try 120 times a minute
        spend(name, f"192.0.2.{number}")
        bodies.append(by_api("wrong", name=name, address=f"192.0.2.{number}").json())
        assert 300 < bodies[-1].pop("detail")["retry_after"] <= 360
    assert bodies[0] == bodies[1] == bodies[2]


@database
@pytest.mark.parametrize("door", ["page", "api"])
def test_where_somebody_logged_in_they_still_do_while_others_guess(user: Any, door: str) -> None:
    first = by_api("pw-alice") if door == "api" else by_page(Client(), "pw-alice")
    assert first.status_code in {200, 302}
    for number in range(110):
        for _ in range(4):
            by_api("wrong", address=f"198.51.100.{number}")
    assert by_api("pw-alice", address="203.0.113.9").status_code == 429, "all that strangers have is spent"
    assert by_api("pw-alice").status_code == 200
    assert by_page(Client(), "pw-alice").status_code == 302


@database
def test_a_device_is_known_wherever_it_is(user: Any) -> None:
    browser, other = Client(), Client()
    assert by_page(browser, "pw-alice").status_code == 302
    cookie = browser.cookies[cookies.DEVICE]
    assert (cookie["path"], cookie["httponly"], cookie["samesite"]) == ("/login", True, "Lax")
    browser.logout()
    spend(address="192.0.2.66")
    assert by_page(other, "pw-alice", address="192.0.2.66").status_code == 429
    browser.cookies[cookies.DEVICE] = cookie.value
    assert by_page(browser, "pw-alice", address="192.0.2.66").status_code == 302


@database
def test_a_device_guesses_no_more_than_a_place_does(user: Any) -> None:
    browser = Client()
    by_page(browser, "pw-alice")
    value = browser.cookies[cookies.DEVICE].value
    found = []
    for number in range(PLACE.most + 5):
        thief = Client()
        thief.cookies[cookies.DEVICE] = value
        found.append(by_page(thief, "wrong", address=f"192.0.2.{number + 10}").status_code)
    assert found == [200] * PLACE.most + [429] * 5


@database
def test_a_device_is_known_to_whoever_logged_in_there_and_to_nobody_else(make_user: Callable[..., Any]) -> None:
    names = [f"person-{number}" for number in range(cookies.DEVICE_ACCOUNTS + 2)]
    people = [make_user(name) for name in names]
    browser = Client()
    for name in names:
        browser.cookies.pop("gunpowder_session", None)
        assert by_page(browser, f"pw-{name}", name=name).status_code == 302
    request = browser.request().wsgi_request
    known = [cookies.device_of(request, user_id=person.pk) is not None for person in people]
    assert known == [False, False, *[True] * cookies.DEVICE_ACCOUNTS]
    assert len(browser.cookies[cookies.DEVICE].value) < 600
    before = cookies.device_of(request, user_id=people[-1].pk)
    browser.cookies.pop("gunpowder_session")
    by_page(browser, f"pw-{names[-1]}", name=names[-1])
    assert cookies.device_of(browser.request().wsgi_request, user_id=people[-1].pk) == before


@database
@pytest.mark.parametrize("value", ["", "x", "\xff:\xff", "a:b:c", signing.dumps([[1, "x"]], salt="another")])
def test_a_cookie_that_is_not_ours_is_no_device(user: Any, value: str) -> None:
    browser = Client()
    browser.cookies[cookies.DEVICE] = value
    assert by_page(browser, "wrong").status_code == 200
    assert by_page(browser, "pw-alice").status_code == 302


@database
def test_the_right_password_costs_nothing_and_many_at_once_are_let_in(user: Any) -> None:
    assert {by_api("pw-alice").status_code for _ in range(PLACE.most + 10)} == {200}


@database
@pytest.mark.parametrize("trouble", [PasswordsBusy("busy", retry_after=3), PasswordsUnavailable("away")])
def test_what_was_not_looked_at_costs_nothing(user: Any, settings: Any, trouble: Exception) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise trouble

    settings.PASSWORD_HASHERS = ["workspaces.passwords.ApartPBKDF2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords.ApartPBKDF2, "encode", refuse)
        patch.setattr(passwords.ApartPBKDF2, "verify", refuse)
        for _ in range(3):
            assert by_api("x", name="nobody").status_code in {429, 503}
    assert not LoginAllowance.objects.exclude(tries=0).exists()


@database
def test_a_new_password_is_not_held_to_what_was_tried_before(user: Any) -> None:
    spend()
    assert by_api("pw-alice").status_code == 429
    user.set_password("another")
    user.save()
    assert by_api("another").status_code == 200


@database
def test_a_turn_comes_back_with_time(user: Any) -> None:
    spend()
    LoginAllowance.objects.update(full_at=F("full_at") - PLACE.every)
    assert by_api("pw-alice").status_code == 200
    assert by_api("wrong").status_code == 401
    assert by_api("wrong").status_code == 429


def unlocked(name: str = "alice") -> str:
    out = io.StringIO()
    call_command("workspaces", "unlock", name, stdout=out)
    return out.getvalue().strip()


@database
def test_an_operator_lets_somebody_try_again(user: Any, staff: Any) -> None:
    spend()
    assert by_api("pw-alice").status_code == 429
    assert unlocked() == f"user {user.pk}: may try again"
    assert by_api("pw-alice").status_code == 200
    assert unlocked() == f"user {user.pk}: nothing was held against this account"
    spend()
    admin = Client()
    staff.is_superuser = True
    staff.save()
    admin.force_login(staff)
    form = {"action": "forget_wrong_passwords", "_selected_action": [str(user.pk), str(staff.pk)]}
    page = admin.post("/admin/auth/user/", form, follow=True)
    said = "Forgot the wrong passwords of 1 account(s); nothing was held against the other 1."
    assert said in page.content.decode()
    assert by_api("pw-alice").status_code == 200


@database
def test_nothing_stored_tells_a_name_an_address_or_a_password(user: Any) -> None:
    by_api("hunter2", name="my secret password", address="192.0.2.44")
    by_api("pw-alice", address="192.0.2.44")
    assert (LoginAllowance.objects.count(), KnownPlace.objects.count()) == (4, 1)
    stored = str([list(model.objects.values_list()) for model in (LoginAllowance, KnownPlace)])
    for word in ("secret", "hunter2", "alice", "192.0.2.44"):
        assert word not in stored


@database
def test_nothing_a_log_says_tells_a_name_or_a_password() -> None:
    with capture_logs() as lines:
        spend("my secret password")
        assert by_api("hunter2", name="my secret password").status_code == 429
    logged = str(lines)
    assert "login_locked_out" in logged
    assert "secret" not in logged
    assert "hunter2" not in logged


@database
def test_a_session_from_before_the_lock_out_lives_on(user: Any) -> None:
    browser = Client()
    browser.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    assert browser.get("/").status_code == 200
