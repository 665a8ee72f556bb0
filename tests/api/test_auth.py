"""Who may come in through the API: what tests/api/test_tokens.py leaves open."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings as django_settings
from django.utils import timezone
from rest_framework.test import APIClient
from rest_framework_simplejwt.settings import api_settings

from tests.api.calls import ABSENT, LOGOUT, ME, REFRESH, START, TOKEN, VERIFY, ask_me, forge
from tests.api.shapes import assert_error
from tests.suite.waiting import together
from workspaces import gate, ticket
from workspaces.cookies import login_of
from workspaces.models import Ticket

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.api.conftest import Tokens

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "change",
    [
        {"exp": ABSENT},
        {"aud": ABSENT},
        {"iss": ABSENT},
        {"user_id": ABSENT},
        {"user_id": [1]},
        {"user_id": "\x00"},
        {"token_type": ABSENT},
        {"token_type": "refresh"},
        {"hash_password": "x"},
        {"hash_password": ABSENT},
        {"algorithm": "HS512"},
    ],
)
def test_a_token_that_lacks_a_claim_opens_nothing(tokens: Tokens, change: dict[str, Any]) -> None:
    assert_error(ask_me(forge(tokens["access"], **change)), 401)


@pytest.mark.parametrize("change", [{"jti": "x"}, {"jti": ABSENT}, {"token_type": "access"}, {"exp": ABSENT}])
def test_a_refresh_token_that_lacks_a_claim_opens_nothing(
    tokens: Tokens, anonymous: APIClient, change: dict[str, Any]
) -> None:
    forged = forge(tokens["refresh"], **change)
    assert_error(anonymous.post(REFRESH, {"refresh": forged}), 401)
    assert_error(anonymous.post(LOGOUT, {"refresh": forged}), 401)


def test_tokens_are_signed_with_a_key_of_their_own(tokens: Tokens) -> None:
    assert api_settings.SIGNING_KEY != django_settings.SECRET_KEY
    assert_error(ask_me(forge(tokens["access"], key=django_settings.SECRET_KEY)), 401)


def test_verify_refuses_both_kinds_a_second_after_they_expire(tokens: Tokens, anonymous: APIClient) -> None:
    now = int(time.time())
    for token in tokens.values():
        assert anonymous.post(VERIFY, {"token": forge(token, exp=now + 30)}).status_code == 200
        assert_error(anonymous.post(VERIFY, {"token": forge(token, exp=now - 1)}), 401)


@pytest.mark.parametrize("header", ["Bearer a b", "Bearer " + "a." * 20_000, "Bearer \xff\xfe", "Bearer e30.e30.e30"])
def test_a_broken_header_is_a_401_even_with_a_live_session(api: APIClient, header: str) -> None:
    assert api.get(ME).status_code == 200
    assert_error(api.get(ME, HTTP_AUTHORIZATION=header), 401)


def test_no_token_opens_an_editor(running: Any, user: Any, tokens: Tokens) -> None:
    answer = gate.decide(user_id=user.pk, tokens=list(tokens.values()), now=timezone.now())
    assert answer.outcome is gate.Outcome.NO_TICKET


def test_a_new_password_ends_the_sessions_too(user: Any, api: APIClient) -> None:
    user.set_password("another")
    user.save()
    assert_error(api.get(ME), 401)


def test_a_refused_login_does_not_tell_whether_the_account_exists(
    anonymous: APIClient, user: Any, make_user: Callable[..., Any]
) -> None:
    make_user("mallory", is_active=False)
    bodies = [
        anonymous.post(TOKEN, {"username": name, "password": word}).json()
        for name, word in [("alice", "no"), ("nobody", "no"), ("mallory", "pw-mallory")]
    ]
    assert bodies[0] == bodies[1] == bodies[2]


def test_twenty_reads_at_once_are_never_throttled(api: APIClient) -> None:
    assert {api.get("/api/v1/code-server/status").status_code for _ in range(20)} == {200}


def test_without_redis_people_still_log_in(user: Any, log_in: Callable[[Any], Tokens], settings: Any) -> None:
    caches = copy.deepcopy(django_settings.CACHES)
    caches["default"]["LOCATION"] = "unix:///nowhere/redis.sock"
    settings.CACHES = caches
    assert log_in(user)["access"]


@pytest.mark.django_db(transaction=True)
def test_of_parallel_logouts_exactly_one_wins(tokens: Tokens) -> None:
    def log_out() -> int:
        return int(APIClient().post(LOGOUT, {"refresh": tokens["refresh"]}).status_code)

    assert sorted(together(*[log_out] * 6)) == [204, *[401] * 5]


def test_a_sessions_tickets_outlive_the_logout_of_a_program(
    tokens: Tokens, bearer: APIClient, api: APIClient, anonymous: APIClient
) -> None:
    program, session = (client.post(START).cookies[ticket.COOKIE].value for client in (bearer, api))
    anonymous.post(LOGOUT, {"refresh": tokens["refresh"]})
    assert not ticket.find_valid([program], now=timezone.now())
    assert ticket.find_valid([session], now=timezone.now())


def test_tickets_are_named_after_the_session_without_its_secret(user: Any, api: APIClient, rf: Any) -> None:
    api.post(START)
    row = Ticket.objects.get()
    assert row.login.startswith("session:")
    assert str(api.session.session_key) not in row.login
    request = rf.get("/")
    request.session = api.session
    assert login_of(request) == row.login


def test_a_session_from_a_foreign_origin_is_refused_even_with_the_token(user: Any) -> None:
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(user)
    client.get("/")
    headers = {"X-CSRFToken": client.cookies["gunpowder_csrf"].value}
    for call in ("start", "stop", "restart", "keep"):
        path = f"/api/v1/code-server/{call}"
        assert_error(client.post(path, headers={**headers, "Origin": "http://evil.example"}), 403)
    assert client.post(START, headers={**headers, "Origin": "http://testserver"}).status_code == 202
