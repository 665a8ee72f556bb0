from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from workspaces import access, gate, lifecycle, ticket
from workspaces.gate import Outcome
from workspaces.models import Transition, Workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

pytestmark = pytest.mark.django_db
IDLE = timedelta(minutes=30)


def test_without_a_ticket_nothing_opens(running: Workspace, now: datetime) -> None:
    answer = gate.decide(user_id=running.user_id, tokens=[], now=now)
    assert (answer.outcome, answer.workspace, answer.own) == (Outcome.NO_TICKET, None, False)


def test_a_bad_ticket_is_no_ticket(running: Workspace, now: datetime) -> None:
    assert gate.decide(user_id=running.user_id, tokens=["guess"], now=now).outcome is Outcome.NO_TICKET


def test_the_own_ticket_opens_a_running_editor(running: Workspace, now: datetime) -> None:
    token = ticket.issue(running, login="session:x", now=now)
    answer = gate.decide(user_id=running.user_id, tokens=[token], now=now)
    assert (answer.outcome, answer.workspace, answer.login, answer.own) == (Outcome.OPEN, running, "session:x", True)


def test_one_good_ticket_among_bad_ones_is_enough(running: Workspace, now: datetime) -> None:
    token = ticket.issue(running, login="", now=now)
    answer = gate.decide(user_id=running.user_id, tokens=["bad", token, "worse"], now=now)
    assert answer.outcome is Outcome.OPEN


@pytest.mark.parametrize("state", ["stopped", "starting", "stopping", "failed"])
def test_the_own_ticket_of_what_does_not_run_opens_nothing(user: Any, now: datetime, state: str) -> None:
    workspace = access.ensure_workspace_for(user)
    Workspace.objects.filter(pk=workspace.pk).update(state=state)
    token = ticket.issue(workspace, login="", now=now)
    answer = gate.decide(user_id=user.pk, tokens=[token], now=now)
    assert answer.outcome is Outcome.NOT_RUNNING
    assert answer.own


def test_somebody_elses_ticket_opens_nothing(running: Workspace, make_user: Callable[..., Any], now: datetime) -> None:
    stranger = access.ensure_workspace_for(make_user("mallory"))
    token = ticket.issue(stranger, login="", now=now)
    for user_id in (running.user_id, 10**9):
        answer = gate.decide(user_id=user_id, tokens=[token], now=now)
        assert (answer.outcome, answer.workspace) == (Outcome.NOT_YOURS, None)


def test_both_tickets_in_one_browser_open_the_right_one(
    running: Workspace, make_user: Callable[..., Any], now: datetime
) -> None:
    foreign = ticket.issue(access.ensure_workspace_for(make_user("mallory")), login="", now=now)
    own = ticket.issue(running, login="", now=now)
    assert gate.decide(user_id=running.user_id, tokens=[foreign, own], now=now).workspace == running


def test_a_ticket_outlives_stop_and_start(
    running: Workspace, user: Any, runtime: Any, bring_up: Callable[[Any], Workspace], now: datetime
) -> None:
    token = ticket.issue(running, login="", now=now)
    lifecycle.request_stop(running, actor=user)
    lifecycle.perform_stop(running.pk, running.generation, runtime=runtime)
    assert gate.decide(user_id=user.pk, tokens=[token], now=now).outcome is Outcome.NOT_RUNNING
    bring_up(user)
    assert gate.decide(user_id=user.pk, tokens=[token], now=now).outcome is Outcome.OPEN


@pytest.mark.parametrize("how", ["revoked", "expired", "disabled"])
def test_a_ticket_that_ended_opens_nothing(running: Workspace, user: Any, now: datetime, how: str) -> None:
    token = ticket.issue(running, login="a", now=now)
    later = now
    if how == "revoked":
        ticket.revoke_login("a", now=now)
    elif how == "expired":
        later = now + timedelta(hours=13)
    else:
        user.is_active = False
        user.save()
    assert gate.decide(user_id=user.pk, tokens=[token], now=later).outcome is Outcome.NO_TICKET


def test_deciding_changes_nothing(running: Workspace, now: datetime) -> None:
    token = ticket.issue(running, login="", now=now)
    before = Workspace.objects.filter(pk=running.pk).values().get()
    gate.decide(user_id=running.user_id, tokens=[token], now=now + timedelta(hours=1))
    assert Workspace.objects.filter(pk=running.pk).values().get() == before
    assert Transition.objects.count() == 2


def test_an_open_answer_counts_as_a_connection(running: Workspace, now: datetime) -> None:
    token = ticket.issue(running, login="", now=now)
    later = now + timedelta(minutes=5)
    answer = gate.decide(user_id=running.user_id, tokens=[token], now=later)
    before = running.last_activity_at
    gate.note_activity(answer, visit=False, socket=True, now=later, idle=IDLE)
    running.refresh_from_db()
    assert (running.connection_at, running.last_activity_at) == (later, before)


def test_a_plain_request_counts_as_nothing(running: Workspace, now: datetime) -> None:
    token, before = ticket.issue(running, login="", now=now), running.connection_at
    later = now + timedelta(minutes=5)
    answer = gate.decide(user_id=running.user_id, tokens=[token], now=later)
    gate.note_activity(answer, visit=False, socket=False, now=later, idle=IDLE)
    running.refresh_from_db()
    assert (running.connection_at, running.presence_at) == (before, running.started_at)


def test_a_visit_to_the_page_counts_as_presence(running: Workspace, now: datetime) -> None:
    token = ticket.issue(running, login="", now=now)
    later = now + timedelta(minutes=5)
    gate.note_activity(
        gate.decide(user_id=running.user_id, tokens=[token], now=later), visit=True, socket=False, now=later, idle=IDLE
    )
    running.refresh_from_db()
    assert running.presence_at == running.last_activity_at == later
    assert running.presence_source == "visit"


def test_a_refusal_counts_as_nothing(running: Workspace, now: datetime) -> None:
    before = running.connection_at
    answer = gate.decide(user_id=running.user_id, tokens=["bad"], now=now)
    gate.note_activity(answer, visit=True, socket=False, now=now + timedelta(minutes=5), idle=IDLE)
    running.refresh_from_db()
    assert running.connection_at == before
