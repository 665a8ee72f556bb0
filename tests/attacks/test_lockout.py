"""Guessing at an account through the real edge: the guesser is locked out, the owner is not, wherever they are.

`make attacks` spends every guess of an address for real; the quick form leaves the last few to be guessed.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.attacks.addresses import behind_proxy, from_address
from tests.attacks.test_logins import SECONDS, TOKEN
from tests.suite.programs import attempt
from tests.suite.waiting import eventually, together
from workspaces.lockout import PLACE

if TYPE_CHECKING:
    import httpx

    from tests.e2e.stack import Person, Stack

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

LEFT = PLACE.most if SECONDS >= 20 else 4
GUESSER, SOMEBODY_NEW = "203.0.113.5", "203.0.113.9"
# Spends what an address has but for the last few, as wrong passwords do.
SPEND = """
from django.contrib.auth import get_user_model
from django.utils import timezone
from workspaces import lockout
user = get_user_model()._default_manager.get(pk={pk})
account, place = lockout.account_key(user.username, user), lockout.Place("address {address}", known=False)
for _ in range({times}):
    lockout.take(account, place, now=timezone.now())
"""


def guess(client: httpx.Client, person: Person, *, times: int) -> Counter[int]:
    """Two at a time, as who guesses does."""

    def some(first: int) -> list[int]:
        guesses = [{"username": person.name, "password": f"guess {number}"} for number in range(first, times, 2)]
        return [client.post(TOKEN, json=each).status_code for each in guesses]

    return Counter(itertools.chain(*together(partial(some, 0), partial(some, 1), within=120)))


def get_in(client: httpx.Client, person: Person) -> int:
    return client.post(TOKEN, json={"username": person.name, "password": person.password}).status_code


@pytest.mark.patient(240, "every guess is hashed")
def test_who_guesses_is_locked_out_and_the_owner_is_not(stack: Stack) -> None:
    person = stack.add_user()
    browser = stack.client()
    assert person.log_in(browser).status_code == 302
    device = browser.cookies["gunpowder_device"]
    if PLACE.most > LEFT:
        stack.exec_in_web(SPEND.format(pk=person.id, times=PLACE.most - LEFT, address=GUESSER))
    with behind_proxy(stack, GUESSER) as guesser, behind_proxy(stack, SOMEBODY_NEW) as new:
        found = guess(guesser, person, times=LEFT + 6)
        assert found == {401: LEFT, 429: 6}
        refused = guesser.post(TOKEN, json={"username": person.name, "password": person.password})
        assert refused.status_code == 429, "else it would say which guess was right"
        assert 0 < int(refused.headers["Retry-After"]) <= PLACE.every.total_seconds()
        assert get_in(new, person) == 200, "an owner who is somewhere new"
        with stack.client() as at_home:
            assert get_in(at_home, person) == 200
        # The owner's own browser, from where the guesses come: the same classroom.
        with behind_proxy(stack, GUESSER) as beside:
            beside.cookies.set("gunpowder_device", device)
            assert person.log_in(beside).status_code == 302


@pytest.mark.parametrize(
    ("connects_from", "says", "is_taken_for"),
    [
        ("127.0.0.77", "203.0.113.7", "203.0.113.7"),
        ("127.0.0.77", "198.51.100.1, 203.0.113.7", "203.0.113.7"),  # what a client says of itself stands in front
        ("127.0.0.77", "203.0.113.7, 127.0.0.77", "203.0.113.7"),
        ("127.0.0.77", "nonsense", "127.0.0.77"),
        ("127.0.0.78", "203.0.113.7", "127.0.0.78"),
        ("127.0.0.1", "127.0.0.77", "127.0.0.1"),
    ],
)
def test_who_a_client_is_only_a_trusted_proxy_says(
    stack: Stack, connects_from: str, says: str, is_taken_for: str
) -> None:
    mark = f"/no-such-page-{abs(hash((connects_from, says)))}"
    with from_address(stack, connects_from, **{"X-Forwarded-For": says, "X-Real-Ip": "192.0.2.1"}) as client:
        client.get(mark)

    def logged() -> list[str]:
        log = attempt("docker", "logs", "--tail", "200", stack.service("nginx"), within=20, together=True).stdout
        return [line for line in log.splitlines() if mark in line and line.startswith("{")]

    (line,) = eventually("nginx has logged it", logged, within=20)
    assert json.loads(line)["address"] == is_taken_for
