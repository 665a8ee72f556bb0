"""The one error shape: `{"code": "snake_case", "message": "for a person", "detail": {…}}`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import Http404, JsonResponse
from psycopg_pool import PoolTimeout
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback
from rest_framework_simplejwt.exceptions import TokenError

from workspaces.errors import (
    AccessDenied,
    NotRunning,
    PasswordsUnavailable,
    RuntimeUnavailable,
    TryLater,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.http import HttpRequest

logger = structlog.get_logger(__name__)

DATABASE_SENTENCE = "The database does not answer. Open editors go on working; try again in a moment."


def error_body(code: str, message: str, detail: Any = None) -> dict[str, Any]:
    return {"code": code, "message": message, "detail": detail or {}}


def error_response(
    status: int, code: str, message: str, detail: Any = None, headers: Mapping[str, str] | None = None
) -> JsonResponse:
    """The error shape for views that are not DRF's."""
    return JsonResponse(error_body(code, message, detail), status=status, headers=dict(headers or {}))


def wants_json(request: HttpRequest) -> bool:
    """Whether a program asks: the API, and the small one next to an editor."""
    return request.path == "/api" or request.path.startswith("/api/") or "/_gunpowder/" in request.path


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:  # noqa: PLR0911 - one per kind
    """DRF's hook: every error that a view may raise, in the one shape. None (a 500) only for bugs."""
    del context
    set_rollback()
    headers: dict[str, str] = {}
    match error:
        case Http404():
            return Response(error_body("not_found", "There is no such thing here."), status=404)
        case PermissionDenied() | AccessDenied():
            return Response(error_body("permission_denied", str(error) or "You may not do that."), status=403)
        case RequestDataTooBig():
            return Response(error_body("too_large", "The request's body is too large."), status=413)
        case TokenError():
            return Response(error_body("token_not_valid", "The token is invalid or has expired."), status=401)
        case NotRunning():
            return Response(error_body(error.code, error.message), status=409)
        case TryLater():
            headers["Retry-After"] = str(error.retry_after)
            return Response(
                error_body(error.code, error.message, {"retry_after": error.retry_after}),
                status=429,
                headers=headers,
            )
        case RuntimeUnavailable() | PasswordsUnavailable():
            return Response(error_body(error.code, error.message), status=503, headers={"Retry-After": "5"})
        case OperationalError() | InterfaceError() | PoolTimeout():
            logger.warning("database_unavailable", error=type(error).__name__)
            body = error_body("database_unavailable", DATABASE_SENTENCE)
            return Response(body, status=503, headers={"Retry-After": "5"})
        case exceptions.APIException():
            return _from_drf(error)
    return None


def _from_drf(error: exceptions.APIException) -> Response:
    headers: dict[str, str] = {}
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if isinstance(error, exceptions.ValidationError):
        return Response(
            error_body("invalid", "The request's fields are not right; see detail.", _fields(error.detail)),
            status=400,
            headers=headers,
        )
    detail: dict[str, Any] = {}
    if (wait := getattr(error, "wait", None)) is not None:
        headers["Retry-After"] = str(int(wait) + 1)
        detail["retry_after"] = int(wait) + 1
    codes = error.get_codes()
    code = (
        codes if isinstance(codes, str) else str(codes.get("code", "invalid")) if isinstance(codes, dict) else "invalid"
    )
    return Response(error_body(code, _sentence(error), detail), status=error.status_code, headers=headers)


def _sentence(error: exceptions.APIException) -> str:
    found: Any = error.detail
    if isinstance(found, dict):
        found = found.get("detail", next(iter(found.values()), ""))
    return str(found[0] if isinstance(found, list) and found else found)


def _fields(detail: Any) -> dict[str, Any]:
    return detail if isinstance(detail, dict) else {"non_field_errors": detail}
