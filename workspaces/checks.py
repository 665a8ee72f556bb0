"""System checks: what makes no sense together, found before the first request."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 - Django's own name

from workspaces import ports


@register()
def check_ports(**_: Any) -> list[CheckMessage]:
    """A range that the kernel uses for outgoing connections leaves no allowed port."""
    low, high = settings.ENV.port_range
    ephemeral = ports.ephemeral_range()
    usable = sum(ports.allowed(port, reserved=frozenset(), ephemeral=ephemeral) for port in range(low, high + 1))
    if usable == 0:
        return [
            Error(
                f"GUNPOWDER_PORT_RANGE={low}-{high} lies wholly inside the kernel's range for outgoing connections "
                f"({ephemeral[0]}-{ephemeral[1]}), so no workspace could get a port.",
                hint="Example: GUNPOWDER_PORT_RANGE=20000-29999",
                id="workspaces.E001",
            )
        ]
    return []


@register()
def check_work_budget(**_: Any) -> list[CheckMessage]:
    """A budget below the idle limit never ends anything: presence alone lasts longer."""
    env = settings.ENV
    if env.work_budget_hours * 60 < env.idle_minutes:
        return [
            Warning(
                "GUNPOWDER_WORK_BUDGET_HOURS is shorter than GUNPOWDER_IDLE_MINUTES, so commands keep nothing running.",
                hint="Example: GUNPOWDER_WORK_BUDGET_HOURS=8",
                id="workspaces.W002",
            )
        ]
    return []


@register(deploy=True)
def check_idle(**_: Any) -> list[CheckMessage]:
    """An idle limit below the sweep's interval stops workspaces later than it says."""
    env = settings.ENV
    if env.idle_minutes * 60 < env.sweep_seconds:
        return [
            Warning(
                "GUNPOWDER_IDLE_MINUTES is shorter than GUNPOWDER_SWEEP_SECONDS: idle stops come late.",
                hint="Lower GUNPOWDER_SWEEP_SECONDS.",
                id="workspaces.W001",
            )
        ]
    return []
