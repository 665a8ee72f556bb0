"""The start queue: who waits, in which order, for what, and who is called when there is room."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone

from workspaces import admission, conf, lifecycle, sweeps
from workspaces.admission import Queue, Waits
from workspaces.api.representation import represent
from workspaces.models import Workspace
from workspaces.states import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from workspaces.runtimes.memory import MemoryRuntime

MB = 2**20


def perform(row: Workspace, runtime: MemoryRuntime) -> str:
    return str(lifecycle.perform_start(row.pk, row.generation, runtime=runtime))


@pytest.fixture
def ask(make_user: Callable[..., Any]) -> Callable[[], Workspace]:
    """Somebody new asks for a start."""

    def request() -> Workspace:
        person = make_user()
        return lifecycle.request_start(person, actor=person)

    return request


@pytest.fixture
def busy(ask: Callable[[], Workspace], configure: Callable[..., None]) -> list[Workspace]:
    """Two starts are being worked on, which is as many as may be."""
    configure(start_concurrency=2)
    rows = [ask(), ask()]
    Workspace.objects.filter(pk__in=[row.pk for row in rows]).update(admitted_at=timezone.now())
    return rows


def called(sent: list[tuple[str, tuple[Any, ...]]]) -> list[int]:
    return [arguments[0] for name, arguments in sent if name == "workspaces.start"]


def age(row: Workspace, seconds: float) -> None:
    """As if it had been asked for, and called, that long ago."""
    then = timezone.now() - timedelta(seconds=seconds)
    Workspace.objects.filter(pk=row.pk).update(requested_at=then, dispatched_at=then)
    row.refresh_from_db()


def test_a_start_beyond_what_the_host_can_do_at_once_waits_for_its_turn(
    ask: Callable[[], Workspace], busy: list[Workspace], runtime: MemoryRuntime
) -> None:
    third = ask()
    assert perform(third, runtime) == "waiting"
    third.refresh_from_db()
    assert (third.state, third.queued_for, third.admitted_at) == (State.STARTING, Waits.TURN, None)
    assert third.attempts == 0
    assert perform(third, runtime) == "waiting"
    assert represent(third)["queued_position"] == 1
    assert runtime.starts == 0


def test_who_is_first_goes_first_also_when_messages_come_in_another_order(
    ask: Callable[[], Workspace], busy: list[Workspace], runtime: MemoryRuntime
) -> None:
    third, fourth = ask(), ask()
    Workspace.objects.filter(pk=busy[0].pk).update(state=State.STOPPED, admitted_at=None)
    assert perform(fourth, runtime) == "waiting", "it was asked for later"
    assert perform(third, runtime) == "done"
    assert perform(fourth, runtime) == "done"


def test_whoever_has_started_calls_the_next(
    ask: Callable[[], Workspace],
    busy: list[Workspace],
    runtime: MemoryRuntime,
    sent: list[tuple[str, tuple[Any, ...]]],
    django_capture_on_commit_callbacks: Any,
) -> None:
    rows = [ask(), ask()]
    for row in rows:
        age(row, 60)
    with django_capture_on_commit_callbacks(execute=True):
        assert perform(busy[0], runtime) == "done"
    assert called(sent) == [rows[0].pk], "one place became free, so one is called"


def test_who_was_left_a_moment_ago_is_called_at_once_and_once(
    ask: Callable[[], Workspace],
    busy: list[Workspace],
    runtime: MemoryRuntime,
    sent: list[tuple[str, tuple[Any, ...]]],
    django_capture_on_commit_callbacks: Any,
) -> None:
    third = ask()
    assert perform(third, runtime) == "waiting"
    with django_capture_on_commit_callbacks(execute=True):
        assert perform(busy[0], runtime) == "done"
        assert perform(busy[1], runtime) == "done"
    assert called(sent) == [third.pk]


def test_a_failed_start_makes_room_as_well(
    ask: Callable[[], Workspace],
    busy: list[Workspace],
    runtime: MemoryRuntime,
    sent: list[tuple[str, tuple[Any, ...]]],
    django_capture_on_commit_callbacks: Any,
) -> None:
    third = ask()
    age(third, 60)
    Workspace.objects.filter(pk=busy[0].pk).update(attempts=lifecycle.MAX_ATTEMPTS)
    with django_capture_on_commit_callbacks(execute=True):
        assert perform(busy[0], runtime) == "failed"
    assert called(sent) == [third.pk]


def test_lost_messages_of_those_who_wait_are_sent_again_in_order_and_not_to_all(
    ask: Callable[[], Workspace],
    busy: list[Workspace],
    runtime: MemoryRuntime,
    sent: list[tuple[str, tuple[Any, ...]]],
    django_capture_on_commit_callbacks: Any,
) -> None:
    rows = [ask() for _ in range(5)]
    for number, row in enumerate(rows):
        age(row, 60 - number)
    Workspace.objects.filter(pk=busy[0].pk).update(state=State.STOPPED, admitted_at=None)
    with django_capture_on_commit_callbacks(execute=True):
        sweeps.reconcile(runtime=runtime, now=timezone.now())
    assert called(sent) == [rows[0].pk]


def test_pressing_start_again_keeps_the_place_and_stopping_gives_it_up(
    ask: Callable[[], Workspace], busy: list[Workspace], runtime: MemoryRuntime
) -> None:
    rows = [ask() for _ in range(3)]
    for number, row in enumerate(rows):
        age(row, 60 - number)
    again = lifecycle.request_start(rows[0].user, actor=rows[0].user)
    assert [Queue().place_of(row) for row in (again, *rows[1:])] == [1, 2, 3]
    left = lifecycle.request_stop(again, actor=again.user)
    lifecycle.perform_stop(left.pk, left.generation, runtime=runtime)
    left.refresh_from_db()
    assert left.state == State.STOPPED
    assert [Queue().place_of(row) for row in rows[1:]] == [1, 2]
    back = lifecycle.request_start(left.user, actor=left.user)
    assert Queue().place_of(back, now=timezone.now() + timedelta(minutes=1)) == 3


def test_short_of_memory_a_start_waits_although_nothing_else_starts(
    ask: Callable[[], Workspace],
    runtime: MemoryRuntime,
    configure: Callable[..., None],
    sent: list[tuple[str, tuple[Any, ...]]],
    django_capture_on_commit_callbacks: Any,
    running: Workspace,
) -> None:
    configure(memory_reserve=500 * MB)
    need = admission.expected_memory()
    row = ask()
    runtime.available = 500 * MB + need - 1
    assert perform(row, runtime) == "waiting"
    age(row, 60)
    shown = represent(row)
    assert (shown["queued_position"], shown["queued_for"], shown["queued_seconds"]) == (1, "memory", None)

    # Somebody stops: there is room, and it is told.
    runtime.available += 1
    stopping = lifecycle.request_stop(running, actor=running.user)
    with django_capture_on_commit_callbacks(execute=True):
        lifecycle.perform_stop(stopping.pk, stopping.generation, runtime=runtime)
    assert called(sent) == [row.pk]
    assert perform(row, runtime) == "done"


@pytest.mark.parametrize(
    ("available", "in_progress", "starts", "short_of"),
    [
        (None, 0, 4, Waits.TURN),
        (None, 3, 1, Waits.TURN),
        (None, 9, 0, Waits.TURN),
        (0, 0, 0, Waits.MEMORY),
        (500 + 384, 0, 1, Waits.MEMORY),
        (500 + 384, 1, 0, Waits.MEMORY),  # what has begun will still need its own
        (100_000, 2, 2, Waits.TURN),
    ],
)
def test_the_room_of_a_host(
    available: int | None, in_progress: int, starts: int, short_of: Waits, configure: Callable[..., None]
) -> None:
    configure(start_concurrency=4, memory_reserve=500 * MB, memory=1024 * MB)
    found = admission.room(available=available and available * MB, in_progress=in_progress)
    assert found == admission.Room(starts=starts, short_of=short_of)


def test_a_small_workspace_is_not_counted_with_more_than_it_may_have(configure: Callable[..., None]) -> None:
    configure(memory=256 * MB)
    assert admission.expected_memory() == 256 * MB


def test_the_estimate_comes_from_the_last_starts(
    ask: Callable[[], Workspace], busy: list[Workspace], bring_up: Callable[[Any], Workspace], make_user: Any
) -> None:
    Workspace.objects.filter(pk__in=[row.pk for row in busy]).update(admitted_at=None, state=State.STOPPED)
    for seconds in (3, 4, 50):
        row = bring_up(make_user())
        assert row.started_at is not None
        Workspace.objects.filter(pk=row.pk).update(admitted_at=row.started_at - timedelta(seconds=seconds))
    Workspace.objects.filter(pk__in=[row.pk for row in busy]).update(admitted_at=timezone.now(), state=State.STARTING)
    third = ask()
    age(third, 60)
    # Who starts now needs 4 s, then it is its turn and needs 4 s, too.
    assert represent(third)["queued_seconds"] == 8


def test_nothing_is_said_of_a_place_while_a_start_that_nothing_holds_up_begins(
    ask: Callable[[], Workspace], now: datetime
) -> None:
    row = ask()
    asked = row.requested_at
    assert asked is not None
    assert Queue().place_of(row, now=asked + timedelta(seconds=1)) is None
    assert Queue().place_of(row, now=asked + timedelta(seconds=3)) == 1


def test_many_are_told_their_places_with_two_queries(
    ask: Callable[[], Workspace], busy: list[Workspace], django_assert_num_queries: Any
) -> None:
    rows = [ask() for _ in range(6)]
    for row in rows:
        age(row, 60)
    queue = Queue()
    with django_assert_num_queries(2):
        places = [represent(row, queue=queue)["queued_position"] for row in rows]
    assert sorted(places) == [1, 2, 3, 4, 5, 6]


def test_the_timeout_counts_from_admission(
    ask: Callable[[], Workspace], busy: list[Workspace], runtime: MemoryRuntime
) -> None:
    third = ask()
    age(third, 10 * conf.env().start_timeout_seconds)
    report = sweeps.fail_overdue(runtime=runtime, now=timezone.now())
    assert report.actions == []
    third.refresh_from_db()
    assert third.state == State.STARTING
