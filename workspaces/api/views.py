"""The user's own workspace, and the same for staff. A view parses, calls one lifecycle function, renders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import current_app
from celery.exceptions import TimeoutError as CeleryTimeout
from django.core.exceptions import PermissionDenied
from django.http import Http404, StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.response import Response
from rest_framework.views import APIView

from workspaces import access, conf, lifecycle, ticket
from workspaces.admission import Queue
from workspaces.api import serializers
from workspaces.api.pagination import LatestChangeFirst, NewestFirst
from workspaces.api.reading import Nothing, read
from workspaces.api.representation import represent
from workspaces.cookies import login_of, set_ticket
from workspaces.dispatch import UNSENDABLE
from workspaces.errors import RuntimeUnavailable
from workspaces.events import event_response
from workspaces.models import Transition, Usage, Workspace
from workspaces.states import Reason, State

if TYPE_CHECKING:
    from rest_framework.request import Request

LOGS_SECONDS = 3
WORKSPACE = {
    200: serializers.WorkspaceOut,
    400: serializers.Error,
    401: serializers.Error,
    403: serializers.Error,
}
QUEUED = {**WORKSPACE, 202: serializers.WorkspaceOut, 429: serializers.Error}


def _answer(workspace: Workspace, *, settled: State) -> Response:
    """200 where the wish is fulfilled already, 202 while work is queued or under way."""
    return Response(represent(workspace), status=200 if workspace.state == settled else 202)


def _stop(workspace: Workspace, request: Request, *, reason: Reason) -> Response:
    """Stop it, now or when its command ends, as the call says."""
    if read(serializers.StopIn, request)["when"] == "command_ends":
        return Response(represent(lifecycle.request_stop_when_done(workspace, now=timezone.now())), status=202)
    return _answer(lifecycle.request_stop(workspace, actor=request.user, reason=reason), settled=State.STOPPED)


class _Intent(APIView):
    """A call that changes nothing is never throttled; what it may cause is limited in the lifecycle."""

    throttle_classes = ()


class StartView(_Intent):
    @extend_schema(request=None, responses=QUEUED)
    def post(self, request: Request) -> Response:
        """Start the own workspace. Idempotent; also sets the cookie that opens the editor."""
        read(Nothing, request)
        user: Any = request.user
        workspace = lifecycle.request_start(user, actor=user, starts_per_minute=conf.env().starts_per_minute)
        response = _answer(workspace, settled=State.RUNNING)
        token = ticket.issue(workspace, login=login_of(request), now=timezone.now())
        set_ticket(response, token=token, user_id=user.pk, secure=request.is_secure())
        return response


class StatusView(APIView):
    @extend_schema(responses=WORKSPACE)
    def get(self, request: Request) -> Response:
        """The own workspace as it is now; `stopped` before the first start."""
        read(Nothing, request)
        return Response(represent(access.get_workspace_for(request.user)))


class StopView(_Intent):
    @extend_schema(request=serializers.StopIn, responses={**QUEUED, 409: serializers.Error})
    def post(self, request: Request) -> Response:
        """Stop the own workspace, now or when its command ends; now wins over a start in progress."""
        return _stop(access.get_workspace_for(request.user), request, reason=Reason.USER)


class RestartView(_Intent):
    @extend_schema(request=None, responses={**QUEUED, 202: serializers.WorkspaceOut})
    def post(self, request: Request) -> Response:
        """Stop and start again; a stopped workspace is just started."""
        read(Nothing, request)
        user: Any = request.user
        workspace = lifecycle.request_restart(user, actor=user, starts_per_minute=conf.env().starts_per_minute)
        return Response(represent(workspace), status=202)


class KeepView(APIView):
    @extend_schema(request=serializers.KeepIn, responses={**WORKSPACE, 409: serializers.Error})
    def post(self, request: Request) -> Response:
        """Do not stop the own workspace for idleness before then; never past its maximum lifetime."""
        given = read(serializers.KeepIn, request)
        workspace = access.get_workspace_for(request.user)
        kept = lifecycle.request_keep(workspace, minutes=float(given["minutes"]), now=timezone.now())
        return Response(represent(kept))


class LogsView(APIView):
    @extend_schema(
        parameters=[OpenApiParameter("tail", OpenApiTypes.INT, description="How many lines, at most 1000.")],
        responses={
            200: serializers.LogsOut,
            400: serializers.Error,
            401: serializers.Error,
            503: serializers.Error,
        },
    )
    def get(self, request: Request) -> Response:
        """The last lines that the own container wrote."""
        given = read(serializers.TailIn, request)
        workspace = access.get_workspace_for(request.user)
        if not workspace.is_saved:
            return Response({"lines": []})
        return Response({"lines": read_logs(workspace, tail=given["tail"])})


def read_logs(workspace: Workspace, *, tail: int) -> list[str]:
    """Ask a worker for the log. Raises RuntimeUnavailable when none answers in time: web has no engine."""
    try:
        pending = current_app.send_task(
            "workspaces.read_logs", args=[workspace.pk, tail], retry=False, expires=LOGS_SECONDS
        )
        lines: list[str] | None = pending.get(timeout=LOGS_SECONDS, disable_sync_subtasks=False)
    except (CeleryTimeout, *UNSENDABLE):
        lines = None
    if lines is None:
        raise RuntimeUnavailable("The log cannot be read just now. Try again in a moment.")
    return lines


class StatsView(APIView):
    @extend_schema(responses={200: serializers.StatsOut, 400: serializers.Error, 401: serializers.Error})
    def get(self, request: Request) -> Response:
        """What the own workspace used at the last sample (at most 30 s old while it runs)."""
        read(Nothing, request)
        workspace = access.get_workspace_for(request.user)
        usage = Usage.objects.filter(workspace_id=workspace.pk).first() if workspace.is_saved else None
        if workspace.state != State.RUNNING and usage is not None:
            # Files stay on the disk; the rest ended with the container.
            usage.cpu_percent, usage.memory_bytes, usage.pids = 0.0, 0, 0
        return Response({str(name): getattr(usage, str(name), None) for name in serializers.StatsOut().fields})


class HistoryView(APIView):
    @extend_schema(
        parameters=[
            serializers.PageIn,
            OpenApiParameter("cursor", OpenApiTypes.STR),
        ],
        responses={200: serializers.HistoryOut, 400: serializers.Error, 401: serializers.Error},
    )
    def get(self, request: Request) -> Response:
        """Every change of the own workspace's state, newest first."""
        read(serializers.PageIn, request)
        user: Any = request.user
        rows = Transition.objects.filter(workspace__user_id=user.pk).select_related("actor")
        pages = NewestFirst()
        page = pages.paginate_queryset(rows, request, view=self)
        return pages.get_paginated_response(serializers.TransitionOut(page, many=True).data)


class _AnyAccept(DefaultContentNegotiation):
    """An event stream is asked for as `text/event-stream`, which no renderer is named for."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> Any:
        del request, format_suffix
        return renderers[0], renderers[0].media_type


class EventsView(APIView):
    content_negotiation_class = _AnyAccept
    http_method_names = ("get", "options")  # a HEAD would hold a stream that nobody reads

    @extend_schema(
        responses={(200, "text/event-stream"): OpenApiTypes.STR, 400: serializers.Error, 401: serializers.Error}
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        """The own workspace whenever it changes, and each stage of a start, as server-sent events."""
        read(Nothing, request)
        user: Any = request.user
        return event_response(user.pk)


# --- staff ---


class _StaffView(APIView):
    """For whoever may not see them in the admin there is no such thing: 404. Who may see but not change: 403."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if not access.may_see_all(request.user):
            raise Http404
        if request.method == "POST" and not access.may_change_all(request.user):
            raise PermissionDenied("You may see workspaces, but not start or stop them.")

    def user_named(self, user_id: int) -> Any:
        user = access.find_user_for_staff(user_id) if user_id < 2**63 else None
        if user is None:
            raise Http404
        return user


class WorkspaceListView(_StaffView):
    @extend_schema(
        parameters=[serializers.ListIn, OpenApiParameter("cursor", OpenApiTypes.STR)],
        responses={200: serializers.WorkspacesOut, 400: serializers.Error, 404: serializers.Error},
    )
    def get(self, request: Request) -> Response:
        """Every workspace, latest change first; filter by state, username, idle_since; order by change or user."""
        given = read(serializers.ListIn, request)
        rows = access.all_workspaces()
        if "state" in given:
            rows = rows.filter(state=given["state"])
        if "username" in given:
            rows = rows.filter(user__username=given["username"])
        if (since := given.get("idle_since")) is not None:
            rows = rows.idle_since(since).order_by()
        pages = LatestChangeFirst()
        pages.ordering = (given["ordering"], "-pk")
        page = pages.paginate_queryset(rows, request, view=self)
        queue = Queue()
        return pages.get_paginated_response([represent(row, queue=queue) for row in page or []])


class WorkspaceView(_StaffView):
    @extend_schema(responses={200: serializers.WorkspaceOut, 400: serializers.Error, 404: serializers.Error})
    def get(self, request: Request, user_id: int) -> Response:
        """One user's workspace."""
        user = self.user_named(user_id)
        read(Nothing, request)
        return Response(represent(access.get_workspace_for(user)))


class WorkspaceStartView(_StaffView):
    @extend_schema(request=None, responses=QUEUED)
    def post(self, request: Request, user_id: int) -> Response:
        """Start a user's workspace; sets no ticket: staff do not enter other people's editors."""
        user = self.user_named(user_id)
        read(Nothing, request)
        workspace = lifecycle.request_start(user, actor=request.user, reason=Reason.STAFF)
        return _answer(workspace, settled=State.RUNNING)


class WorkspaceStopView(_StaffView):
    @extend_schema(request=serializers.StopIn, responses={**QUEUED, 409: serializers.Error})
    def post(self, request: Request, user_id: int) -> Response:
        """Stop a user's workspace, now or when its command ends."""
        workspace = access.get_workspace_for(self.user_named(user_id))
        return _stop(workspace, request, reason=Reason.STAFF)


class WorkspaceRestartView(_StaffView):
    @extend_schema(request=None, responses=QUEUED)
    def post(self, request: Request, user_id: int) -> Response:
        """Restart a user's workspace."""
        user = self.user_named(user_id)
        read(Nothing, request)
        workspace = lifecycle.request_restart(user, actor=request.user, reason=Reason.STAFF)
        return Response(represent(workspace), status=202)
