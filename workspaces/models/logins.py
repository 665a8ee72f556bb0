"""Who has come in, and by what: rows that open nothing to whoever reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Substr

if TYPE_CHECKING:
    from datetime import datetime


class TokenFamilyQuerySet(models.QuerySet["TokenFamily"]):
    def living(self, *, now: datetime) -> TokenFamilyQuerySet:
        """Log-ins that have neither ended nor reached their last day."""
        return self.filter(ended_at__isnull=True, expires_at__gt=now)


class TokenFamily(models.Model):
    """One log-in of a program: all the tokens that came of it, of which the newest refresh token alone is good.

    Holds no token, only a hash of the newest one's id. Deleted once it has expired.
    """

    login = models.CharField(max_length=64, primary_key=True)
    # Not held to in the database: a log-in that comes in while its user is deleted must not stop that, nor one that a
    # release which does not know this table has left behind. Such a row opens nothing, and expires.
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    newest = models.CharField(max_length=64)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar[Any] = TokenFamilyQuerySet.as_manager()

    def __str__(self) -> str:
        return f"log-in of user {self.user_id} by the API at {self.created_at}"


FAMILY_PREFIX = "jwt:"  # how a ticket's `login` begins where a program's token asked for it; its family's name follows


class TicketQuerySet(models.QuerySet["Ticket"]):
    def valid(self, *, now: datetime) -> TicketQuerySet:
        """Usable tickets of users who may still come in, by log-ins that have not ended.

        The family is asked each time, so that a ticket which was issued while its log-in ended opens nothing either.
        """
        family = TokenFamily.objects.living(now=now).filter(login=Substr(OuterRef("login"), len(FAMILY_PREFIX) + 1))
        return self.filter(
            ~Q(login__startswith=FAMILY_PREFIX) | Exists(family),
            revoked_at__isnull=True,
            expires_at__gt=now,
            user__is_active=True,
        )


class Ticket(models.Model):
    """An editor session: opaque, hashed, bound to one user and workspace, ended by one column.

    `login` names the log-in that issued it (a session or a family of tokens), so that logging out there ends it;
    `password_mark` is what Django's sessions carry too: a new password ends every ticket. A ticket that was renewed
    through itself keeps `first_issued_at`, so that nothing is renewed for ever.
    """

    token_hash = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    workspace = models.ForeignKey("workspaces.Workspace", on_delete=models.CASCADE, related_name="tickets")
    login = models.CharField(max_length=64, blank=True, db_index=True)
    password_mark = models.CharField(max_length=64)
    first_issued_at = models.DateTimeField()
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar[Any] = TicketQuerySet.as_manager()

    def __str__(self) -> str:
        return f"ticket {self.pk} of user {self.user_id}"


class LoginAllowance(models.Model):
    """How many wrong passwords an account still bears from one place, or from a group of places (`lockout`).

    `key` and `account` are hashes: neither tells a name, an address or a password that was typed as a name. `full_at`
    is when nothing is held against the place any more, `tries` how many were wrong since it was last forgotten.
    """

    key = models.UUIDField(primary_key=True)
    account = models.UUIDField(db_index=True)
    full_at = models.DateTimeField(db_index=True)
    tries = models.PositiveIntegerField(default=0)

    objects: ClassVar[Any] = models.Manager()

    def __str__(self) -> str:
        return f"{self.tries} wrong passwords at one place, held against it until {self.full_at}"


class KnownPlace(models.Model):
    """An address that a user has logged in from with this password, as a hash of all three."""

    place = models.UUIDField(primary_key=True)
    # Not held to in the database, as in TokenFamily: a log-in may come in while its user is deleted.
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    last_at = models.DateTimeField(db_index=True)

    objects: ClassVar[Any] = models.Manager()

    def __str__(self) -> str:
        return f"a place where user {self.user_id} logged in, last at {self.last_at}"
