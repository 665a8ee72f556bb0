"""Families of tokens: every refresh token that one log-in leads to. Reuse of an old one ends them all.

A refresh token that comes a second time was copied, and nobody can tell whether the thief or the owner has the newer
one: so neither keeps it. Nothing that is stored opens a door.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db import transaction

from workspaces import ticket
from workspaces.models import FAMILY_PREFIX, TokenFamily

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

# However often it is refreshed, after this a program logs in again.
LONGEST = timedelta(days=30)
NAME = re.compile(r"[0-9a-f]{32}")


def _mark(jti: object) -> str:
    return hashlib.sha256(str(jti).encode("utf-8", "surrogatepass")).hexdigest()


def _named(login: object) -> str | None:
    """A claim is whatever somebody signed: only what we have made ourselves is looked for in the database."""
    return login if isinstance(login, str) and NAME.fullmatch(login) else None


def begin(user: Any, *, jti: str, now: datetime) -> TokenFamily | None:
    """A new log-in whose newest refresh token is the one with this id. None where the user was deleted meanwhile."""
    with transaction.atomic():
        # The row's lock: checking a password takes long enough for somebody to delete it.
        if not get_user_model().objects.select_for_update(no_key=True).filter(pk=user.pk).first():
            return None
        return TokenFamily.objects.create(
            login=secrets.token_hex(16), user=user, newest=_mark(jti), created_at=now, expires_at=now + LONGEST
        )


def alive(login: object, *, now: datetime) -> bool:
    """Whether tokens of this log-in still open anything."""
    name = _named(login)
    return name is not None and _living(now).filter(login=name).exists()


def is_newest(login: object, *, jti: object, now: datetime) -> bool:
    """Whether the refresh token with this id is the one of its log-in that has not been exchanged."""
    name = _named(login)
    return name is not None and _living(now).filter(login=name, newest=_mark(jti)).exists()


def end_if_used(login: object, *, jti: object, now: datetime) -> bool:
    """End the log-in if the refresh token with this id is not its newest, so was exchanged before."""
    return _change(login, lambda family: not secrets.compare_digest(family.newest, _mark(jti)), now=now)


def exchange(login: object, *, old: object, new: str, now: datetime) -> TokenFamily | None:
    """Make `new` the newest in the place of `old`. None where the log-in is over.

    It ends here where `old` is not the newest, so was used before. Of several at once one wins, and the others end
    what it won.
    """
    won: list[TokenFamily] = []

    def lost(family: TokenFamily) -> bool:
        if not secrets.compare_digest(family.newest, _mark(old)):
            return True
        family.newest = _mark(new)
        family.save(update_fields=["newest"])
        won.append(family)
        return False

    _change(login, lost, now=now)
    return won[0] if won else None


def end(login: object, *, now: datetime) -> bool:
    """Log out: no token of this log-in opens anything any more, and no editor that it opened. False: it was over."""
    return _change(login, lambda _: True, now=now)


def _change(login: object, ends: Callable[[TokenFamily], bool], *, now: datetime) -> bool:
    """Let `ends` look at a living log-in under its lock, and end it where that says so. Returns whether it ended."""
    name = _named(login)
    if name is None:
        return False
    with transaction.atomic():
        family: TokenFamily | None = _living(now).select_for_update().filter(login=name).first()
        if family is None or not ends(family):
            return False
        family.ended_at = now
        family.save(update_fields=["ended_at"])
    # Without the lock: a user's deletion takes tickets first, families later. They are dead already (Ticket's `valid`).
    ticket.revoke_login(FAMILY_PREFIX + family.login, now=now)
    return True


def purge(*, now: datetime) -> int:
    """Delete those that have expired; returns how many."""
    return TokenFamily.objects.filter(expires_at__lt=now).delete()[0]


def _living(now: datetime) -> Any:
    return TokenFamily.objects.living(now=now)
