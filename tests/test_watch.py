"""What the engine tells of containers is heard, and looked at within a moment."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.db import DatabaseError, connections

from tests.suite.waiting import eventually
from workspaces import lifecycle, tasks, watch
from workspaces.runtimes.base import Change

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workspaces.models import Workspace
    from workspaces.runtimes.memory import MemoryRuntime

    Sent = list[tuple[str, tuple[Any, ...]]]

pytestmark = pytest.mark.django_db(transaction=True)
RECONCILE = ("workspaces.reconcile", ())


def listen(runtime: MemoryRuntime) -> None:
    try:
        watch.listen_once(runtime)
    finally:
        connections.close_all()  # this thread's


@pytest.fixture
def listening(running: Workspace, runtime: MemoryRuntime, sent: Sent) -> Iterator[None]:
    """Somebody listens, in another thread as in another process, once `running` runs."""
    thread = threading.Thread(target=listen, args=(runtime,))
    thread.start()
    eventually("it listens", lambda: RECONCILE in sent, within=10)
    sent.clear()
    yield
    runtime.hang_up()
    thread.join()


def hear_all(runtime: MemoryRuntime) -> None:
    """What has happened until now is heard when this returns."""
    threads = [thread for thread in threading.enumerate() if thread.name.endswith("(listen)")]
    runtime.hang_up()
    for thread in threads:
        thread.join()


def test_listening_begins_with_a_pass_over_everything(runtime: MemoryRuntime, sent: Sent) -> None:
    threading.Timer(0.2, runtime.hang_up).start()
    watch.listen_once(runtime)
    assert sent == [RECONCILE]


@pytest.mark.usefixtures("listening")
def test_a_container_that_ends_by_itself_is_looked_at(running: Workspace, runtime: MemoryRuntime, sent: Sent) -> None:
    sent.clear()
    runtime.end(running.container, exit_code=137, out_of_memory=True)
    hear_all(runtime)
    assert sent == [("workspaces.check", (running.pk,))]
    tasks.check(*sent[0][1])
    running.refresh_from_db()
    assert (running.state, running.error_code) == ("failed", "oom")


@pytest.mark.usefixtures("listening")
def test_one_that_was_taken_away_is_looked_at(running: Workspace, runtime: MemoryRuntime, sent: Sent) -> None:
    sent.clear()
    runtime.ensure_removed(running.container)
    hear_all(runtime)
    assert sent == [("workspaces.check", (running.pk,))]


def test_a_stop_and_a_start_that_were_asked_for_are_nobodys_business(
    running: Workspace, runtime: MemoryRuntime, sent: Sent
) -> None:
    began, ended = (Change(name=running.container, began=began) for began in (True, False))
    sent.clear()
    lifecycle.request_stop(running, actor=None)
    watch.heard(ended)
    lifecycle.perform_stop(running.pk, running.generation, runtime=runtime)
    watch.heard(ended)
    workspace = lifecycle.request_start(running.user, actor=running.user)
    watch.heard(began)
    lifecycle.perform_start(workspace.pk, workspace.generation, runtime=runtime)
    watch.heard(began)
    assert [name for name, _ in sent] == ["workspaces.stop", "workspaces.start"]


@pytest.mark.usefixtures("listening")
def test_what_nobody_asked_for_brings_a_pass(running: Workspace, runtime: MemoryRuntime, sent: Sent) -> None:
    spec = runtime.inside(running.container).spec
    lifecycle.request_stop(running, actor=None)
    lifecycle.perform_stop(running.pk, running.generation, runtime=runtime)
    sent.clear()
    runtime.stray(spec)  # started by hand
    hear_all(runtime)
    assert sent == [RECONCILE]


def test_a_container_without_a_row_brings_a_pass_when_it_begins_and_nothing_when_it_ends(sent: Sent) -> None:
    watch.heard(Change(name="unknown", began=False))
    assert sent == []
    watch.heard(Change(name="unknown", began=True))
    assert sent == [RECONCILE]


def test_nothing_that_goes_wrong_ends_the_watching(
    running: Workspace, runtime: MemoryRuntime, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that is away, a database that is away, a conversation that ends: it listens again."""
    pauses, troubles = list[float](), iter((DatabaseError("gone"), None))
    hear = watch.heard

    class Enough(BaseException):
        pass

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            runtime.reachable = True
        if len(pauses) == 4:
            raise Enough

    def heard(change: Change) -> None:
        runtime.hang_up()
        if trouble := next(troubles):
            raise trouble
        hear(change)

    changes = runtime.changes

    def speaking() -> Iterator[Change]:
        told = changes()
        runtime._announce(running.container, began=False)
        return told

    runtime.reachable = False
    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr(watch, "heard", heard)
    monkeypatch.setattr(runtime, "changes", speaking)
    with pytest.raises(Enough):
        watch.watch(runtime)
    assert pauses == [2.0, 4.0, 8.0, 15.0]  # it never spoke for long
    assert sent == [RECONCILE, RECONCILE, ("workspaces.check", (running.pk,))]
