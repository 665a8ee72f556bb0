"""Trying passwords, at the rows and through the doors."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from rest_framework.test import APIClient

from workspaces import lockout
from workspaces.errors import LockedOut
from workspaces.lockout import PLACE, Place

if TYPE_CHECKING:
    from django.http import HttpResponse
    from django.test import Client

TOKEN = "/api/v1/auth/token"
THEN = datetime(2026, 3, 1, 9, tzinfo=UTC)
HOME = Place("address 192.0.2.1", known=True)


A, B = UUID(int=1), UUID(int=2)


def strange(number: int) -> Place:
    return Place(f"address {ipaddress.ip_address(number)}", known=False)


def tries(account: UUID, place: Place, *, now: datetime = THEN, most: int = 10_000) -> int:
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
