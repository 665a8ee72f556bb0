"""What every sweep has in common: single flight, a report, each row in its own try.

A poisoned row is logged with its id and blocks nobody. `RuntimeUnavailable` ends a pass that needs the runtime:
nothing is known, so nothing changes.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
from django.core.exceptions import ObjectDoesNotExist
from django.db import DatabaseError

from workspaces import locks
from workspaces.errors import RuntimeUnavailable, WorkspaceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from workspaces.models import Workspace

logger = structlog.get_logger(__name__)

BUSY = "Another process runs this sweep at the moment; one at a time is enough."
BATCH = 200
# How many workspaces are asked at once; each has its own deadline in the runtime.
PARALLEL_PROBES = 16


@dataclass
class Report:
    """What a sweep did: a list of `{workspace, action, …}`, for the log, `--json` and the tests."""

    sweep: str
    skipped: str = ""
    actions: list[dict[str, Any]] = field(default_factory=list)

    def add(self, workspace: int | None, action: str, **more: Any) -> None:
        self.actions.append({"workspace": workspace, "action": action, **more})

    def log(self) -> None:
        if self.skipped == BUSY:
            logger.info("sweep_busy", sweep=self.sweep)
        elif self.skipped:
            logger.warning("sweep_skipped", sweep=self.sweep, why=self.skipped)
        elif self.actions:
            logger.info("sweep_done", sweep=self.sweep, actions=self.actions[:20], count=len(self.actions))


@contextmanager
def single_flight(name: str, *, lock: str = "") -> Iterator[tuple[Report, bool]]:
    """A report under `name`, and whether no other process runs it; `lock` where another one may run beside it."""
    report = Report(name)
    with locks.sweep(lock or name) as mine:
        if not mine:
            report.skipped = BUSY
        try:
            yield report, mine
        except RuntimeUnavailable as error:
            report.skipped = f"the runtime does not answer: {error.message}"
    report.log()


def each_row(rows: Iterable[Workspace], work: Callable[[Workspace], None]) -> None:
    """Run `work` per row; one bad row is logged and passed over, an unreachable runtime ends the pass."""
    for row in rows:
        try:
            work(row)
        except RuntimeUnavailable:
            raise
        except (WorkspaceError, DatabaseError, ValueError, ObjectDoesNotExist):  # the last: deleted since it was read
            logger.exception("sweep_row_failed", workspace=row.user_id)
