from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from rest_framework.test import APIClient

if TYPE_CHECKING:
    from collections.abc import Callable

Tokens = dict[str, str]


@pytest.fixture
def anonymous() -> APIClient:
    return APIClient()


@pytest.fixture
def staff_api(staff: Any) -> APIClient:
    client = APIClient()
    client.force_login(staff)
    return client


@pytest.fixture
def log_in(anonymous: APIClient) -> Callable[[Any], Tokens]:
    """Get a pair of tokens for a user made by `make_user`."""

    def get(owner: Any) -> Tokens:
        name = owner.get_username()
        answer = anonymous.post("/api/v1/auth/token", {"username": name, "password": f"pw-{name}"})
        assert answer.status_code == 200, answer.content
        pair: Tokens = answer.json()
        return pair

    return get


@pytest.fixture
def tokens(user: Any, log_in: Callable[[Any], Tokens]) -> Tokens:
    return log_in(user)


@pytest.fixture
def bearer(tokens: Tokens) -> APIClient:
    """A client with the access token of `user`."""
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {tokens['access']}")
    return client
