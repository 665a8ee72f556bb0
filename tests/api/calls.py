"""Log-in for programs as tests ask for it: its addresses, and tokens that nobody was given."""

from __future__ import annotations

from typing import Any

import jwt
from rest_framework.test import APIClient
from rest_framework_simplejwt.settings import api_settings

ME = "/api/v1/auth/me"
TOKEN = "/api/v1/auth/token"
REFRESH = "/api/v1/auth/token/refresh"
VERIFY = "/api/v1/auth/token/verify"
LOGOUT = "/api/v1/auth/logout"
START = "/api/v1/code-server/start"
ABSENT = object()  # a claim that is left out


def claims(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def forge(token: str, *, key: str = "", algorithm: str = "HS256", **changes: Any) -> str:
    """The same token with other claims, signed with our own key unless another is given."""
    present = {name: value for name, value in (claims(token) | changes).items() if value is not ABSENT}
    return jwt.encode(present, key or api_settings.SIGNING_KEY, algorithm=algorithm)


def ask_me(token: str) -> Any:
    return APIClient().get(ME, headers={"Authorization": f"Bearer {token}"})
