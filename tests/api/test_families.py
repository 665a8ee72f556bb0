"""Families of tokens: what is copied and used again ends everything that came of the same log-in."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.db import connection, transaction
from django.utils import timezone
from rest_framework.test import APIClient

from tests.api.calls import LOGOUT, REFRESH, START, TOKEN, VERIFY, ask_me, claims, forge
from tests.api.shapes import assert_error
from tests.suite.waiting import together
from workspaces import families, ticket
from workspaces.models import Ticket, TokenFamily

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.api.conftest import Tokens

pytestmark = pytest.mark.django_db


def post(path: str, **body: str) -> Any:
    return APIClient().post(path, body)


def refresh(token: str) -> Tokens:
    answer = post(REFRESH, refresh=token)
    assert answer.status_code == 200, answer.content
    found: Tokens = answer.json()
    return found


def expect_dead(*pairs: Tokens) -> None:
    for pair in pairs:
        assert_error(ask_me(pair["access"]), 401, "token_not_valid")
        assert_error(post(VERIFY, token=pair["access"]), 401, "token_not_valid")
        assert_error(post(VERIFY, token=pair["refresh"]), 401, "token_not_valid")
        assert_error(post(REFRESH, refresh=pair["refresh"]), 401, "token_not_valid")


def test_a_copied_token_that_is_used_again_ends_the_thiefs_newer_ones(tokens: Tokens) -> None:
    thiefs = refresh(refresh(tokens["refresh"])["refresh"])
    assert ask_me(thiefs["access"]).status_code == 200
    assert_error(post(REFRESH, refresh=tokens["refresh"]), 401, "token_not_valid")
    expect_dead(tokens, thiefs)


def test_it_ends_the_editors_that_were_opened_with_them_and_nobody_elses(
    user: Any, tokens: Tokens, log_in: Callable[[Any], Tokens]
) -> None:
    thiefs, other = refresh(tokens["refresh"]), log_in(user)
    opened = [open_editor(pair) for pair in (thiefs, other)]
    post(REFRESH, refresh=tokens["refresh"])
    assert [opens(value) for value in opened] == [False, True]
    assert ask_me(other["access"]).status_code == 200
    assert refresh(other["refresh"])


def open_editor(pair: Tokens) -> str:
    """Its ticket."""
    answer = APIClient().post(START, headers={"Authorization": f"Bearer {pair['access']}"})
    return str(answer.cookies[ticket.COOKIE].value)


def opens(value: str, *, later: timedelta = timedelta(0)) -> bool:
    return bool(ticket.find_valid([value], now=timezone.now() + later))


def test_a_ticket_that_was_being_issued_while_its_log_in_ended_opens_nothing(tokens: Tokens) -> None:
    value, other = open_editor(tokens), open_editor(tokens)
    assert post(LOGOUT, refresh=tokens["refresh"]).status_code == 204
    Ticket.objects.update(revoked_at=None)  # as if their rows had come a moment after
    assert not opens(value)
    assert not opens(other)


def test_no_ticket_outlives_its_log_ins_last_day(tokens: Tokens) -> None:
    value = open_editor(tokens)
    assert opens(value, later=timedelta(minutes=5))
    TokenFamily.objects.update(expires_at=timezone.now() + timedelta(minutes=4))
    assert opens(value, later=timedelta(minutes=3))
    assert not opens(value, later=timedelta(minutes=5))
    families.purge(now=timezone.now() + timedelta(minutes=5))
    assert not opens(value)


def test_a_copy_used_while_the_user_is_disabled_ends_the_log_in_too(user: Any, tokens: Tokens) -> None:
    newest = refresh(tokens["refresh"])
    user.is_active = False
    user.save()
    # Who has the newest loses nothing by trying.
    assert_error(post(REFRESH, refresh=newest["refresh"]), 401, "user_inactive")
    assert_error(post(REFRESH, refresh=tokens["refresh"]), 401, "token_not_valid")
    user.is_active = True
    user.save()
    expect_dead(tokens, newest)


def test_a_user_deleted_while_the_password_was_checked_is_nobody(user: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def deleted_meanwhile(*_: Any, **__: Any) -> Any:
        found = type(user).objects.get(pk=user.pk)
        type(user).objects.filter(pk=user.pk).delete()
        return found

    monkeypatch.setattr("workspaces.api.auth.authenticate", deleted_meanwhile)
    assert_error(post(TOKEN, username=user.username, password="x"), 401, "wrong_credentials")


def test_a_second_log_out_is_told_so_and_loses_the_editors_cookie_too(tokens: Tokens) -> None:
    assert post(LOGOUT, refresh=tokens["refresh"]).status_code == 204
    again = post(LOGOUT, refresh=tokens["refresh"])
    assert_error(again, 401, "token_not_valid")
    assert again.headers["WWW-Authenticate"] == 'Bearer realm="api"'
    assert again.cookies[ticket.COOKIE]["max-age"] == 0


def test_a_copy_whose_own_days_are_over_ends_the_log_in_too(tokens: Tokens) -> None:
    thiefs = refresh(tokens["refresh"])
    long_ago = forge(tokens["refresh"], exp=int(time.time()) - 10)
    assert_error(post(REFRESH, refresh=long_ago), 401, "token_not_valid")
    expect_dead(tokens, thiefs)


def test_the_newest_token_with_its_days_over_opens_nothing_and_logs_out(tokens: Tokens) -> None:
    late = forge(tokens["refresh"], exp=int(time.time()) - 10)
    assert_error(post(REFRESH, refresh=late), 401, "token_not_valid")
    assert_error(post(VERIFY, token=late), 401, "token_not_valid")
    assert ask_me(tokens["access"]).status_code == 200
    assert post(LOGOUT, refresh=late).status_code == 204
    expect_dead(tokens)


def test_a_token_of_long_before_any_log_in_that_lives_is_no_token(tokens: Tokens) -> None:
    ancient = int((timezone.now() - families.LONGEST - timedelta(hours=1)).timestamp())
    for change in ({"exp": ancient}, {"aud": "others"}, {"iss": "others"}, {"token_type": "access"}):
        assert_error(post(LOGOUT, refresh=forge(tokens["refresh"], **change)), 401, "token_not_valid")
    assert ask_me(tokens["access"]).status_code == 200


def test_an_exchange_that_lost_ends_what_the_other_won(tokens: Tokens) -> None:
    login, old = claims(tokens["refresh"])["login"], claims(tokens["refresh"])["jti"]
    value, now = open_editor(tokens), timezone.now()
    won = families.exchange(login, old=old, new="first", now=now)
    assert won
    assert families.exchange(login, old=old, new="second", now=now) is None
    assert TokenFamily.objects.get().ended_at == now
    assert Ticket.objects.get(token_hash=ticket.hash_token(value)).revoked_at == now
    assert families.exchange(login, old="first", new="third", now=now) is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("what", ["exchange", "end", "end_if_used", "begin"])
def test_each_waits_for_whoever_holds_the_row(user: Any, tokens: Tokens, what: str) -> None:
    """Otherwise two of them would act on what neither sees of the other."""
    login, jti, now = claims(tokens["refresh"])["login"], claims(tokens["refresh"])["jti"], timezone.now()
    call: Callable[[], object] = {
        "exchange": lambda: families.exchange(login, old=jti, new="newer", now=now),
        "end": lambda: families.end(login, now=now),
        "end_if_used": lambda: families.end_if_used(login, jti="older", now=now),
        "begin": lambda: families.begin(user, jti="x", now=now),
    }[what]
    held, ended = threading.Event(), threading.Event()

    def hold() -> float:
        with transaction.atomic():
            rows: Any = type(user).objects if what == "begin" else TokenFamily.objects
            list(rows.select_for_update())
            held.set()
            assert not ended.wait(0.5)
        return time.monotonic()

    def contend() -> float:
        assert held.wait(10)
        call()
        ended.set()
        return time.monotonic()

    freed, done = together(hold, contend, within=20)
    assert done > freed - 0.1


@pytest.mark.django_db(transaction=True)
def test_a_log_in_that_came_in_while_its_user_was_deleted_holds_nothing_up(user: Any) -> None:
    family = families.begin(user, jti="x", now=timezone.now())
    assert family
    with connection.cursor() as cursor:  # as a deletion does that collected its rows before
        cursor.execute("DELETE FROM auth_user WHERE id = %s", [user.pk])
    assert families.end(family.login, now=timezone.now())
    assert families.purge(now=timezone.now() + families.LONGEST) == 1


@pytest.mark.django_db(transaction=True)
def test_of_parallel_uses_one_wins_and_the_others_end_it(tokens: Tokens) -> None:
    answers = together(*[lambda: post(REFRESH, refresh=tokens["refresh"])] * 4)
    won = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(won) == 1
    expect_dead(tokens, won[0])


@pytest.mark.parametrize("which", [0, 1, 2])
def test_any_refresh_token_of_a_log_in_logs_it_out(tokens: Tokens, which: int) -> None:
    second = refresh(tokens["refresh"])
    pairs = [tokens, second, refresh(second["refresh"])]
    assert post(LOGOUT, refresh=pairs[which]["refresh"]).status_code == 204
    expect_dead(*pairs)
    assert_error(post(LOGOUT, refresh=pairs[2]["refresh"]), 401, "token_not_valid")


def test_a_log_out_shows_in_the_tickets_too(tokens: Tokens) -> None:
    open_editor(tokens)
    assert post(LOGOUT, refresh=tokens["refresh"]).status_code == 204
    assert Ticket.objects.get().revoked_at is not None


def test_a_token_that_was_exchanged_is_no_longer_verified(tokens: Tokens) -> None:
    newer = refresh(tokens["refresh"])
    assert_error(post(VERIFY, token=tokens["refresh"]), 401, "token_not_valid")
    assert post(VERIFY, token=newer["refresh"]).status_code == 200
    assert ask_me(tokens["access"]).status_code == 200  # which lives for its minutes


def test_however_often_it_is_refreshed_a_log_in_ends_after_a_month(tokens: Tokens) -> None:
    family = TokenFamily.objects.get()
    assert family.expires_at - family.created_at == families.LONGEST
    soon = timezone.now() + timedelta(hours=1)
    TokenFamily.objects.update(expires_at=soon)
    newer = refresh(tokens["refresh"])
    assert claims(newer["refresh"])["exp"] <= soon.timestamp()
    TokenFamily.objects.update(expires_at=timezone.now())
    expect_dead(newer)


def test_nothing_that_is_stored_opens_a_door(tokens: Tokens) -> None:
    newest = refresh(tokens["refresh"])
    secrets = {part for token in (*tokens.values(), *newest.values()) for part in (token, token.split(".")[2])}
    secrets |= {str(claims(token)["jti"]) for token in (*tokens.values(), *newest.values())}
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT row_to_json(t)::text FROM {connection.ops.quote_name(table)} t")  # noqa: S608 - own tables
            stored = "\n".join(row for (row,) in cursor.fetchall())
            assert not [secret for secret in secrets if secret in stored], table


def test_no_page_shows_tokens() -> None:
    assert not apps.is_installed("rest_framework_simplejwt.token_blacklist")
    assert not [model for model in admin.site._registry if "token" in model.__name__.lower()]


CLAIMS = ("exp", "iat", "nbf", "jti", "login", "user_id", "hash_password", "token_type", "aud")


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize(
    "value", [1e30, -1e30, 10**400, "\0", "\ud800", "", None, [], {}, [[]], True, -1, "9" * 5000, {"a": "\0"}], ids=repr
)
def test_whatever_is_signed_with_our_own_key_is_never_an_error_of_ours(tokens: Tokens, claim: str, value: Any) -> None:
    access, newest = (forge(tokens[kind], **{claim: value}) for kind in ("access", "refresh"))
    answers = [ask_me(access), post(VERIFY, token=access), post(VERIFY, token=newest), post(REFRESH, refresh=newest)]
    answers.append(post(LOGOUT, refresh=newest))
    assert not {answer.status_code for answer in answers} - {200, 204, 401}
