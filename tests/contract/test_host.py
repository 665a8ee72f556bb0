"""What a workspace gets of what the engine's host has: processors, and what the kernel counts by user."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

import pytest
from docker.errors import APIError

from tests.contract.places import GRACE, rehash
from tests.suite.waiting import pause
from workspaces.runtimes.base import Phase, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.places import DockerPlace
    from workspaces.runtimes.base import WorkspaceSpec
    from workspaces.runtimes.docker_host import Host


pytestmark = pytest.mark.docker
MARK = {"gunpowder.test": os.environ.get("GUNPOWDER_TEST_ID", "")}


def may_use(engine: DockerPlace, spec: WorkspaceSpec) -> set[int]:
    """The processors on which the container's first process may run, by the kernel's word."""
    found = engine.inside(spec, "grep Cpus_allowed_list /proc/1/status").split()[-1]
    ranges = [part.partition("-") for part in found.split(",")]
    return {number for low, _, high in ranges for number in range(int(low), int(high or low) + 1)}


@pytest.fixture
def host(engine: DockerPlace) -> Iterator[Host]:
    """What the runtime knows of its host; put back afterwards."""
    known = engine.runtime._host
    yield known
    engine.runtime._host = known


def test_each_workspace_leaves_one_processor_alone(engine: DockerPlace, host: Host) -> None:
    everything = os.sched_getaffinity(0)
    one, next_one = engine.spec(), engine.spec()
    assert next_one.endpoint.port == one.endpoint.port + 1
    left = []
    for spec in (one, next_one):
        engine.runtime.ensure_running(spec)
        left.append(everything - may_use(engine, spec))
        assert int(engine.inside(spec, "nproc")) == len(may_use(engine, spec)), "as programs inside count"
    if engine.engine.info()["CPUSet"] and engine.engine.info()["NCPU"] == len(everything) > 1:
        assert [len(each) for each in left] == [1, 1]
        assert left[0] != left[1]
    else:
        assert left == [set(), set()]
        assert not host.processors_for(one.endpoint.port)
    made = engine.inspect(one.name)["Id"]
    engine.runtime.ensure_stopped(one.name, generation=one.generation, grace=GRACE)
    engine.runtime.ensure_running(one)
    assert engine.inspect(one.name)["Id"] == made
    assert everything - may_use(engine, one) == left[0]


def test_a_workspace_pauses_before_it_has_all_of_its_processors(engine: DockerPlace, host: Host) -> None:
    spec = rehash(engine.spec(), cpus=64.0)
    engine.runtime.ensure_running(spec)
    share = engine.inspect(spec.name)["HostConfig"]["NanoCpus"] / 1e9
    assert 0 < share <= 0.9 * max(host.processors - 1, 1)


def test_processors_that_are_gone_do_not_keep_a_workspace_from_starting(engine: DockerPlace, host: Host) -> None:
    """The host got smaller, or another one, since the worker began or the container was made."""
    engine.runtime._host = dataclasses.replace(host, processors=2, numbers=(4000, 4001))
    spec = engine.spec()
    assert engine.runtime.ensure_running(spec).phase is Phase.RUNNING
    assert may_use(engine, spec) == os.sched_getaffinity(0)
    assert engine.runtime._host.numbers == (), "it is not asked twice"
    made = engine.inspect(spec.name)["Id"]
    assert engine.runtime.ensure_running(spec).phase is Phase.RUNNING
    assert engine.inspect(spec.name)["Id"] == made


def test_a_container_of_a_larger_host_is_made_anew(engine: DockerPlace, host: Host) -> None:
    spec = engine.spec()
    engine.runtime._host = dataclasses.replace(host, processors=1, numbers=())
    engine.runtime.ensure_running(spec)
    engine.engine.update_container(spec.name, cpuset_cpus=",".join(map(str, host.numbers)))  # as if it had had others
    engine.runtime.ensure_stopped(spec.name, generation=spec.generation, grace=GRACE)
    engine.runtime._host = host
    engine.runtime.ensure_running(spec)
    assert len(may_use(engine, spec)) == max(1, len(host.numbers) - 1)


def may_raise(engine: DockerPlace) -> bool:
    """Whether this engine may give a container more timers than it has itself; asked without the runtime."""
    limit = {"Name": "sigpending", "Soft": -1, "Hard": -1}
    made = engine.engine.create_container(
        engine.image, entrypoint=["true"], labels=MARK, host_config={"NetworkMode": "none", "Ulimits": [limit]}
    )
    try:
        engine.engine.start(made["Id"])
    except APIError:
        return False
    finally:
        engine.engine.remove_container(made["Id"], force=True)
    return True


def test_timers_are_left_to_memory_where_the_engine_may(engine: DockerPlace, host: Host) -> None:
    may = may_raise(engine)
    engine.runtime._host = dataclasses.replace(host, endless=True)
    spec = engine.spec()
    assert engine.runtime.ensure_running(spec).phase is Phase.RUNNING
    assert engine.runtime._host.endless is may
    asked = {limit["Name"] for limit in engine.inspect(spec.name)["HostConfig"]["Ulimits"]}
    assert asked == {"nofile", "core"} | ({"sigpending", "msgqueue", "memlock"} if may else set())
    limits = engine.inside(spec, "grep -E 'pending signals|msgqueue size|locked memory' /proc/self/limits")
    assert limits.count("unlimited") == (6 if may else 0), "as the kernel has it"


def test_several_refusals_at_one_start_are_borne(engine: DockerPlace, host: Host) -> None:
    engine.runtime._host = dataclasses.replace(
        host, processors=2, numbers=(4000, 4001), disk="/dev/no-such-device", endless=True
    )
    spec = engine.spec()
    assert engine.runtime.ensure_running(spec).phase is Phase.RUNNING
    assert (engine.runtime._host.numbers, engine.runtime._host.disk) == ((), "")


def test_the_doctor_looks_at_what_was_made_last(engine: DockerPlace, host: Host) -> None:
    def verdict(what: str) -> Verdict:
        facts = engine.runtime.examine(image=older.image, user_ids=frozenset())
        return next(fact.verdict for fact in facts if fact.what == what)

    older, newer = engine.spec(), engine.spec()
    engine.runtime.ensure_running(older)
    before = verdict("processors")
    pause(1.1, because="the engine tells in seconds when it made a container")
    engine.runtime._host = dataclasses.replace(host, numbers=())
    engine.runtime.ensure_running(newer)
    assert verdict("processors") is Verdict.ADVICE
    engine.runtime.ensure_removed(newer.name)
    assert verdict("processors") is before
