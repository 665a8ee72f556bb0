"""Rows: the truth about intent. What must never be false is a constraint here, not a hope elsewhere."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from workspaces import naming
from workspaces.idleness import Clocks
from workspaces.querysets import WorkspaceQuerySet
from workspaces.runtimes.base import Endpoint
from workspaces.states import Reason, State, Wanted

if TYPE_CHECKING:
    from datetime import datetime


def _choices(values: type[State | Wanted | Reason]) -> list[tuple[str, str]]:
    return [(str(value), str(value)) for value in values]


def new_secret() -> str:
    """The editor's inner password, 256 bits; nginx shows it to the container, nobody ever types it."""
    return secrets.token_hex(32)


class Workspace(models.Model):
    """One user's workspace. `state` changes in `WorkspaceQuerySet.change_state` and nowhere else.

    `wanted` is the intent, `state` what we know. `generation` counts requested starts. `port` is null unless held.
    The three clocks and `keep_until` are what idleness is decided from; `last_activity_at` is the newest of them,
    stored so that an index can answer "who has been quiet since".
    """

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="workspace")
    state = models.CharField(max_length=16, choices=_choices(State), default=State.STOPPED)
    wanted = models.CharField(max_length=16, choices=_choices(Wanted), default=Wanted.STOPPED)
    generation = models.PositiveIntegerField(default=0)
    changed_at = models.DateTimeField(default=timezone.now)

    requested_at = models.DateTimeField(null=True, blank=True)
    dispatched_at = models.DateTimeField(null=True, blank=True)
    admitted_at = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    started_at = models.DateTimeField(null=True, blank=True)
    stopped_at = models.DateTimeField(null=True, blank=True)
    stages = models.JSONField(default=list, blank=True)

    host = models.GenericIPAddressField(default="127.0.0.1")
    port = models.PositiveIntegerField(null=True, blank=True, unique=True)
    last_port = models.PositiveIntegerField(null=True, blank=True)
    container = models.CharField(max_length=128, blank=True)
    container_id = models.CharField(max_length=64, blank=True)
    image = models.CharField(max_length=255, blank=True)
    editor_secret = models.CharField(max_length=64, default=new_secret, editable=False)

    presence_at = models.DateTimeField(null=True, blank=True)
    work_at = models.DateTimeField(null=True, blank=True)
    connection_at = models.DateTimeField(null=True, blank=True)
    last_activity_at = models.DateTimeField(null=True, blank=True)
    keep_until = models.DateTimeField(null=True, blank=True)
    unhealthy_since = models.DateTimeField(null=True, blank=True)

    stop_reason = models.CharField(max_length=32, blank=True)
    error_code = models.CharField(max_length=64, blank=True)
    error_message = models.TextField(blank=True)

    objects: ClassVar[models.Manager[Workspace]] = WorkspaceQuerySet.as_manager()
    transitions: Any  # the reverse of Transition.workspace

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=Q(state__in=[str(s) for s in State]), name="workspace_state_known"),
            models.CheckConstraint(condition=Q(wanted__in=[str(w) for w in Wanted]), name="workspace_wanted_known"),
            models.CheckConstraint(
                condition=~Q(state=State.RUNNING)
                | Q(port__isnull=False, started_at__isnull=False, last_activity_at__isnull=False),
                name="workspace_running_has_endpoint",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=(State.STOPPED, State.FAILED)) | Q(port__isnull=True),
                name="workspace_settled_holds_no_port",
            ),
            models.CheckConstraint(
                condition=Q(port__isnull=True) | Q(port__gte=1024, port__lte=65535),
                name="workspace_port_unprivileged",
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            # One partial index per sweep: a pass costs what it finds, not what there is.
            models.Index(fields=["last_activity_at"], condition=Q(state=State.RUNNING), name="workspace_idle"),
            models.Index(fields=["started_at"], condition=Q(state=State.RUNNING), name="workspace_lifetime"),
            models.Index(
                fields=["dispatched_at"],
                condition=Q(state__in=(State.STARTING, State.STOPPING)),
                name="workspace_unsettled",
            ),
        ]

    def __str__(self) -> str:
        return f"workspace of user {self.user_id}"

    @property
    def url(self) -> str:
        return naming.editor_path(self.user_id)

    @property
    def endpoint(self) -> Endpoint | None:
        return None if self.port is None else Endpoint(host=self.host, port=self.port)

    def clocks(self) -> Clocks:
        """The clocks of a running workspace."""
        return Clocks(
            started_at=self.started_at or self.changed_at,
            presence_at=self.presence_at,
            work_at=self.work_at,
            connection_at=self.connection_at,
            keep_until=self.keep_until,
        )

    @property
    def is_saved(self) -> bool:
        """False for the placeholder that stands for a user who has never started."""
        return not self._state.adding

    def release_port(self, *, now: datetime) -> None:
        """Note that the held port rests from `now` on; the caller clears `port` in the same transaction."""
        if self.port is None:
            return
        PortRest.objects.update_or_create(port=self.port, defaults={"user_id": self.user_id, "released_at": now})


class Transition(models.Model):
    """History: one row per change of state. Audit log, the user's explanation, and the tests' oracle."""

    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="transitions")
    from_state = models.CharField(max_length=16, choices=_choices(State))
    to_state = models.CharField(max_length=16, choices=_choices(State))
    reason = models.CharField(max_length=32, choices=_choices(Reason))
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    generation = models.PositiveIntegerField()
    time = models.DateTimeField()
    detail = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-time", "-id"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["workspace", "-time", "-id"], name="transition_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.from_state} -> {self.to_state} ({self.reason})"


class PortRest(models.Model):
    """A released port rests before another user may get it, so that no cached route leads to a stranger."""

    port = models.PositiveIntegerField(primary_key=True)
    user_id = models.BigIntegerField()
    released_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"port {self.port}, released by user {self.user_id}"


class Usage(models.Model):
    """What a workspace used at the last sample; written by the worker, read by the API, which has no engine."""

    workspace = models.OneToOneField(Workspace, on_delete=models.CASCADE, related_name="usage", primary_key=True)
    sampled_at = models.DateTimeField()
    generation = models.PositiveIntegerField()
    cpu_seconds = models.FloatField()
    cpu_percent = models.FloatField()
    memory_bytes = models.BigIntegerField()
    memory_limit_bytes = models.BigIntegerField()
    pids = models.PositiveIntegerField()
    disk_bytes = models.BigIntegerField()

    def __str__(self) -> str:
        return f"usage of {self.workspace_id} at {self.sampled_at}"


class TicketQuerySet(models.QuerySet["Ticket"]):
    def valid(self, *, now: datetime) -> TicketQuerySet:
        """Usable tickets of users who may still come in."""
        return self.filter(revoked_at__isnull=True, expires_at__gt=now, user__is_active=True)


class Ticket(models.Model):
    """An editor session: opaque, hashed, bound to one user and workspace, ended by one column.

    `login` names the log-in that issued it (a session or a family of tokens), so that logging out there ends it;
    `password_mark` is what Django's sessions carry too: a new password ends every ticket. A ticket that was renewed
    through itself keeps `first_issued_at`, so that nothing is renewed for ever.
    """

    token_hash = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="tickets")
    login = models.CharField(max_length=64, blank=True, db_index=True)
    password_mark = models.CharField(max_length=64)
    first_issued_at = models.DateTimeField()
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar[Any] = TicketQuerySet.as_manager()

    def __str__(self) -> str:
        return f"ticket {self.pk} of user {self.user_id}"


class EndedLogin(models.Model):
    """A log-in that was logged out while its access token has minutes to live: it opens nothing any more."""

    login = models.CharField(max_length=64, primary_key=True)
    at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"log-in ended at {self.at}"


class WorkerBeat(models.Model):
    """Stamped by a task that runs in that very worker: proof that it consumes, not only that it lives."""

    name = models.CharField(max_length=255, primary_key=True)
    at = models.DateTimeField()
    runtime_ok = models.BooleanField(default=False)

    def __str__(self) -> str:
        return self.name
