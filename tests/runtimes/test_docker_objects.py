"""The engine's words and ours; pure."""

from __future__ import annotations

from typing import Any

import pytest

from workspaces.runtimes.base import Endpoint, Phase, WorkspaceSpec
from workspaces.runtimes.docker_objects import container_config, from_inspect, from_list, network_config

SPEC = WorkspaceSpec(
    name="code-server-user-7",
    user_id=7,
    instance="mine",
    generation=3,
    image="gunpowder/workspace:1",
    endpoint=Endpoint(host="127.0.0.1", port=9007),
    memory=2**30,
    cpus=1.5,
    pids=512,
    stop_grace=10,
    secret="hush",
    hash="abc",
)
LABELS = {
    "gunpowder.workspace": "7",
    "gunpowder.instance": "mine",
    "gunpowder.spec": "abc",
    "gunpowder.generation": "3",
}


def test_nothing_but_the_reviewed_options_is_asked_for() -> None:
    """A new option is a decision; it shows here."""
    config = container_config(SPEC, host_root="/srv/w")
    assert set(config) == {
        "Image",
        "User",
        "Hostname",
        "Env",
        "Labels",
        "ExposedPorts",
        "StopSignal",
        "StopTimeout",
        "HostConfig",
    }
    host = config["HostConfig"]
    assert not {"Binds", "CapAdd", "Devices", "PidMode", "VolumesFrom", "ExtraHosts", "Links"} & set(host)
    assert (host["CapDrop"], host["SecurityOpt"]) == (["ALL"], ["no-new-privileges"])
    assert (host["Privileged"], host["ReadonlyRootfs"]) == (False, True)
    assert host["Memory"] == host["MemorySwap"]
    assert host["PortBindings"] == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "9007"}]}
    assert [(mount["Type"], mount["Source"], mount["Target"]) for mount in host["Mounts"]] == [
        ("bind", "/srv/w/home_7", "/home/coder"),
        ("bind", "/srv/w/user_7", "/home/coder/workspace"),
    ]
    assert config["Labels"] == LABELS


def test_containers_cannot_talk_to_each_other() -> None:
    config = network_config("mine")
    assert config["name"] == "mine-workspaces"
    assert config["options"]["com.docker.network.bridge.enable_icc"] == "false"
    assert config["labels"] == {"gunpowder.instance": "mine"}


def _inspect(status: str, **state: Any) -> dict[str, Any]:
    return {
        "Id": "id",
        "State": {"Status": status, **state},
        "Config": {"Labels": LABELS, "Image": "image"},
        "HostConfig": {"PortBindings": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "9007"}]}},
    }


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("created", Phase.CREATED),
        ("restarting", Phase.CREATED),
        ("running", Phase.RUNNING),
        ("paused", Phase.PAUSED),
        ("exited", Phase.EXITED),
        ("removing", Phase.REMOVING),
        ("dead", Phase.REMOVING),
        ("a word of tomorrow", Phase.CREATED),
    ],
)
def test_every_status_is_a_phase(status: str, phase: Phase) -> None:
    seen = from_inspect("n", _inspect(status, ExitCode=5), instance="mine")
    assert seen.phase is phase
    assert (seen.endpoint is not None) == seen.alive
    assert seen.exit_code == (5 if phase is Phase.EXITED else None)


def test_another_instances_container_is_nobodys() -> None:
    seen = from_inspect("n", _inspect("running"), instance="another")
    assert (seen.user_id, seen.spec_hash) == (None, "")


@pytest.mark.parametrize("forged", ["", "x", "-1", "\u0667", "1.5", " 7"])
def test_a_forged_label_names_nobody(forged: str) -> None:
    found = _inspect("running")
    found["Config"]["Labels"] = LABELS | {"gunpowder.workspace": forged, "gunpowder.generation": forged}
    seen = from_inspect("n", found, instance="mine")
    assert (seen.user_id, seen.generation) == (None, 0)


@pytest.mark.parametrize("labels", [None, {}])
def test_a_container_without_labels_is_nobodys(labels: Any) -> None:
    found = _inspect("running", OOMKilled=True)
    found["Config"]["Labels"] = labels
    seen = from_inspect("n", found, instance="mine")
    assert (seen.user_id, seen.out_of_memory) == (None, True)


def test_an_entry_of_the_list_is_read_too() -> None:
    entry = {
        "Id": "id",
        "Names": ["/code-server-user-7"],
        "State": "running",
        "Labels": LABELS,
        "Image": "image",
        "Ports": [{"PrivatePort": 22}, {"IP": "127.0.0.1", "PrivatePort": 8080, "PublicPort": 9007}],
    }
    seen = from_list(entry, instance="mine")
    assert (seen.name, seen.user_id, seen.endpoint) == ("code-server-user-7", 7, Endpoint(host="127.0.0.1", port=9007))
    vanishing = from_list({"Id": "id", "Names": None, "State": "removing"}, instance="mine")
    assert (vanishing.name, vanishing.phase, vanishing.user_id) == ("id", Phase.REMOVING, None)
