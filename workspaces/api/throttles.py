"""Throttles live in the cache: without Redis nothing is throttled, and nothing fails. For log-ins see `logins`."""

from __future__ import annotations

from typing import Any

from rest_framework.throttling import UserRateThrottle

from workspaces.clients import client_of


class UserThrottle(UserRateThrottle):
    def get_ident(self, request: Any) -> str:
        return client_of(request)
