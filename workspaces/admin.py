"""The operator's view. States are shown, never edited: every action goes through the lifecycle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin, messages
from django.utils.html import format_html

from workspaces import lifecycle
from workspaces.errors import WorkspaceError
from workspaces.models import Ticket, Transition, WorkerBeat, Workspace
from workspaces.states import SENTENCES, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import QuerySet
    from django.http import HttpRequest


class _ReadOnly:
    """Rows that only the platform writes."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        del request, obj
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        del request, obj
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        del obj
        return _deletes_a_user(request)


def _deletes_a_user(request: HttpRequest) -> bool:
    """Rows go along with their user, and in no other way; the container is then removed, the files stay."""
    match = request.resolver_match
    return match is not None and match.view_name.startswith("admin:auth_user")


class HistoryInline(_ReadOnly, admin.TabularInline):  # type: ignore[type-arg]  # generic only in the stubs
    model = Transition
    fields = ("time", "from_state", "to_state", "reason", "actor", "generation")
    readonly_fields = fields
    ordering = ("-time", "-id")
    extra = 0
    max_num = 0
    verbose_name_plural = "History (newest 50)"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Transition]:
        """The newest fifty of the one workspace that the page shows: a year's history would not load."""
        rows = super().get_queryset(request)
        match = request.resolver_match
        number = match.kwargs.get("object_id") if match else None
        if number is None or not str(number).isdigit():
            return rows.none()
        newest = rows.filter(workspace_id=number).order_by("-time", "-id").values_list("pk", flat=True)[:50]
        return rows.filter(pk__in=list(newest))


@admin.register(Workspace)
class WorkspaceAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = (
        "user",
        "shown_state",
        "wanted",
        "port",
        "container",
        "last_activity_at",
        "started_at",
        "why",
    )
    list_filter = ("state", "wanted", "stop_reason")
    search_fields = ("user__username", "user__email", "container")
    list_select_related = ("user",)
    ordering = ("-changed_at",)
    date_hierarchy = "changed_at"
    actions = ("start_selected", "stop_selected", "restart_selected")
    inlines: ClassVar[list[Any]] = [HistoryInline]
    fieldsets = (
        (None, {"fields": ("user", "shown_state", "wanted", "generation", "why", "error_message")}),
        ("Where", {"fields": ("container", "container_id", "image", "host", "port")}),
        (
            "When",
            {"fields": ("requested_at", "admitted_at", "started_at", "stopped_at", "changed_at", "attempts")},
        ),
        (
            "Activity",
            {"fields": ("last_activity_at", "presence_at", "work_at", "connection_at", "keep_until")},
        ),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        del request
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        del obj
        return _deletes_a_user(request)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Everything: a state edited by hand would be a lie about the container."""
        del request, obj
        shown = [field.name for field in self.model._meta.fields]
        return [*shown, "shown_state", "why"]

    @admin.display(description="state", ordering="state")
    def shown_state(self, row: Workspace) -> str:
        return format_html('<strong class="workspace-{}">{}</strong>', row.state, row.state)

    @admin.display(description="why")
    def why(self, row: Workspace) -> str:
        return row.error_message or SENTENCES.get(row.stop_reason, "")

    @admin.action(description="Start", permissions=["change"])
    def start_selected(self, request: HttpRequest, rows: QuerySet[Workspace]) -> None:
        self._each(
            request,
            rows,
            "start",
            lambda w: lifecycle.request_start(w.user, actor=request.user, reason=Reason.STAFF),
        )

    @admin.action(description="Stop", permissions=["change"])
    def stop_selected(self, request: HttpRequest, rows: QuerySet[Workspace]) -> None:
        self._each(
            request,
            rows,
            "stop",
            lambda w: lifecycle.request_stop(w, actor=request.user, reason=Reason.STAFF),
        )

    @admin.action(description="Restart", permissions=["change"])
    def restart_selected(self, request: HttpRequest, rows: QuerySet[Workspace]) -> None:
        self._each(
            request,
            rows,
            "restart",
            lambda w: lifecycle.request_restart(w.user, actor=request.user, reason=Reason.STAFF),
        )

    def _each(
        self, request: HttpRequest, rows: QuerySet[Workspace], what: str, work: Callable[[Workspace], Any]
    ) -> None:
        asked = 0
        for row in rows.select_related("user"):
            try:
                work(row)
                asked += 1
            except WorkspaceError as error:
                self.message_user(request, f"{row.user}: {error.message}", messages.ERROR)
        self.message_user(request, f"Asked {asked} workspace(s) to {what}; the list shows how it goes.")


@admin.register(Transition)
class TransitionAdmin(_ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("time", "workspace", "from_state", "to_state", "reason", "actor", "generation")
    list_filter = ("to_state", "reason")
    search_fields = ("workspace__user__username",)
    list_select_related = ("workspace", "workspace__user", "actor")
    show_full_result_count = False


@admin.register(Ticket)
class TicketAdmin(_ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("user", "created_at", "expires_at", "revoked_at")
    fields = ("user", "workspace", "created_at", "expires_at", "revoked_at")
    search_fields = ("user__username",)
    list_select_related = ("user",)


@admin.register(WorkerBeat)
class WorkerBeatAdmin(_ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name", "at", "runtime_ok")
