"""An owner gets in where they are known, while others guess."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from django.core import signing
from django.test import Client
from django.utils import timezone

from workspaces import cookies, lockout, passwords
from workspaces.lockout import NEWCOMERS, NEWCOMERS_TRIES, PLACE, STRANGERS

if TYPE_CHECKING:
    from collections.abc import Callable


from tests.lockout.trying import THEN, by_api, by_page, spend

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("door", ["page", "api"])
def test_where_somebody_logged_in_they_still_do_while_others_guess(user: Any, door: str) -> None:
    first = by_api("pw-alice") if door == "api" else by_page(Client(), "pw-alice")
    assert first.status_code in {200, 302}
    for number in range(NEWCOMERS.most // NEWCOMERS_TRIES + STRANGERS.most // PLACE.most + 1):
        for _ in range(NEWCOMERS_TRIES + (PLACE.most if number < 3 else 0)):
            by_api("wrong", address=f"198.51.100.{number}")
    assert by_api("pw-alice", address="203.0.113.9").status_code == 429, "all that strangers have is spent"
    assert by_api("pw-alice").status_code == 200
    assert by_page(Client(), "pw-alice").status_code == 302


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


def test_a_device_that_was_taken_away_guesses_no_more_than_a_place_does_besides_its_address(user: Any) -> None:
    browser = Client()
    by_page(browser, "pw-alice")
    value = browser.cookies[cookies.DEVICE].value
    found = []
    for _ in range(2 * PLACE.most + 5):
        thief = Client()
        thief.cookies[cookies.DEVICE] = value
        found.append(by_page(thief, "wrong", address="198.51.100.9").status_code)
    assert found == [200] * 2 * PLACE.most + [429] * 5


def test_a_device_on_which_all_is_spent_is_still_at_an_address(user: Any) -> None:
    browser = Client()
    by_page(browser, "pw-alice")
    browser.cookies.pop("gunpowder_session")
    for _ in range(PLACE.most):
        by_page(browser, "wrong", address="198.51.100.9")
    assert by_page(browser, "pw-alice", address="198.51.100.9").status_code == 302


def test_what_an_account_is_known_by_goes_with_its_password(user: Any) -> None:
    """Else whoever once had it could make themselves any number of devices to guess the next one from."""
    browser = Client()
    by_page(browser, "pw-alice")
    browser.cookies.pop("gunpowder_session")
    user.set_password("another")
    user.save()
    request = browser.request().wsgi_request
    assert cookies.device_of(request, user=user) is None
    assert not lockout.knows(user, "192.0.2.1", now=timezone.now())
    by_page(browser, "another")
    assert cookies.device_of(browser.request().wsgi_request, user=user) is not None
    assert lockout.knows(user, "192.0.2.1", now=timezone.now())


@pytest.mark.parametrize("names", ["alice", "nobody-{}"])
def test_who_floods_from_an_address_does_not_keep_out_who_has_their_device_with_them(user: Any, names: str) -> None:
    browser = Client()
    assert by_page(browser, "pw-alice", address="198.51.100.1").status_code == 302
    browser.cookies.pop("gunpowder_session")
    codes = [by_api("wrong", name=names.format(number)).status_code for number in range(130)]
    assert codes[-1] == 429
    assert by_api("pw-alice").status_code == 429, "without it, one at that address is like another"
    assert by_page(browser, "pw-alice").status_code == 302


def test_all_devices_of_an_account_have_one_turn_and_one_count(user: Any) -> None:
    """Whoever has an account makes any number of devices for it; that must not be any number of turns."""
    asked: set[str] = set()

    def right(*_: Any) -> bool:
        asked.add(passwords._asked_by.get())
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(get_user_model(), "check_password", right)
        codes = []
        for number in range(4):
            browser = Client()
            codes += [by_page(browser, "pw-alice", address=f"192.0.2.{number}").status_code for _ in range(41)]
    assert [who.startswith("account ") for who in sorted(asked)] == [False] * 4 + [True]
    assert codes.count(302) == 4 + 120
    assert codes[-40:] == [429] * 40


def test_where_nobody_has_logged_in_for_long_is_a_strangers_place_again(user: Any) -> None:
    lockout.remember(user, "192.0.2.1", now=THEN)
    assert lockout.knows(user, "192.0.2.1", now=THEN + timedelta(days=89))
    assert not lockout.knows(user, "192.0.2.1", now=THEN + timedelta(days=90))
    assert not lockout.knows(user, "192.0.2.2", now=THEN)
    lockout.remember(user, "192.0.2.1", now=THEN + timedelta(days=80))
    assert lockout.knows(user, "192.0.2.1", now=THEN + timedelta(days=120))


def test_a_device_is_forgotten_after_half_a_year(user: Any) -> None:
    browser = Client()
    by_page(browser, "pw-alice")
    assert browser.cookies[cookies.DEVICE]["max-age"] == 180 * 86400
    request = browser.request().wsgi_request
    with pytest.MonkeyPatch.context() as patch:
        now, life = time.time(), 180 * 86400
        patch.setattr("django.core.signing.time.time", lambda: now + life - 60)
        assert cookies.device_of(request, user=user)
        patch.setattr("django.core.signing.time.time", lambda: now + life + 60)
        assert cookies.device_of(request, user=user) is None


def test_a_device_is_known_to_whoever_logged_in_there_and_to_nobody_else(make_user: Callable[..., Any]) -> None:
    names = [f"person-{number}" for number in range(cookies.DEVICE_ACCOUNTS + 2)]
    people = [make_user(name) for name in names]
    browser = Client()
    for name in names:
        browser.cookies.pop("gunpowder_session", None)
        assert by_page(browser, f"pw-{name}", name=name).status_code == 302
    request = browser.request().wsgi_request
    known = [cookies.device_of(request, user=person) is not None for person in people]
    assert known == [False, False, *[True] * cookies.DEVICE_ACCOUNTS]
    assert len(browser.cookies[cookies.DEVICE].value) < 600
    before = cookies.device_of(request, user=people[-1])
    browser.cookies.pop("gunpowder_session")
    by_page(browser, f"pw-{names[-1]}", name=names[-1])
    assert cookies.device_of(browser.request().wsgi_request, user=people[-1]) == before


NOT_OURS = [
    *("", "x", "\xff:\xff", "a:b:c", signing.dumps([[1, ["x", "y"]]], salt="another")),
    *(signing.dumps(each, salt=cookies._SALT) for each in ([[1, "x"]], [1], 1, "x", {"1": 2}, None)),
]


# By number: what is signed holds the time, and is another text in each process of the suite.
@pytest.mark.parametrize("value", NOT_OURS, ids=[str(number) for number in range(len(NOT_OURS))])
def test_a_cookie_that_is_not_ours_is_no_device(user: Any, value: str) -> None:
    browser = Client()
    browser.cookies[cookies.DEVICE] = value
    assert by_page(browser, "wrong").status_code == 200
    assert by_page(browser, "pw-alice").status_code == 302
