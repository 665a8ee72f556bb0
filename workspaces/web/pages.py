"""Error pages and how to answer with them; also the handlers for Django's own errors.

Pages are rendered without the request: what went wrong may be the session or the database, and neither is needed
to say so. Programs (the API, and the scripts under an editor's path) get the one JSON error shape instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.http import HttpResponse
from django.template.loader import render_to_string

from workspaces.api.errors import error_response, wants_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One kind of trouble: what programs read (`code`) and what people read."""

    status: HTTPStatus
    code: str
    title: str
    message: str
    hint: str = ""


BAD_REQUEST = Problem(
    status=HTTPStatus.BAD_REQUEST,
    code="bad_request",
    title="This request was not understood",
    message="The address or the form that your browser sent is not valid.",
    hint="Go back and try again. If a link brought you here, the link is wrong.",
)
DENIED = Problem(
    status=HTTPStatus.FORBIDDEN,
    code="permission_denied",
    title="You may not do this",
    message="Your account does not have the right to see or do this.",
    hint="If you think that it should, ask your administrator.",
)
CSRF_FAILED = Problem(
    status=HTTPStatus.FORBIDDEN,
    code="csrf_failed",
    title="This form is out of date",
    message="You logged in or out elsewhere since this page was opened, or your browser refuses cookies.",
    hint="Go back, reload the page and try again.",
)
NOT_FOUND = Problem(
    status=HTTPStatus.NOT_FOUND,
    code="not_found",
    title="There is nothing here",
    message="The address is wrong, or what was here is not for the account that you are logged in with.",
    hint="If you were looking for your editor, open it from the Code Editor tab.",
)
METHOD_NOT_ALLOWED = Problem(
    status=HTTPStatus.METHOD_NOT_ALLOWED,
    code="method_not_allowed",
    title="This address cannot be opened like that",
    message="It only answers to a button on one of our pages.",
)
SERVER_ERROR = Problem(
    status=HTTPStatus.INTERNAL_SERVER_ERROR,
    code="server_error",
    title="Something went wrong on our side",
    message="It was written to the log. Your files and your editor are not affected.",
    hint="Try again in a moment. If it keeps happening, tell your administrator what you did and when.",
)


def problem_page(problem: Problem, **headers: str) -> HttpResponse:
    """The page for a person."""
    html = render_to_string("workspaces/error.html", {"problem": problem})
    return HttpResponse(html, status=problem.status, headers={"Cache-Control": "no-store", **headers})


def problem_json(problem: Problem, **headers: str) -> HttpResponse:
    """The same for a program."""
    text = f"{problem.title}. {problem.message}"
    return error_response(int(problem.status), problem.code, text, headers={"Cache-Control": "no-store", **headers})


def answer_problem(request: HttpRequest, problem: Problem) -> HttpResponse:
    return problem_json(problem) if wants_json(request) else problem_page(problem)


def _handler(problem: Problem) -> Callable[..., HttpResponse]:
    """A handler for Django, which passes the exception as well; what it says is not for a stranger."""

    def handle(request: HttpRequest, *_args: Any, **_kwargs: Any) -> HttpResponse:
        return answer_problem(request, problem)

    return handle


bad_request = _handler(BAD_REQUEST)
denied = _handler(DENIED)
not_found = _handler(NOT_FOUND)
server_error = _handler(SERVER_ERROR)
# A form or call without a valid CSRF token; why exactly is for the log, which Django writes itself.
csrf_failure = _handler(CSRF_FAILED)


def unavailable(_request: HttpRequest, sentence: str) -> HttpResponse:
    """The page for something that is away for a moment; `sentence` says what."""
    problem = Problem(
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        code="unavailable",
        title="Not available just now",
        message=sentence,
    )
    return problem_page(problem, **{"Retry-After": "5"})


def too_many(sentence: str, *, retry_after: int) -> HttpResponse:
    """The page for somebody who must wait, in seconds; `sentence` says for what."""
    problem = Problem(
        status=HTTPStatus.TOO_MANY_REQUESTS,
        code="throttled",
        title="Wait a moment",
        message=sentence,
    )
    return problem_page(problem, **{"Retry-After": str(retry_after)})
