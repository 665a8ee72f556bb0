"""What is known of a host: its processors, its kernel, and on which device a folder lies."""

from __future__ import annotations

import dataclasses
import os
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest

from workspaces.runtimes.docker_host import Host, disk_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def sys(tmp_path: Path) -> Path:
    root = tmp_path / "sys"
    for device in ("pci/block/sda", "pci/block/sda/sda1", "virtual/block/dm-0", "pci/block/cciss!c0d0"):
        (root / "devices" / device).mkdir(parents=True)
    (root / "devices/pci/block/sda/sda1/partition").write_text("1\n")
    for kind in ("dev/block", "class/block"):
        (root / kind).mkdir(parents=True)
    (root / "devices/virtual/block/dm-0/dm").mkdir()
    (root / "devices/virtual/block/dm-0/dm/name").write_text("vg-lv\n")
    for name in ("pci/block/sda", "pci/block/sda/sda1", "virtual/block/dm-0"):
        (root / "class/block" / name.rpartition("/")[2]).symlink_to(root / "devices" / name)
    return root


class Folder(PurePosixPath):
    """A folder on some device."""

    number: int

    def on(self, major: int, minor: int) -> Folder:
        self.number = os.makedev(major, minor)
        return self

    def stat(self) -> os.stat_result:
        return os.stat_result([0, 0, self.number, 0, 0, 0, 0, 0, 0, 0])


PLACE = "/app/workspace"


@pytest.mark.parametrize(
    ("number", "device", "expected"),
    [
        ((8, 0), "pci/block/sda", "/dev/sda"),
        ((8, 1), "pci/block/sda/sda1", "/dev/sda"),  # limits are for whole devices
        ((252, 0), "virtual/block/dm-0", "/dev/dm-0"),
        ((104, 0), "pci/block/cciss!c0d0", "/dev/cciss/c0d0"),
        ((9, 9), None, ""),
    ],
)
def test_the_device_is_found_by_its_number(
    sys: Path, tmp_path: Path, number: tuple[int, int], device: str | None, expected: str
) -> None:
    if device:
        (sys / "dev/block" / "{}:{}".format(*number)).symlink_to(sys / "devices" / device)
    assert disk_of(Folder(PLACE).on(*number), sys=sys, mounts=tmp_path) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mount", "expected"),
    [
        # Of a subvolume `stat` tells another number than the mount has.
        ("30 1 0:44 /@/srv /app/workspace rw shared:1 - btrfs /dev/sda1 rw", "/dev/sda"),
        ("30 1 0:44 /@/srv /app rw shared:1 - btrfs /dev/sda1 rw", "/dev/sda"),
        ("30 1 0:44 / /app/workspace rw - btrfs /dev/mapper/vg-lv rw", "/dev/dm-0"),
        ("30 1 0:44 / /app/workspace rw - btrfs /dev/mapper/other rw", ""),
        ("30 1 0:44 / /app/workspace rw - nfs4 server:/export rw", ""),
        ("30 1 0:44 / /app/workspace rw - tmpfs tmpfs rw", ""),
        ("30 1 0:44 / /app/workspace rw - zfs tank/home rw", ""),
        ("30 1 0:44 / /app/workspaces rw - btrfs /dev/sda1 rw", ""),
    ],
)
def test_a_file_system_that_numbers_itself_says_its_device_where_it_is_mounted(
    sys: Path, tmp_path: Path, mount: str, expected: str
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 0 0:2 / / rw - overlay overlay rw\n{mount}\n")
    assert disk_of(Folder(PLACE).on(0, 52), sys=sys, mounts=mounts) == expected  # type: ignore[arg-type]


def test_what_is_not_there_lies_nowhere(tmp_path: Path) -> None:
    assert disk_of(tmp_path / "no such folder") == ""
    assert disk_of(tmp_path, sys=tmp_path / "no such tree") == ""


@pytest.mark.parametrize(
    ("numbers", "port", "expected"),
    [
        ((0, 1), 9000, "1"),
        ((0, 1), 9001, "0"),
        ((0, 1, 2, 3), 9001, "0,2,3"),
        ((4, 6), 9000, "6"),  # the engine itself may have been given a part of the machine
        ((0,), 9000, ""),
        ((), 9000, ""),
    ],
)
def test_a_workspace_is_kept_from_one_processor(numbers: tuple[int, ...], port: int, expected: str) -> None:
    assert Host(processors=len(numbers), numbers=numbers).processors_for(port) == expected


@pytest.mark.parametrize("processors", [2, 3, 4, 16, 64])
def test_every_processor_is_left_out_by_equally_many(processors: int) -> None:
    host = Host.of({"NCPU": processors, "CPUSet": True}, mine=range(processors))
    everything = set(map(str, range(processors)))
    out = [everything - set(host.processors_for(port).split(",")) for port in range(11000, 11000 + 10 * processors)]
    assert all(out.count({name}) == 10 for name in everything)


@pytest.mark.parametrize(
    ("info", "mine", "expected"),
    [
        ({"NCPU": 2, "CPUSet": True}, {1, 0}, (0, 1)),
        ({"NCPU": 4, "CPUSet": True}, {0, 1}, ()),  # the worker sees others than the engine
        ({"NCPU": 2, "CPUSet": False}, {0, 1}, ()),
        ({"NCPU": 2}, {0, 1}, ()),
        ({}, set(), ()),
    ],
)
def test_processors_are_known_when_engine_and_worker_agree(
    info: dict[str, object], mine: set[int], expected: tuple[int, ...]
) -> None:
    assert Host.of(info, mine=mine).numbers == expected


@pytest.mark.parametrize("processors", [2, 3, 4, 16, 64])
def test_whoever_takes_all_of_their_share_has_to_pause(processors: int) -> None:
    """Who never pauses on their processors keeps locks of the kernel's that others' starts wait for."""
    host = Host.of({"NCPU": processors, "CPUSet": True}, mine=range(processors))
    assert host.share(64) <= 0.9 * len(host.processors_for(9000).split(","))


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({"CpusetCpus": "1"}, True),
        ({"CpusetCpus": "1", "BlkioDeviceWriteBps": None}, True),
        ({"CpusetCpus": "1", "BlkioDeviceWriteBps": [{"Path": "/dev/vda", "Rate": 1}]}, True),
        ({}, False),  # there was one
        ({"CpusetCpus": ""}, False),
        ({"CpusetCpus": "0"}, False),
        ({"CpusetCpus": "1,2,3"}, False),  # there were four
        ({"CpusetCpus": "1", "BlkioDeviceWriteBps": [{"Path": "/dev/vdb", "Rate": 1}]}, False),
    ],
)
def test_a_container_of_another_host_is_not_used_again(*, options: dict[str, object], fits: bool) -> None:
    assert Host(processors=2, numbers=(0, 1), disk="/dev/vda").still_fits(options, 9000) is fits
    assert Host().still_fits(options, 9000), "what is not known is no reason"


@pytest.mark.parametrize(
    ("version", "endless"),
    [
        ("6.18.44-fc", True),
        ("6.15.0-rc1", True),
        ("6.14.0-28-generic", False),
        ("5.15.0-91-generic", False),
        ("4.18.0", False),
        ("unknown", False),
        ("", False),
        (None, False),
    ],
)
def test_timers_are_left_to_memory_where_the_kernel_bears_many(*, version: str | None, endless: bool) -> None:
    assert Host.of({"KernelVersion": version}).endless is endless


@pytest.mark.parametrize(
    ("refused", "learnt"),
    [
        ("error gathering device information while adding custom device: stat /dev/vda: no such file", {"disk": ""}),
        ("container init: error setting rlimits for ready process: error setting rlimit type 11", {"endless": False}),
        ("container init: error setting rlimits for ready process: error setting rlimit type 8", {"endless": False}),
        ("crun: setrlimit `RLIMIT_MEMLOCK`: Operation not permitted", {"endless": False}),
        ("setrlimit `RLIMIT_SIGPENDING`: Operation not permitted", {"endless": False}),
        ("setrlimit `RLIMIT_MSGQUEUE`: Operation not permitted", {"endless": False}),
        ("Requested CPUs are not available - requested 1, available: 0", {"numbers": ()}),
        ("failed to write 1: write /sys/fs/cgroup/cpuset/x/cpuset.cpus: permission denied", {"numbers": ()}),
    ],
)
def test_what_an_engine_refuses_is_not_asked_again(refused: str, learnt: dict[str, Any]) -> None:
    host = Host(disk="/dev/vda", endless=True, numbers=(0, 1))
    known = host.without(refused)
    assert known == dataclasses.replace(host, **learnt)
    assert known.without(refused) is None, "or a start would be tried for ever"
    assert host.lost_by(known) == list(learnt)
    for other in ("no space left on device", "error setting rlimit type 7: operation not permitted"):
        assert host.without(other) is None
