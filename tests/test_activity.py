from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from workspaces import activity, lifecycle, rules
from workspaces.activity import Seen

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from workspaces.models import Workspace

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("idle", "expected"),
    [(timedelta(hours=8), MINUTE), (timedelta(minutes=10), MINUTE), (timedelta(seconds=30), timedelta(seconds=3))],
)
def test_a_clock_is_written_often_enough_for_the_limit(idle: timedelta, expected: timedelta) -> None:
    assert activity.write_interval(idle) == expected


@pytest.mark.django_db
class TestRecording:
    def test_a_connection_moves_its_own_clock_and_is_no_activity(self, running: Workspace, now: datetime) -> None:
        later, before = now + 5 * MINUTE, running.last_activity_at
        assert activity.record_connection(running, at=later, now=later)
        running.refresh_from_db()
        assert (running.connection_at, running.last_activity_at) == (later, before)

    def test_a_visit_is_presence_and_activity(self, running: Workspace, now: datetime) -> None:
        later = now + 5 * MINUTE
        assert activity.record_visit(running, now=later)
        running.refresh_from_db()
        assert running.presence_at == running.last_activity_at == later
        assert not activity.record_visit(running, now=later + MINUTE / 2, every=MINUTE)
        assert not activity.record_visit(running, now=now)

    def test_a_clock_never_goes_backwards(self, running: Workspace, now: datetime) -> None:
        before = running.connection_at
        assert not activity.record_connection(running, at=now - 5 * MINUTE, now=now)
        running.refresh_from_db()
        assert running.connection_at == before

    def test_a_clock_of_the_future_is_clamped_to_now(self, running: Workspace, now: datetime) -> None:
        later = now + MINUTE
        assert activity.record_connection(running, at=now + timedelta(days=365), now=later)
        running.refresh_from_db()
        assert running.connection_at == later

    def test_writes_are_throttled(self, running: Workspace, now: datetime) -> None:
        start = now + 5 * MINUTE
        activity.record_connection(running, at=start, now=start, every=MINUTE)
        running.refresh_from_db()
        soon = start + 0.9 * MINUTE
        assert not activity.record_connection(running, at=soon, now=soon, every=MINUTE)
        late = start + MINUTE
        assert activity.record_connection(running, at=late, now=late, every=MINUTE)

    def test_the_newest_of_presence_and_work_is_the_last_activity(self, running: Workspace, now: datetime) -> None:
        rule, late = rules.load([running.user_id], now=now), now + 9 * MINUTE
        activity.update(running, Seen(work_at=late, work_source="make"), rules=rule, now=late)
        row = activity.update(
            running, Seen(presence_at=now + 5 * MINUTE, presence_source="window"), rules=rule, now=late
        )
        assert row is not None
        assert (row.presence_at, row.presence_source) == (now + 5 * MINUTE, "window")
        assert (row.work_at, row.last_activity_at) == (late, late)
        assert row.due_at == late + 30 * MINUTE

    def test_what_was_seen_twice_is_written_once(self, running: Workspace, now: datetime) -> None:
        rule, seen = rules.load([running.user_id], now=now), Seen(presence_at=now + MINUTE, presence_source="window")
        activity.update(running, seen, rules=rule, now=now + MINUTE)
        with CaptureQueriesContext(connection) as queries:
            activity.update(running, seen, rules=rule, now=now + 2 * MINUTE)
        assert not [query for query in queries if query["sql"].startswith("UPDATE")]

    def test_a_workspace_that_does_not_run_has_no_clock(self, running: Workspace, now: datetime) -> None:
        lifecycle.request_stop(running, actor=None)
        assert not activity.record_connection(running, at=now + MINUTE, now=now + MINUTE)

    def test_a_clock_of_an_earlier_start_is_not_this_ones(
        self, running: Workspace, user: Any, runtime: Any, bring_up: Callable[[Any], Workspace], now: datetime
    ) -> None:
        lifecycle.request_stop(running, actor=user)
        lifecycle.perform_stop(running.pk, running.generation, runtime=runtime)
        bring_up(user)
        assert not activity.record_connection(running, at=now + MINUTE, now=now + MINUTE)

    def test_a_start_sets_every_clock_to_now(self, running: Workspace, now: datetime) -> None:
        clocks = {running.started_at, running.presence_at, running.work_at, running.connection_at}
        assert clocks == {running.last_activity_at}
        assert running.last_activity_at is not None
        assert now - MINUTE < running.last_activity_at <= timezone.now()
