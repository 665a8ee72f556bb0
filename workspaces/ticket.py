"""The editor cookie: issue, check, revoke. Only a hash is stored; the token itself is shown once."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from workspaces.models import Ticket, Workspace

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

COOKIE = "gunpowder_ticket"
LIFETIME = timedelta(hours=12)
# However often it is renewed through itself, after this the user logs in again: as long as a refresh token lives.
LONGEST = timedelta(days=7)
# Each start issues one. Any number of calls must leave every cookie usable, so only a crowd of old ones is thinned out.
KEPT_PER_LOGIN = 200
KEPT_ANYWAY = timedelta(hours=1)
# A page in a container may plant cookies of this name; beyond this many the real one is not looked for.
MAX_CANDIDATES = 50


def hash_token(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def issue(workspace: Workspace, *, login: str, now: datetime, first_issued_at: datetime | None = None) -> str:
    """Return a new token (256 bits) that opens this workspace's editor until it expires or is revoked.

    `first_issued_at` is given where a ticket renews itself, and bounds how long that can go on.
    """
    token = secrets.token_urlsafe(32)
    first = first_issued_at or now
    Ticket.objects.create(
        token_hash=hash_token(token),
        user_id=workspace.user_id,
        workspace=workspace,
        login=login,
        password_mark=_password_mark(workspace.user),
        first_issued_at=first,
        created_at=now,
        expires_at=min(now + LIFETIME, first + LONGEST),
    )
    old = Ticket.objects.filter(workspace=workspace, login=login, created_at__lt=now - KEPT_ANYWAY)
    crowd = old.order_by("-created_at", "-pk").values_list("pk", flat=True)[KEPT_PER_LOGIN:]
    Ticket.objects.filter(pk__in=list(crowd)).delete()
    return token


def find_valid(tokens: Iterable[str], *, now: datetime) -> list[Ticket]:
    """Return the usable tickets among `tokens`, with their workspaces and users, in one query."""
    hashes = [hash_token(token) for token in list(tokens)[:MAX_CANDIDATES]]
    if not hashes:
        return []
    found = Ticket.objects.valid(now=now).filter(token_hash__in=hashes).select_related("workspace", "user")
    return [row for row in found if secrets.compare_digest(row.password_mark, _password_mark(row.user))]


def _password_mark(user: Any) -> str:
    """Change with the user's password; what Django's own sessions are bound to."""
    return str(user.get_session_auth_hash())[:64]


def revoke_login(login: str, *, now: datetime) -> int:
    """End every editor session of one log-in; returns how many there were."""
    if not login:
        return 0
    rows: int = Ticket.objects.filter(login=login, revoked_at__isnull=True).update(revoked_at=now)
    return rows


def revoke_user(user: Any, *, now: datetime) -> int:
    """End every editor session of one user; returns how many there were."""
    rows: int = Ticket.objects.filter(user=user, revoked_at__isnull=True).update(revoked_at=now)
    return rows


def purge(*, now: datetime) -> int:
    """Delete what cannot be used any more; returns how many."""
    deleted, _ = Ticket.objects.filter(expires_at__lt=now).delete()
    return int(deleted)


def tokens_in(cookie_header: str) -> list[str]:
    """Every value that a Cookie header holds under our name: a page may have added more to the real one."""
    pairs = (part.strip().partition("=") for part in cookie_header.split(";"))
    return [value.strip('"') for name, _, value in pairs if name == COOKIE and value]
