"""Input and output apart; the output ones are what the OpenAPI document shows."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from rest_framework import serializers

from workspaces import conf, naming, passwords, savings
from workspaces.admission import Waits
from workspaces.api.pagination import MAX_PAGE
from workspaces.api.reading import Input
from workspaces.models import Transition
from workspaces.states import SENTENCES, Reason, State


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
    queued_position = serializers.IntegerField(allow_null=True, help_text="1 is next. Null: it does not wait.")
    queued_for = serializers.ChoiceField(choices=[str(waits) for waits in Waits], allow_null=True)
    queued_seconds = serializers.IntegerField(
        allow_null=True, help_text="About how long until it runs, from the last starts. Null: nothing tells."
    )
    requested_at = serializers.DateTimeField(allow_null=True)
    started_at = serializers.DateTimeField(allow_null=True)
    stopped_at = serializers.DateTimeField(allow_null=True)
    last_activity_at = serializers.DateTimeField(allow_null=True)
    stops_at = serializers.DateTimeField(allow_null=True)
    stops_reason = serializers.ChoiceField(choices=[str(reason) for reason in Reason], allow_null=True)
    lifetime_ends_at = serializers.DateTimeField(allow_null=True)
    warned = serializers.BooleanField()
    keep_until = serializers.DateTimeField(allow_null=True)
    stop_when_done = serializers.BooleanField()
    stop_reason = serializers.ChoiceField(choices=[str(reason) for reason in Reason], allow_null=True)
    error = Error(allow_null=True)
    state_sentence = serializers.CharField()
    stop_sentence = serializers.CharField(allow_blank=True)
    explanation = serializers.CharField(allow_null=True, help_text="The last decision about idleness, in a sentence.")
    decision = serializers.JSONField(allow_null=True, help_text="The same with every clock that it saw.")
    last_spared = serializers.JSONField(
        allow_null=True, help_text="The last decision that let it run on, with every clock that it saw."
    )
    stages = Stage(many=True)


class StopIn(Input):
    when = serializers.ChoiceField(
        choices=["now", "command_ends"],
        default="now",
        help_text="`command_ends`: as soon as no command runs in its terminals; a keep withdraws it.",
    )


class KeepIn(Input):
    # A decimal, because a float may be NaN; of any length, because 1/3 of a minute is one.
    minutes = serializers.DecimalField(
        max_digits=None, decimal_places=None, min_value=0, max_value=1_000_000, coerce_to_string=False
    )

    def validate_minutes(self, value: Decimal) -> Decimal:
        """More than is allowed is cut; only the absurd is refused."""
        return min(value, Decimal(conf.MAX_KEEP.total_seconds()) / 60)


class TailIn(Input):
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
    explanation = serializers.SerializerMethodField()
    decision = serializers.SerializerMethodField()

    class Meta:
        model = Transition
        fields = ("to", "reason", "actor", "time", "generation", "explanation", "decision")

    def get_explanation(self, row: Transition) -> str:
        """Why, in a sentence: the decision's own where one was made, else the reason's."""
        return str(row.detail.get("sentence") or SENTENCES.get(row.reason, ""))

    def get_decision(self, row: Transition) -> dict[str, Any] | None:
        """The clocks that a decision about idleness saw."""
        return row.detail if "verdict" in row.detail else None

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


class UserNameField(serializers.CharField):
    """A user's name, read as everywhere else. What is too long as it was typed is left for the validator to refuse."""

    def to_internal_value(self, data: Any) -> str:
        typed = str(super().to_internal_value(data))
        return typed if self.max_length is not None and len(typed) > self.max_length else naming.user_name(typed)


class CredentialsIn(Input):
    username = UserNameField(max_length=150)
    password = serializers.CharField(max_length=passwords.LONGEST, trim_whitespace=False)


class RefreshIn(Input):
    refresh = serializers.CharField(max_length=8192)


class TokenIn(Input):
    token = serializers.CharField(max_length=8192)


class TokensOut(serializers.Serializer[Any]):
    access = serializers.CharField()
    refresh = serializers.CharField()


class MeOut(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    username = serializers.CharField()
    is_staff = serializers.BooleanField()


class PageIn(Input):
    """Where a list goes on; read by the paginator."""

    also = frozenset({"cursor"})
    page_size = serializers.IntegerField(
        min_value=1, required=False, help_text=f"Rows of a page. There are {MAX_PAGE} at most, whatever is asked for."
    )


class ListIn(PageIn):
    """Filters of the staff's list."""

    state = serializers.ChoiceField(choices=[str(state) for state in State], required=False)
    username = UserNameField(max_length=150, required=False)
    idle_since = serializers.DateTimeField(required=False)
    ordering = serializers.ChoiceField(
        choices=["-changed_at", "changed_at", "user_id", "-user_id"], required=False, default="-changed_at"
    )


class SavingsIn(Input):
    days = serializers.IntegerField(
        min_value=1,
        max_value=savings.MAX_DAYS,
        default=savings.DEFAULT_DAYS,
        help_text="Today and the days before, in UTC.",
    )


class AllSavingsIn(SavingsIn):
    username = UserNameField(
        max_length=150, default="", allow_blank=True, help_text="Only users whose name contains this."
    )
    limit = serializers.IntegerField(min_value=1, max_value=1000, default=50, help_text="How many users, at most.")


class _HoursOut(serializers.Serializer[Any]):
    run_hours = serializers.FloatField()
    saved_hours = serializers.FloatField()


class SavingsDayOut(_HoursOut):
    day = serializers.DateField()


class SavingsUserOut(_HoursOut):
    user_id = serializers.IntegerField()
    username = serializers.CharField()
    saved_percent = serializers.IntegerField()


class SavingsOut(_HoursOut):
    days = serializers.IntegerField()
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    saved_percent = serializers.IntegerField(
        allow_null=True, help_text="saved / (run + saved), rounded down; null where both are 0."
    )
    by_day = SavingsDayOut(many=True)


class AllSavingsOut(SavingsOut):
    user_count = serializers.IntegerField(help_text="How many users have any hours (and such a name).")
    users = SavingsUserOut(many=True)
