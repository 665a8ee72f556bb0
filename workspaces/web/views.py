"""The pages: log-in, log-out and the Code Editor tab."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from django.contrib.auth import logout as end_session
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView
from django.http import HttpResponseRedirect
from django.shortcuts import redirect, render, resolve_url
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from workspaces import access, ticket
from workspaces.api.representation import represent
from workspaces.cookies import clear_ticket, login_of, set_device, set_ticket
from workspaces.errors import AccessDenied, LockedOut, LoginsTooOften, PasswordsBusy, PasswordsUnavailable
from workspaces.logins import SESSIONS_BACKEND
from workspaces.states import SENTENCES
from workspaces.web import pages
from workspaces.web.asking import owner_named_in
from workspaces.web.forms import LoginForm, in_words
from workspaces.web.pages import bad_request, csrf_failure, denied, not_found, server_error, unavailable

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase

__all__ = [
    "LoginPage",
    "admin_login",
    "bad_request",
    "csrf_failure",
    "denied",
    "home",
    "logout",
    "not_found",
    "server_error",
    "unavailable",
]


class LoginPage(LoginView):
    """The log-in, which is also the way from a live session to an editor.

    Whoever arrives with a session, or gets one here, goes on to `next`. If that is their own editor they get its
    ticket on the way. If it is somebody else's they get 404: sending them on would only bring them back here.
    """

    template_name = "workspaces/login.html"
    authentication_form = LoginForm

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.user.is_authenticated and request.method in {"GET", "HEAD"}:
            return self._arrive()
        return super().dispatch(request, *args, **kwargs)

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return super().post(request, *args, **kwargs)
        except LoginsTooOften as refused:
            return self._refused(request, "Too many attempts.", refused.retry_after)
        except PasswordsBusy as busy:
            return self._refused(request, "Many people log in at the moment.", busy.retry_after)
        except LockedOut as locked:
            sentence = "Too many wrong passwords for this account from here."
            return self._refused(request, sentence, locked.retry_after, locked_out=True)
        except PasswordsUnavailable as problem:
            return pages.unavailable(request, problem.message)

    def _refused(self, request: HttpRequest, why: str, wait: int, **more: Any) -> HttpResponse:
        """429: the form again, with the name in it. Nothing was checked; `wait` is in seconds."""
        form = LoginForm(request, initial={"username": request.POST.get("username", "")})
        context = self.get_context_data(form=form, refused=why, wait=in_words(wait), **more)
        return self.render_to_response(context, status=429, headers={"Retry-After": str(wait)})

    def form_valid(self, form: Any) -> HttpResponseRedirect:
        # Logging in anew gives the session another name, so what the old one opened is closed under the old name.
        ticket.revoke_login(login_of(self.request), now=timezone.now())
        form.get_user().backend = SESSIONS_BACKEND
        super().form_valid(form)
        response = self._arrive()
        set_device(response, self.request, user=form.get_user())
        return response  # type: ignore[return-value]  # the parent promises a redirect; a 404 page is none

    def _arrive(self) -> HttpResponse:
        target = self._target()
        owner = owner_named_in(target)
        if owner is None:
            return HttpResponseRedirect(target)
        if owner != str(self.request.user.pk):
            return pages.problem_page(pages.NOT_FOUND)
        return _enter_editor(self.request, target)

    def _target(self) -> str:
        """Where to go: `next` if it lies on this site (and is not this page or log-out), else home."""
        target = self.get_success_url()
        if urlsplit(target).path in {resolve_url("login"), resolve_url("logout")}:
            return resolve_url("home")
        return target


def _enter_editor(request: HttpRequest, target: str) -> HttpResponse:
    """Send the user to their own editor with a fresh ticket."""
    try:
        workspace = access.ensure_workspace_for(request.user)
    except AccessDenied:  # disabled since the session was looked up
        return pages.problem_page(pages.DENIED)
    token = ticket.issue(workspace, login=login_of(request), now=timezone.now())
    response = HttpResponseRedirect(target)
    set_ticket(response, token=token, user_id=workspace.user_id, secure=request.is_secure())
    return response


def admin_login(request: HttpRequest) -> HttpResponse:
    """Send to the one log-in; who is logged in and still sent here may not enter the admin."""
    if request.user.is_authenticated:
        return redirect("admin:index") if request.user.is_staff else pages.problem_page(pages.DENIED)
    return HttpResponseRedirect(f"{resolve_url('login')}?{urlencode({'next': request.GET.get('next', '/admin/')})}")


def logout(request: HttpRequest) -> HttpResponse:
    """End the session and every editor ticket that it gave."""
    if request.method != "POST":
        return pages.problem_page(pages.METHOD_NOT_ALLOWED, Allow="POST")
    user_id = request.user.pk
    ticket.revoke_login(login_of(request), now=timezone.now())
    end_session(request)
    response = redirect("login")
    if user_id is not None:
        clear_ticket(response, user_id=user_id)
    return response


@require_safe
@never_cache
@login_required
def home(request: HttpRequest) -> HttpResponse:
    """The Code Editor tab. It arrives with the state of this moment; its script keeps it up to date."""
    context = {
        "workspace": represent(access.get_workspace_for(request.user)),
        "sentences": {str(reason): sentence for reason, sentence in SENTENCES.items()},
        "now": timezone.now(),
    }
    return render(request, "workspaces/home.html", context)
