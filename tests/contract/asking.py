"""Questions to a workspace that comes up."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.suite.waiting import eventually
from workspaces.errors import RuntimeUnavailable

if TYPE_CHECKING:
    from workspaces.runtimes.base import Endpoint, Health, Report, Runtime, WorkspaceSpec

READY_SECONDS = 240  # half a second on a quiet machine


def await_ready(runtime: Runtime, endpoint: Endpoint) -> Health:
    def look() -> Health | None:
        health = runtime.health(endpoint)
        return health if health.ready else None

    found = eventually("the editor answers", look, within=READY_SECONDS, every=0.05)
    assert found is not None
    return found


def reported(runtime: Runtime, spec: WorkspaceSpec, *, secret: str) -> Report:
    """What it reports. An editor that was never opened loads most of itself first, longer than one question waits."""

    def ask() -> Report | None:
        with contextlib.suppress(RuntimeUnavailable):
            return runtime.report(spec.endpoint, secret=secret)
        return None

    found = eventually("the editor hands over its report", ask, within=50, every=0.2)
    assert found is not None
    return found
