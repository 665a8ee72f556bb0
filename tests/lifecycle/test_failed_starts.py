"""A start that fails: what it says, and what it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lifecycle.acting import do_start, do_stop, history_of
from tests.trouble import CannotStop, Contended, Interrupted, OverlooksPorts
from workspaces import lifecycle
from workspaces.errors import (
    PassingRefusal,
    RuntimeUnavailable,
    StartRefused,
)
from workspaces.lifecycle import Outcome
from workspaces.models import Transition, Workspace
from workspaces.states import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from workspaces.runtimes.base import Endpoint
    from workspaces.runtimes.memory import MemoryRuntime


pytestmark = pytest.mark.django_db


def test_a_refused_start_fails_with_the_runtimes_code_and_sentence(starting: Workspace, runtime: MemoryRuntime) -> None:
    runtime.refuse = StartRefused("The image is not there.", code="image_missing")
    assert do_start(starting, runtime) is Outcome.FAILED
    assert starting.state == State.FAILED
    assert (starting.error_code, starting.error_message) == ("image_missing", "The image is not there.")
    assert starting.port is None
    assert history_of(starting)[-1] == ("starting", "failed", "start_failed")
    assert Transition.objects.first().detail == {"code": "image_missing"}  # type: ignore[union-attr]


def test_the_next_start_after_a_failure_works_and_forgets_the_error(
    starting: Workspace, runtime: MemoryRuntime
) -> None:
    runtime.refuse = StartRefused("no")
    do_start(starting, runtime)
    runtime.refuse = None
    again = lifecycle.request_start(starting.user, actor=None)
    assert (again.error_code, again.error_message, again.generation) == ("", "", 2)
    assert do_start(again, runtime) is Outcome.DONE


def test_a_failed_workspace_can_be_stopped_and_its_error_put_away(starting: Workspace, runtime: MemoryRuntime) -> None:
    runtime.refuse = StartRefused("no")
    do_start(starting, runtime)
    lifecycle.request_stop(starting, actor=None)
    starting.refresh_from_db()
    assert do_stop(starting, runtime) is Outcome.DONE
    assert starting.state == State.STOPPED
    assert (starting.error_code, starting.error_message) == ("", "")
    assert history_of(starting)[-2:] == [("failed", "stopping", "user"), ("stopping", "stopped", "user")]


def test_an_editor_that_never_answers_is_stopped_and_told(
    starting: Workspace, runtime: MemoryRuntime, configure: Callable[..., None]
) -> None:
    configure(start_timeout_seconds=0.2)
    runtime.answering = False
    assert do_start(starting, runtime) is Outcome.FAILED
    assert starting.error_code == "start_timeout"
    assert "0.2 seconds" in starting.error_message
    assert history_of(starting)[-1] == ("starting", "failed", "start_timeout")
    assert runtime.running_names() == []


@pytest.mark.parametrize(
    ("exit_code", "out_of_memory", "code", "reason"),
    [
        (1, False, "crashed", "crashed"),
        (0, False, "exited", "exited"),
        (143, False, "exited", "exited"),
        (137, True, "oom", "oom"),
    ],
)
def test_a_container_that_ends_while_it_starts_is_told_at_once(
    starting: Workspace, exit_code: int, *, out_of_memory: bool, code: str, reason: str
) -> None:
    def end(runtime: MemoryRuntime, _: Endpoint) -> None:
        (name,) = runtime.running_names()
        runtime._containers[name].lines = ["one", "the last line"]
        runtime.end(name, exit_code=exit_code, out_of_memory=out_of_memory)

    assert do_start(starting, Interrupted(on_health=end)) is Outcome.FAILED
    assert starting.error_code == code
    assert "the last line" in starting.error_message
    assert history_of(starting)[-1] == ("starting", "failed", reason)


def test_a_container_taken_away_while_it_starts_is_told(starting: Workspace) -> None:
    def remove(runtime: MemoryRuntime, _: Endpoint) -> None:
        runtime.ensure_removed(runtime.running_names()[0])

    assert do_start(starting, Interrupted(on_health=remove)) is Outcome.FAILED
    assert starting.error_code == "removed"
    assert starting.error_message


def test_a_port_that_turns_out_to_be_taken_is_changed_within_the_same_start(starting: Workspace) -> None:
    runtime = OverlooksPorts()
    runtime.busy_ports = {11000 + starting.user_id, 21000}
    assert do_start(starting, runtime) is Outcome.DONE
    assert starting.port == 21001


def test_ports_that_are_all_taken_end_the_start_without_a_storm(starting: Workspace) -> None:
    runtime = OverlooksPorts()
    runtime.busy_ports = set(range(1024, 65536))
    assert do_start(starting, runtime) is Outcome.FAILED
    assert starting.error_code == "port_taken"
    assert "GUNPOWDER_PORT_RANGE" in starting.error_message


def test_no_free_port_at_all_is_told(
    starting: Workspace, runtime: MemoryRuntime, configure: Callable[..., None]
) -> None:
    configure(port_range=(21000, 21001), port_base=65535)  # nobody has a port of their own
    runtime.busy_ports = {21000, 21001}
    assert do_start(starting, runtime) is Outcome.FAILED
    assert starting.error_code == "no_port_free"


def test_an_engine_that_is_away_changes_nothing(starting: Workspace, runtime: MemoryRuntime) -> None:
    runtime.reachable = False
    for _ in range(2 * lifecycle.MAX_ATTEMPTS):
        with pytest.raises(RuntimeUnavailable):
            do_start(starting, runtime)
    starting.refresh_from_db()
    assert (starting.state, starting.attempts) == (State.STARTING, 0)
    assert len(history_of(starting)) == 1
    runtime.reachable = True
    assert do_start(starting, runtime) is Outcome.DONE


def test_a_refusal_that_does_not_pass_fails_with_its_sentence(starting: Workspace, runtime: MemoryRuntime) -> None:
    runtime.refuse = PassingRefusal("The host has no memory left.", code="no_memory")
    outcomes = [do_start(starting, runtime) for _ in range(lifecycle.PASSING_ATTEMPTS)]
    assert outcomes == [*[Outcome.AGAIN] * (lifecycle.PASSING_ATTEMPTS - 1), Outcome.FAILED]
    assert (starting.error_code, starting.error_message) == ("no_memory", "The host has no memory left.")
    runtime.refuse = None
    assert do_start(lifecycle.request_start(starting.user, actor=None), runtime) is Outcome.DONE


def test_an_engine_that_answers_and_yet_cannot_gives_the_place_in_the_queue_free(
    starting: Workspace, runtime: MemoryRuntime
) -> None:
    contended = Contended()
    for _ in range(lifecycle.MAX_ATTEMPTS):
        with pytest.raises(RuntimeUnavailable):
            do_start(starting, contended)
    assert do_start(starting, contended) is Outcome.FAILED
    assert starting.error_code == "start_interrupted"


def test_a_start_that_fails_and_cannot_be_stopped_fails_all_the_same(
    starting: Workspace, configure: Callable[..., None]
) -> None:
    configure(start_timeout_seconds=0)
    stubborn = CannotStop()
    stubborn.answering = False
    assert do_start(starting, stubborn) is Outcome.FAILED
    assert starting.error_code == "start_timeout"
    assert (starting.state, starting.port) == (State.FAILED, None)


def test_a_start_whose_workers_keep_dying_is_given_up(starting: Workspace, runtime: MemoryRuntime) -> None:
    Workspace.objects.filter(pk=starting.pk).update(attempts=lifecycle.MAX_ATTEMPTS)
    assert do_start(starting, runtime) is Outcome.FAILED
    assert starting.error_code == "start_interrupted"
    again = lifecycle.request_start(starting.user, actor=None)
    assert do_start(again, runtime) is Outcome.DONE
