"""Who may reach which editor, and where it is. nginx asks for every request that is not cached (at most 5 s)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from workspaces import activity, ticket
from workspaces.states import State

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

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


def note_activity(answer: Answer, *, visit: bool, socket: bool, now: datetime, idle: timedelta) -> None:
    """Let a WebSocket that is let in count as a connection, and a visit to the editor's page as a sign of a person.

    A plain request is neither: a page that polls through the editor's path would look like somebody.
    """
    if answer.outcome is not Outcome.OPEN or answer.workspace is None:
        return
    every = activity.write_interval(idle)
    if visit or socket:
        activity.record_connection(answer.workspace, at=now, now=now, every=every)
    if visit:
        # A warned workspace may be stopped this moment: there every visit counts at once.
        activity.record_visit(answer.workspace, now=now, every=timedelta(0) if answer.workspace.warned_at else every)
