"""Binds the request's id to every log line that it causes, and sends it back."""

from __future__ import annotations

import re
import secrets
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

import structlog
from django.utils.decorators import sync_and_async_middleware

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
