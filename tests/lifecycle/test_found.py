"""What follows when a container is found in another state than its row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from workspaces import conf, lifecycle
from workspaces.lifecycle import Outcome
from workspaces.models import Workspace
from workspaces.runtimes.base import Observation, Phase
from workspaces.states import Reason, State

if TYPE_CHECKING:
    from datetime import datetime

    from workspaces.runtimes.memory import MemoryRuntime


pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("seen", "reason", "code"),
    [
        (Observation(name="n", phase=Phase.ABSENT), Reason.REMOVED, ""),
        (Observation(name="n", phase=Phase.REMOVING), Reason.REMOVED, ""),
        (Observation(name="n", phase=Phase.EXITED, exit_code=0), Reason.EXITED, ""),
        (Observation(name="n", phase=Phase.EXITED, exit_code=137), Reason.EXITED, ""),
        (Observation(name="n", phase=Phase.EXITED, exit_code=143), Reason.EXITED, ""),
        (Observation(name="n", phase=Phase.EXITED, exit_code=130), Reason.EXITED, ""),
        (Observation(name="n", phase=Phase.EXITED, exit_code=137, out_of_memory=True), Reason.OOM, "oom"),
        (Observation(name="n", phase=Phase.EXITED, exit_code=1), Reason.CRASHED, "crashed"),
        (Observation(name="n", phase=Phase.EXITED, exit_code=139), Reason.CRASHED, "crashed"),
    ],
)
def test_why_a_container_ended(seen: Observation, reason: Reason, code: str) -> None:
    found, found_code, message = lifecycle.explain_end(seen)
    assert (found, found_code, bool(message)) == (reason, code, bool(code))


def test_what_is_gone_is_stopped_with_its_reason(running: Workspace, now: datetime) -> None:
    settled = lifecycle.settle_gone(running, Observation(name="n", phase=Phase.ABSENT), now=now)
    assert settled is not None
    assert (settled.state, settled.wanted, settled.stop_reason) == ("stopped", "stopped", "removed")
    assert (settled.port, settled.error_code) == (None, "")


def test_a_crash_is_a_failure_with_a_sentence(running: Workspace, now: datetime) -> None:
    seen = Observation(name="n", phase=Phase.EXITED, exit_code=7)
    settled = lifecycle.settle_gone(running, seen, now=now)
    assert settled is not None
    assert (settled.state, settled.error_code) == ("failed", "crashed")
    assert "7" in settled.error_message


def test_a_silent_editor_is_ended_and_failed(running: Workspace, runtime: MemoryRuntime, now: datetime) -> None:
    settled = lifecycle.settle_unhealthy(running, runtime=runtime, now=now)
    assert settled is not None
    assert (settled.state, settled.error_code) == ("failed", "unhealthy")
    assert runtime.running_names() == []


def test_a_row_that_moved_on_is_not_settled(running: Workspace, now: datetime) -> None:
    lifecycle.request_stop(running, actor=None)
    assert lifecycle.settle_gone(running, Observation(name="n", phase=Phase.ABSENT), now=now) is None


def test_the_runtime_of_the_tests_is_the_configured_one(runtime: MemoryRuntime) -> None:
    assert conf.runtime() is runtime


def test_a_start_that_was_finished_meanwhile_is_not_given_up(running: Workspace, runtime: MemoryRuntime) -> None:
    stale = Workspace.objects.get(pk=running.pk)
    stale.state = State.STARTING  # as a sweep read it before the start was finished
    outcome = lifecycle.fail_start(stale, runtime=runtime, code="start_timeout", message="Too late.")
    assert outcome is Outcome.STALE
    assert runtime.running_names() == [running.container]


def test_a_workspace_that_somebody_works_on_is_not_called_unhealthy(
    running: Workspace, runtime: MemoryRuntime, now: datetime
) -> None:
    Workspace.objects.filter(pk=running.pk).update(generation=running.generation + 1)
    assert lifecycle.settle_unhealthy(running, runtime=runtime, now=now) is None
    assert runtime.running_names() == [running.container]


def test_one_killed_process_of_earlier_is_no_reason_for_a_polite_stop_of_today() -> None:
    ended = Observation(name="x", phase=Phase.EXITED, exit_code=143, out_of_memory=True)
    assert lifecycle.explain_end(ended)[0] is Reason.EXITED
