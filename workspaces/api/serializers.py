"""Input and output apart; the output ones are what the OpenAPI document shows."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from rest_framework import serializers

from workspaces import conf
from workspaces.models import Transition
from workspaces.states import Reason, State

if TYPE_CHECKING:
    from datetime import datetime


class Error(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()
    detail = serializers.DictField(required=False)


class Stage(serializers.Serializer[Any]):
    stage = serializers.CharField()
    at = serializers.DateTimeField()


class WorkspaceOut(serializers.Serializer[Any]):
    user_id = serializers.IntegerField()
    state = serializers.ChoiceField(choices=[str(state) for state in State])
    url = serializers.CharField()
    port = serializers.IntegerField(allow_null=True)
    container = serializers.CharField()
    image = serializers.CharField()
    queued_position = serializers.IntegerField(allow_null=True)
    requested_at = serializers.DateTimeField(allow_null=True)
    started_at = serializers.DateTimeField(allow_null=True)
    stopped_at = serializers.DateTimeField(allow_null=True)
    last_activity_at = serializers.DateTimeField(allow_null=True)
    stops_at = serializers.DateTimeField(allow_null=True)
    keep_until = serializers.DateTimeField(allow_null=True)
    stop_reason = serializers.ChoiceField(choices=[str(reason) for reason in Reason], allow_null=True)
    error = Error(allow_null=True)
    state_sentence = serializers.CharField()
    stop_sentence = serializers.CharField(allow_blank=True)
    stages = Stage(many=True)


class KeepIn(serializers.Serializer[Any]):
    # A decimal, because a float may be NaN; of any length, because 1/3 of a minute is one.
    minutes = serializers.DecimalField(
        max_digits=None, decimal_places=None, min_value=0, max_value=1_000_000, coerce_to_string=False
    )

    def validate_minutes(self, value: Decimal) -> Decimal:
        """More than is allowed is cut; only the absurd is refused."""
        return min(value, Decimal(conf.MAX_KEEP.total_seconds()) / 60)


class TailIn(serializers.Serializer[Any]):
    tail = serializers.IntegerField(min_value=1, max_value=1000, default=200)


class LogsOut(serializers.Serializer[Any]):
    lines = serializers.ListField(child=serializers.CharField(allow_blank=True))


class StatsOut(serializers.Serializer[Any]):
    sampled_at = serializers.DateTimeField(allow_null=True)
    cpu_percent = serializers.FloatField(allow_null=True)
    memory_bytes = serializers.IntegerField(allow_null=True)
    memory_limit_bytes = serializers.IntegerField(allow_null=True)
    pids = serializers.IntegerField(allow_null=True)
    disk_bytes = serializers.IntegerField(allow_null=True)


class TransitionOut(serializers.ModelSerializer[Transition]):
    to = serializers.CharField(source="to_state", read_only=True)
    actor = serializers.CharField(source="actor.username", default=None, read_only=True)

    class Meta:
        model = Transition
        fields = ("to", "reason", "actor", "time", "generation")

    def to_representation(self, instance: Transition) -> dict[str, Any]:
        """`from` is a word of Python's, so it is added here."""
        return {"from": instance.from_state, **super().to_representation(instance)}


class _Page(serializers.Serializer[Any]):
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


class HistoryOut(_Page):
    results = TransitionOut(many=True)


class WorkspacesOut(_Page):
    results = WorkspaceOut(many=True)


class CredentialsIn(serializers.Serializer[Any]):
    username = serializers.CharField(max_length=150, trim_whitespace=False)
    password = serializers.CharField(max_length=1024, trim_whitespace=False)


class RefreshIn(serializers.Serializer[Any]):
    refresh = serializers.CharField(max_length=8192)


class TokenIn(serializers.Serializer[Any]):
    token = serializers.CharField(max_length=8192)


class TokensOut(serializers.Serializer[Any]):
    access = serializers.CharField()
    refresh = serializers.CharField()


class MeOut(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    username = serializers.CharField()
    is_staff = serializers.BooleanField()


class ListIn(serializers.Serializer[Any]):
    """Filters of the staff's list."""

    state = serializers.ChoiceField(choices=[str(state) for state in State], required=False)
    username = serializers.CharField(max_length=150, required=False)
    idle_since = serializers.DateTimeField(required=False)
    ordering = serializers.ChoiceField(
        choices=["-changed_at", "changed_at", "user_id", "-user_id"], required=False, default="-changed_at"
    )

    def since(self) -> datetime | None:
        found: datetime | None = self.validated_data.get("idle_since")
        return found
