"""Who a request comes from, as far as the network tells."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.http import HttpRequest

#: What one site or customer is given of IPv6, or less: whoever has one such address has all of them.
SITE = 56


def client_of(request: HttpRequest) -> str:
    """What to count the client of this request by."""
    return client_network(client_address(request))


def client_address(request: HttpRequest) -> str:
    """The client as nginx saw it; web listens where only nginx reaches it."""
    return request.headers.get("X-Real-Ip") or request.META.get("REMOTE_ADDR") or "unknown"


def client_network(address: str) -> str:
    """What to count a client by: its IPv4 address, or the first 56 bits of its IPv6 address. Other text as it is."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((found, SITE), strict=False))
    return str(found)
