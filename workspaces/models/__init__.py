"""Rows: the truth about intent. What must never be false is a constraint here, not a hope elsewhere."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar
from zoneinfo import ZoneInfo, available_timezones

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from workspaces import naming, timetable
from workspaces.idleness import Clocks, Limits
from workspaces.models.logins import FAMILY_PREFIX, KnownPlace, LoginAllowance, Ticket, TokenFamily
from workspaces.querysets import WorkspaceQuerySet
from workspaces.runtimes.base import Endpoint
from workspaces.states import Reason, State, Wanted

__all__ = [
    "FAMILY_PREFIX",
    "IdlePause",
    "IdlePauseQuerySet",
    "KnownPlace",
    "LoginAllowance",
    "PortRest",
    "Ticket",
    "TokenFamily",
    "Transition",
    "Usage",
    "UserLimits",
    "WorkerBeat",
    "Workspace",
    "new_secret",
]

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from workspaces.idleness import Pause


def _choices(values: type[State | Wanted | Reason]) -> list[tuple[str, str]]:
    return [(str(value), str(value)) for value in values]


def new_secret() -> str:
    """The editor's inner password, 256 bits; nginx shows it to the container, nobody ever types it."""
    return secrets.token_hex(32)


class Workspace(models.Model):
    """One user's workspace. `state` changes in `WorkspaceQuerySet.change_state` and nowhere else.

    `wanted` is the intent, `state` what we know. `generation` counts requested starts. `port` is null unless held.
    The three clocks and `keep_until` are what idleness is decided from. `last_activity_at` is the newest of presence
    and work; `due_at` is when the row will be stopped, for `due_reason`, if nothing more happens. Both are stored so
    that an index finds who is to be looked at; a decision is always made from the clocks. `due_mark` names the rules by
    which `due_at` was worked out (`rules.mark`). `warned_at` is the stop that people inside were warned of.
    `requested_at` is its place in the start queue until `admitted_at`, `queued_for` what it waits for there.
    `request_id` is the last wish from inside that was taken up, `answer` what was said to it.
    """

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="workspace")
    state = models.CharField(max_length=16, choices=_choices(State), default=State.STOPPED)
    wanted = models.CharField(max_length=16, choices=_choices(Wanted), default=Wanted.STOPPED)
    generation = models.PositiveIntegerField(default=0)
    changed_at = models.DateTimeField(default=timezone.now)

    requested_at = models.DateTimeField(null=True, blank=True)
    dispatched_at = models.DateTimeField(null=True, blank=True)
    admitted_at = models.DateTimeField(null=True, blank=True)
    queued_for = models.CharField(max_length=16, blank=True, default="", db_default="")
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
    presence_source = models.CharField(max_length=16, blank=True, default="", db_default="")
    presence_reported = models.BooleanField(default=True, db_default=True)
    work_source = models.CharField(max_length=64, blank=True, default="", db_default="")
    due_at = models.DateTimeField(null=True, blank=True)
    due_reason = models.CharField(max_length=32, blank=True, default="", db_default="")
    due_mark = models.CharField(max_length=16, blank=True, default="", db_default="")
    lifetime_ends_at = models.DateTimeField(null=True, blank=True)
    warned_at = models.DateTimeField(null=True, blank=True)
    stop_when_done = models.BooleanField(default=False, db_default=False)
    request_id = models.CharField(max_length=64, blank=True, default="", db_default="")
    answer = models.JSONField(null=True, blank=True)
    last_decision = models.JSONField(null=True, blank=True)
    last_spared = models.JSONField(null=True, blank=True)
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
            models.Index(fields=["due_at"], condition=Q(state=State.RUNNING), name="workspace_due"),
            models.Index(fields=["due_mark"], condition=Q(state=State.RUNNING), name="workspace_due_mark"),
            models.Index(
                fields=["id"],
                condition=Q(state=State.RUNNING) & (Q(warned_at__isnull=False) | Q(stop_when_done=True)),
                name="workspace_attended",
            ),
            models.Index(
                fields=["dispatched_at"],
                condition=Q(state__in=(State.STARTING, State.STOPPING)),
                name="workspace_unsettled",
            ),
            models.Index(
                fields=["requested_at", "id"],
                condition=Q(state=State.STARTING, admitted_at__isnull=True),
                name="workspace_queued",
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

    @property
    def stop_to_tell(self) -> tuple[datetime | None, str]:
        """When it stops, and why, as people are told. Of one that is held (no `due_reason`) only the last moment is."""
        if self.due_reason:
            return self.due_at, self.due_reason
        return self.lifetime_ends_at, str(Reason.LIFETIME)

    def clocks(self) -> Clocks:
        """The clocks of a running workspace."""
        return Clocks(
            started_at=self.started_at or self.changed_at,
            presence_at=self.presence_at,
            work_at=self.work_at,
            connection_at=self.connection_at,
            keep_until=self.keep_until,
            presence_reported=self.presence_reported,
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


def _between(least: float, most: float) -> list[Any]:
    return [MinValueValidator(least), MaxValueValidator(most)]


class UserLimits(models.Model):
    """What an administrator gave one user instead of the settings' limits; an empty field is the setting's."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    idle_minutes = models.FloatField(
        null=True,
        blank=True,
        validators=_between(2, 7 * 24 * 60),  # an editor notices only after a minute that nobody is there
        help_text="Minutes without activity before a stop. Empty: the setting GUNPOWDER_IDLE_MINUTES.",
    )
    work_budget_hours = models.FloatField(
        null=True,
        blank=True,
        validators=_between(0.001, 24 * 365),
        help_text="Hours that a command may run without anybody there. Empty: GUNPOWDER_WORK_BUDGET_HOURS.",
    )
    max_lifetime_hours = models.FloatField(
        null=True,
        blank=True,
        validators=_between(0.01, 24 * 365),
        help_text="Hours after which even a used workspace is stopped. Empty: GUNPOWDER_MAX_LIFETIME_HOURS.",
    )
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "limits of a user"
        verbose_name_plural = "limits of users"

    def __str__(self) -> str:
        return f"limits of user {self.user_id}"

    def over(self, general: Limits) -> Limits:
        """The user's limits: `general`, but for what is given here."""

        def given(value: float | None, unit: timedelta, otherwise: timedelta) -> timedelta:
            return otherwise if value is None else value * unit

        return Limits(
            idle=given(self.idle_minutes, timedelta(minutes=1), general.idle),
            work_budget=given(self.work_budget_hours, timedelta(hours=1), general.work_budget),
            lifetime=given(self.max_lifetime_hours, timedelta(hours=1), general.lifetime),
            warning=general.warning,
        )


class IdlePauseQuerySet(models.QuerySet["IdlePause"]):
    def touching(self, since: datetime, until: datetime) -> IdlePauseQuerySet:
        """Enabled, and perhaps falling between the two: those that are over for good are not read again."""
        once = Q(repeat=timetable.Repeat.ONCE, ends_at__gt=since)
        # Eight days of grace: the last window may be a week long, and its day is one of the pause's own zone.
        last = (since - timedelta(days=8)).date()
        again = ~Q(repeat=timetable.Repeat.ONCE) & (Q(last_day__isnull=True) | Q(last_day__gte=last))
        return self.filter(once | again, enabled=True, starts_at__lt=until)


class IdlePause(models.Model):
    """A window of time in which nothing is stopped for idleness: a class, an exam. For everybody, or for groups."""

    YEARS = (1970, 9000)  # beyond, another time zone's clock may have no name for it

    name = models.CharField(max_length=100, help_text="What it is for, as people will read it.")
    starts_at = models.DateTimeField(help_text="The first one begins (UTC).")
    ends_at = models.DateTimeField(help_text="The first one ends (UTC).")
    repeat = models.CharField(
        max_length=8, choices=[(str(each), str(each)) for each in timetable.Repeat], default=timetable.Repeat.ONCE
    )
    last_day = models.DateField(null=True, blank=True, help_text="The last day of the repetition. Empty: no end.")
    time_zone = models.CharField(
        max_length=64,
        default="UTC",
        help_text="Repetitions keep the time of day of this zone, for instance Europe/Berlin.",
    )
    groups = models.ManyToManyField("auth.Group", blank=True, help_text="Empty: for everybody.")
    enabled = models.BooleanField(default=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = IdlePauseQuerySet.as_manager()

    class Meta:
        ordering: ClassVar[list[str]] = ["starts_at"]
        verbose_name = "pause of idle stops"
        verbose_name_plural = "pauses of idle stops"
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=Q(ends_at__gt=models.F("starts_at")), name="idle_pause_ends_after_start"),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """What a form must not accept: no end, an unknown zone, windows that overlap themselves."""
        if self.time_zone not in available_timezones():
            raise ValidationError({"time_zone": "There is no such time zone. Example: Europe/Berlin"})
        if None in {self.starts_at, self.ends_at}:
            return  # each says so itself
        if not self.YEARS[0] <= self.starts_at.year <= self.ends_at.year <= self.YEARS[1]:
            raise ValidationError({"ends_at": f"It must lie in the years {self.YEARS[0]} to {self.YEARS[1]}."})
        if self.ends_at <= self.starts_at:
            raise ValidationError({"ends_at": "It must end after it starts."})
        longest = {timetable.Repeat.DAILY: timedelta(days=1), timetable.Repeat.WEEKLY: timedelta(weeks=1)}
        if self.ends_at - self.starts_at > longest.get(timetable.Repeat(self.repeat), timedelta(days=366)):
            raise ValidationError(
                {"ends_at": "It must be shorter than the time after which it repeats (a year at most)."}
            )

    def occurrences(self, *, since: datetime, until: datetime) -> Iterator[Pause]:
        """When it falls, between `since` and `until`."""
        window = timetable.Window(
            starts_at=self.starts_at,
            ends_at=self.ends_at,
            zone=ZoneInfo(self.time_zone),
            repeat=timetable.Repeat(self.repeat),
            last_day=self.last_day,
        )
        return timetable.occurrences(window, since=since, until=until)


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
    # False for the first sample after a start: there is nothing yet to compare it with.
    cpu_measured = models.BooleanField(default=False, db_default=False)
    memory_bytes = models.BigIntegerField()
    memory_limit_bytes = models.BigIntegerField()
    pids = models.PositiveIntegerField()
    disk_bytes = models.BigIntegerField()

    def __str__(self) -> str:
        return f"usage of {self.workspace_id} at {self.sampled_at}"


class WorkerBeat(models.Model):
    """Stamped by a task that runs in that very worker: proof that it consumes, not only that it lives."""

    # Workers stamp themselves every 10 s; a busy one may be late by the length of a start.
    FRESH: ClassVar = timedelta(seconds=60)
    KINDS: ClassVar = frozenset({"lifecycle", "sweeps"})

    name = models.CharField(max_length=255, primary_key=True)
    at = models.DateTimeField()
    runtime_ok = models.BooleanField(default=False)

    def __str__(self) -> str:
        return self.name

    @classmethod
    def fresh(cls, *, now: datetime) -> models.QuerySet[WorkerBeat]:
        """Who has consumed a message lately."""
        return WorkerBeat.objects.filter(at__gt=now - cls.FRESH)

    @classmethod
    def missing(cls, fresh: Iterable[WorkerBeat]) -> list[str]:
        """The kinds of which none is among `fresh`: starts without sweeps, or sweeps without starts, do not do."""
        return sorted(cls.KINDS - {beat.name.split("@")[0] for beat in fresh})
