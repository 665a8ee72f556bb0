"""The service that hashes passwords, for real: a process of its own behind a socket, and Django in front of it."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher, check_password, make_password
from django.db import connection
from django.test import Client
from rest_framework.test import APIClient

from tests.api.shapes import assert_error
from tests.suite.programs import Background
from tests.suite.waiting import eventually, pause, together
from workspaces import passwords
from workspaces.errors import PasswordsBusy, PasswordsUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "/api/v1/auth/token"
HALF = "\ud800"


class Hasher:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "hasher.sock"
        self.process: Background | None = None

    def start(self) -> None:
        self.process = Background(sys.executable, "-m", "hasher", str(self.path))
        eventually("it answers", lambda: self.ask(b"{}\n").startswith(b'{"waiting"'), within=10, every=0.05)

    def ask(self, said: bytes) -> bytes:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
                channel.settimeout(10)
                channel.connect(str(self.path))
                channel.sendall(said)
                channel.shutdown(socket.SHUT_WR)
                return channel.makefile("rb").read()
        except OSError:
            return b""

    def ask_and_wait(self, asked: dict[str, Any]) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(30)
            channel.connect(str(self.path))
            channel.sendall(json.dumps(asked).encode() + b"\n")
            return channel.makefile("rb").readline()

    def waiting(self) -> int:
        return int(json.loads(self.ask(b"{}\n"))["waiting"])


@pytest.fixture
def hasher(settings: Any) -> Iterator[Hasher]:
    """One that runs, and Django that asks it."""
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:  # a short path: sockets have no more than 107 letters
        found = Hasher(Path(folder))
        settings.HASHER_SOCKET = found.path
        settings.PASSWORD_HASHERS = ["workspaces.passwords.ApartPBKDF2"]
        found.start()
        yield found
        if found.process:
            found.process.end()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords.ApartPBKDF2, "iterations", 1000)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """About a second each."""
    monkeypatch.setattr(passwords.ApartPBKDF2, "iterations", 3_000_000)


@pytest.mark.usefixtures("hasher", "quick")
@pytest.mark.parametrize("password", ["pw", "", "\u00e4\u20ac \U0001f600", "x" * 1024, "a\nb", '"', "\\"])
def test_the_hashes_are_djangos_own(password: str) -> None:
    found = passwords.ApartPBKDF2().encode(password, "salt")
    assert found == PBKDF2PasswordHasher().encode(password, "salt", 1000)
    assert check_password(password, make_password(password))
    assert not check_password(password + "x", make_password(password))


@pytest.mark.parametrize(
    "said",
    [b"", b"\n", b"[]\n", b"7\n", b"{", b'{"who": 1}\n', b"\xff\n", b"[" * 100_000 + b"\n", b"x" * 2_000_000]
    + [
        json.dumps({"who": "a", "password": "eA==", "salt": "s", "iterations": 1000} | wrong).encode() + b"\n"
        for wrong in (
            {"iterations": 0},
            {"iterations": 10**9},
            {"iterations": "x"},
            {"password": "?"},
            {"salt": "\ud800"},
        )
    ],
)
def test_what_is_no_question_gets_no_answer_and_ends_nothing(hasher: Hasher, said: bytes) -> None:
    assert hasher.ask(said) == b"" or hasher.ask(said).startswith(b'{"error": "no question: ')
    assert hasher.waiting() == 0


@pytest.mark.usefixtures("slow")
def test_a_flood_from_two_addresses_keeps_a_third_waiting_for_two_turns(hasher: Hasher) -> None:
    checked: list[str] = []

    def attempt(address: str) -> None:
        with passwords.asked_by(address):
            passwords.ApartPBKDF2().encode("wrong", "salt")
        checked.append(address)

    def third() -> int:
        eventually("the flood waits", lambda: hasher.waiting() >= 6, within=10, every=0.02)
        before = len(checked)
        attempt("third")
        return checked.index("third") - before

    flood = [partial(attempt, f"flood {number % 2}") for number in range(10)]
    turns, *_ = together(third, *flood, within=60)
    # The one that was being worked out, one of each address, and one that ended while this was noticed.
    assert turns <= 4
    assert len(checked) == 11


@pytest.mark.usefixtures("slow")
def test_who_would_wait_too_long_is_told_so_at_once_and_others_are_not(
    hasher: Hasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(passwords, "RETRY_SECONDS", 0)

    def attempt() -> None:
        try:
            with passwords.asked_by("crowd"), contextlib.suppress(PasswordsUnavailable):
                passwords.ApartPBKDF2().encode("wrong", "salt")
        except PasswordsBusy as busy:
            told.append(busy.retry_after)

    def third() -> int:
        eventually("somebody of the crowd was told", lambda: told, within=20, every=0.02)
        with passwords.asked_by("third"):
            found = passwords.ApartPBKDF2().encode("right", "salt")
        if hasher.process:
            hasher.process.end()  # what the crowd still waits for is of no interest
        return len(found)

    found, *_ = together(third, *[attempt] * 70, within=110)
    assert found
    assert 1 <= min(told) <= max(told) <= 200


def test_who_has_gone_is_not_worked_for(hasher: Hasher) -> None:
    asked = {"who": "a", "password": "eA==", "salt": "s", "iterations": 5_000_000}
    channels = []
    for _ in range(10):
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        channel.connect(str(hasher.path))
        channel.sendall(json.dumps(asked).encode() + b"\n")
        channels.append(channel)
    eventually("they wait", lambda: hasher.waiting() == 9, within=10, every=0.02)
    for channel in channels:
        channel.close()
    eventually("nobody waits", lambda: hasher.waiting() == 0, within=2, every=0.02)


def test_a_service_that_stood_still_goes_on_as_before(hasher: Hasher) -> None:
    assert hasher.process
    asked = {"who": "a", "password": "eA==", "salt": "s", "iterations": 3_000_000}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.connect(str(hasher.path))
        channel.sendall(json.dumps(asked).encode() + b"\n")
        eventually("it works", lambda: json.loads(hasher.ask(b"{}\n"))["working"] > 0, within=10, every=0.02)
        hasher.process.signal(signal.SIGSTOP)
        pause(3, because="it stands still, as on a machine that was suspended")
        hasher.process.signal(signal.SIGCONT)
        channel.settimeout(30)
        assert b'"hash"' in channel.makefile("rb").readline()
    asked["iterations"] = 1000
    for number in range(30):  # a class, at once
        assert b'"hash"' in hasher.ask_and_wait(asked | {"who": f"a{number}"})


@pytest.mark.usefixtures("hasher", "quick")
def test_a_new_hash_after_a_right_password_is_part_of_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old hash takes as long as a new one, right or wrong, and is made anew without waiting again."""
    old = PBKDF2PasswordHasher().encode("pw", "salt", 600)
    asked: list[dict[str, Any]] = []
    ask = passwords._ask

    def watched(path: Path, what: dict[str, Any]) -> dict[str, Any]:
        asked.append(what)
        return ask(path, what)

    monkeypatch.setattr(passwords, "_ask", watched)
    with passwords.asked_by("a"):
        assert not check_password("wrong", old)
    with passwords.asked_by("a"):
        assert check_password("pw", old, setter=make_password)
    found = [(each["iterations"], each["more"], each["first"]) for each in asked]
    assert found == [(600, 400, False), (600, 400, False), (1000, 0, True)]


@pytest.mark.usefixtures("hasher", "quick")
def test_what_is_no_question_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "RETRY_SECONDS", 1000)
    with pytest.raises(PasswordsUnavailable):
        passwords.ApartPBKDF2().encode("pw", "salt", 20_000_000)


@pytest.mark.usefixtures("hasher", "quick")
def test_so_many_threads_of_web_wait_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "WAITING", threading.BoundedSemaphore(1))
    with passwords.WAITING, pytest.raises(PasswordsBusy):
        passwords.ApartPBKDF2().encode("pw", "salt")
    assert passwords.ApartPBKDF2().encode("pw", "salt")


def test_every_hash_of_ours_is_made_there() -> None:
    in_force: Any = importlib.import_module("gunpowder.settings")  # tests have another, quicker one
    assert in_force.PASSWORD_HASHERS == ["workspaces.passwords.ApartPBKDF2"]


@pytest.mark.usefixtures("quick")
def test_a_service_that_comes_back_is_waited_for(hasher: Hasher) -> None:
    assert hasher.process
    hasher.process.signal(signal.SIGKILL)
    hasher.process.result(within=10)

    def log_in() -> str:
        return passwords.ApartPBKDF2().encode("pw", "salt")

    found, _ = together(log_in, hasher.start, within=30)
    assert found == PBKDF2PasswordHasher().encode("pw", "salt", 1000)


@pytest.mark.usefixtures("quick")
def test_it_ends_at_once_when_it_is_told_to(hasher: Hasher) -> None:
    assert hasher.process
    hasher.process.signal(signal.SIGTERM)
    assert hasher.process.result(within=10) == (0, "")


@pytest.mark.django_db
@pytest.mark.usefixtures("quick")
def test_without_it_a_log_in_is_503_in_words(hasher: Hasher, user: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "RETRY_SECONDS", 0.2)
    assert hasher.process
    hasher.process.end()
    with pytest.raises(PasswordsUnavailable):
        make_password("pw")
    given = {"username": user.username, "password": "pw"}
    answer = APIClient().post(TOKEN, given)
    assert_error(answer, 503, "login_unavailable")
    assert answer.headers["Retry-After"]
    page = Client().post("/login", given)
    assert page.status_code == 503
    assert "Log-ins cannot be checked" in page.content.decode()


@pytest.mark.django_db
def test_too_many_at_once_are_429_in_words(user: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: Any, **__: Any) -> Any:
        raise PasswordsBusy("Many people log in at the moment.", retry_after=7)

    monkeypatch.setattr("django.contrib.auth.base_user.check_password", busy)
    given = {"username": user.username, "password": "pw"}
    answer = APIClient().post(TOKEN, given)
    assert_error(answer, 429, "throttled")
    assert answer.headers["Retry-After"] == "7"
    page = Client().post("/login", given)
    assert (page.status_code, page.headers["Retry-After"]) == (429, "7")
    assert "Wait 7 seconds" in page.content.decode()
    assert user.username in page.content.decode()  # typed once is enough


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("hasher", "quick")
def test_who_waits_holds_no_connection_to_the_database(user: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []
    ask = passwords._ask

    def watched(*given: Any) -> dict[str, Any]:
        held.append(connection.connection is not None)
        return ask(*given)

    monkeypatch.setattr(passwords, "_ask", watched)
    user.set_password("pw-new")
    user.save()
    assert APIClient().post(TOKEN, {"username": user.username, "password": "pw-new"}).status_code == 200
    assert held
    assert not any(held)


@pytest.mark.django_db
@pytest.mark.usefixtures("hasher", "quick")
def test_both_doors_ask_in_the_name_of_the_clients_address(user: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    ask = passwords._ask

    def watched(path: Path, what: dict[str, Any]) -> dict[str, Any]:
        asked.append(what["who"])
        return ask(path, what)

    monkeypatch.setattr(passwords, "_ask", watched)
    for name in (user.username, "nobody"):  # a name that there is not costs the same
        given = {"username": name, "password": "wrong"}
        assert APIClient().post(TOKEN, given, headers={"x-real-ip": "10.0.0.7"}).status_code == 401
        assert Client().post("/login", given, headers={"x-real-ip": "10.0.0.7"}).status_code == 200
    assert set(asked) == {"10.0.0.7"}
    assert len(asked) >= 4


@pytest.mark.django_db
@pytest.mark.usefixtures("hasher", "quick")
def test_a_password_longer_than_any_is_wrong_before_it_costs_anything(
    user: Any, admin: Client, staff: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "x" * 2000

    def asked(*_: Any) -> Any:
        raise AssertionError("it was hashed")

    user.set_password("pw-new")
    user.save()
    monkeypatch.setattr(passwords, "_ask", asked)
    page = Client().post("/login", {"username": user.username, "password": long})
    assert (page.status_code, "do not belong" in page.content.decode()) == (200, True)
    assert APIClient().post(TOKEN, {"username": user.username, "password": long}).status_code == 400
    assert not check_password(long, user.password)
    form = {"usable_password": "true", "password1": long, "password2": long}
    page = admin.post(f"/admin/auth/user/{user.pk}/password/", form)
    assert "at most 1024 characters" in page.content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("problem", "status", "after"),
    [(PasswordsBusy("Many people log in.", retry_after=7), 429, "7"), (PasswordsUnavailable("Away."), 503, "5")],
)
def test_a_password_that_cannot_be_set_now_is_told_in_the_admin(
    user: Any, admin: Client, monkeypatch: pytest.MonkeyPatch, problem: Exception, status: int, after: str
) -> None:
    def raises(*_: Any, **__: Any) -> Any:
        raise problem

    monkeypatch.setattr("django.contrib.auth.base_user.make_password", raises)
    form = {"usable_password": "true", "password1": "long-enough-7", "password2": "long-enough-7"}
    page = admin.post(f"/admin/auth/user/{user.pk}/password/", form)
    assert (page.status_code, page.headers["Retry-After"]) == (status, after)
    assert "Nothing was saved" in page.content.decode()
