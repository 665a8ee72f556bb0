"""`/code/user/{id}/_gunpowder/…`: what the progress page calls with the ticket alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.test import Client
from django.utils import timezone

from tests.api.shapes import assert_error, assert_workspace
from tests.web.nginx import KEY
from workspaces import ticket
from workspaces.models import Ticket, Transition, Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

    WithTicket = Callable[..., Client]

pytestmark = pytest.mark.django_db
OWN = {**KEY, "Origin": "http://testserver"}


def path(user_id: object, what: str) -> str:
    return f"/code/user/{user_id}/_gunpowder/{what}"


def test_the_ticket_alone_reads_the_status(user: Any, with_ticket: WithTicket) -> None:
    response = with_ticket(user).get(path(user.pk, "status"), headers=KEY)
    assert_workspace(response.json(), user=user, state="stopped")
    assert response["Cache-Control"] == "no-store"


def test_a_start_from_our_own_page_starts_and_renews_the_cookie(user: Any, with_ticket: WithTicket) -> None:
    client = with_ticket(user)
    response = client.post(path(user.pk, "start"), headers=OWN)
    assert response.status_code == 202
    assert_workspace(response.json(), user=user, state="starting")
    cookie = response.cookies[ticket.COOKIE]
    assert (cookie["path"], cookie["httponly"], cookie["samesite"]) == (f"/code/user/{user.pk}/", True, "Lax")
    assert ticket.find_valid([cookie.value], now=timezone.now())
    assert set(Ticket.objects.values_list("login", flat=True)) == {"session:x"}


def test_a_start_of_what_runs_is_a_200(running: Workspace, with_ticket: WithTicket) -> None:
    response = with_ticket(running.user).post(path(running.user_id, "start"), headers=OWN)
    assert response.status_code == 200


def test_under_tls_the_cookie_is_secure_and_the_origin_too(user: Any, with_ticket: WithTicket) -> None:
    client = with_ticket(user)
    tls = {**KEY, "Host": "testserver", "X-Forwarded-Proto": "https"}
    response = client.post(path(user.pk, "start"), headers={**tls, "Origin": "https://testserver"})
    assert response.cookies[ticket.COOKIE]["secure"]
    assert_error(client.post(path(user.pk, "start"), headers={**tls, "Origin": "http://testserver"}), 403)


@pytest.mark.parametrize(
    "origin",
    [None, "", "null", "http://evil.example", "https://testserver", "http://testserver.evil", "http://testserver:81"],
)
def test_a_start_must_come_from_our_own_origin(user: Any, with_ticket: WithTicket, origin: str | None) -> None:
    headers = KEY if origin is None else {**KEY, "Origin": origin}
    response = with_ticket(user).post(path(user.pk, "start"), headers=headers)
    assert_error(response, 403, "origin_refused")
    assert not Transition.objects.exists()


@pytest.mark.parametrize("what", ["start", "status", "events"])
def test_nothing_but_the_own_ticket_opens_them(
    user: Any, make_user: Callable[..., Any], with_ticket: WithTicket, what: str
) -> None:
    session = Client()
    session.force_login(user)
    bob = make_user("bob")
    bobs_session = Client()
    bobs_session.force_login(bob)

    def ask(client: Client, user_id: object, headers: dict[str, str] = OWN) -> Any:
        call = client.post if what == "start" else client.get
        return call(path(user_id, what), headers=headers)

    assert_error(ask(Client(), user.pk), 401, "ticket_required")
    assert_error(ask(session, user.pk), 401, "ticket_required")
    assert_error(ask(with_ticket(bob), user.pk), 404, "not_found")
    assert_error(ask(bobs_session, user.pk), 404, "not_found")
    assert_error(ask(with_ticket(user), f"0{user.pk}"), 404, "not_found")
    assert_error(ask(with_ticket(user), user.pk, {"Origin": "http://testserver"}), 404, "not_found")
    assert_error(ask(with_ticket(user), user.pk, {**OWN, "X-Gate-Key": "x"}), 404, "not_found")
    assert not Transition.objects.exists()


@pytest.mark.parametrize(("what", "right"), [("start", "POST"), ("status", "GET"), ("events", "GET")])
def test_each_answers_one_method(user: Any, with_ticket: WithTicket, what: str, right: str) -> None:
    client = with_ticket(user)
    for method in {"GET", "POST", "PUT", "DELETE", "OPTIONS"} - {right}:
        response = client.generic(method, path(user.pk, what), headers=OWN)
        assert_error(response, 405, "method_not_allowed")
        assert response["Allow"] == right


def test_a_start_too_many_is_a_429(user: Any, with_ticket: WithTicket, configure: Callable[..., None]) -> None:
    configure(starts_per_minute=0)
    response = with_ticket(user).post(path(user.pk, "start"), headers=OWN)
    assert_error(response, 429, "throttled")
    assert int(response["Retry-After"]) > 0


def test_a_disabled_user_starts_nothing(user: Any, with_ticket: WithTicket) -> None:
    client = with_ticket(user)
    user.is_active = False
    user.save()
    assert_error(client.post(path(user.pk, "start"), headers=OWN), 401, "ticket_required")


def test_an_unknown_call_is_a_404_in_the_same_shape(user: Any, with_ticket: WithTicket) -> None:
    assert_error(with_ticket(user).get(path(user.pk, "stop"), headers=KEY), 404, "not_found")
