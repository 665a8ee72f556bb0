"""What every request is held to, and what every answer carries: its id (also in the log), and what a page may load."""

from __future__ import annotations

import re
import secrets
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

import structlog
from asgiref.sync import markcoroutinefunction
from django.core.exceptions import FieldError
from django.db import DataError, ProgrammingError
from django.utils.decorators import sync_and_async_middleware

from workspaces.web.pages import bad_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http import HttpRequest, HttpResponseBase

logger = structlog.get_logger(__name__)

_ID = re.compile(r"[0-9a-f]{16,64}")


def _request_id(request: HttpRequest) -> str:
    given = request.headers.get("X-Request-Id", "")  # set by nginx; a client's own never gets through
    return given if _ID.fullmatch(given) else secrets.token_hex(16)


@sync_and_async_middleware
def request_context(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    if iscoroutinefunction(get_response):

        async def handle_async(request: HttpRequest) -> HttpResponseBase:
            request_id = _request_id(request)
            with structlog.contextvars.bound_contextvars(request_id=request_id):
                answer: Awaitable[HttpResponseBase] = get_response(request)
                response = await answer
            response["X-Request-Id"] = request_id
            return response

        return handle_async

    def handle(request: HttpRequest) -> HttpResponseBase:
        request_id = _request_id(request)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            response: HttpResponseBase = get_response(request)
        response["X-Request-Id"] = request_id
        return response

    return handle


# What the database, or Django before it, says of an address of the admin's lists that no filter can mean.
_UNMEANT = (DataError, ProgrammingError, FieldError, ValueError, TypeError, OverflowError, LookupError)


class AdminAddresses:
    """An address of a list in the admin that means nothing is a bad request, not an error of ours.

    Django looks up whatever the address names, with whatever value: NUL, half a regular expression, a number that no
    column holds. What it raises then says nothing about us; it is logged all the same.
    """

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        asked = request.method in {"GET", "HEAD"} and request.GET and request.path.startswith("/admin/")
        if not asked or not isinstance(exception, _UNMEANT):
            return None
        logger.warning("admin_address_refused", path=request.path, error=type(exception).__name__)
        return bad_request(request, exception)


_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
# Swagger's own page styles itself inline; it runs no inline script.
_POLICY_DOCS = _POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")


def _restrict(request: HttpRequest, response: HttpResponseBase) -> None:
    response.headers.setdefault("Content-Security-Policy", _POLICY_DOCS if request.path == "/api/v1/docs" else _POLICY)


@sync_and_async_middleware
def content_security_policy(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """No inline script, nothing from other hosts: what a user types or a container prints cannot become code."""
    if iscoroutinefunction(get_response):

        async def handle_async(request: HttpRequest) -> HttpResponseBase:
            response: HttpResponseBase = await get_response(request)
            _restrict(request, response)
            return response

        return handle_async

    def handle(request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase = get_response(request)
        _restrict(request, response)
        return response

    return handle
