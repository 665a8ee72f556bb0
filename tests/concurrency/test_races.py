"""Every request raced against every other one, on real Postgres. Whoever loses must do nothing."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone

from tests.suite.waiting import pause, together
from workspaces import activity, lifecycle, locks, ports
from workspaces.errors import NoPortFree
from workspaces.models import Transition, Workspace
from workspaces.runtimes.memory import MemoryRuntime
from workspaces.states import TRANSITIONS, Reason, State, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from workspaces.runtimes.base import Observation, WorkspaceSpec

pytestmark = pytest.mark.django_db(transaction=True)

ROUNDS = 5


def settle(workspace: Workspace, runtime: MemoryRuntime) -> Workspace:
    """Do what workers would do until nothing is in progress."""
    for _ in range(10):
        workspace.refresh_from_db()
        if workspace.state == State.STARTING:
            lifecycle.perform_start(workspace.pk, workspace.generation, runtime=runtime)
        elif workspace.state == State.STOPPING:
            lifecycle.perform_stop(workspace.pk, workspace.generation, runtime=runtime)
        else:
            return workspace
    raise AssertionError(f"the workspace did not settle: {workspace.state}")


def _stop(pk: int, *, actor: Any) -> Workspace:
    return lifecycle.request_stop(Workspace.objects.get(pk=pk), actor=actor)


def assert_consistent(workspace: Workspace, runtime: MemoryRuntime) -> None:
    """The row equals the runtime, and the history is a chain of legal steps."""
    running = runtime.running_names()
    assert len(running) == (1 if workspace.state == State.RUNNING else 0)
    steps = list(Transition.objects.filter(workspace=workspace).order_by("id").values_list("from_state", "to_state"))
    assert all(State(after) in TRANSITIONS[State(before)] for before, after in steps)
    assert all(former[1] == latter[0] for former, latter in itertools.pairwise(steps))


@pytest.fixture
def running(user: Any, runtime: MemoryRuntime) -> Workspace:
    return settle(lifecycle.request_start(user, actor=user), runtime)


def test_eight_starts_at_once_are_one_start(user: Any, runtime: MemoryRuntime) -> None:
    found = together(*[lambda: lifecycle.request_start(user, actor=user) for _ in range(8)])
    assert {workspace.pk for workspace in found} == {found[0].pk}
    assert Transition.objects.filter(to_state=State.STARTING).count() == 1
    workspace = settle(found[0], runtime)
    assert workspace.generation == 1
    assert runtime.starts == 1


def test_four_workers_with_the_same_start_make_one_container(user: Any, runtime: MemoryRuntime) -> None:
    workspace = lifecycle.request_start(user, actor=user)
    outcomes = together(
        *[lambda: lifecycle.perform_start(workspace.pk, workspace.generation, runtime=runtime) for _ in range(4)]
    )
    assert outcomes.count(lifecycle.Outcome.DONE) == 1
    assert runtime.starts == 1


def _requests(user: Any) -> dict[str, Callable[[], Any]]:
    def own() -> Workspace:
        return Workspace.objects.get(user=user)

    return {
        "start": lambda: lifecycle.request_start(user, actor=user),
        "stop": lambda: lifecycle.request_stop(own(), actor=user),
        "restart": lambda: lifecycle.request_restart(user, actor=user),
        "idle": lambda: lifecycle.stop_if_unchanged(own(), reason=Reason.IDLE, decision={}, now=timezone.now()),
        "gone": lambda: lifecycle.settle_gone(own(), _absent(), now=timezone.now()),
    }


def _absent() -> Any:
    return MemoryRuntime().observe("nobody")


@pytest.mark.parametrize("state", ["running", "starting", "stopping", "stopped"])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("start", "stop"),
        ("start", "restart"),
        ("start", "idle"),
        ("start", "gone"),
        ("stop", "restart"),
        ("stop", "idle"),
        ("stop", "gone"),
        ("restart", "idle"),
        ("restart", "gone"),
        ("idle", "gone"),
    ],
)
def test_two_requests_at_once_leave_row_and_container_equal(
    user: Any, runtime: MemoryRuntime, running: Workspace, state: str, one: str, other: str
) -> None:
    if state != "running":
        lifecycle.request_stop(running, actor=user)
    if state in {"stopped", "starting"}:
        settle(running, runtime)
    if state == "starting":
        lifecycle.request_start(user, actor=user)
    requests = _requests(user)
    together(requests[one], requests[other])
    workspace = settle(running, runtime)
    if "gone" in {one, other}:
        # The row was told of a loss that did not happen: the orphan is stopped, as the reconcile pass would.
        from workspaces import sweeps

        sweeps.reconcile(runtime=runtime, now=timezone.now())
    assert_consistent(workspace, runtime)


def test_a_stop_during_the_work_of_a_start_wins(user: Any) -> None:
    for _ in range(ROUNDS):
        runtime = MemoryRuntime()
        workspace = lifecycle.request_start(user, actor=user)
        together(
            partial(lifecycle.perform_start, workspace.pk, workspace.generation, runtime=runtime),
            partial(_stop, workspace.pk, actor=user),
        )
        workspace = settle(workspace, runtime)
        assert workspace.state == State.STOPPED
        assert runtime.running_names() == []


def test_who_comes_back_while_the_sweep_decides_keeps_the_container(running: Workspace, runtime: MemoryRuntime) -> None:
    long_ago = timezone.now() - timedelta(hours=1)
    Workspace.objects.filter(pk=running.pk).update(presence_at=long_ago, last_activity_at=long_ago)
    seen = Workspace.objects.get(pk=running.pk)
    now = timezone.now()
    assert activity.record_visit(Workspace.objects.get(pk=running.pk), now=now)
    assert lifecycle.stop_if_unchanged(seen, reason=Reason.IDLE, decision={}, now=now) is None
    running.refresh_from_db()
    assert running.state == State.RUNNING
    assert runtime.running_names() == [running.container]


def test_a_return_and_an_idle_stop_at_once_never_lose_the_return(user: Any) -> None:
    for _ in range(ROUNDS):
        runtime = MemoryRuntime()
        workspace = settle(lifecycle.request_start(user, actor=user), runtime)
        long_ago = timezone.now() - timedelta(hours=1)
        Workspace.objects.filter(pk=workspace.pk).update(presence_at=long_ago, last_activity_at=long_ago)
        now = timezone.now()
        decided_on = Workspace.objects.get(pk=workspace.pk)
        stopped, came_back = together(
            partial(lifecycle.stop_if_unchanged, decided_on, reason=Reason.IDLE, decision={}, now=now),
            partial(activity.record_visit, Workspace.objects.get(pk=workspace.pk), now=now),
        )
        assert not (stopped is not None and came_back), "both were told that they won"
        lifecycle.request_stop(Workspace.objects.get(pk=workspace.pk), actor=user)
        settle(workspace, runtime)


def test_twelve_starts_at_once_hold_twelve_ports(make_user: Callable[..., Any]) -> None:
    rows = [lifecycle.request_start(user, actor=user) for user in (make_user() for _ in range(12))]

    def hold(row: Workspace) -> int | None:
        endpoint = ports.hold_port(
            row,
            generation=row.generation,
            base=65535,  # nobody has a port of their own, so that everybody competes for the range
            port_range=(22000, 22011),
            reserved=frozenset(),
            port_free=lambda _: True,
            now=timezone.now(),
        )
        return None if endpoint is None else endpoint.port

    found = together(*[lambda row=row: hold(row) for row in rows])
    assert sorted(found) == list(range(22000, 22012))


def test_one_more_start_than_ports_is_told_so(make_user: Callable[..., Any]) -> None:
    rows = [lifecycle.request_start(user, actor=user) for user in (make_user() for _ in range(3))]
    refused = 0
    for row in rows:
        with contextlib.suppress(NoPortFree):
            ports.hold_port(
                row,
                generation=row.generation,
                base=65535,
                port_range=(22000, 22001),
                reserved=frozenset(),
                port_free=lambda _: True,
                now=timezone.now(),
            )
            continue
        refused += 1
    assert refused == 1


def test_an_operation_lock_is_held_by_one_and_dies_with_its_connection(running: Workspace) -> None:
    def take_and_lose() -> bool:
        lock = locks.operation(running.pk)
        taken = lock.__enter__()
        from django.db import connection

        connection.close()  # as if the worker was killed
        return taken

    with locks.operation(running.pk) as mine:
        assert mine
        assert together(take_and_lose) == [False]
    assert together(take_and_lose) == [True]
    with locks.operation(running.pk) as mine:
        assert mine


def test_a_restart_and_a_stop_at_once_end_as_the_last_intent_says(user: Any) -> None:
    for _ in range(ROUNDS):
        runtime = MemoryRuntime()
        workspace = settle(lifecycle.request_start(user, actor=user), runtime)
        together(
            lambda: lifecycle.request_restart(user, actor=user),
            partial(_stop, workspace.pk, actor=user),
        )
        workspace.refresh_from_db()
        wanted = workspace.wanted
        workspace = settle(workspace, runtime)
        assert workspace.state == (State.RUNNING if wanted == Wanted.RUNNING else State.STOPPED)
        lifecycle.request_stop(workspace, actor=user)
        settle(workspace, runtime)


def test_never_more_start_at_once_than_may_and_all_of_a_crowd_come_up(
    make_user: Callable[..., Any], configure: Callable[..., None]
) -> None:
    configure(start_concurrency=3)
    runtime = _Counting()
    rows = [lifecycle.request_start(person, actor=person) for person in (make_user() for _ in range(9))]
    messages = queue.SimpleQueue[int]()
    for row in reversed(rows):  # in the worst order
        messages.put(row.pk)

    def work() -> None:
        while Workspace.objects.filter(state=State.STARTING).exists():
            try:
                pk = messages.get(timeout=0.05)
            except queue.Empty:
                for waiting in Workspace.objects.queued()[:3]:  # what reconcile would find lost
                    messages.put(waiting.pk)
                continue
            lifecycle.perform_start(pk, 1, runtime=runtime)

    together(*[work] * 5)
    assert Workspace.objects.running().count() == 9
    assert runtime.most == 3


class _Counting(MemoryRuntime):
    """Takes a moment for each start and remembers how many there were at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._count = threading.Lock()

    def ensure_running(self, spec: WorkspaceSpec) -> Observation:
        with self._count:
            self.now += 1
            self.most = max(self.most, self.now)
        pause(0.05, because="a start takes a moment")
        try:
            return super().ensure_running(spec)
        finally:
            with self._count:
                self.now -= 1
