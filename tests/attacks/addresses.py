"""Clients that nginx sees as some address of the loopback, and a proxy that it trusts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from tests.e2e.stacks import TRUSTED_PROXY
from tests.suite.patience import PATIENCE

if TYPE_CHECKING:
    from tests.e2e.stack import Stack


def from_address(stack: Stack, address: str, **headers: str) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(
        base_url=stack.url, transport=transport, trust_env=False, timeout=60 * PATIENCE, headers=headers
    )


def behind_proxy(stack: Stack, address: str) -> httpx.Client:
    """A client of the proxy; `address` is what the proxy says of it, after whatever the client said of itself."""
    return from_address(stack, TRUSTED_PROXY, **{"X-Forwarded-For": address})
