"""Passwords are hashed apart from web, in the service `hasher`: a flood of log-ins must not slow the gate.

One hash costs half a second of a processor. There, one at a time is worked out, in turn by whoever asks: an address, or
an account on a device that it is known on. Who would wait long is told to come again before anything was spent on them.
Outside web (on the command line, in tests) there is no such service, and Django's own hasher does it.
"""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import structlog
from django.conf import settings
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.core.exceptions import ValidationError
from django.db import connection

from workspaces.errors import PasswordsBusy, PasswordsUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

logger = structlog.get_logger(__name__)

LONGEST = 1024  # letters; more is no password of anybody's
#: A service that is replaced is back within seconds; nobody who logs in meanwhile need notice.
RETRY_SECONDS = 8.0
#: The service lets nobody wait longer than 25 s, and then works out one hash.
ANSWER_SECONDS = 40.0
#: Threads of one process of web that may wait here. The service lets 64 wait in all, so this is for one that hangs:
#: web's container may have 256, and the gate needs some.
WAITING = threading.BoundedSemaphore(80)

_asked_by: ContextVar[str] = ContextVar("asked_by", default="")
_verified: ContextVar[bool] = ContextVar("verified", default=False)


@contextmanager
def asked_by(who: str) -> Iterator[None]:
    """What is hashed in this block waits for the turn of this address, or account."""
    tokens = _asked_by.set(who), _verified.set(False)
    try:
        yield
    finally:
        _asked_by.reset(tokens[0])
        _verified.reset(tokens[1])


class NotTooLong:
    """A validator of new passwords: what is longer could not be used to log in."""

    def validate(self, password: str, user: Any = None) -> None:
        del user
        if len(password) > LONGEST:
            raise ValidationError(self.get_help_text(), code="password_too_long")

    def get_help_text(self) -> str:
        return f"Your password must have at most {LONGEST} characters."


class ApartPBKDF2(PBKDF2PasswordHasher):
    """Django's own, worked out elsewhere: the same hashes under the same name."""

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        """Raise PasswordsBusy or PasswordsUnavailable where the service says or does not say anything."""
        path: Path = settings.HASHER_SOCKET
        if not path.parent.is_dir():
            return super().encode(password, salt, iterations)
        if len(password) > LONGEST:
            raise ValueError(NotTooLong().get_help_text())
        self._check_encode_args(password, salt)  # type: ignore[attr-defined]  # missing in the stubs
        rounds = iterations or self.iterations
        found = _derive(
            path,
            {
                "who": _asked_by.get(),
                "password": base64.b64encode(password.encode("utf-8", "surrogatepass")).decode(),
                "salt": salt,
                "iterations": rounds,
                "more": max(0, self.iterations - rounds),
                "first": _verified.get(),
            },
        )
        return f"{self.algorithm}${rounds}${salt}${found}"

    def verify(self, password: str, encoded: str) -> bool:
        if len(password) > LONGEST:
            return False
        right = super().verify(password, encoded)
        # What follows a right password is its new hash, where there are more rounds today: it had its turn.
        _verified.set(right)
        return right

    def harden_runtime(self, password: str, encoded: str) -> None:
        """Nothing: the rounds that an old hash has less were worked in the same turn."""


def _derive(path: Path, asked: dict[str, Any]) -> str:
    if not WAITING.acquire(blocking=False):
        raise _busy(5)
    try:
        _lend_connection()
        answer = _answer(path, asked)
    finally:
        WAITING.release()
    if "wait" in answer:
        raise _busy(int(answer["wait"]))
    if "hash" not in answer:
        raise _unavailable(str(answer.get("error")))
    return str(answer["hash"])


def _answer(path: Path, asked: dict[str, Any]) -> dict[str, Any]:
    until: float | None = None
    while True:
        try:
            return _ask(path, asked)
        except (OSError, ValueError) as problem:
            until = until or time.monotonic() + RETRY_SECONDS
            if isinstance(problem, TimeoutError) or time.monotonic() > until:
                raise _unavailable(str(problem) or type(problem).__name__) from problem
        time.sleep(0.1)


def _ask(path: Path, asked: dict[str, Any]) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(ANSWER_SECONDS)
        channel.connect(str(path))
        channel.sendall(json.dumps(asked).encode() + b"\n")
        with channel.makefile("rb") as lines:
            found: dict[str, Any] = json.loads(lines.readline())  # nothing, where the service ended: a ValueError
    return found


def _lend_connection() -> None:
    """Who waits here must not keep one of the few connections to the database from the gate."""
    if not connection.in_atomic_block:
        connection.close()


def _busy(seconds: int) -> PasswordsBusy:
    logger.warning("passwords_busy", seconds=seconds, who=_asked_by.get())
    return PasswordsBusy("Many people log in at the moment. Try again shortly.", retry_after=seconds)


def _unavailable(error: str) -> PasswordsUnavailable:
    logger.error("passwords_unavailable", error=error)
    return PasswordsUnavailable("Log-ins cannot be checked at the moment. Try again in a moment.")
