"""The engine's words and ours; pure."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Network
from typing import Any

import pytest

from workspaces.runtimes.base import Endpoint, Phase, WorkspaceSpec
from workspaces.runtimes.docker_host import Host
from workspaces.runtimes.docker_objects import (
    container_config,
    foreground_commands,
    from_inspect,
    from_list,
    network_config,
    secret_of,
)

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
    disk_write=64 * 2**20,
    disk_writes=2000,
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
    config = container_config(SPEC, host_root="/srv/w", host=Host(processors=8, group_driver="cgroupfs"))
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
    *folders, terminals = host["Mounts"]
    assert [(mount["Type"], mount["Source"], mount["Target"]) for mount in folders] == [
        ("bind", "/srv/w/home_7", "/home/coder"),
        ("bind", "/srv/w/user_7", "/home/coder/workspace"),
        ("bind", "/srv/w/notice_7", "/run/gunpowder-status"),
    ]
    assert [mount.get("ReadOnly", False) for mount in folders] == [False, False, True]
    assert (terminals["Type"], terminals["Target"], "Source" in terminals) == ("volume", "/dev/pts", False)
    assert "max=256" in terminals["VolumeOptions"]["DriverConfig"]["Options"]["o"].split(",")
    assert host["Init"] is False, "the image's own first process keeps the log from being flooded"
    assert set(host["Tmpfs"]) == {"/tmp", "/run", "/run/gunpowder"}  # noqa: S108 - inside the container
    assert "noexec" in host["Tmpfs"]["/run/gunpowder"]
    assert "size=256k" in host["Tmpfs"]["/run/gunpowder"]
    assert config["Labels"] == LABELS


@pytest.mark.parametrize(
    ("processors", "wanted", "given"),
    [(1, 2, 0.5), (2, 2, 0.9), (2, 0.5, 0.5), (3, 2, 1.5), (4, 2, 2), (4, 8, 2), (8, 8, 6), (64, 64, 56.7), (0, 2, 2)],
)
def test_no_workspace_gets_all_of_the_hosts_processors(processors: int, wanted: float, given: float) -> None:
    host = Host.of({"NCPU": processors, "CgroupDriver": "cgroupfs"})
    config = container_config(dataclasses.replace(SPEC, cpus=wanted), host_root="/srv/w", host=host)
    assert config["HostConfig"]["NanoCpus"] == given * 1e9


@pytest.mark.parametrize("endless", [True, False])
def test_timers_and_queues_are_left_to_memory_where_they_can_be(*, endless: bool) -> None:
    limits = container_config(SPEC, host_root="/srv/w", host=Host(endless=endless))["HostConfig"]["Ulimits"]
    assert [limit["Name"] for limit in limits] == [
        "nofile",
        "core",
        *(["sigpending", "msgqueue", "memlock"] if endless else []),
    ]


@pytest.mark.parametrize(
    ("driver", "group"), [("cgroupfs", "/gunpowder"), ("systemd", "gunpowder.slice"), ("none", ""), (None, "")]
)
def test_all_workspaces_together_are_one_group_beside_the_platforms(driver: str | None, group: str) -> None:
    config = container_config(SPEC, host_root="/srv/w", host=Host.of({"NCPU": 2, "CgroupDriver": driver}))
    assert config["HostConfig"]["CgroupParent"] == group


@pytest.mark.parametrize(
    ("disk", "write", "writes", "asked"),
    [
        ("/dev/vda", 2**26, 2000, {"BlkioDeviceWriteBps": 2**26, "BlkioDeviceWriteIOps": 2000}),
        ("/dev/vda", 2**26, 0, {"BlkioDeviceWriteBps": 2**26}),
        ("/dev/vda", 0, 2000, {"BlkioDeviceWriteIOps": 2000}),
        ("/dev/vda", 0, 0, {}),
        ("", 2**26, 2000, {}),
    ],
)
def test_what_a_workspace_writes_to_the_disk_is_bounded(
    disk: str, write: int, writes: int, asked: dict[str, int]
) -> None:
    spec = dataclasses.replace(SPEC, disk_write=write, disk_writes=writes)
    found = container_config(spec, host_root="/srv/w", host=Host.of({"NCPU": 2}, disk=disk))["HostConfig"]
    limits = {name: value for name, value in found.items() if name.startswith("Blkio")}
    assert limits == {name: [{"Path": disk, "Rate": rate}] for name, rate in asked.items()}


def test_containers_cannot_talk_to_each_other() -> None:
    config = network_config("mine-user-7-network", instance="mine", subnet=IPv4Network("198.18.0.8/30"))
    assert config["name"] == "mine-user-7-network"
    assert config["ipam"]["Config"] == [{"Subnet": "198.18.0.8/30"}]
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


TITLES = ["PID", "PPID", "PGID", "TPGID", "TT", "COMMAND"]


def _foreground(*rows: str) -> tuple[str, ...]:
    """Rows as `ps` writes them: process, parent, group, the terminal's foreground group, terminal, name."""
    return foreground_commands({"Titles": TITLES, "Processes": [row.split(None, 5) for row in rows]})


NO_TERMINAL = ("100 1 100 -1 ? tini", "101 1 101 -1 ? node", "102 1 101 -1 ? node")


def test_without_a_terminal_there_is_no_foreground() -> None:
    assert _foreground(*NO_TERMINAL) == ()


@pytest.mark.parametrize("program", ["bash", "zsh", "less", "vim", "htop", "tmux: client"])
def test_what_waits_for_a_person_is_no_command(program: str) -> None:
    assert _foreground(*NO_TERMINAL, "200 1 200 300 pts/0 bash", f"300 1 300 300 pts/0 {program}") == ()
    assert _foreground(f"200 1 200 200 pts/0 {program}") == ()


def test_a_command_in_the_foreground_is_one_and_a_background_job_is_none() -> None:
    jobs = ("250 1 250 300 pts/0 wget", "300 1 300 300 pts/0 make", "301 1 300 300 pts/0 cc1")
    assert _foreground("200 1 200 300 pts/0 bash", *jobs) == ("cc1", "make")


def test_a_script_that_a_shell_runs_counts_by_what_it_runs() -> None:
    rows = ("200 1 200 300 pts/0 bash", "300 1 300 300 pts/0 bash", "301 1 300 300 pts/0 sleep")
    assert _foreground(*rows) == ("sleep",)


@pytest.mark.parametrize("waits", ["less", "nano"])
def test_what_waits_for_its_pager_or_editor_waits_for_a_person(waits: str) -> None:
    """`git log`, and `git commit`, which has a shell start the editor."""
    git = ("200 1 200 300 pts/0 bash", "300 200 300 300 pts/0 git")
    assert _foreground(*git, f"301 300 300 300 pts/0 {waits}") == ()
    assert _foreground(*git, "301 300 300 300 pts/0 sh", f"302 301 300 300 pts/0 {waits}") == ()


def test_a_build_whose_output_is_read_in_a_pager_is_at_work() -> None:
    rows = ("200 1 200 300 pts/0 bash", "300 200 300 300 pts/0 make", "301 200 300 300 pts/0 less")
    assert _foreground(*rows) == ("make",)


def test_a_task_of_the_editor_leads_its_own_terminal() -> None:
    assert _foreground("400 1 400 400 pts/3 npm run build") == ("npm run build",)


def test_commands_of_several_terminals_are_told_once_each_in_order() -> None:
    rows = ("300 1 300 300 pts/0 pytest", "301 1 301 301 pts/1 pytest", "302 1 302 302 pts/2 cargo")
    assert _foreground(*rows) == ("cargo", "pytest")


def test_a_name_that_a_process_gave_itself_is_cut_and_cleaned() -> None:
    evil = ["1", "0", "1", "1", "pts/0", "\x1b[31mevil" + "x" * 99]
    found = foreground_commands({"Titles": TITLES, "Processes": [evil]})
    assert found == ("?[31mevilxxxxxx",)


@pytest.mark.parametrize("answer", [{}, {"Titles": ["PID", "CMD"], "Processes": [["1", "x"]]}, {"Titles": None}])
def test_an_answer_of_another_form_is_no_answer(answer: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="unexpected columns"):
        foreground_commands(answer)


def test_the_inner_secret_is_found_again() -> None:
    config = container_config(SPEC, host_root="/srv/w", host=Host())
    assert secret_of({"Config": config}) == "hush"
    assert secret_of({"Config": {"Env": ["PATH=/bin", "EMPTY"]}}) == ""
    assert secret_of({"Config": {"Env": None}}) == ""
