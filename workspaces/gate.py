"""Who may reach which editor, and where it is. nginx asks for every request that is not cached (at most 5 s)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from workspaces import activity, ticket
from workspaces.states import State

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta

    from workspaces.models import Workspace


class Outcome(StrEnum):
    OPEN = "open"
    NOT_RUNNING = "not_running"
    NOT_YOURS = "not_yours"
    NO_TICKET = "no_ticket"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`workspace` is set for the two outcomes in which the ticket was the user's own."""

    outcome: Outcome
    workspace: Workspace | None = None
    login: str = ""
    first_issued_at: datetime | None = None

    @property
    def own(self) -> bool:
        return self.workspace is not None


def decide(*, user_id: int, tokens: Iterable[str], now: datetime) -> Answer:
    """Decide for the editor of `user_id` from the tickets that a client sent. Reads only."""
    valid = ticket.find_valid(tokens, now=now)
    for candidate in valid:
        if candidate.user_id == user_id:
            running = candidate.workspace.state == State.RUNNING
            return Answer(
                outcome=Outcome.OPEN if running else Outcome.NOT_RUNNING,
                workspace=candidate.workspace,
                login=candidate.login,
                first_issued_at=candidate.first_issued_at,
            )
    return Answer(outcome=Outcome.NOT_YOURS if valid else Outcome.NO_TICKET)


def note_activity(answer: Answer, *, now: datetime, idle: timedelta) -> None:
    """Let an open answer count as a connection."""
    if answer.outcome is Outcome.OPEN and answer.workspace is not None:
        activity.record_connection(answer.workspace, at=now, now=now, every=activity.write_interval(idle))
