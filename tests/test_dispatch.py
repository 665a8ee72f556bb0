"""A message that cannot be sent is no error: the row waits, and reconcile sends again."""

from __future__ import annotations

import socket
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery

from gunpowder.celery import app as ours
from workspaces import dispatch, lifecycle, sweeps
from workspaces.states import State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from workspaces.models import Workspace
    from workspaces.runtimes.memory import MemoryRuntime

    Sent = list[tuple[str, tuple[Any, ...]]]

pytestmark = pytest.mark.django_db


def _another_broker(url: str) -> Celery:
    app = Celery("another", broker=url, set_as_current=True)
    app.conf.broker_transport_options = ours.conf.broker_transport_options
    app.conf.task_publish_retry = False
    return app


@pytest.fixture
def unreachable_broker(tmp_path: Path) -> Iterator[None]:
    app = _another_broker(f"redis+socket://{tmp_path}/nobody.sock")
    yield
    app.close()
    ours.set_current()


@pytest.fixture
def silent_broker(tmp_path: Path) -> Iterator[None]:
    """Accepts connections and says nothing, like a Redis that hangs."""
    path = f"{tmp_path}/silent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(16)
        app = _another_broker(f"redis+socket://{path}")
        yield
        app.close()
        ours.set_current()


def test_messages_are_sent_after_the_commit(
    running: Workspace, sent: Sent, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        dispatch.start(running)
        dispatch.stop(running)
        dispatch.check(running)
        assert sent == []
    assert sent == [
        ("workspaces.start", (running.pk, running.generation)),
        ("workspaces.stop", (running.pk, running.generation)),
        ("workspaces.check", (running.pk,)),
    ]


def test_an_unreachable_broker_leaves_the_row_waiting(
    user: Any,
    unreachable_broker: None,
    runtime: MemoryRuntime,
    now: datetime,
    django_capture_on_commit_callbacks: Any,
) -> None:
    began = time.monotonic()
    with django_capture_on_commit_callbacks(execute=True):
        workspace = lifecycle.request_start(user, actor=user)
    assert time.monotonic() - began < 2
    workspace.refresh_from_db()
    assert workspace.state == State.STARTING
    ours.set_current()
    report = sweeps.reconcile(runtime=runtime, now=now + timedelta(seconds=10))
    assert [action["action"] for action in report.actions] == ["resend"]


# Closing a connection that never answered leaves its socket to the collector, in redis-py.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_silent_broker_holds_a_request_for_seconds_only(
    user: Any, silent_broker: None, django_capture_on_commit_callbacks: Any
) -> None:
    began = time.monotonic()
    with django_capture_on_commit_callbacks(execute=True):
        workspace = lifecycle.request_start(user, actor=user)
    assert time.monotonic() - began < 10
    workspace.refresh_from_db()
    assert workspace.state == State.STARTING
