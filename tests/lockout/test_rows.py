"""How many wrong passwords an account bears, from where: the rows."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.suite.waiting import together
from workspaces import lockout
from workspaces.errors import LockedOut
from workspaces.lockout import NEWCOMERS, NEWCOMERS_TRIES, PLACE, STRANGERS, Allowance, Place
from workspaces.models import LoginAllowance

if TYPE_CHECKING:
    from collections.abc import Callable


from tests.lockout.trying import HOME, THEN, A, B, strange, tries

pytestmark = pytest.mark.django_db


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


def test_a_place_has_so_many_and_then_one_at_a_time() -> None:
    assert tries(A, HOME) == PLACE.most >= 30
    with pytest.raises(LockedOut) as locked:
        lockout.take(A, HOME, now=THEN)
    assert locked.value.retry_after == PLACE.every.total_seconds()
    assert tries(A, HOME, now=THEN + PLACE.every) == 1
    assert tries(A, HOME, now=THEN + timedelta(days=30)) == PLACE.most


def test_no_place_spends_another_known_ones_nor_another_accounts() -> None:
    tries(A, HOME)
    for number in range(300):
        tries(A, strange(number), most=5)
    assert tries(A, Place("device d", known=True)) == PLACE.most
    assert tries(B, HOME) == PLACE.most
    assert tries(B, strange(0), most=5) == 5


def test_strangers_have_so_many_together() -> None:
    found = sum(tries(A, strange(number)) for number in range(30))
    assert found == STRANGERS.most + 30 * NEWCOMERS_TRIES
    assert tries(A, strange(7), now=THEN + timedelta(hours=1)) == timedelta(hours=1) / STRANGERS.every


def test_somebody_new_gets_in_while_a_hundred_others_guess() -> None:
    for number in range(99):
        tries(A, strange(number))
    assert tries(A, strange(500)) == NEWCOMERS_TRIES
    assert tries(A, strange(501)) == 0
    assert tries(A, strange(502), now=THEN + NEWCOMERS.every) == 1
    assert tries(A, HOME) == PLACE.most


def test_who_tries_now_and_then_is_not_new_each_time() -> None:
    """Else three addresses that wait for a while each time could keep a newcomer out."""
    for hours in range(0, 20, 2):
        tries(A, strange(1), now=THEN + timedelta(hours=hours), most=3)
    now = THEN + timedelta(hours=20)
    newcomers = LoginAllowance.objects.get(key=lockout._key("allowance", A.hex, "newcomers"))
    assert newcomers.tries == NEWCOMERS_TRIES
    assert tries(A, strange(1), now=now + timedelta(days=2), most=3) == 3
    assert LoginAllowance.objects.get(key=newcomers.key).tries == 3, "forgotten, and begun anew"


def test_what_was_right_or_not_looked_at_is_given_back() -> None:
    for _ in range(3 * PLACE.most):
        lockout.take(A, strange(1), now=THEN).give_back()
    assert not LoginAllowance.objects.exclude(tries=0).exists()
    assert tries(A, strange(1)) > NEWCOMERS_TRIES


def test_a_refusal_takes_nothing() -> None:
    for number in range(40):
        tries(A, strange(number))
    before = list(LoginAllowance.objects.order_by("key").values_list("key", "full_at", "tries"))
    assert tries(A, strange(3)) == 0
    assert list(LoginAllowance.objects.order_by("key").values_list("key", "full_at", "tries")) == before


def test_a_clock_that_was_set_back_does_not_lock_for_as_long() -> None:
    tries(A, HOME, now=THEN + timedelta(days=365))
    assert tries(A, HOME, now=THEN) == 0
    assert tries(A, HOME, now=THEN + PLACE.every) == 1


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_no_more_get_a_try() -> None:
    def some(number: int) -> Callable[[], int]:
        return lambda: sum(tries(A, place, most=12) for place in (HOME, strange(number % 2)))

    found = sum(together(*[some(number) for number in range(8)], within=60))
    assert found == PLACE.most + min(8 * 12, 2 * PLACE.most)
    assert LoginAllowance.objects.count() == 1 + 2 + 2


def test_the_longest_wait_is_told() -> None:
    place = strange(1)
    tries(A, place)
    for number in range(2, 30):
        tries(A, strange(number))
    with pytest.raises(LockedOut) as locked:
        lockout.take(A, place, now=THEN)
    assert locked.value.retry_after == PLACE.every.total_seconds() > STRANGERS.every.total_seconds()
    with pytest.raises(LockedOut) as shorter:
        lockout.take_somewhere(A, [place, strange(29)], now=THEN)
    assert shorter.value.retry_after == STRANGERS.every.total_seconds()


@pytest.mark.django_db(transaction=True)
def test_unlocking_and_purging_disturb_nobody_who_tries() -> None:
    accounts = [A, B]

    def guess(number: int) -> Callable[[], None]:
        def some() -> None:
            for turn in range(40):
                with contextlib.suppress(LockedOut):
                    lockout.take(accounts[turn % 2], strange(number), now=THEN + turn * timedelta(days=1)).give_back()

        return some

    def unlock() -> None:
        for turn in range(40):
            lockout.forget(accounts[turn % 2])

    def purge() -> None:
        for turn in range(40):
            lockout.purge(now=THEN + turn * timedelta(days=1))

    together(*[guess(number) for number in range(4)], unlock, purge, within=60)
