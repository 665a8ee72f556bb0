"""What every answer carries: the request's id (also on every log line that it causes), and what a page may load."""

from __future__ import annotations

import re
import secrets
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from django.utils.decorators import sync_and_async_middleware
from structlog.contextvars import bound_contextvars

from workspaces.clients import client_of
from workspaces.passwords import asked_by

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http import HttpRequest, HttpResponseBase

_ID = re.compile(r"[0-9a-f]{16,64}")


def _request_id(request: HttpRequest) -> str:
    given = request.headers.get("X-Request-Id", "")  # set by nginx; a client's own never gets through
    return given if _ID.fullmatch(given) else secrets.token_hex(16)


@sync_and_async_middleware
def request_context(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    if iscoroutinefunction(get_response):

        async def handle_async(request: HttpRequest) -> HttpResponseBase:
            request_id = _request_id(request)
            with bound_contextvars(request_id=request_id), asked_by(client_of(request)):
                answer: Awaitable[HttpResponseBase] = get_response(request)
                response = await answer
            response["X-Request-Id"] = request_id
            return response

        return handle_async

    def handle(request: HttpRequest) -> HttpResponseBase:
        request_id = _request_id(request)
        with bound_contextvars(request_id=request_id), asked_by(client_of(request)):
            response: HttpResponseBase = get_response(request)
        response["X-Request-Id"] = request_id
        return response

    return handle


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
