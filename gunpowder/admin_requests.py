"""Requests to the admin that mean nothing are bad requests, not errors of ours."""

from __future__ import annotations

from inspect import iscoroutinefunction
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

import structlog
from asgiref.sync import markcoroutinefunction
from celery.schedules import ParseException
from django.conf import settings
from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.contrib.admin.views import main as changelists
from django.core.exceptions import FieldError, SuspiciousOperation
from django.db import DataError, ProgrammingError, models
from django.http import HttpResponseRedirect
from django.utils.encoding import escape_uri_path

from workspaces.errors import PasswordsUnavailable, TryLater
from workspaces.web.pages import METHOD_NOT_ALLOWED, problem_page, too_many, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.http import HttpRequest, HttpResponse, QueryDict

logger = structlog.get_logger(__name__)

# What comes of looking up, or of showing in a form, a value that is none: half a regular expression, a range without an
# end, a year beyond all calendars, a date that is a word.
_MEANINGLESS = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    FieldError,
    DataError,
    ProgrammingError,
    ParseException,
    RecursionError,
)


METHODS = ("GET", "HEAD", "POST")
_OURS = tuple(f"{settings.BASE_DIR / package}/" for package in ("gunpowder", "workspaces"))
_DJANGOS_DATABASE = f"{Path(str(models.__file__)).parent}/"
_CALLS_ACTIONS = ModelAdmin.response_action.__code__  # looks up what was chosen, and calls the action with it
_READS_QUERIES = str(changelists.__file__)  # a list is looked up before anything is done with its rows


class AdminRequests:
    """Django's admin looks up whatever an address or a form names, with whatever value, and trips over some of it.

    What holds NUL, which no text of ours does, is refused before, and so are methods that the admin has no use for. A
    page that its query made fail is opened without it: if it fails then as well, the fault is ours and is told as such.
    A form is a bad one where reading it failed. In either case the whole traceback is in the log.
    """

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        return self._get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        """Answer for what holds NUL. Raises SuspiciousOperation, which is answered 400, where it is no query."""
        del view, args, kwargs
        if not _is_admins(request):
            return None
        if request.method not in METHODS:
            return problem_page(METHOD_NOT_ALLOWED, Allow=", ".join(METHODS))
        in_query = any("\x00" in text for text in _texts(request.GET))
        if in_query and request.method in {"GET", "HEAD"}:
            return _without_query(request)
        if in_query or any("\x00" in text for text in (request.path, *_texts(request.POST))):
            raise SuspiciousOperation("a request to the admin holds NUL")
        return None

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer for what the request itself brought about. Raises SuspiciousOperation for a form."""
        if _is_admins(request) and isinstance(exception, TryLater | PasswordsUnavailable):
            return _password_not_set(request, exception)
        if not _is_admins(request) or not isinstance(exception, _MEANINGLESS):
            return None
        if request.method == "POST" and _is_of_the_form(request, exception):
            logger.warning("admin_form_refused", path=request.path, exc_info=exception)
            raise SuspiciousOperation("a form of the admin cannot be read") from exception
        if request.method in {"GET", "HEAD"} and request.GET:
            logger.warning("admin_query_left_out", path=request.path, exc_info=exception)
            return _without_query(request)
        return None


def _without_query(request: HttpRequest) -> HttpResponse:
    messages.warning(request, "What followed the ? in the address means nothing here, so it was left out.")
    return HttpResponseRedirect(escape_uri_path(request.path))


def _password_not_set(request: HttpRequest, problem: TryLater | PasswordsUnavailable) -> HttpResponse:
    sentence = f"{problem.message} Nothing was saved."
    if isinstance(problem, TryLater):
        return too_many(sentence, retry_after=problem.retry_after)
    return unavailable(request, sentence)


def _is_admins(request: HttpRequest) -> bool:
    return request.path.startswith("/admin/")


def _texts(form: QueryDict) -> Iterator[str]:
    for name, values in form.lists():
        yield name
        yield from values


def _is_of_the_form(request: HttpRequest, exception: Exception) -> bool:
    """Whether reading what was sent failed, and not what was to be done with it.

    One object is changed in a transaction, so nothing is half done there. An action on a list may be half done: what
    fails inside it is never the form's.
    """
    codes = [frame.f_code for frame, _ in walk_tb(exception.__traceback__)]
    files = [code.co_filename for code in codes]
    match = request.resolver_match
    if match is not None and match.view_name.endswith("_changelist"):
        if _CALLS_ACTIONS in codes:
            called = files[codes.index(_CALLS_ACTIONS) + 1 :][:1]
            return all(file.startswith(_DJANGOS_DATABASE) for file in called)
        if _READS_QUERIES in files:
            return True
    return not any(file.startswith(_OURS) for file in files)
