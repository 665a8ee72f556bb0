"""What nginx asks for each request to an editor (`auth_request`): 204 and where to go, or 401 or 403."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import HttpResponse
from django.utils import timezone

from workspaces import conf, ticket
from workspaces import gate as rule
from workspaces.web.asking import is_foreign_socket, is_page_navigation, is_socket, parse_user_id
from workspaces.web.nginx_only import from_nginx

if TYPE_CHECKING:
    from django.http import HttpRequest

_STATUS = {
    rule.Outcome.OPEN: 204,
    rule.Outcome.NO_TICKET: 401,
    rule.Outcome.NOT_RUNNING: 403,
    rule.Outcome.NOT_YOURS: 403,
}


def gate(request: HttpRequest) -> HttpResponse:
    """Answer for the workspace in X-Gate-Workspace; a WebSocket must come from our own origin."""
    if not from_nginx(request):
        return HttpResponse(status=404)
    user_id = parse_user_id(request.headers.get("X-Gate-Workspace", ""))
    if user_id is None or is_foreign_socket(request):
        return _answer(rule.Outcome.NO_TICKET)
    now = timezone.now()
    answer = rule.decide(user_id=user_id, tokens=ticket.tokens_in(request.headers.get("Cookie", "")), now=now)
    visit = is_page_navigation(
        method=request.headers.get("X-Original-Method", ""),
        uri=request.headers.get("X-Original-Uri", ""),
        user_id=user_id,
        headers=request.headers,
    )
    rule.note_activity(answer, visit=visit, socket=is_socket(request), now=now, idle=conf.limits().idle)
    response = _answer(answer.outcome)
    if answer.outcome is rule.Outcome.OPEN and answer.workspace is not None:
        response["X-Workspace-Upstream"] = str(answer.workspace.endpoint)
        response["X-Workspace-Cookie"] = f"code-server-session={answer.workspace.editor_secret}"
    return response


def _answer(outcome: rule.Outcome) -> HttpResponse:
    response = HttpResponse(status=_STATUS[outcome])
    response["X-Gate-Outcome"] = outcome
    return response
