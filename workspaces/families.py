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
    name = _named(login)
    if name is None:
        return False
    with transaction.atomic():
        family = _living(now).select_for_update().filter(login=name).first()
        if family is None or secrets.compare_digest(family.newest, _mark(jti)):
            return False
        _end(family, now=now)
    return True


def exchange(login: object, *, old: object, new: str, now: datetime) -> TokenFamily | None:
    """Make `new` the newest in the place of `old`. None where the log-in is over.

    It ends here where `old` is not the newest, so was used before. Of several at once one wins, and the others end
    what it won.
    """
    name = _named(login)
    if name is None:
        return None
    with transaction.atomic():
        family: TokenFamily | None = _living(now).select_for_update().filter(login=name).first()
        if family is None:
            return None
        if secrets.compare_digest(family.newest, _mark(old)):
            family.newest = _mark(new)
            family.save(update_fields=["newest"])
            return family
        _end(family, now=now)
    return None


def end(login: object, *, now: datetime) -> bool:
    """Log out: no token of this log-in opens anything any more, and no editor that it opened. False: it was over."""
    name = _named(login)
    if name is None:
        return False
    with transaction.atomic():
        family = _living(now).select_for_update().filter(login=name).first()
        if family is None:
            return False
        _end(family, now=now)
    return True


def purge(*, now: datetime) -> int:
    """Delete those that have expired; returns how many."""
    return TokenFamily.objects.filter(expires_at__lt=now).delete()[0]


def _living(now: datetime) -> Any:
    return TokenFamily.objects.living(now=now)


def _end(family: TokenFamily, *, now: datetime) -> None:
    family.ended_at = now
    family.save(update_fields=["ended_at"])
    ticket.revoke_login(FAMILY_PREFIX + family.login, now=now)
