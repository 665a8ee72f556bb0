from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from workspaces import access, ticket
from workspaces.models import Ticket, Workspace

if TYPE_CHECKING:
    from datetime import datetime

pytestmark = pytest.mark.django_db


@pytest.fixture
def workspace(user: Any) -> Workspace:
    return access.ensure_workspace_for(user)


def test_a_fresh_ticket_opens_its_workspace(workspace: Workspace, now: datetime) -> None:
    token = ticket.issue(workspace, login="session:a", now=now)
    (found,) = ticket.find_valid([token], now=now)
    assert (found.workspace, found.user_id, found.login) == (workspace, workspace.user_id, "session:a")


def test_only_a_hash_is_stored_and_the_token_has_256_bits(workspace: Workspace, now: datetime) -> None:
    token = ticket.issue(workspace, login="", now=now)
    assert len(token) >= 43
    row = Ticket.objects.get()
    assert token not in str(vars(row))
    assert row.token_hash == ticket.hash_token(token)
    assert token not in str(row)


def test_a_ticket_expires_within_twelve_hours(workspace: Workspace, now: datetime) -> None:
    token = ticket.issue(workspace, login="", now=now)
    assert timedelta(0) < ticket.LIFETIME <= timedelta(hours=12)
    assert ticket.find_valid([token], now=now + ticket.LIFETIME - timedelta(seconds=1))
    assert not ticket.find_valid([token], now=now + ticket.LIFETIME)


@pytest.mark.parametrize("bad", ["", "x", "A" * 43, "\udcff", "é", "'; --", "x" * 10_000])
def test_a_guessed_token_opens_nothing(workspace: Workspace, now: datetime, bad: str) -> None:
    ticket.issue(workspace, login="", now=now)
    assert ticket.find_valid([bad], now=now) == []


def test_no_token_needs_no_query(now: datetime, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert ticket.find_valid([], now=now) == []


def test_many_candidates_cost_one_query_and_only_the_first_few_count(
    workspace: Workspace, now: datetime, django_assert_num_queries: Any
) -> None:
    token = ticket.issue(workspace, login="", now=now)
    noise = [f"noise-{number}" for number in range(500)]
    with django_assert_num_queries(1):
        assert ticket.find_valid([noise[0], token, *noise], now=now)
    with django_assert_num_queries(1):
        assert not ticket.find_valid([*noise, token], now=now)


def test_a_disabled_users_ticket_is_dead_at_once(workspace: Workspace, user: Any, now: datetime) -> None:
    token = ticket.issue(workspace, login="", now=now)
    user.is_active = False
    user.save()
    assert ticket.find_valid([token], now=now) == []


def test_a_deleted_users_ticket_is_gone(workspace: Workspace, user: Any, now: datetime) -> None:
    token = ticket.issue(workspace, login="", now=now)
    user.delete()
    assert ticket.find_valid([token], now=now) == []


def test_ending_a_login_ends_its_tickets_and_no_others(workspace: Workspace, now: datetime) -> None:
    mine = [ticket.issue(workspace, login="session:a", now=now) for _ in range(2)]
    other = ticket.issue(workspace, login="session:b", now=now)
    unnamed = ticket.issue(workspace, login="", now=now)
    assert ticket.revoke_login("session:a", now=now) == 2
    assert ticket.revoke_login("session:a", now=now) == 0
    assert ticket.find_valid(mine, now=now) == []
    assert len(ticket.find_valid([other, unnamed], now=now)) == 2


def test_a_login_without_a_name_ends_nobodys_tickets(workspace: Workspace, now: datetime) -> None:
    token = ticket.issue(workspace, login="", now=now)
    assert ticket.revoke_login("", now=now) == 0
    assert ticket.find_valid([token], now=now)


def test_a_user_can_lose_every_ticket_at_once(workspace: Workspace, user: Any, staff: Any, now: datetime) -> None:
    tokens = [ticket.issue(workspace, login=f"session:{n}", now=now) for n in range(3)]
    foreign = ticket.issue(access.ensure_workspace_for(staff), login="x", now=now)
    assert ticket.revoke_user(user, now=now) == 3
    assert ticket.find_valid(tokens, now=now) == []
    assert ticket.find_valid([foreign], now=now)


def test_a_login_keeps_its_newest_few_and_other_logins_keep_theirs(workspace: Workspace, now: datetime) -> None:
    other = ticket.issue(workspace, login="other", now=now)
    long_ago = now - 2 * ticket.KEPT_ANYWAY
    old = [ticket.issue(workspace, login="a", now=long_ago) for _ in range(ticket.KEPT_PER_LOGIN + 5)]
    recent = [ticket.issue(workspace, login="a", now=now) for _ in range(20)]
    assert Ticket.objects.filter(login="a").count() == ticket.KEPT_PER_LOGIN + len(recent)
    assert all(ticket.find_valid([token], now=now) for token in [*recent, old[-1], other])
    assert not ticket.find_valid(old[:5], now=now)


def test_every_cookie_of_a_burst_of_starts_stays_usable(workspace: Workspace, now: datetime) -> None:
    tokens = [ticket.issue(workspace, login="a", now=now) for _ in range(ticket.KEPT_PER_LOGIN + 50)]
    assert ticket.find_valid(tokens[:1], now=now)


def test_a_new_password_ends_every_ticket(workspace: Workspace, now: datetime) -> None:
    token = ticket.issue(workspace, login="a", now=now)
    workspace.user.set_password("another one")
    workspace.user.save(update_fields=["password"])
    assert not ticket.find_valid([token], now=now)


def test_a_ticket_that_renews_itself_does_so_for_a_week_at_most(workspace: Workspace, now: datetime) -> None:
    begun = now - ticket.LONGEST + timedelta(minutes=1)
    token = ticket.issue(workspace, login="a", now=now, first_issued_at=begun)
    assert ticket.find_valid([token], now=now)
    assert not ticket.find_valid([token], now=now + timedelta(minutes=2))


def test_the_purge_deletes_what_nobody_can_use(workspace: Workspace, now: datetime) -> None:
    ticket.issue(workspace, login="", now=now - timedelta(days=1))
    alive = ticket.issue(workspace, login="", now=now)
    assert ticket.purge(now=now) == 1
    assert ticket.find_valid([alive], now=now)


@pytest.mark.parametrize(
    ("header", "tokens"),
    [
        ("", []),
        ("gunpowder_ticket=a", ["a"]),
        ("x=1; gunpowder_ticket=a; y=2", ["a"]),
        ("gunpowder_ticket=a; gunpowder_ticket=b", ["a", "b"]),  # a page may have added more
        ('gunpowder_ticket="a"', ["a"]),
        ("gunpowder_ticket=", []),
        ("gunpowder_ticket", []),
        ("gunpowder_ticket2=a; xgunpowder_ticket=b", []),
        ("gunpowder_ticket=a=b", ["a=b"]),
        (";;; ;gunpowder_ticket=a;", ["a"]),
    ],
)
def test_tokens_are_read_from_any_cookie_header(header: str, tokens: list[str]) -> None:
    assert ticket.tokens_in(header) == tokens
