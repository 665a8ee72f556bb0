"""Who a request comes from, as far as the network tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.http import HttpRequest


def client_address(request: HttpRequest) -> str:
    """The client as nginx saw it; web listens where only nginx reaches it."""
    return request.headers.get("X-Real-Ip") or request.META.get("REMOTE_ADDR") or "unknown"
