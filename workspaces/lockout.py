"""Lock-out: how many wrong passwords an account bears. Counted by place, so that it cannot be used against its owner.

A place is a device that this account has logged in on before, or else an address. Each has an allowance of its own for
each account: who has spent theirs waits, and nobody else does. Places that the account has never logged in from share
one more, so that many addresses are not many times as many guesses; the first tries of each are apart from that again,
so that an owner who is somewhere new gets in while others guess. What an account is known by goes with its password:
whoever had an older one is a stranger.

A try takes from the allowances before anything is hashed, and gives back what it took where the password was right or
was not looked at. The rows hold keyed hashes, because people type passwords into the wrong field.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils.crypto import salted_hmac

from workspaces import locks
from workspaces.errors import LockedOut
from workspaces.models import KnownPlace, LoginAllowance

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from django.db.models import Model

SENTENCE = (
    "Too many wrong passwords for this account from here. Try again later, or elsewhere where it has logged in before. "
    "If they were not yours, tell your administrator."
)


@dataclass(frozen=True)
class Allowance:
    """`most` at once, and one more each `every`. Its state is one moment: when all will be there again."""

    most: int
    every: timedelta

    def has_one(self, full_at: datetime, *, now: datetime) -> bool:
        return full_at <= now + (self.most - 1) * self.every

    def take(self, full_at: datetime, *, now: datetime) -> datetime:
        """The state after one was taken."""
        return max(full_at, now) + self.every

    def wait(self, full_at: datetime, *, now: datetime) -> int:
        """Whole seconds until there is one."""
        return max(1, math.ceil((full_at - now - (self.most - 1) * self.every).total_seconds()))

    def possible(self, full_at: datetime, *, now: datetime) -> datetime:
        """What is farther away than with nothing left comes of a clock that was set back: then nothing is left."""
        return min(full_at, now + self.most * self.every)


#: At least 30 log-ins a minute and address are promised, and 50 is about as many as can wait to be checked at once:
#: the right password many times at once is not refused. Afterwards ten an hour, 290 on the first day.
PLACE = Allowance(most=50, every=timedelta(minutes=6))
#: From all places together that the account does not know. NIST SP 800-63B allows 100 in a row.
STRANGERS = Allowance(most=100, every=timedelta(minutes=3))
#: The first tries at each such place: 100 addresses must be spent on one account before its owner, who is somewhere new
#: and has no device with them that is known, has to wait.
NEWCOMERS = Allowance(most=500, every=timedelta(minutes=3))
NEWCOMERS_TRIES = 5
#: A place that nobody has tried from for so long is new again.
FORGOTTEN = timedelta(days=1)
#: A place where an account has not logged in for so long is a stranger's again.
KNOWN = timedelta(days=90)
#: So many rows are deleted in one go.
BATCH = 5000


@dataclass(frozen=True)
class Place:
    """Where somebody tries. `known`: the account has logged in there before; a `device` is known by its cookie."""

    name: str
    known: bool
    device: bool = False


@dataclass(frozen=True)
class Attempt:
    """What one try has taken, of which account."""

    account: UUID
    place: Place
    taken: tuple[tuple[UUID, Allowance], ...]

    def give_back(self) -> None:
        """The password was right, or was not looked at."""
        with _alone(self.account):
            for key, allowance in self.taken:
                rows = LoginAllowance.objects.filter(key=key, tries__gt=0)
                rows.update(full_at=F("full_at") - allowance.every, tries=F("tries") - 1)


def account_key(name: str, user: Any) -> UUID:
    """Names an account in these rows, also one that there is not.

    With a new password, whoever set it and how, nothing is held against it: it is another name.
    """
    return _key("account", name, user.password if user is not None else "")


def take(account: UUID, place: Place, *, now: datetime) -> Attempt:
    """One try. Raises LockedOut, with the seconds to wait, where this place may not try now."""
    with _alone(account):
        asked = [(_row(account, f"place {place.name}", PLACE, now=now), PLACE)]
        if not place.known:
            new = asked[0][0].tries < NEWCOMERS_TRIES
            group, shared = ("newcomers", NEWCOMERS) if new else ("strangers", STRANGERS)
            asked.append((_row(account, group, shared, now=now), shared))
        missing = [(row, allowance) for row, allowance in asked if not allowance.has_one(row.full_at, now=now)]
        for row, allowance in [] if missing else asked:
            row.full_at, row.tries = allowance.take(row.full_at, now=now), row.tries + 1
        _store(row for row, _ in asked)
    if missing:
        raise LockedOut(SENTENCE, retry_after=max(allowance.wait(row.full_at, now=now) for row, allowance in missing))
    return Attempt(account=account, place=place, taken=tuple((row.key, allowance) for row, allowance in asked))


def take_somewhere(account: UUID, places: Sequence[Place], *, now: datetime) -> Attempt:
    """One try, at the first of the places that may: a device on which all is spent is still at an address.

    Raises LockedOut, with the shortest wait, where none may.
    """
    waits = []
    for place in places:
        try:
            return take(account, place, now=now)
        except LockedOut as locked:
            waits.append(locked.retry_after)
    raise LockedOut(SENTENCE, retry_after=min(waits))


@contextmanager
def _alone(account: UUID) -> Iterator[None]:
    """Nobody else changes what is held against this account meanwhile: rows may come and go without a conflict."""
    with transaction.atomic():
        locks.wait_for_lockout(account.int)
        yield


def _row(account: UUID, what: str, allowance: Allowance, *, now: datetime) -> LoginAllowance:
    """The row as it is now; not stored yet."""
    key = _key("allowance", account.hex, what)
    row: LoginAllowance = LoginAllowance.objects.filter(key=key).first() or LoginAllowance(
        key=key, account=account, full_at=now, tries=0
    )
    if row.full_at <= now - FORGOTTEN:
        row.tries = 0
    row.full_at = allowance.possible(row.full_at, now=now)
    return row


def _store(rows: Iterable[LoginAllowance]) -> None:
    fields = ["full_at", "tries"]
    LoginAllowance.objects.bulk_create(rows, update_conflicts=True, unique_fields=["key"], update_fields=fields)


def forget(account: UUID) -> int:
    """Hold nothing against this account any more; returns against how many places and groups of them something was."""
    with _alone(account):
        rows = LoginAllowance.objects.filter(account=account)
        held = rows.filter(tries__gt=0).count()
        rows.delete()
    return int(held)


def knows(user: Any, address: str, *, now: datetime) -> bool:
    """Whether this user has logged in from this address of late. None, for an account that there is not, never has."""
    place = _place_key(user, address)  # asked for nobody as well: it must not take less time
    return bool(KnownPlace.objects.filter(place=place, last_at__gt=now - KNOWN).exists())


def remember(user: Any, address: str, *, now: datetime) -> None:
    """This user has logged in from this address."""
    place = _place_key(user, address)
    if not KnownPlace.objects.filter(place=place, last_at__gt=now - timedelta(days=1)).exists():
        KnownPlace.objects.update_or_create(place=place, defaults={"user": user, "last_at": now})


def purge(*, now: datetime) -> int:
    """Delete what says nothing any more; returns how many rows. What somebody holds meanwhile is left for the next."""
    allowances = LoginAllowance.objects.filter(full_at__lte=now - FORGOTTEN)
    places = KnownPlace.objects.filter(last_at__lte=now - KNOWN)
    return _purge(LoginAllowance, allowances) + _purge(KnownPlace, places)


def _purge(model: type[Model], rows: Any) -> int:
    done = 0
    while True:
        with transaction.atomic():
            # Without waiting for anybody: so nobody can wait for this in a circle.
            found = list(rows.select_for_update(skip_locked=True).values_list("pk", flat=True)[:BATCH])
            done += model._default_manager.filter(pk__in=found).delete()[0]
        if len(found) < BATCH:
            return done


def _place_key(user: Any, address: str) -> UUID:
    return _key("known", *(("", "") if user is None else (str(user.pk), user.password)), address)


def _key(*parts: str) -> UUID:
    text = "\0".join(part.encode("utf-8", "backslashreplace").decode() for part in parts)
    return UUID(bytes=salted_hmac("workspaces.lockout", text, algorithm="sha256").digest()[:16])
