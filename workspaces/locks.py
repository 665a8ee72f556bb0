"""Single flight by Postgres advisory locks: they die with the connection, so a killed worker frees its own.

They save work and keep two operations on one container apart. What must never be false does not hang on them:
every change of state is conditional anyway.
"""

from __future__ import annotations

import contextlib
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.db import Error, connection

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPERATION = 0x6770_0001  # first key of the pair: one workspace's engine work
_SWEEP = 0x6770_0002  # one sweep, by name
_PORTS = 0x6770_0003  # the allocation of ports
_ADMISSION = 0x6770_0004  # who may start now
_LOCKOUT = 0x6770_0005  # what is held against one account


@contextmanager
def _session_lock(space: int, key: int) -> Iterator[bool]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", [space, key])
        acquired: bool = cursor.fetchone()[0]
    try:
        yield acquired
    finally:
        if acquired:
            # A lost connection has freed the lock already; the operation's own error matters more.
            with contextlib.suppress(Error), connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s, %s)", [space, key])


def operation(workspace_id: int) -> contextlib.AbstractContextManager[bool]:
    """Yield whether this process alone may work on the workspace's container now."""
    return _session_lock(_OPERATION, workspace_id)


def sweep(name: str) -> contextlib.AbstractContextManager[bool]:
    """Yield whether this process alone runs the sweep `name` now."""
    return _session_lock(_SWEEP, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def wait_for_admission() -> None:
    """Serialise who takes the last free place until the surrounding transaction ends (milliseconds)."""
    _transaction_lock(_ADMISSION)


def wait_for_port_allocation() -> None:
    """Serialise the allocation of ports until the surrounding transaction ends (milliseconds)."""
    _transaction_lock(_PORTS)


def wait_for_lockout(account: int) -> None:
    """Serialise what is held against one account until the surrounding transaction ends (milliseconds)."""
    _transaction_lock(_LOCKOUT, account & 0x7FFFFFFF)


def _transaction_lock(space: int, key: int = 0) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [space, key])
