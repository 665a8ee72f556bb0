"""How the editor ticket travels: a cookie that only this user's editor path ever sees."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from workspaces import naming, ticket
from workspaces.models import FAMILY_PREFIX

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase


def set_ticket(response: HttpResponseBase, *, token: str, user_id: int, secure: bool) -> None:
    response.set_cookie(
        ticket.COOKIE,
        token,
        max_age=int(ticket.LIFETIME.total_seconds()),
        path=naming.editor_path(user_id),
        secure=secure,
        httponly=True,
        samesite="Lax",
    )


def clear_ticket(response: HttpResponseBase, *, user_id: int) -> None:
    response.delete_cookie(ticket.COOKIE, path=naming.editor_path(user_id), samesite="Lax")


def login_of(request: HttpRequest) -> str:
    """Names this log-in, so that its end ends its tickets: the token family, or the session (hashed)."""
    token = getattr(request, "auth", None)
    if token is not None:
        return f"{FAMILY_PREFIX}{token.get('login', '')}"[:64]
    key = request.session.session_key or ""
    return f"session:{hashlib.sha256(key.encode()).hexdigest()[:48]}" if key else ""
