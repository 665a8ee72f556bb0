from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from rest_framework.test import APIClient

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def anonymous() -> APIClient:
    return APIClient()


@pytest.fixture
def staff_api(staff: Any) -> APIClient:
    client = APIClient()
    client.force_login(staff)
    return client


@pytest.fixture
def log_in(anonymous: APIClient) -> Callable[[str], dict[str, str]]:
    """Get a pair of tokens for a user made by `make_user`."""

    def get(username: str) -> dict[str, str]:
        answer = anonymous.post("/api/v1/auth/token", {"username": username, "password": f"pw-{username}"})
        assert answer.status_code == 200, answer.json()
        pair: dict[str, str] = answer.json()
        return pair

    return get


@pytest.fixture
def tokens(user: Any, log_in: Callable[[str], dict[str, str]]) -> dict[str, str]:
    return log_in("alice")


@pytest.fixture
def bearer(tokens: dict[str, str]) -> APIClient:
    """A client with the access token of `user`."""
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {tokens['access']}")
    return client
