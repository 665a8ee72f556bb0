"""Log-in for programs: simplejwt's tokens, in families that a reuse ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from django.contrib.auth import authenticate
from django.utils import timezone
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import AllowAny
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.tokens import RefreshToken, Token, UntypedToken

from workspaces import families
from workspaces.api import serializers
from workspaces.api.authentication import UNREADABLE, BearerAuthentication, user_id_of
from workspaces.api.errors import error_body
from workspaces.api.reading import Nothing, read
from workspaces.cookies import clear_ticket

if TYPE_CHECKING:
    from rest_framework.request import Request

AnyToken = TypeVar("AnyToken", bound=Token)
USED = "The token was used before, or its log-in has ended. Log in again."
UNAUTHORIZED = OpenApiResponse(serializers.Error, description="Wrong, expired or revoked.")
INVALID = OpenApiResponse(serializers.Error, description="The fields are not right.")


class _OfAnyAge(RefreshToken):
    """A refresh token whose own days may be over. It opens nothing, but may be a copy, or log out."""

    @classmethod
    def get_token_backend(cls) -> TokenBackend:
        return TokenBackend(
            api_settings.ALGORITHM,
            api_settings.SIGNING_KEY,
            audience=api_settings.AUDIENCE,
            issuer=api_settings.ISSUER,
            leeway=families.LONGEST,
        )


def _pair(refresh: RefreshToken) -> Response:
    return Response({"access": str(refresh.access_token), "refresh": str(refresh)})


def _active_user(token: Any) -> Any:
    """The user that `token` names. Raises AuthenticationFailed when deleted or disabled."""
    return BearerAuthentication().get_user(token)


def _parse(kind: type[AnyToken], text: str) -> AnyToken:
    try:
        return kind(text)  # type: ignore[arg-type]  # the stubs ask for a Token, the class takes its text
    except UNREADABLE:
        raise AuthenticationFailed("The token is invalid or has expired.", code="token_not_valid") from None


class _Open(APIView):
    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get_authenticate_header(self, request: Request) -> str:
        """So that a refusal is 401: DRF makes 403 of it where no scheme is named."""
        del request
        return 'Bearer realm="api"'


class TokenView(_Open):
    throttle_classes = ()  # who tries too often is known when it is clear who tries: `logins`

    @extend_schema(
        request=serializers.CredentialsIn,
        responses={
            200: serializers.TokensOut,
            400: INVALID,
            401: UNAUTHORIZED,
            429: serializers.Error,
            503: serializers.Error,
        },
    )
    def post(self, request: Request) -> Response:
        """Log in: an access token for minutes, a refresh token for days."""
        given = read(serializers.CredentialsIn, request)
        if "\x00" in given["username"] + given["password"]:
            raise AuthenticationFailed("The username or the password is wrong.", code="wrong_credentials")
        user = authenticate(request, **given)
        if user is None:
            raise AuthenticationFailed("The username or the password is wrong.", code="wrong_credentials")
        refresh = RefreshToken.for_user(user)
        # The name survives rotation, so that logging out ends exactly this log-in's editor sessions.
        family = families.begin(user, jti=refresh["jti"], now=timezone.now())
        if family is None:
            raise AuthenticationFailed("The username or the password is wrong.", code="wrong_credentials")
        refresh["login"] = family.login
        return _pair(refresh)


class RefreshView(_Open):
    @extend_schema(
        request=serializers.RefreshIn, responses={200: serializers.TokensOut, 400: INVALID, 401: UNAUTHORIZED}
    )
    def post(self, request: Request) -> Response:
        """Exchange a refresh token for a new pair. The old one is dead; whoever uses it again ends the log-in."""
        given = read(serializers.RefreshIn, request)
        now, told = timezone.now(), _parse(_OfAnyAge, given["refresh"])
        login, old = told.get("login"), told["jti"]
        # Before all else: a copy is a copy also when its days are over, or while its user is disabled.
        if families.end_if_used(login, jti=old, now=now):
            raise AuthenticationFailed(USED, code="token_not_valid")
        refresh = _parse(RefreshToken, given["refresh"])
        _active_user(refresh)
        refresh.set_jti()
        family = families.exchange(login, old=old, new=refresh["jti"], now=now)
        if family is None:
            raise AuthenticationFailed(USED, code="token_not_valid")
        refresh.set_iat()
        refresh.set_exp()
        last = int(family.expires_at.timestamp())
        refresh["exp"] = min(int(refresh["exp"]), last)
        return _pair(refresh)


class VerifyView(_Open):
    @extend_schema(
        request=serializers.TokenIn, responses={200: OpenApiResponse(description="Valid."), 401: UNAUTHORIZED}
    )
    def post(self, request: Request) -> Response:
        """Say whether a token, of either kind, still opens anything."""
        given = read(serializers.TokenIn, request)
        token = _parse(UntypedToken, given["token"])
        _active_user(token)
        if token.get("token_type") == RefreshToken.token_type and not families.is_newest(
            token.get("login"), jti=token.get("jti"), now=timezone.now()
        ):
            raise AuthenticationFailed("The token was exchanged for a newer one.", code="token_not_valid")
        return Response({})


class LogoutView(_Open):
    @extend_schema(
        request=serializers.RefreshIn,
        responses={204: OpenApiResponse(description="Logged out."), 400: INVALID, 401: UNAUTHORIZED},
    )
    def post(self, request: Request) -> Response:
        """End this log-in: all its tokens and its editor sessions. Any refresh token of it does, also an old one."""
        given = read(serializers.RefreshIn, request)
        refresh = _parse(_OfAnyAge, given["refresh"])
        response = Response(status=204)
        if not families.end(refresh.get("login"), now=timezone.now()):
            # An answer rather than an exception, so that it takes the editor's cookie away as well.
            ended = error_body("token_not_valid", "This log-in was ended before.")
            challenge = {"WWW-Authenticate": self.get_authenticate_header(request)}
            response = Response(ended, status=401, headers=challenge)
        if (user_id := user_id_of(refresh)) is not None:
            clear_ticket(response, user_id=user_id)
        return response


class MeView(APIView):
    @extend_schema(responses={200: serializers.MeOut, 400: INVALID, 401: UNAUTHORIZED})
    def get(self, request: Request) -> Response:
        """Who am I?"""
        read(Nothing, request)
        user: Any = request.user
        return Response({"id": user.pk, "username": user.get_username(), "is_staff": user.is_staff})
