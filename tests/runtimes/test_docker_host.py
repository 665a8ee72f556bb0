"""On which device a folder lies, in a tree that looks like the kernel's."""

from __future__ import annotations

import os
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest

from workspaces.runtimes.docker_host import disk_of

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
