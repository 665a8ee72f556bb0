"""Throttles live in the cache: without Redis nothing is throttled, and nothing fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.throttling import SimpleRateThrottle, UserRateThrottle

from workspaces.clients import client_address

if TYPE_CHECKING:
    from django.http import HttpRequest


class UserThrottle(UserRateThrottle):
    def get_ident(self, request: Any) -> str:
        return client_address(request)


class LoginThrottle(SimpleRateThrottle):
    """Attempts to log in, by address; the account itself is never locked by this."""

    scope = "login"

    def get_cache_key(self, request: Any, view: Any) -> str:
        del view
        return f"throttle-login-{client_address(request)}"


def throttle_login(request: HttpRequest) -> int | None:
    """Count one attempt to log in; the seconds to wait when there were too many, else None."""
    throttle = LoginThrottle()
    if throttle.allow_request(request, None):  # type: ignore[arg-type]  # DRF asks for its own wrapper; we use META only
        return None
    return int(throttle.wait() or 1) + 1
