"""Log-in for programs: simplejwt's tokens with rotation, a blacklist, and a refresh that only one request wins."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from django.contrib.auth import authenticate
from django.db import transaction
from django.utils import timezone
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import AllowAny
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from rest_framework_simplejwt.tokens import RefreshToken, UntypedToken

from workspaces import ticket
from workspaces.api import serializers
from workspaces.api.authentication import BearerAuthentication, user_id_of
from workspaces.api.throttles import LoginThrottle
from workspaces.cookies import clear_ticket

if TYPE_CHECKING:
    from rest_framework.request import Request

UNAUTHORIZED = OpenApiResponse(serializers.Error, description="Wrong, expired or revoked.")
INVALID = OpenApiResponse(serializers.Error, description="The fields are not right.")


def _pair(refresh: RefreshToken) -> Response:
    return Response({"access": str(refresh.access_token), "refresh": str(refresh)})


def _active_user(token: Any) -> Any:
    """The user that `token` names. Raises AuthenticationFailed when deleted or disabled."""
    return BearerAuthentication().get_user(token)


def _parse_refresh(text: str) -> RefreshToken:
    try:
        return RefreshToken(text)  # type: ignore[arg-type]  # the stubs ask for a Token, the class takes its text
    except (TokenError, KeyError):  # simplejwt takes the claim `jti` for granted
        raise AuthenticationFailed("The token is invalid or has expired.", code="token_not_valid") from None


class _Open(APIView):
    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get_authenticate_header(self, request: Request) -> str:
        """So that a refusal is 401: DRF makes 403 of it where no scheme is named."""
        del request
        return 'Bearer realm="api"'


class TokenView(_Open):
    throttle_classes = (LoginThrottle,)

    @extend_schema(
        request=serializers.CredentialsIn,
        responses={200: serializers.TokensOut, 400: INVALID, 401: UNAUTHORIZED, 429: serializers.Error},
    )
    def post(self, request: Request) -> Response:
        """Log in: an access token for minutes, a refresh token for days."""
        given = serializers.CredentialsIn(data=request.data)
        given.is_valid(raise_exception=True)
        if "\x00" in given.validated_data["username"] + given.validated_data["password"]:
            raise AuthenticationFailed("The username or the password is wrong.", code="wrong_credentials")
        user = authenticate(request, **given.validated_data)
        if user is None:
            raise AuthenticationFailed("The username or the password is wrong.", code="wrong_credentials")
        refresh = RefreshToken.for_user(user)
        # Survives rotation, so that logging out ends exactly this log-in's editor sessions.
        refresh["login"] = secrets.token_hex(16)
        return _pair(refresh)


class RefreshView(_Open):
    @extend_schema(
        request=serializers.RefreshIn, responses={200: serializers.TokensOut, 400: INVALID, 401: UNAUTHORIZED}
    )
    def post(self, request: Request) -> Response:
        """Exchange a refresh token for a new pair; the old one is dead afterwards."""
        given = serializers.RefreshIn(data=request.data)
        given.is_valid(raise_exception=True)
        refresh = _parse_refresh(given.validated_data["refresh"])
        user = _active_user(refresh)
        with transaction.atomic():
            _kill(refresh)
            refresh.set_jti()
            refresh.set_exp()
            refresh.set_iat()
            OutstandingToken.objects.create(
                user=user,
                jti=refresh["jti"],
                token=str(refresh),
                created_at=timezone.now(),
                expires_at=timezone.now() + refresh.lifetime,
            )
        return _pair(refresh)


def _kill(refresh: RefreshToken) -> None:
    """Blacklist it under its row's lock, so that of two parallel refreshes one wins. Raises AuthenticationFailed."""
    row = OutstandingToken.objects.select_for_update().filter(jti=refresh.get("jti")).first()
    if row is None or BlacklistedToken.objects.filter(token=row).exists():
        raise AuthenticationFailed("The token was used before.", code="token_not_valid")
    BlacklistedToken.objects.create(token=row)


class VerifyView(_Open):
    @extend_schema(
        request=serializers.TokenIn, responses={200: OpenApiResponse(description="Valid."), 401: UNAUTHORIZED}
    )
    def post(self, request: Request) -> Response:
        """Say whether a token, of either kind, still opens anything."""
        given = serializers.TokenIn(data=request.data)
        given.is_valid(raise_exception=True)
        try:
            token = UntypedToken(given.validated_data["token"])
        except TokenError:
            raise AuthenticationFailed("The token is invalid or has expired.", code="token_not_valid") from None
        if BlacklistedToken.objects.filter(token__jti=token.get("jti")).exists():
            raise AuthenticationFailed("The token was revoked.", code="token_not_valid")
        _active_user(token)
        return Response({})


class LogoutView(_Open):
    @extend_schema(
        request=serializers.RefreshIn,
        responses={204: OpenApiResponse(description="Logged out."), 400: INVALID, 401: UNAUTHORIZED},
    )
    def post(self, request: Request) -> Response:
        """End this log-in: its refresh token and its editor sessions."""
        given = serializers.RefreshIn(data=request.data)
        given.is_valid(raise_exception=True)
        refresh = _parse_refresh(given.validated_data["refresh"])
        with transaction.atomic():
            _kill(refresh)
        ticket.revoke_login(f"jwt:{refresh.get('login', '')}", now=timezone.now())
        response = Response(status=204)
        if (user_id := user_id_of(refresh)) is not None:
            clear_ticket(response, user_id=user_id)
        return response


class MeView(APIView):
    @extend_schema(responses={200: serializers.MeOut, 401: UNAUTHORIZED})
    def get(self, request: Request) -> Response:
        """Who am I?"""
        user: Any = request.user
        return Response({"id": user.pk, "username": user.get_username(), "is_staff": user.is_staff})
