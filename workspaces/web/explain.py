"""What nginx asks when the gate did not say yes, or when the editor did not answer: who gets which page or error.

It decides afresh instead of trusting the gate's outcome: between the two, a workspace may have come up or gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import MAX_URL_LENGTH

from workspaces import conf, dispatch, lifecycle
from workspaces.api.errors import error_response
from workspaces.api.representation import represent
from workspaces.errors import AccessDenied, StartsTooOften
from workspaces.gate import Outcome
from workspaces.states import State
from workspaces.web import pages
from workspaces.web.asking import is_foreign_socket, is_page_navigation, parse_user_id, standing_of
from workspaces.web.nginx_only import from_nginx

if TYPE_CHECKING:
    from django.http import HttpRequest

    from workspaces.models import Workspace

RETRY_AFTER_SECONDS = "2"
# Browsers without scripts look again by themselves with this in the query. Then a failed start is shown, not repeated:
# it would fail again every two seconds.
LOOKING_AGAIN = "gunpowder=look"


def explain(request: HttpRequest) -> HttpResponse:
    """Answer for the request that nginx describes in `X-Original-*`; the table "Asking for an editor"."""
    if not from_nginx(request):
        return pages.not_found(request)
    response = _answer(request)
    response["Cache-Control"] = "no-store"
    return response


def _answer(request: HttpRequest) -> HttpResponse:
    user_id = parse_user_id(request.headers.get("X-Gate-Workspace", ""))
    if user_id is None:
        return pages.problem_page(pages.NOT_FOUND)
    if is_foreign_socket(request):
        return error_response(403, "origin_refused", "A WebSocket to an editor must come from a page of this site.")
    standing = standing_of(request, user_id=user_id, now=timezone.now())
    navigation = is_page_navigation(
        method=request.headers.get("X-Original-Method", ""),
        uri=_original_uri(request),
        user_id=user_id,
        headers=request.headers,
    )
    if standing.outcome is Outcome.NOT_YOURS:
        return pages.problem_page(pages.NOT_FOUND) if navigation else pages.problem_json(pages.NOT_FOUND)
    if standing.workspace is None:
        return _to_login(request) if navigation else ticket_required()
    if navigation:
        return _own_page(request, standing.workspace)
    return _not_now(standing.workspace)


def _original_uri(request: HttpRequest) -> str:
    return request.headers.get("X-Original-Uri", "")


def _to_login(request: HttpRequest) -> HttpResponse:
    """And back afterwards: without its query where no log-in of Django's would follow an address so long."""
    back = _original_uri(request)
    if len(back) > MAX_URL_LENGTH:
        back = back.partition("?")[0]
    # Header bytes arrive decoded as Latin-1; encoding them back keeps what the browser sent.
    query = urlencode({"next": back}, safe="/", encoding="latin-1", errors="replace")
    return HttpResponseRedirect(f"{reverse('login')}?{query}")


def ticket_required() -> HttpResponse:
    """For everything but a page: there a log-in could not help."""
    message = "This editor needs its own cookie. Open it from the Code Editor tab, or start it through the API."
    return error_response(401, "ticket_required", message)


def _not_now(workspace: Workspace) -> HttpResponse:
    """Never a start: whatever asked here may be a tab that somebody forgot."""
    if workspace.state == State.RUNNING:
        code, message = "workspace_unreachable", "The editor does not answer at the moment. Try again."
    else:
        code, message = "workspace_not_running", "The editor is not running. Open its page to start it."
    response = error_response(503, code, message, {"state": workspace.state}, {"Retry-After": RETRY_AFTER_SECONDS})
    # Django would log each one as an error, but this is the normal answer to every tab that was left open.
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


def _own_page(request: HttpRequest, workspace: Workspace) -> HttpResponse:
    if workspace.state == State.RUNNING:
        # nginx could not reach what the row calls running, or it came up this moment; look now, not at the next sweep.
        dispatch.check(workspace)
        return _progress_page(request, workspace, mode="reconnecting")
    if workspace.state == State.FAILED and LOOKING_AGAIN in _original_uri(request):
        return _progress_page(request, workspace, mode="waiting")
    user = workspace.user
    try:
        started = lifecycle.request_start(user, actor=user, starts_per_minute=conf.env().starts_per_minute)
    except StartsTooOften as refusal:
        return _progress_page(request, workspace, mode="refused", refusal=refusal.message)
    except AccessDenied:  # disabled since the ticket was looked up
        return _to_login(request)
    return _progress_page(request, started, mode="waiting")


def _progress_page(request: HttpRequest, workspace: Workspace, *, mode: str, refusal: str = "") -> HttpResponse:
    """The page that shows the start and goes in.

    `mode` tells its script what to expect: `waiting` for a start, `reconnecting` to an editor that should run, or
    `refused`, when a person must decide to try again.
    """
    context = {
        "workspace": represent(workspace),
        "mode": mode,
        "refusal": refusal,
        "looks_again": not refusal and workspace.state != State.FAILED,
        "look_again_url": f"{workspace.url}?{LOOKING_AGAIN}",
        "now": timezone.now(),
    }
    return render(request, "workspaces/progress.html", context)
