"""Who asks: a bearer token, or the pages' session with CSRF. Nothing else opens the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.exceptions import TokenError

from workspaces import families

if TYPE_CHECKING:
    from rest_framework.request import Request
    from rest_framework_simplejwt.tokens import Token

MAX_TOKEN_LENGTH = 8192
# What reading claims may raise that somebody signed with our key: a time beyond all calendars, a text that is none.
UNREADABLE = (TokenError, ValueError, OverflowError, OSError, TypeError, KeyError, AttributeError)


def user_id_of(token: Token) -> int | None:
    """The id that a token names; None for what no column of ids could hold."""
    claim = str(token.get("user_id"))
    return int(claim) if claim.isascii() and claim.isdigit() and len(claim) <= 18 else None  # noqa: PLR2004 - bigint


class BearerAuthentication(JWTAuthentication):
    def authenticate(self, request: Request) -> tuple[Any, Token] | None:
        if len(request.headers.get("Authorization", "")) > MAX_TOKEN_LENGTH:
            raise AuthenticationFailed("The token is too long to be one of ours.", code="token_not_valid")
        return super().authenticate(request)

    def get_validated_token(self, raw_token: bytes) -> Token:
        try:
            return super().get_validated_token(raw_token)
        except UNREADABLE:
            raise AuthenticationFailed("The token is invalid or has expired.", code="token_not_valid") from None

    def get_user(self, validated_token: Token) -> Any:
        """The token's user; a deleted one, or an id that is no number, is a 401 and never a 500."""
        if user_id_of(validated_token) is None:
            raise AuthenticationFailed("The token names no user.", code="token_not_valid")
        if not families.alive(validated_token.get("login"), now=timezone.now()):
            raise AuthenticationFailed("This log-in was ended. Log in again.", code="token_not_valid")
        try:
            return super().get_user(validated_token)
        except (AuthenticationFailed, *UNREADABLE) as error:
            # Deleted, disabled, or the password was changed since: one answer, so that nobody learns which.
            raise AuthenticationFailed(
                "This account does not exist, is disabled, or has a new password.", code="user_inactive"
            ) from error


class CookieSessionAuthentication(SessionAuthentication):
    def authenticate_header(self, request: Request) -> str:
        """So that a request without credentials is answered 401, not 403."""
        del request
        return "Session"


class BearerScheme(OpenApiAuthenticationExtension):
    target_class = "workspaces.api.authentication.BearerAuthentication"
    name = "bearer"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        del auto_schema
        return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}


class SessionScheme(OpenApiAuthenticationExtension):
    target_class = "workspaces.api.authentication.CookieSessionAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        del auto_schema
        return {"type": "apiKey", "in": "cookie", "name": "gunpowder_session"}
