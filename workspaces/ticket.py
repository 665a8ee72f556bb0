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
# Each start renews the cookie; a log-in keeps its newest few, so that other tabs of a burst stay valid.
KEPT_PER_LOGIN = 8
# A page in a container may plant cookies of this name; beyond this many the real one is not looked for.
MAX_CANDIDATES = 50


def hash_token(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def issue(workspace: Workspace, *, login: str, now: datetime) -> str:
    """A new token (256 bits) that opens this workspace's editor until it expires or is revoked."""
    token = secrets.token_urlsafe(32)
    Ticket.objects.create(
        token_hash=hash_token(token),
        user_id=workspace.user_id,
        workspace=workspace,
        login=login,
        created_at=now,
        expires_at=now + LIFETIME,
    )
    mine = Ticket.objects.filter(workspace=workspace, login=login)
    kept = mine.order_by("-created_at", "-pk").values_list("pk", flat=True)[:KEPT_PER_LOGIN]
    mine.exclude(pk__in=list(kept)).delete()
    return token


def find_valid(tokens: Iterable[str], *, now: datetime) -> list[Ticket]:
    """The usable tickets among `tokens`, with their workspaces, in one query."""
    hashes = [hash_token(token) for token in list(tokens)[:MAX_CANDIDATES]]
    if not hashes:
        return []
    return list(Ticket.objects.valid(now=now).filter(token_hash__in=hashes).select_related("workspace"))


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
    """Delete what cannot be used any more."""
    deleted, _ = Ticket.objects.filter(expires_at__lt=now).delete()
    return int(deleted)


def tokens_in(cookie_header: str) -> list[str]:
    """Every value that a Cookie header holds under our name: a page may have added more to the real one."""
    pairs = (part.strip().partition("=") for part in cookie_header.split(";"))
    return [value.strip('"') for name, _, value in pairs if name == COOKIE and value]
