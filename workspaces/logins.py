"""Who may come in with a name and a password: Django's rule, but an account bears only so many wrong ones (`lockout`).

In the settings it stands before Django's own backend, which stays there for the sessions that name it and is never
asked for a password: what is refused here is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.core.exceptions import PermissionDenied
from django.utils import timezone

from workspaces import cookies, lockout
from workspaces.clients import client_address, client_network
from workspaces.errors import LockedOut, PasswordsBusy, PasswordsUnavailable
from workspaces.naming import user_name

if TYPE_CHECKING:
    from datetime import datetime

    from django.http import HttpRequest

logger = structlog.get_logger(__name__)


class LockoutBackend(ModelBackend):
    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **_: Any
    ) -> Any:
        """The user. Raises PermissionDenied for a wrong name or password, LockedOut where none is looked at."""
        if username is None or password is None or "\x00" in username + password:
            raise PermissionDenied
        name, now = user_name(username), timezone.now()
        address = client_network(client_address(request)) if request is not None else "this host"
        user = get_user_model()._default_manager.filter(username=name).first()
        attempt = _take(name, user, _place(request, address, user, now=now), now=now)
        try:
            found = super().authenticate(request, username=name, password=password)
        except (PasswordsBusy, PasswordsUnavailable):
            attempt.give_back()
            raise
        if found is None:
            raise PermissionDenied
        attempt.give_back()
        lockout.remember(found, address, now=now)
        return found


def _take(name: str, user: Any, place: lockout.Place, *, now: datetime) -> lockout.Attempt:
    try:
        return lockout.take(lockout.account_key(name, user), place, now=now)
    except LockedOut as locked:
        # Not the name: people type passwords there.
        logger.warning(
            "login_locked_out", user_id=getattr(user, "pk", None), known_place=place.known, seconds=locked.retry_after
        )
        raise


def _place(request: HttpRequest | None, address: str, user: Any, *, now: datetime) -> lockout.Place:
    device = cookies.device_of(request, user_id=user.pk) if request is not None and user is not None else None
    known = lockout.knows(user, address, now=now)
    if device is not None:
        return lockout.Place(f"device {device}", known=True)
    return lockout.Place(f"address {address}", known=known)


def forget_wrong_passwords(user: Any) -> int:
    """For an operator: let this user try again from everywhere. Returns how many places something was held against."""
    return lockout.forget(lockout.account_key(user.get_username(), user))
