"""The operator's view. States are shown, never edited: every action goes through the lifecycle."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import UserAdmin
from django.core.exceptions import PermissionDenied
from django.http import HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html

from workspaces import lifecycle, logins, naming, operator
from workspaces.errors import WorkspaceError
from workspaces.models import IdlePause, Ticket, Transition, UserLimits, WorkerBeat, Workspace
from workspaces.states import SENTENCES, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern


ICONS = {"ok": "admin/img/icon-yes.svg", "advice": "admin/img/icon-alert.svg", "wrong": "admin/img/icon-no.svg"}


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


def explain(row: Transition) -> str:
    """Why it happened: the sentence of the decision where there was one, else the reason's."""
    return str(row.detail.get("sentence") or SENTENCES.get(row.reason, ""))


class _FindsNames:
    """A name in the search box is read as everywhere else. Each word is a search of its own: not thousands of them."""

    LONGEST = 200

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        found: tuple[Any, bool] = super().get_search_results(  # type: ignore[misc]  # a mixin
            request, queryset, naming.user_name(search_term[: self.LONGEST])
        )
        return found


class HistoryInline(_ReadOnly, admin.TabularInline):  # type: ignore[type-arg]  # generic only in the stubs
    model = Transition
    fields = ("time", "from_state", "to_state", "reason", "actor", "generation", "explanation")
    readonly_fields = fields
    ordering = ("-time", "-id")
    extra = 0
    max_num = 0
    verbose_name_plural = "History (newest 50)"

    @admin.display(description="why")
    def explanation(self, row: Transition) -> str:
        return explain(row)

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
class WorkspaceAdmin(_FindsNames, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = (
        "user",
        "shown_state",
        "wanted",
        "port",
        "container",
        "last_activity_at",
        "due_at",
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
            {
                "fields": (
                    "last_activity_at",
                    ("presence_at", "presence_source", "presence_reported"),
                    ("work_at", "work_source"),
                    "connection_at",
                    ("keep_until", "stop_when_done"),
                )
            },
        ),
        (
            "Idle stop",
            {
                "fields": (
                    ("due_at", "due_reason"),
                    "lifetime_ends_at",
                    "warned_at",
                    "shown_decision",
                    "shown_spared",
                )
            },
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
        return [*shown, "shown_state", "why", "shown_decision", "shown_spared"]

    def get_urls(self) -> list[URLPattern]:
        doctor = path("doctor/", self.admin_site.admin_view(self.doctor), name="workspaces_doctor")
        return [doctor, *super().get_urls()]

    def doctor(self, request: HttpRequest) -> HttpResponse:
        """What `manage.py workspaces doctor` says, and its `--fix` as a button. A worker looks, this page waits."""
        may_fix = self.has_change_permission(request)
        if not self.has_view_permission(request) or (request.method == "POST" and not may_fix):
            raise PermissionDenied
        shown: dict[str, Any] = {**self.admin_site.each_context(request), "title": "Doctor", "may_fix": may_fix}
        try:
            if request.method == "POST":
                for sentence in operator.ask("doctor", fix=True)["done"] or ["There was nothing to do any more."]:
                    self.message_user(request, sentence)
                return HttpResponseRedirect(reverse("admin:workspaces_doctor"))
            findings = operator.ask("doctor")["findings"]
        except WorkspaceError as error:
            shown["trouble"] = error.message
        else:
            verdicts = [finding["verdict"] for finding in findings]
            shown |= {
                "findings": [finding | {"icon": ICONS[finding["verdict"]]} for finding in findings],
                "wrong": verdicts.count("wrong"),
                "advice": verdicts.count("advice"),
                "fixes": list(dict.fromkeys(finding["fix"] for finding in findings if finding["fix"])),
            }
        return TemplateResponse(request, "admin/workspaces/workspace/doctor.html", shown)

    @admin.display(description="last decision")
    def shown_decision(self, row: Workspace) -> str:
        return _shown(row.last_decision)

    @admin.display(description="last time spared")
    def shown_spared(self, row: Workspace) -> str:
        return _shown(row.last_spared)

    @admin.display(description="state", ordering="state")
    def shown_state(self, row: Workspace) -> str:
        return format_html('<strong class="workspace-{}">{}</strong>', row.state, row.state)

    @admin.display(description="why")
    def why(self, row: Workspace) -> str:
        decided = row.last_decision or {}
        stopped = decided.get("sentence", "") if decided.get("verdict") == "stop" else ""
        return row.error_message or stopped or SENTENCES.get(row.stop_reason, "")

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


def _shown(decision: dict[str, Any] | None) -> str:
    """A decision for people: its sentence, then every clock it saw."""
    if not decision:
        return "none yet"
    return format_html("<p>{}</p><pre>{}</pre>", decision.get("sentence", ""), json.dumps(decision, indent=2))


class NamedUserAdmin(_FindsNames, UserAdmin):  # type: ignore[type-arg]
    """Django's own; what it finds is also what the fields for a user offer."""

    actions = ("forget_wrong_passwords",)

    @admin.action(description="Forget wrong passwords", permissions=["change"])
    def forget_wrong_passwords(self, request: HttpRequest, rows: QuerySet[Any]) -> None:
        """Who was locked out may try again at once."""
        held = 0
        for user in rows:
            if logins.forget_wrong_passwords(user):
                held += 1
                self.log_change(request, user, "Forgot wrong passwords.")
        others = f"; nothing was held against the other {len(rows) - held}" if held < len(rows) else ""
        self.message_user(request, f"Forgot the wrong passwords of {held} account(s){others}.")


admin.site.unregister(get_user_model())
admin.site.register(get_user_model(), NamedUserAdmin)


@admin.register(UserLimits)
class UserLimitsAdmin(_FindsNames, admin.ModelAdmin):  # type: ignore[type-arg]
    """What one user gets instead of the settings' limits; in force at the next sweep, within a minute."""

    list_display = ("user", "idle_minutes", "work_budget_hours", "max_lifetime_hours", "updated_at")
    search_fields = ("user__username",)
    autocomplete_fields = ("user",)
    list_select_related = ("user",)
    readonly_fields = ("updated_at",)


@admin.register(IdlePause)
class IdlePauseAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Classes and exams: windows in which nothing is stopped for idleness."""

    list_display = ("name", "starts_at", "ends_at", "repeat", "time_zone", "last_day", "for_whom", "enabled")
    list_filter = ("enabled", "repeat")
    search_fields = ("name",)
    filter_horizontal = ("groups",)
    readonly_fields = ("updated_at",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[IdlePause]:
        return super().get_queryset(request).prefetch_related("groups")

    @admin.display(description="for whom")
    def for_whom(self, row: IdlePause) -> str:
        return ", ".join(group.name for group in row.groups.all()) or "everybody"


@admin.register(Transition)
class TransitionAdmin(_FindsNames, _ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("time", "workspace", "from_state", "to_state", "reason", "actor", "generation", "explanation")
    list_filter = ("to_state", "reason")
    search_fields = ("workspace__user__username",)
    list_select_related = ("workspace", "workspace__user", "actor")
    show_full_result_count = False

    @admin.display(description="why")
    def explanation(self, row: Transition) -> str:
        return explain(row)


@admin.register(Ticket)
class TicketAdmin(_FindsNames, _ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("user", "created_at", "expires_at", "revoked_at")
    fields = ("user", "workspace", "created_at", "expires_at", "revoked_at")
    search_fields = ("user__username",)
    list_select_related = ("user",)


@admin.register(WorkerBeat)
class WorkerBeatAdmin(_ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name", "at", "runtime_ok")
