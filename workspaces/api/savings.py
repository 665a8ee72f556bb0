"""Container-hours run and saved, for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.http import Http404
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.response import Response
from rest_framework.views import APIView

from workspaces import access, conf, savings
from workspaces.api import serializers
from workspaces.api.reading import read

if TYPE_CHECKING:
    from rest_framework.request import Request


class SavingsView(APIView):
    @extend_schema(
        parameters=[serializers.SavingsIn],
        responses={200: serializers.SavingsOut, 400: serializers.Error, 401: serializers.Error},
    )
    def get(self, request: Request) -> Response:
        """Hours that the own container ran, and that it did not because it was stopped when unused; per UTC day."""
        given = read(serializers.SavingsIn, request)
        user: Any = request.user
        return Response(_represent(_report(days=given["days"], user_id=user.pk)))


class AllSavingsView(APIView):
    @extend_schema(
        parameters=[serializers.AllSavingsIn],
        responses={
            200: serializers.AllSavingsOut,
            400: serializers.Error,
            401: serializers.Error,
            404: serializers.Error,
        },
    )
    def get(self, request: Request) -> Response:
        """The same for all users together (whatever the filter) and for each of them, most saved first. For staff."""
        if not access.may_see_all(request.user):
            raise Http404
        given = read(serializers.AllSavingsIn, request)
        report = _report(days=given["days"])
        users = report.users_named(given["username"])
        shown = users[: given["limit"]]
        return Response(
            {
                **_represent(report),
                "user_count": len(users),
                "users": [
                    {"user_id": user.user_id, "username": user.username, **_figures(total), **_percent(total)}
                    for user, total in shown
                ],
            }
        )


def _report(*, days: int, user_id: int | None = None) -> savings.Report:
    window = savings.Window.of_days(days, now=timezone.now())
    return savings.report(window=window, lifetime=conf.limits().lifetime, user_id=user_id)


def _represent(report: savings.Report) -> dict[str, Any]:
    body = {
        "days": len(report.by_day),
        "since": report.window.since,
        "until": report.window.until,
        **_figures(report.total),
        **_percent(report.total),
        "by_day": [{"day": day, **_figures(figures)} for day, figures in report.by_day.items()],
    }
    return dict(serializers.SavingsOut(body).data)


def _figures(figures: savings.Figures) -> dict[str, float]:
    return {"run_hours": figures.run_hours, "saved_hours": figures.saved_hours}


def _percent(figures: savings.Figures) -> dict[str, int | None]:
    return {"saved_percent": figures.saved_percent}
