"""The network of a workspace: its own, so that nobody else is there to be reached, named or waited for."""

from __future__ import annotations

import json
from functools import partial
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import pytest
from docker.errors import APIError

from tests.contract.asking import await_ready
from tests.contract.places import GRACE, POOL, rehash, room_of_its_own
from tests.suite.waiting import eventually, together
from workspaces.errors import PassingRefusal, StartRefused
from workspaces.runtimes import docker_network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.places import DockerPlace
    from workspaces.runtimes.base import Runtime, WorkspaceSpec

pytestmark = pytest.mark.docker
REACH = "timeout 2 bash -c 'exec 3<>/dev/tcp/{}/{}' 2>/dev/null && echo reached || echo refused"
# Asks the engine's resolver for an address of a name and for the name of an address, as programs do.
ASK = """
import json, socket, sys
found = {}
for name in sys.argv[2:]:
    try:
        found[name] = socket.gethostbyname(name)
    except OSError:
        found[name] = ""
try:
    found[sys.argv[1]] = socket.gethostbyaddr(sys.argv[1])[0]
except OSError:
    found[sys.argv[1]] = ""
print(json.dumps(found))
"""


def network_of(engine: DockerPlace, spec: WorkspaceSpec) -> dict[str, str]:
    ((name, found),) = engine.inspect(spec.name)["NetworkSettings"]["Networks"].items()
    return {"name": str(name), **found}


def networks_of(engine: DockerPlace, instance: str) -> list[str]:
    found = engine.engine.networks(filters={"label": f"gunpowder.instance={instance}"})
    return sorted(str(network["Name"]) for network in found)


def test_nobody_elses_name_resolves(engine: DockerPlace) -> None:
    one, other = engine.spec(), engine.spec()
    for spec in (one, other):
        engine.runtime.ensure_running(spec)
    address, mine = network_of(engine, other)["IPAddress"], network_of(engine, one)["IPAddress"]
    names = [
        other.name,
        f"{other.name}.{other.name}-network",
        engine.inspect(other.name)["Id"][:12],
        engine.inspect(other.name)["Config"]["Hostname"],
    ]
    found = json.loads(engine.run(one, "python3", "-c", ASK, address, one.name, *names))
    assert found.pop(one.name) == mine, "its own does, so the question works"
    assert found.pop(address) == "", "nor does an address have a name"
    own = json.loads(engine.run(one, "python3", "-c", ASK, mine))
    assert own[mine].startswith(one.name), "which its own has"
    assert set(found) == set(names)
    assert not any(found.values())


def test_two_containers_cannot_reach_each_other(engine: DockerPlace) -> None:
    one, other = engine.spec(editor=True), engine.spec(editor=True)
    for spec in (one, other):
        engine.runtime.ensure_running(spec)
    await_ready(engine.runtime, other.endpoint)
    address, gateway = network_of(engine, other)["IPAddress"], network_of(engine, one)["Gateway"]
    others_gateway = network_of(engine, other)["Gateway"]
    for host, port in (
        (address, 8080),
        (gateway, other.endpoint.port),
        (others_gateway, other.endpoint.port),
        ("127.0.0.1", other.endpoint.port),
    ):
        assert engine.inside(one, REACH.format(host, port)).strip() == "refused", (host, port)
    eventually(
        "the question itself works",
        lambda: engine.inside(one, REACH.format("127.0.0.1", 8080)).strip() == "reached",
        within=240,
    )


def test_each_has_four_addresses_of_the_pool(engine: DockerPlace) -> None:
    specs = [engine.spec() for _ in range(3)]
    for spec in specs:
        engine.runtime.ensure_running(spec)
    found = [network_of(engine, spec) for spec in specs]
    subnets = {IPv4Network((each["IPAddress"], int(each["IPPrefixLen"])), strict=False) for each in found}
    assert len(subnets) == 3
    assert all(subnet.prefixlen == 30 and subnet.subnet_of(POOL) for subnet in subnets)
    assert [each["name"] for each in found] == [f"{spec.name}-network" for spec in specs]


def test_a_stopped_one_finds_its_network_and_a_removed_one_leaves_none(engine: DockerPlace) -> None:
    spec = engine.spec()
    engine.runtime.ensure_running(spec)
    before = network_of(engine, spec)["NetworkID"]
    engine.runtime.ensure_stopped(spec.name, generation=spec.generation, grace=GRACE)
    engine.runtime.ensure_running(spec)
    assert network_of(engine, spec)["NetworkID"] == before
    engine.runtime.ensure_removed(spec.name)
    assert f"{spec.name}-network" not in networks_of(engine, spec.instance)


def test_a_container_whose_network_is_gone_is_replaced(engine: DockerPlace) -> None:
    spec = engine.spec()
    first = engine.runtime.ensure_running(spec)
    engine.runtime.ensure_stopped(spec.name, generation=spec.generation, grace=GRACE)
    engine.engine.remove_network(f"{spec.name}-network")
    second = engine.runtime.ensure_running(spec)
    assert second.alive
    assert second.container_id != first.container_id


def test_a_network_that_goes_just_before_the_start_is_made_anew(
    engine: DockerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when another worker counts it among those that nothing runs in."""
    spec, runtime = engine.spec(), engine.runtime
    start, taken = runtime._ask_to_start, list[str]()

    def late(name: str) -> None:
        if not taken:
            taken.append(name)
            engine.engine.remove_network(f"{name}-network")
        start(name)

    monkeypatch.setattr(runtime, "_ask_to_start", late)
    assert runtime.ensure_running(spec).alive
    assert taken == [spec.name]


def test_starts_at_once_of_one_workspace_make_one_network(engine: DockerPlace) -> None:
    """The engine lets several workers make one name each, and then starts nothing any more."""
    spec = engine.spec()
    instance = f"{spec.instance}-fresh"
    workers = [engine.runtime_of(instance) for _ in range(4)]
    for worker in workers:
        worker.ping()  # connects before the race, not in it
    wanted = rehash(spec, instance=instance)

    def start(worker: Runtime) -> bool:
        return worker.ensure_running(wanted).alive

    assert together(*[partial(start, worker) for worker in workers]) == [True] * 4
    assert networks_of(engine, instance) == [f"{spec.name}-network"]


def test_a_second_network_of_the_name_is_healed(engine: DockerPlace) -> None:
    spec = engine.spec()
    name = f"{spec.name}-network"
    for _ in range(2):
        engine.engine.create_network(name, labels={"gunpowder.instance": spec.instance})
    assert engine.runtime.ensure_running(spec).alive
    assert networks_of(engine, spec.instance).count(name) == 1


def test_a_network_whose_name_only_ends_like_ours_is_not_ours(engine: DockerPlace) -> None:
    spec = engine.spec()
    engine.engine.create_network(f"x-{spec.name}-network", labels={"gunpowder.instance": spec.instance})
    assert engine.runtime.ensure_running(spec).alive
    engine.runtime.ensure_removed(spec.name)
    assert f"x-{spec.name}-network" in networks_of(engine, spec.instance)


def test_a_network_of_somebody_elses_is_not_used(engine: DockerPlace) -> None:
    spec = engine.spec()
    theirs = engine.engine.create_network(f"{spec.name}-network", labels={"gunpowder.test": engine.instance})["Id"]
    try:
        with pytest.raises(StartRefused, match="stands in the way") as refused:
            engine.runtime.ensure_running(spec)
        assert refused.value.code == "network_name_taken"
        engine.runtime.ensure_removed(spec.name)
        assert engine.engine.inspect_network(theirs)["Id"] == theirs, "nor is it removed"
    finally:
        engine.engine.remove_network(theirs)
    assert engine.runtime.ensure_running(spec).alive


def test_somebody_else_in_the_network_is_put_out(engine: DockerPlace) -> None:
    """Or what a killed engine takes for somebody: the only address of the network is the workspace's."""
    spec = engine.spec()
    engine.runtime.ensure_running(spec)
    engine.runtime.ensure_stopped(spec.name, generation=spec.generation, grace=GRACE)
    with engine.foreign_container(f"{spec.name}-stranger") as stranger:
        engine.engine.start(stranger)
        engine.engine.connect_container_to_network(stranger, f"{spec.name}-network")
        assert engine.runtime.ensure_running(spec).alive
        there = engine.engine.inspect_container(stranger)["NetworkSettings"]["Networks"]
        assert f"{spec.name}-network" not in there
    found = engine.engine.inspect_network(f"{spec.name}-network")["Containers"]
    assert [each["Name"] for each in found.values()] == [spec.name]


@pytest.fixture
def room_for_two(engine: DockerPlace) -> Iterator[None]:
    """A pool of two subnets within which, so far, nobody has any."""
    networks = engine.runtime._networks
    networks._pool = room_of_its_own()
    yield
    networks._pool = POOL


@pytest.mark.usefixtures("room_for_two")
def test_taken_addresses_are_passed_over_and_a_full_pool_is_told(engine: DockerPlace) -> None:
    first, second, third = (engine.spec() for _ in range(3))
    for spec in (first, second):
        assert engine.runtime.ensure_running(spec).alive
    with pytest.raises(PassingRefusal, match="GUNPOWDER_NETWORKS"):
        engine.runtime.ensure_running(third)
    engine.runtime.ensure_removed(first.name)
    assert engine.runtime.ensure_running(third).alive
    for spec in (second, third):
        engine.runtime.ensure_removed(spec.name)


@pytest.mark.usefixtures("room_for_two")
def test_who_does_not_run_gives_way_where_there_is_no_room(engine: DockerPlace) -> None:
    first, second, third = (engine.spec() for _ in range(3))
    for spec in (first, second):
        engine.runtime.ensure_running(spec)
    engine.runtime.ensure_stopped(first.name, generation=first.generation, grace=GRACE)
    assert engine.runtime.ensure_running(third).alive
    assert engine.runtime.observe(second.name).alive
    with pytest.raises(PassingRefusal):
        engine.runtime.ensure_running(first)
    for spec in (first, second, third):
        engine.runtime.ensure_removed(spec.name)


def test_of_two_networks_of_one_name_the_one_in_use_stays(engine: DockerPlace) -> None:
    """One is older, but another was seen first, and a container started in it."""
    spec = engine.spec()
    name, labels = f"{spec.name}-network", {"gunpowder.instance": spec.instance}
    older, newer = (engine.engine.create_network(name, labels=labels)["Id"] for _ in range(2))
    with engine.foreign_container(f"{spec.name}-early") as early:
        engine.engine.start(early)
        engine.engine.connect_container_to_network(early, newer)
        engine.runtime._networks.ensure(spec.name)
        assert [network["Id"] for network in engine.engine.networks(names=[name])] == [newer]
    assert older != newer


def test_what_the_release_before_left_is_removed_when_nothing_runs_in_it(engine: DockerPlace) -> None:
    spec = engine.spec()
    instance = f"{spec.instance}-former"
    labels = {"gunpowder.instance": instance}
    engine.engine.create_network(f"{instance}-workspaces", labels=labels)
    runtime, wanted = engine.runtime_of(instance), rehash(spec, instance=instance)
    runtime.ensure_running(wanted)
    runtime.ensure_stopped(spec.name, generation=spec.generation, grace=GRACE)
    assert networks_of(engine, instance) == [f"{spec.name}-network"]


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({}, []),
        ({"a" * 64: {"Name": "stranger", "IPv4Address": "198.18.0.2/30"}}, [("a" * 64, "stranger")]),
        ({"ep-" + "b" * 64: {"Name": "user-7"}}, [("ep-" + "b" * 64, "user-7")]),  # its container is gone
        ({"ep-" + "b" * 64: {"Name": ""}, "c": None}, [("ep-" + "b" * 64, "ep-" + "b" * 64), ("c", "c")]),
    ],
    ids=["nobody", "stranger", "ghost", "nameless"],
)
def test_what_is_connected_is_disconnected_by_its_name(
    there: dict[str, dict[str, str]], expected: list[tuple[str, str]]
) -> None:
    assert docker_network.connected(there) == expected


def test_a_workspace_that_another_worker_started_meanwhile_is_not_put_out(engine: DockerPlace) -> None:
    spec = engine.spec()
    made = engine.runtime.ensure_running(spec)
    engine.runtime._networks.renew(spec.name)
    assert network_of(engine, spec)["IPAddress"]
    assert engine.runtime.observe(spec.name) == made


def test_networks_of_who_left_are_kept_to_a_few(engine: DockerPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_network, "KEPT", 1)
    monkeypatch.setattr(docker_network, "REMOVED_AT_ONCE", 1)
    base = engine.spec()
    instance = f"{base.instance}-trim"
    runtime = engine.runtime_of(instance)
    specs = [base, engine.spec(), engine.spec(), engine.spec()]
    wanted = [rehash(spec, instance=instance) for spec in specs]
    for spec in wanted:
        runtime.ensure_running(spec)
    stays = wanted[0]  # the oldest of all, and it runs
    # The one that was made first but stopped last is the one that is kept.
    for spec in (wanted[2], wanted[3], wanted[1]):
        runtime.ensure_stopped(spec.name, generation=spec.generation, grace=GRACE)
    assert networks_of(engine, instance) == sorted(f"{spec.name}-network" for spec in (stays, wanted[1]))
    assert runtime.observe(stays.name).alive
    for spec in wanted:
        assert runtime.ensure_running(spec).alive, "also whose network was removed"


def test_what_the_release_before_left_does_not_keep_the_others(
    engine: DockerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_network, "KEPT", 0)
    spec = engine.spec()
    instance = f"{spec.instance}-both"
    engine.engine.create_network(f"{instance}-workspaces", labels={"gunpowder.instance": instance})
    runtime, wanted = engine.runtime_of(instance), rehash(spec, instance=instance)
    runtime.ensure_running(wanted)
    runtime.ensure_stopped(spec.name, generation=spec.generation, grace=GRACE)
    assert networks_of(engine, instance) == []
    assert runtime.ensure_running(wanted).alive


def test_a_stop_does_not_fail_for_what_it_leaves(engine: DockerPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = engine.spec()
    engine.runtime.ensure_running(spec)

    def refuses(*_: object, **__: object) -> None:
        raise APIError("the engine is tired")

    monkeypatch.setattr(engine.runtime._engine.client, "networks", refuses)
    engine.runtime.ensure_stopped(spec.name, generation=spec.generation, grace=GRACE)
    assert not engine.runtime.observe(spec.name).alive
