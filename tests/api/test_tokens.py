"""Log-in for programs: tokens, their rotation, and everything that must not open anything."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from rest_framework.test import APIClient

from tests.api.calls import LOGOUT, ME, REFRESH, TOKEN, VERIFY, ask_me, claims, forge
from tests.api.shapes import assert_error
from tests.suite.waiting import together
from workspaces import access, ticket

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.django_db


# --- token -------------------------------------------------------------------------------------------------------


def test_a_log_in_gives_a_pair_that_works(user: Any, tokens: dict[str, str]) -> None:
    assert set(tokens) == {"access", "refresh"}
    answer = ask_me(tokens["access"])
    assert (answer.status_code, answer.json()) == (200, {"id": user.pk, "username": "alice", "is_staff": False})


def test_access_tokens_live_five_to_fifteen_minutes(tokens: dict[str, str]) -> None:
    given = claims(tokens["access"])
    assert 5 * 60 <= given["exp"] - given["iat"] <= 15 * 60
    assert claims(tokens["refresh"])["exp"] > given["exp"]


@pytest.mark.parametrize(
    "credentials",
    [
        {"username": "alice", "password": "wrong"},
        {"username": "nobody", "password": "pw-alice"},
        {"username": "ALICE", "password": "pw-alice"},
        {"username": "alice", "password": " pw-alice"},
    ],
)
def test_wrong_credentials_are_401_and_do_not_say_which(
    user: Any, anonymous: APIClient, credentials: dict[str, str]
) -> None:
    body = assert_error(anonymous.post(TOKEN, credentials), 401, "wrong_credentials")
    assert body["message"] == "The username or the password is wrong."


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"username": "alice"},
        {"username": "", "password": ""},
        {"username": None, "password": None},
        {"username": {"a": 1}, "password": ["x"]},
        {"username": "a" * 151, "password": "x"},
        {"username": "alice", "password": "x" * 2000},
        {"username": "al\x00ice", "password": "x"},
        {"username": "\ud800", "password": "x"},
        {"username": True, "password": 1.5e300},
        [],
        "text",
        None,
        7,
    ],
)
def test_fields_of_the_wrong_kind_are_4xx(user: Any, anonymous: APIClient, body: Any) -> None:
    for path in (TOKEN, REFRESH, VERIFY, LOGOUT):
        answer = anonymous.post(path, json.dumps(body), content_type="application/json")
        assert answer.status_code in {400, 401}, (path, answer.content)
        assert_error(answer, answer.status_code)


def test_log_ins_are_throttled_by_address_but_thirty_a_minute_pass(user: Any, anonymous: APIClient) -> None:
    wrong = {"username": "alice", "password": "wrong"}
    rates: Any = settings.REST_FRAMEWORK["DEFAULT_THROTTLE_RATES"]
    limit = int(rates["login"].partition("/")[0])
    assert limit >= 30
    codes = [anonymous.post(TOKEN, wrong, headers={"x-real-ip": "10.0.0.1"}).status_code for _ in range(limit + 1)]
    assert codes[:30] == [401] * 30
    assert codes[-1] == 429
    answer = anonymous.post(TOKEN, wrong, headers={"x-real-ip": "10.0.0.1"})
    assert_error(answer, 429, "throttled")
    assert int(answer["Retry-After"]) > 0
    right = {"username": "alice", "password": "pw-alice"}
    assert anonymous.post(TOKEN, right, headers={"x-real-ip": "10.0.0.2"}).status_code == 200


# --- refresh -----------------------------------------------------------------------------------------------------


def test_a_refresh_rotates_and_the_old_one_is_dead(anonymous: APIClient, tokens: dict[str, str]) -> None:
    first = anonymous.post(REFRESH, {"refresh": tokens["refresh"]})
    assert first.status_code == 200
    assert set(first.json()) == {"access", "refresh"}
    assert first.json()["refresh"] != tokens["refresh"]
    assert ask_me(first.json()["access"]).status_code == 200
    assert anonymous.post(REFRESH, {"refresh": first.json()["refresh"]}).status_code == 200
    assert_error(anonymous.post(REFRESH, {"refresh": tokens["refresh"]}), 401, "token_not_valid")


def test_every_rotation_keeps_the_log_ins_name(anonymous: APIClient, tokens: dict[str, str]) -> None:
    """So that a log-out ends the editor sessions that were opened before the rotation."""
    rotated = anonymous.post(REFRESH, {"refresh": tokens["refresh"]}).json()
    names = {claims(token)["login"] for token in (*tokens.values(), *rotated.values())}
    assert len(names) == 1


@pytest.mark.django_db(transaction=True)
def test_of_parallel_refreshes_exactly_one_wins(tokens: dict[str, str]) -> None:
    def refresh() -> int:
        return int(APIClient().post(REFRESH, {"refresh": tokens["refresh"]}).status_code)

    assert sorted(together(*[refresh] * 6)) == [200, 401, 401, 401, 401, 401]


def test_a_rotated_token_lives_its_whole_time_again(anonymous: APIClient, tokens: dict[str, str]) -> None:
    old = claims(tokens["refresh"])
    new = claims(anonymous.post(REFRESH, {"refresh": tokens["refresh"]}).json()["refresh"])
    assert new["jti"] != old["jti"]
    assert new["exp"] >= old["exp"]


# --- what opens nothing ------------------------------------------------------------------------------------------


def _none_token(token: str) -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    return f"{head}.{token.split('.')[1]}."


FORGERIES: dict[str, Callable[[str], str]] = {
    "no algorithm": _none_token,
    "a foreign key": lambda token: forge(token, key="foreign" * 10),
    "another algorithm": lambda token: forge(token, algorithm="HS384"),
    "a changed payload": lambda token: ".".join([token.split(".")[0], "e30", token.split(".")[2]]),
    "expired by a second": lambda token: forge(token, exp=int(datetime.now(tz=UTC).timestamp()) - 1),
    "another audience": lambda token: forge(token, aud="other"),
    "another issuer": lambda token: forge(token, iss="other"),
    "no signature": lambda token: token.rsplit(".", 1)[0],
    "nothing": lambda _: "",
    "no token at all": lambda _: "hello",
    "not even text": lambda _: "é\u00ff",
    "very long": lambda token: token + "A" * 64_000,
    "two tokens": lambda token: f"{token} {token}",
    "no user": lambda token: forge(token, user_id=None),
    "a user who is no number": lambda token: forge(token, user_id="1; drop"),
    "a user beyond any number": lambda token: forge(token, user_id="9" * 40),
    "another script's digits": lambda token: forge(token, user_id="\u0661"),
    "a user who does not exist": lambda token: forge(token, user_id="999999999"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_token_opens_nothing(tokens: dict[str, str], anonymous: APIClient, forgery: str) -> None:
    access_token, refresh = (FORGERIES[forgery](tokens[kind]) for kind in ("access", "refresh"))
    assert_error(APIClient().get(ME, headers={"authorization": f"Bearer {access_token}"}), 401)
    for path, field in ((REFRESH, "refresh"), (VERIFY, "token")):
        answer = anonymous.post(path, {field: refresh})
        assert answer.status_code in {400, 401}, (path, answer.content)
        assert_error(answer, answer.status_code)
    # Ending a log-in asks only whether the token is one that we gave; whom it names does not matter.
    assert anonymous.post(LOGOUT, {"refresh": refresh}).status_code in {204, 400, 401}


def test_the_kinds_of_token_are_not_interchangeable(tokens: dict[str, str], anonymous: APIClient) -> None:
    assert_error(ask_me(tokens["refresh"]), 401, "token_not_valid")
    assert_error(anonymous.post(REFRESH, {"refresh": tokens["access"]}), 401, "token_not_valid")
    assert_error(anonymous.post(LOGOUT, {"refresh": tokens["access"]}), 401, "token_not_valid")


@pytest.mark.parametrize("scheme", ["Basic YWxpY2U6cHctYWxpY2U=", "Token x", "bearer", "Bearer", ""])
def test_another_scheme_opens_nothing(user: Any, scheme: str) -> None:
    answer = APIClient().get(ME, headers={"authorization": scheme})
    assert_error(answer, 401)
    assert "WWW-Authenticate" in answer


def test_a_token_in_the_url_opens_nothing(tokens: dict[str, str], anonymous: APIClient) -> None:
    for name in ("token", "access", "access_token", "jwt", "Authorization"):
        assert_error(anonymous.get(f"{ME}?{name}={tokens['access']}"), 401)


def test_the_editor_ticket_opens_nothing_here(user: Any, anonymous: APIClient, now: datetime) -> None:
    token = ticket.issue(access.ensure_workspace_for(user), login="", now=now)
    anonymous.cookies[ticket.COOKIE] = token
    assert_error(anonymous.get(ME), 401)
    assert_error(anonymous.get(ME, headers={"authorization": f"Bearer {token}"}), 401)


@pytest.mark.parametrize("what", ["disabled", "deleted"])
def test_a_disabled_or_deleted_user_is_out_at_once(
    user: Any, tokens: dict[str, str], anonymous: APIClient, what: str
) -> None:
    if what == "deleted":
        user.delete()
    else:
        user.is_active = False
        user.save()
    assert_error(ask_me(tokens["access"]), 401)
    assert_error(anonymous.post(REFRESH, {"refresh": tokens["refresh"]}), 401)
    assert_error(anonymous.post(VERIFY, {"token": tokens["access"]}), 401)
    assert_error(anonymous.post(TOKEN, {"username": "alice", "password": "pw-alice"}), 401)


def test_a_changed_password_ends_every_token(user: Any, tokens: dict[str, str], anonymous: APIClient) -> None:
    user.set_password("another")
    user.save()
    assert_error(ask_me(tokens["access"]), 401)
    assert_error(anonymous.post(REFRESH, {"refresh": tokens["refresh"]}), 401)
    assert_error(anonymous.post(VERIFY, {"token": tokens["access"]}), 401)


# --- verify, log-out ---------------------------------------------------------------------------------------------


def test_verify_accepts_both_kinds_while_they_live(tokens: dict[str, str], anonymous: APIClient) -> None:
    for token in tokens.values():
        assert anonymous.post(VERIFY, {"token": token}).status_code == 200
    anonymous.post(REFRESH, {"refresh": tokens["refresh"]})
    assert_error(anonymous.post(VERIFY, {"token": tokens["refresh"]}), 401, "token_not_valid")


def test_a_log_out_ends_the_refresh_token_and_this_log_ins_tickets(
    user: Any,
    tokens: dict[str, str],
    bearer: APIClient,
    anonymous: APIClient,
    log_in: Callable[[Any], dict[str, str]],
) -> None:
    mine = bearer.post("/api/v1/code-server/start").cookies[ticket.COOKIE].value
    other = APIClient()
    other.credentials(HTTP_AUTHORIZATION=f"Bearer {log_in(user)['access']}")
    theirs = other.post("/api/v1/code-server/start").cookies[ticket.COOKIE].value
    rotated = anonymous.post(REFRESH, {"refresh": tokens["refresh"]}).json()["refresh"]

    answer = anonymous.post(LOGOUT, {"refresh": rotated})
    assert (answer.status_code, answer.content) == (204, b"")
    cleared = answer.cookies[ticket.COOKIE]
    assert (cleared.value, cleared["path"], cleared["max-age"]) == ("", f"/code/user/{user.pk}/", 0)
    now = datetime.now(tz=UTC)
    assert ticket.find_valid([mine], now=now) == []
    assert len(ticket.find_valid([theirs], now=now)) == 1
    assert_error(anonymous.post(REFRESH, {"refresh": rotated}), 401)
    assert_error(anonymous.post(LOGOUT, {"refresh": rotated}), 401)


def test_an_access_token_is_still_good_for_a_moment_after_the_log_out(tokens: dict[str, str]) -> None:
    """It is not looked up anywhere; that is why it lives for minutes only."""
    APIClient().post(LOGOUT, {"refresh": tokens["refresh"]})
    assert claims(tokens["access"])["exp"] - datetime.now(tz=UTC).timestamp() < timedelta(minutes=15).total_seconds()


# --- sessions ----------------------------------------------------------------------------------------------------


def test_a_session_works_and_needs_the_csrf_token_to_change_anything(user: Any) -> None:
    browser = APIClient(enforce_csrf_checks=True)
    browser.force_login(user)
    assert browser.get(ME).status_code == 200
    answer = browser.post("/api/v1/code-server/start")
    assert_error(answer, 403, "permission_denied")
    browser.get("/login")  # sets nothing by itself for a session that exists; ask for a page with the token
    browser.get("/")
    token = browser.cookies["gunpowder_csrf"].value
    assert browser.post("/api/v1/code-server/start", headers={"x-csrftoken": token}).status_code == 202
    assert_error(browser.post("/api/v1/code-server/stop", headers={"x-csrftoken": "x" * 32}), 403)


def test_a_bearer_needs_no_csrf_token(bearer: APIClient, tokens: dict[str, str]) -> None:
    strict = APIClient(enforce_csrf_checks=True)
    strict.credentials(HTTP_AUTHORIZATION=f"Bearer {tokens['access']}")
    assert strict.post("/api/v1/code-server/start").status_code == 202


def test_a_disabled_users_session_is_out_at_once(user: Any, api: APIClient) -> None:
    get_user_model()._default_manager.filter(pk=user.pk).update(is_active=False)
    assert_error(api.get(ME), 401)


def test_without_credentials_it_is_401_with_a_challenge(anonymous: APIClient) -> None:
    answer = anonymous.get(ME)
    assert_error(answer, 401, "not_authenticated")
    assert answer["WWW-Authenticate"]
