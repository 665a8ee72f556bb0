"""Every sentence of `workspaces/runtimes/base.py`, tried on every runtime. Compare test_engine."""

from __future__ import annotations

import contextlib
import gc
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.asking import await_ready, reported
from tests.contract.places import GRACE, rehash
from tests.suite.waiting import together
from workspaces.errors import PortTaken, RuntimeUnavailable
from workspaces.runtimes.base import Change, Phase, Report, Signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.places import DockerPlace, Place
    from workspaces.runtimes.base import Runtime, WorkspaceSpec


# --- observe -----------------------------------------------------------------------------------------------------


def test_absent_is_a_phase_and_not_an_error(place: Place) -> None:
    spec = place.spec()
    seen = place.runtime.observe(spec.name)
    assert seen.phase is Phase.ABSENT
    assert not seen.alive
    assert seen.user_id is None


def test_a_running_container_is_observed_as_it_was_asked_for(place: Place) -> None:
    spec = rehash(place.spec(), generation=7)
    made = place.runtime.ensure_running(spec)
    seen = place.runtime.observe(spec.name)
    assert seen == made
    assert seen.alive
    assert seen.phase is Phase.RUNNING
    assert (seen.name, seen.user_id, seen.generation) == (spec.name, spec.user_id, 7)
    assert (seen.spec_hash, seen.image, seen.endpoint) == (spec.hash, spec.image, spec.endpoint)
    assert seen.container_id
    assert (seen.exit_code, seen.out_of_memory) == (None, False)


def test_a_name_that_begins_like_another_is_another(place: Place) -> None:
    spec = place.spec()
    place.runtime.ensure_running(rehash(spec, name=f"{spec.name}-0"))
    assert place.runtime.observe(spec.name).phase is Phase.ABSENT


# --- changes -----------------------------------------------------------------------------------------------------


def test_what_begins_and_ends_is_told_as_it_happens_and_only_of_this_instance(place: Place) -> None:
    runtime, spec = place.runtime, place.spec()
    runtime.ensure_running(place.spec())  # what the engine refuses is learnt: such a start is told as an end too
    changes = runtime.changes()
    foreign = place.spec()
    place.another_instance().ensure_running(rehash(foreign, instance=f"{foreign.instance}-other"))
    for _ in range(2):
        runtime.ensure_running(spec)  # the second time it runs already
    place.kill(spec.name)
    runtime.ensure_running(spec)
    runtime.ensure_stopped(spec.name, generation=spec.generation, grace=GRACE)
    told = list[Change]()
    for change in changes:
        assert change.name != foreign.name
        if change.name == spec.name:  # not one of the test before, in the same second
            told.append(change)
        if len(told) == 4:
            break
    assert [change.began for change in told] == [True, False, True, False]


@pytest.mark.docker
def test_a_stream_that_was_left_holds_nothing_open(docker_place: DockerPlace) -> None:
    spec = docker_place.spec()
    docker_place.runtime.ensure_running(spec)
    before = open_sockets()
    changes: Any = docker_place.runtime.changes()
    opened = open_sockets() - before
    assert opened
    docker_place.kill(spec.name)
    assert next(changes).began in {True, False}
    kept = changes.gi_frame.f_locals["stream"]  # as a traceback does, or a cycle that is not collected yet
    changes.close()
    assert not opened & open_sockets(), kept


def open_sockets() -> set[int]:
    """What identifies each socket of this process."""
    found = set[int]()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not files
        with contextlib.suppress(OSError):  # the listing's own
            status = os.fstat(int(number))
            if stat.S_ISSOCK(status.st_mode):
                found.add(status.st_ino)
    return found


def test_who_cannot_be_asked_tells_nothing(place: Place) -> None:
    before = open_sockets()
    with pytest.raises(RuntimeUnavailable) as problem:
        place.unreachable().changes()
    assert not open_sockets() - before, problem  # which holds all that was open


# --- ensure_running ----------------------------------------------------------------------------------------------


def test_ensuring_twice_gives_one_container(place: Place) -> None:
    spec = place.spec()
    first = place.runtime.ensure_running(spec)
    second = place.runtime.ensure_running(spec)
    assert second.container_id == first.container_id
    assert place.containers_of(spec) == 1


def test_four_at_once_give_one_container(place: Place) -> None:
    spec = place.spec()
    identifiers = together(*[lambda: place.runtime.ensure_running(spec).container_id] * 4)
    assert len(set(identifiers)) == 1
    assert place.containers_of(spec) == 1
    assert place.runtime.observe(spec.name).alive


def test_a_stopped_container_starts_again_on_its_port(place: Place) -> None:
    spec = place.spec()
    first = place.runtime.ensure_running(spec)
    place.runtime.ensure_stopped(spec.name, generation=spec.generation, grace=GRACE)
    again = place.runtime.ensure_running(rehash(spec, generation=2))
    assert again.container_id == first.container_id
    assert again.endpoint == spec.endpoint
    assert (again.phase, again.exit_code) == (Phase.RUNNING, None)


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_another_hash_replaces_the_container(place: Place, *, running: bool) -> None:
    spec = place.spec()
    first = place.runtime.ensure_running(spec)
    if not running:
        place.runtime.ensure_stopped(spec.name, generation=spec.generation, grace=GRACE)
    changed = rehash(spec, pids=300, generation=2)
    assert changed.hash != spec.hash
    second = place.runtime.ensure_running(changed)
    assert second.container_id != first.container_id
    assert (second.spec_hash, second.generation) == (changed.hash, 2)
    assert place.containers_of(spec) == 1


def test_another_generation_alone_replaces_nothing(place: Place) -> None:
    spec = place.spec()
    first = place.runtime.ensure_running(spec)
    assert place.runtime.ensure_running(rehash(spec, generation=9)).container_id == first.container_id


def test_a_taken_port_is_told_and_leaves_no_container(place: Place) -> None:
    spec = place.spec()
    with place.occupied(spec.endpoint):
        assert not place.runtime.port_free(spec.endpoint)
        with pytest.raises(PortTaken) as refusal:
            place.runtime.ensure_running(spec)
        assert refusal.value.code == "port_taken"
        assert place.containers_of(spec) == 0
    assert place.runtime.ensure_running(spec).alive  # as soon as it is free


def test_a_stopped_container_whose_port_was_taken_leaves_no_container(place: Place) -> None:
    spec = place.spec()
    place.runtime.ensure_running(spec)
    place.runtime.ensure_stopped(spec.name, generation=spec.generation, grace=GRACE)
    with place.occupied(spec.endpoint):
        with pytest.raises(PortTaken):
            place.runtime.ensure_running(spec)
        assert place.containers_of(spec) == 0


def test_the_port_of_a_running_container_is_taken(place: Place) -> None:
    spec = place.spec()
    assert place.runtime.port_free(spec.endpoint)
    place.runtime.ensure_running(spec)
    assert not place.runtime.port_free(spec.endpoint)
    with pytest.raises(PortTaken):
        place.runtime.ensure_running(rehash(place.spec(), endpoint=spec.endpoint))


# --- ensure_stopped, ensure_removed ------------------------------------------------------------------------------


def test_a_stop_ends_the_container_and_keeps_it(place: Place) -> None:
    spec = place.spec()
    place.runtime.ensure_running(spec)
    for _ in range(2):  # again: nothing to do
        place.runtime.ensure_stopped(spec.name, generation=spec.generation, grace=GRACE)
        seen = place.runtime.observe(spec.name)
        assert seen.phase is Phase.EXITED
        assert seen.endpoint is None
        assert not seen.out_of_memory
    assert place.containers_of(spec) == 1


def test_stopping_and_removing_what_is_absent_is_nothing_to_do(place: Place) -> None:
    spec = place.spec()
    place.runtime.ensure_stopped(spec.name, generation=99, grace=GRACE)
    place.runtime.ensure_removed(spec.name)
    assert place.runtime.observe(spec.name).phase is Phase.ABSENT


def test_a_stop_leaves_a_newer_generation_alone(place: Place) -> None:
    spec = rehash(place.spec(), generation=5)
    place.runtime.ensure_running(spec)
    place.runtime.ensure_stopped(spec.name, generation=4, grace=GRACE)
    assert place.runtime.observe(spec.name).alive
    place.runtime.ensure_stopped(spec.name, generation=5, grace=GRACE)
    assert not place.runtime.observe(spec.name).alive


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_removing_works_whether_it_runs_or_not(place: Place, *, running: bool) -> None:
    spec = place.spec()
    place.runtime.ensure_running(spec)
    if not running:
        place.runtime.ensure_stopped(spec.name, generation=spec.generation, grace=GRACE)
    place.runtime.ensure_removed(spec.name)
    assert place.runtime.observe(spec.name).phase is Phase.ABSENT
    assert place.containers_of(spec) == 0


def test_a_container_killed_from_outside_has_exited_with_its_code(place: Place) -> None:
    spec = place.spec()
    place.runtime.ensure_running(spec)
    place.kill(spec.name)
    seen = place.runtime.observe(spec.name)
    assert (seen.phase, seen.exit_code, seen.out_of_memory) == (Phase.EXITED, 137, False)
    assert not seen.alive


# --- observe_all -------------------------------------------------------------------------------------------------


def test_all_are_observed_running_or_not_and_only_of_this_instance(place: Place) -> None:
    running, stopped, foreign = place.spec(), place.spec(), place.spec()
    place.runtime.ensure_running(running)
    place.runtime.ensure_running(stopped)
    place.runtime.ensure_stopped(stopped.name, generation=1, grace=GRACE)
    another = place.another_instance()
    another.ensure_running(rehash(foreign, instance=f"{foreign.instance}-other"))
    seen = {observation.name: observation for observation in place.runtime.observe_all()}
    assert seen[running.name].endpoint == running.endpoint
    assert seen[running.name].alive
    assert (seen[running.name].user_id, seen[running.name].generation) == (running.user_id, 1)
    assert seen[stopped.name].phase is Phase.EXITED
    assert seen[stopped.name].endpoint is None
    assert foreign.name not in seen
    assert [observation.name for observation in another.observe_all()] == [foreign.name]


# --- reads for people --------------------------------------------------------------------------------------------


def test_the_editor_is_ready_within_seconds_and_not_after_a_stop(place: Place) -> None:
    spec = place.spec(editor=True)
    assert not place.runtime.health(spec.endpoint).ready
    place.runtime.ensure_running(spec)
    await_ready(place.runtime, spec.endpoint)
    place.runtime.ensure_stopped(spec.name, generation=1, grace=GRACE)
    assert not place.runtime.health(spec.endpoint).ready


def test_a_running_container_uses_something_within_its_limits(place: Place) -> None:
    spec = place.spec(editor=True)
    assert place.runtime.usage(spec.name) is None
    place.runtime.ensure_running(spec)
    used = place.runtime.usage(spec.name)
    assert used is not None
    assert used.cpu_seconds >= 0
    assert used.memory_limit_bytes == spec.memory
    assert 0 <= used.memory_bytes <= spec.memory
    assert 1 <= used.pids <= spec.pids
    assert used.disk_bytes >= 0
    place.runtime.ensure_stopped(spec.name, generation=1, grace=GRACE)
    assert place.runtime.usage(spec.name) is None


def test_an_absent_container_shows_no_signals(place: Place) -> None:
    found = place.runtime.signals(place.spec().name)
    assert found == Signals(ready=False, report=None, commands=None, cpu_seconds=None, connected=None)


def test_a_fresh_workspace_shows_that_nobody_uses_it(place: Place) -> None:
    spec = place.spec(editor=True)
    place.runtime.ensure_running(spec)
    await_ready(place.runtime, spec.endpoint)
    reported(place.runtime, spec, secret=spec.secret)  # the first question waits longer than a look does
    found = place.runtime.signals(spec.name)
    assert found.ready
    assert found.report == Report()
    assert (found.commands, found.connected) == ((), False)
    assert found.cpu_seconds is not None
    again = place.runtime.signals(spec.name)
    assert again.cpu_seconds is not None
    assert again.cpu_seconds >= found.cpu_seconds
    place.runtime.ensure_stopped(spec.name, generation=1, grace=GRACE)
    assert not place.runtime.signals(spec.name).ready


def test_a_report_needs_the_inner_secret_and_an_editor_that_runs(place: Place) -> None:
    spec = place.spec(editor=True)
    with pytest.raises(RuntimeUnavailable):
        place.runtime.report(spec.endpoint, secret=spec.secret)
    place.runtime.ensure_running(spec)
    await_ready(place.runtime, spec.endpoint)
    assert reported(place.runtime, spec, secret=spec.secret) == Report()
    assert reported(place.runtime, spec, secret="f" * 64) == Report()


def test_telling_works_at_any_time_and_twice(place: Place) -> None:
    spec = place.spec()
    place.runtime.tell(spec.user_id, '{"version": 1}')
    place.runtime.ensure_running(spec)
    place.runtime.tell(spec.user_id, '{"version": 1}')


def test_an_absent_container_wrote_no_lines(place: Place) -> None:
    assert place.runtime.logs(place.spec().name, tail=10) == []


VERBS: dict[str, Callable[[Runtime, WorkspaceSpec], Any]] = {
    "ensure_running": lambda runtime, spec: runtime.ensure_running(spec),
    "observe": lambda runtime, spec: runtime.observe(spec.name),
    "ensure_stopped": lambda runtime, spec: runtime.ensure_stopped(spec.name, generation=1, grace=1),
    "ensure_removed": lambda runtime, spec: runtime.ensure_removed(spec.name),
    "observe_all": lambda runtime, _: list(runtime.observe_all()),
    "logs": lambda runtime, spec: runtime.logs(spec.name, tail=1),
    "usage": lambda runtime, spec: runtime.usage(spec.name),
    "signals": lambda runtime, spec: runtime.signals(spec.name),
    "ping": lambda runtime, _: runtime.ping(),
    "examine": lambda runtime, spec: runtime.examine(image=spec.image, user_ids=frozenset()),
}


def _refusal_of(verb: str, place: Place) -> str:
    try:
        VERBS[verb](place.unreachable(), place.spec())
    except RuntimeUnavailable as error:
        return error.code
    return "answered"


# The docker SDK forgets to close the socket of a connection that failed; let it be collected here and nowhere else.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("verb", VERBS)
def test_a_runtime_that_cannot_be_asked_says_so_and_never_a_phase(place: Place, verb: str) -> None:
    assert _refusal_of(verb, place) == "runtime_unavailable"
    gc.collect()


def test_a_reachable_runtime_answers_a_ping(place: Place) -> None:
    place.runtime.ping()
