"""Who may come in with a name and a password: Django's rule, but an account bears only so many wrong ones (`lockout`).

In the settings it stands before Django's own backend, which is there because sessions name it, and is never asked for a
password: what is refused here is refused.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import structlog
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.core.exceptions import PermissionDenied, ValidationError
from django.utils import timezone
from rest_framework.throttling import SimpleRateThrottle

from workspaces import cookies, lockout
from workspaces.clients import client_of
from workspaces.errors import LockedOut, LoginsTooOften
from workspaces.lockout import Place
from workspaces.naming import user_name
from workspaces.passwords import asked_by

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

logger = structlog.get_logger(__name__)

#: What a session names. An older release knows only this one, and must find its users logged in when it is put back.
SESSIONS_BACKEND = "django.contrib.auth.backends.ModelBackend"


class _Throttle(SimpleRateThrottle):
    """Tries to log in, by whoever they are counted for. In the cache: without Redis there is none."""

    scope = "login"

    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = who

    def get_cache_key(self, request: Any, view: Any) -> str:
        del request, view
        return f"throttle-login-{self._who}".replace(" ", "-")


class LockoutBackend(ModelBackend):
    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **_: Any
    ) -> Any:
        """The user. Raises PermissionDenied for a wrong name or password, TryLater where none is looked at."""
        if username is None or password is None or "\x00" in username + password:
            raise PermissionDenied
        name = user_name(username)
        address = client_of(request) if request is not None else "this host"
        user = get_user_model()._default_manager.filter(username=name).first()
        places = _places(request, address, user)
        account = lockout.account_key(name, user)
        if request is not None:
            _throttle(request, _who(account, places[0]))
        with _tried(account, user, places):
            found = super().authenticate(request, username=name, password=password)
            if found is None:
                raise PermissionDenied
        lockout.remember(found, address, now=timezone.now())
        return found

    async def aauthenticate(self, request: HttpRequest | None, **credentials: Any) -> Any:  # type: ignore[override]
        """Django's own would go past the lock-out."""
        return await sync_to_async(self.authenticate)(request, **credentials)


@contextmanager
def password_tried(user: Any, *, where: str) -> Iterator[None]:
    """A password that somebody who is logged in types again: what is raised inside where it is wrong is a form's error.

    Raises LockedOut where too many were.
    """
    with _tried(lockout.account_key(user.get_username(), user), user, [Place(where, known=True)]):
        yield


@contextmanager
def _tried(account: UUID, user: Any, places: Sequence[Place]) -> Iterator[None]:
    try:
        attempt = lockout.take_somewhere(account, places, now=timezone.now())
    except LockedOut as locked:
        # Not the name: people type passwords there.
        logger.warning(
            "login_locked_out",
            user_id=getattr(user, "pk", None),
            known_place=places[0].known,
            seconds=locked.retry_after,
        )
        raise
    try:
        # On a device that it is known on, an account's passwords have a turn of their own, whoever floods from there.
        with asked_by(_who(account, attempt.place)) if attempt.place.device else nullcontext():
            yield
    except (PermissionDenied, ValidationError):  # it was wrong: for a backend, for a form
        raise
    except BaseException:  # it was not looked at
        attempt.give_back()
        raise
    attempt.give_back()


def known_here(request: HttpRequest, response: HttpResponseBase) -> None:
    """Whoever has just proved a password is known where they did."""
    lockout.remember(request.user, client_of(request), now=timezone.now())
    cookies.set_device(response, request, user=request.user)


def _places(request: HttpRequest | None, address: str, user: Any) -> list[Place]:
    """Where this try comes from; first what counts most."""
    here = Place(f"address {address}", known=lockout.knows(user, address, now=timezone.now()))
    device = cookies.device_of(request, user=user) if request is not None and user is not None else None
    return [here] if device is None else [Place(f"device {device}", known=True, device=True), here]


def _who(account: UUID, place: Place) -> str:
    """For whom a try is counted and waits its turn: its address; or its account, where that is known by a device.

    All devices of an account together: it may make itself as many as it likes.
    """
    return f"account {account.hex}" if place.device else place.name


def _throttle(request: HttpRequest, who: str) -> None:
    """Raises LoginsTooOften."""
    throttle = _Throttle(who)
    if not throttle.allow_request(request, None):  # type: ignore[arg-type]  # DRF asks for its own wrapper
        wait = int(throttle.wait() or 1) + 1
        raise LoginsTooOften(f"Too many attempts to log in from here. Try again in {wait} s.", retry_after=wait)


def forget_wrong_passwords(user: Any) -> int:
    """For an operator: let this user try again from everywhere. Returns how many places something was held against."""
    held = lockout.forget(lockout.account_key(user.get_username(), user))
    logger.info("login_unlocked", user_id=user.pk, places=held)
    return held
