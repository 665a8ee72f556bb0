"""Cookies: the ticket, which only its user's editor path ever sees, and what a device is known by at log-in."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.core import signing
from django.shortcuts import resolve_url
from django.utils.crypto import constant_time_compare, salted_hmac

from workspaces import naming, ticket
from workspaces.models import FAMILY_PREFIX

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase


def set_ticket(response: HttpResponseBase, *, token: str, user_id: int, secure: bool) -> None:
    path = naming.editor_path(user_id)
    _set(response, ticket.COOKIE, token, lifetime=ticket.LIFETIME, path=path, secure=secure)


def clear_ticket(response: HttpResponseBase, *, user_id: int) -> None:
    response.delete_cookie(ticket.COOKIE, path=naming.editor_path(user_id), samesite="Lax")


def login_of(request: HttpRequest) -> str:
    """Names this log-in, so that its end ends its tickets: the token family, or the session (hashed)."""
    token = getattr(request, "auth", None)
    if token is not None:
        return f"{FAMILY_PREFIX}{token.get('login', '')}"[:64]
    key = request.session.session_key or ""
    return f"session:{hashlib.sha256(key.encode()).hexdigest()[:48]}" if key else ""


DEVICE = "gunpowder_device"
DEVICE_KNOWN = timedelta(days=180)
#: So many accounts a device keeps: those that logged in last.
DEVICE_ACCOUNTS = 8
_SALT = "workspaces.device"


def device_of(request: HttpRequest, *, user: Any) -> str | None:
    """The name under which this account has logged in on this device, with the password that it has now, or None.

    It opens nothing: see `lockout`.
    """
    name, mark = _devices(request).get(user.pk, ("", ""))
    return name if name and constant_time_compare(mark, _mark(user)) else None


def set_device(response: HttpResponseBase, request: HttpRequest, *, user: Any) -> None:
    """Remember that this account has logged in here. Only the log-in page is ever shown it."""
    name = device_of(request, user=user) or secrets.token_hex(8)
    others = [(pk, known) for pk, known in _devices(request).items() if pk != user.pk]
    latest = [(user.pk, (name, _mark(user))), *others][:DEVICE_ACCOUNTS]
    value, path = signing.dumps(latest, salt=_SALT), resolve_url("login")
    _set(response, DEVICE, value, lifetime=DEVICE_KNOWN, path=path, secure=request.is_secure())


def _set(response: HttpResponseBase, name: str, value: str, *, lifetime: timedelta, path: str, secure: bool) -> None:
    """For one path alone, and for no script."""
    age = int(lifetime.total_seconds())
    response.set_cookie(name, value, max_age=age, path=path, secure=secure, httponly=True, samesite="Lax")


def _mark(user: Any) -> str:
    """Tells one password of an account from its next."""
    return salted_hmac(_SALT, user.password, algorithm="sha256").hexdigest()[:16]


def _devices(request: HttpRequest) -> dict[int, tuple[str, str]]:
    try:
        found: Any = signing.loads(request.COOKIES.get(DEVICE, ""), salt=_SALT, max_age=DEVICE_KNOWN)
        return {int(pk): (str(name), str(mark)) for pk, (name, mark) in found}
    except (signing.BadSignature, TypeError, ValueError):  # not ours, or another release's
        return {}
