"""What the progress page calls under the editor's own path: start, status, events.

The ticket cookie is the log-in here, since nothing else is sent to that path by right. These views are exempt from
the CSRF token because the page has none: it lives in the path that containers serve. A POST must name our own origin
instead, and the cookie is SameSite=Lax.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from django.http import HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from workspaces import conf, lifecycle, ticket
from workspaces.api.errors import error_response
from workspaces.api.representation import represent
from workspaces.cookies import set_ticket
from workspaces.errors import AccessDenied, StartsTooOften
from workspaces.events import event_response
from workspaces.gate import Outcome
from workspaces.states import State
from workspaces.web import pages
from workspaces.web.asking import parse_user_id, standing_of
from workspaces.web.explain import ticket_required
from workspaces.web.nginx_only import from_nginx

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from workspaces.gate import Answer
    from workspaces.models import Workspace

    TicketView = Callable[[HttpRequest, Workspace, Answer], HttpResponseBase]


def _for_ticket_holder(method: str) -> Callable[[TicketView], Callable[..., HttpResponseBase]]:
    """Let a view answer nginx only, `method` only, and the holder of this editor's ticket only."""

    def decorate(view: TicketView) -> Callable[..., HttpResponseBase]:
        @csrf_exempt
        @wraps(view)
        def guarded(request: HttpRequest, user_id: str) -> HttpResponseBase:
            owner = parse_user_id(user_id)
            if owner is None or not from_nginx(request):
                return pages.problem_json(pages.NOT_FOUND)
            if request.method != method:
                return pages.problem_json(pages.METHOD_NOT_ALLOWED, Allow=method)
            standing = standing_of(request, user_id=owner, now=timezone.now())
            if standing.outcome is Outcome.NOT_YOURS:
                return pages.problem_json(pages.NOT_FOUND)
            if standing.workspace is None:
                return ticket_required()
            response = view(request, standing.workspace, standing)
            response["Cache-Control"] = "no-store"
            return response

        return guarded

    return decorate


@_for_ticket_holder("POST")
def start(request: HttpRequest, workspace: Workspace, standing: Answer) -> HttpResponse:
    """Start as the API does, and renew the cookie under the log-in that it came from."""
    if not _from_own_origin(request):
        return error_response(403, "origin_refused", "A start must come from a page of this site.")
    user = workspace.user
    try:
        started = lifecycle.request_start(user, actor=user, starts_per_minute=conf.env().starts_per_minute)
    except StartsTooOften as refusal:
        headers = {"Retry-After": str(refusal.retry_after)}
        return error_response(429, refusal.code, refusal.message, headers=headers)
    except AccessDenied as refusal:
        return error_response(403, refusal.code, refusal.message)
    response = JsonResponse(represent(started), status=200 if started.state == State.RUNNING else 202)
    token = ticket.issue(started, login=standing.login, now=timezone.now(), first_issued_at=standing.first_issued_at)
    set_ticket(response, token=token, user_id=started.user_id, secure=request.is_secure())
    return response


def _from_own_origin(request: HttpRequest) -> bool:
    """A browser always names the origin of a POST; one that is missing or another's is not our page."""
    return request.headers.get("Origin") == f"{request.scheme}://{request.get_host()}"


@_for_ticket_holder("GET")
def status(request: HttpRequest, workspace: Workspace, standing: Answer) -> HttpResponse:  # noqa: ARG001 - one shape
    return JsonResponse(represent(workspace))


@_for_ticket_holder("GET")
def events(request: HttpRequest, workspace: Workspace, standing: Answer) -> Any:  # noqa: ARG001 - one shape
    return event_response(workspace.user_id)
