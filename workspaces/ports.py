"""Which port a workspace gets: its own (base + id) where allowed, else the lowest allowed one of the range.

Allowed: 1024 to 65535, outside the kernel's range for outgoing connections, not the stack's own, not in use, not
held by another row, and not released by another user within the last minute.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from django.db import transaction

from workspaces import locks
from workspaces.errors import NoPortFree
from workspaces.models import PortRest, Workspace
from workspaces.runtimes.base import Endpoint
from workspaces.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REST = timedelta(seconds=60)
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_EPHEMERAL_DEFAULT = (32768, 60999)  # Linux's own default, for hosts that do not say


def ephemeral_range() -> tuple[int, int]:
    """The kernel's range for outgoing connections; a listener inside it may find its port taken at any moment."""
    try:
        low, high = _EPHEMERAL.read_text(encoding="ascii").split()
        return int(low), int(high)
    except (OSError, ValueError):
        return _EPHEMERAL_DEFAULT


def allowed(port: int, *, reserved: frozenset[int], ephemeral: tuple[int, int]) -> bool:
    """Whether the rule permits `port` at all, whoever uses it now."""
    return 1024 <= port <= 65535 and port not in reserved and not ephemeral[0] <= port <= ephemeral[1]  # noqa: PLR2004


def candidates(
    *, user_id: int, last_port: int | None, base: int, port_range: tuple[int, int], reserved: frozenset[int]
) -> Iterator[int]:
    """Ports in the order to try: the one that the stopped container has, the user's own, then the range."""
    ephemeral = ephemeral_range()
    own = base + user_id
    low, high = port_range
    first = [port for port in (last_port, own) if port is not None and (port == own or low <= port <= high)]
    seen: set[int] = set()
    for port in chain(first, range(low, high + 1)):
        if port not in seen and allowed(port, reserved=reserved, ephemeral=ephemeral):
            seen.add(port)
            yield port


def hold_port(
    workspace: Workspace,
    *,
    generation: int,
    base: int,
    port_range: tuple[int, int],
    reserved: frozenset[int],
    port_free: Callable[[Endpoint], bool],
    now: datetime,
    avoid: frozenset[int] = frozenset(),
) -> Endpoint | None:
    """Hold a port for this start and return its endpoint; None when the start is no longer wanted.

    A port that the row holds already is kept, unless it is in `avoid` (the engine said that it is taken).
    Raises NoPortFree when nothing is left.
    """
    with transaction.atomic():
        locks.wait_for_port_allocation()
        row = (
            Workspace.objects.select_for_update(of=("self",))
            .filter(pk=workspace.pk, state=State.STARTING, generation=generation)
            .first()
        )
        if row is None:
            return None
        if row.port is not None and row.port not in avoid:
            return Endpoint(host=row.host, port=row.port)
        held = set(Workspace.objects.exclude(pk=row.pk).filter(port__isnull=False).values_list("port", flat=True))
        resting = set(
            PortRest.objects.filter(released_at__gt=now - REST)
            .exclude(user_id=row.user_id)
            .values_list("port", flat=True)
        )
        for port in candidates(
            user_id=row.user_id, last_port=row.last_port, base=base, port_range=port_range, reserved=reserved
        ):
            if port in held or port in resting or port in avoid:
                continue
            if port_free(Endpoint(host=row.host, port=port)):
                Workspace.objects.filter(pk=row.pk).update(port=port, last_port=port)
                return Endpoint(host=row.host, port=port)
    raise NoPortFree(
        f"No port is free for this workspace between {port_range[0]} and {port_range[1]}. "
        "An administrator can widen GUNPOWDER_PORT_RANGE or stop other workspaces."
    )
