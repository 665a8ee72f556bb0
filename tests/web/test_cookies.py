"""Cookies that nobody was given: they open nothing and break nothing."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db
PAGES = ("/", "/login", "/savings", "/admin/", "/admin/?x=1", "/api/v1/auth/me", "/code/user/1/_gunpowder/status")
KEYS = (
    r'"aaaaaaaaaa\000"',
    r'"\000\000\000\000\000\000\000\000"',
    r'"aaaaaaaa\377"',
    "x" * 5000,
    "a b c d e f",
    "'; DROP --",
    "",
)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", ["gunpowder_session", "gunpowder_csrf", "gunpowder_ticket", "messages", "other"])
def test_an_odd_cookie_is_as_none(page: str, name: str) -> None:
    plain = Client(raise_request_exception=False).get(page)
    for key in KEYS:
        client = Client(raise_request_exception=False)
        answer = client.get(page, headers={"cookie": f"{name}={key}"})
        assert (answer.status_code, answer.get("Location")) == (plain.status_code, plain.get("Location")), key


def test_who_logs_in_with_one_gets_a_real_one(user: Any) -> None:
    given = {"username": user.username, "password": "pw-alice"}
    client = Client(raise_request_exception=False)
    answer = client.post("/login", given, headers={"cookie": r'gunpowder_session="aaaaaaaaaa\000"'})
    assert answer.status_code == 302
    assert client.get("/").status_code == 200
