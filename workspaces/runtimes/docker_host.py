"""What of the host a container is made to fit: its processors, its control groups, the disk that holds users' files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# All workspaces together, in a group of the kernel's beside the one in which the platform's containers are: however
# many they are, they weigh as much as that one group when both want the processors.
_GROUPS = {"cgroupfs": "/gunpowder", "systemd": "gunpowder.slice"}
SYS, MOUNTS = Path("/sys"), Path("/proc/self/mountinfo")


@dataclass(frozen=True, kw_only=True)
class Host:
    """What is known of the engine's machine, as far as containers are made to fit: 0 and "" are not known."""

    processors: int = 0
    group_driver: str = ""  # who makes its control groups: `cgroupfs` or `systemd`
    disk: str = ""  # the device on which users' files lie

    @classmethod
    def of(cls, info: dict[str, Any], *, disk: str = "") -> Host:
        """From the engine's answer to `/info`."""
        return cls(processors=int(info.get("NCPU") or 0), group_driver=str(info.get("CgroupDriver") or ""), disk=disk)

    @property
    def group(self) -> str:
        """The group of the kernel's for all workspaces."""
        return _GROUPS.get(self.group_driver, "")

    def share(self, cpus: float) -> float:
        """Of `cpus` processors what one workspace gets here: all but two, and on a small machine half, at most.

        Two that are never taken are what keeps others' waits short while one starts programs without end; measured in
        docs/adr/0008-neighbours.md. An editor starts as fast with one as with two.
        """
        if not self.processors:
            return cpus
        return min(cpus, max(self.processors / 2, self.processors - 2))


def disk_of(folder: Path, *, sys: Path = SYS, mounts: Path = MOUNTS) -> str:
    """The whole device that holds a folder, as `/dev/…` names it on the host; "" where none is found.

    A file system over the network or in memory has none. Of one over several devices it is the first that it names.
    """
    try:
        number = folder.stat().st_dev
        link = sys / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}"
        if os.major(number) == 0:  # a file system that numbers itself names its device as the source of its mount
            link = _named(_source(folder, mounts), sys / "class" / "block")
        found = link.resolve(strict=True)
    except OSError:
        return ""
    if (found / "partition").exists():  # limits are for whole devices
        found = found.parent
    return f"/dev/{found.name.replace('!', '/')}"


def _source(folder: Path, mounts: Path) -> str:
    """Where the mount that holds the folder comes from."""
    holds: tuple[int, str] = (0, "")
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        place, _, kind = line.partition(" - ")
        point = Path(place.split()[4])
        if folder.is_relative_to(point):  # of two at one place the later one is on top
            holds = max(holds, (len(point.parts), kind.split()[1]), key=lambda each: each[0])
    return holds[1]


def _named(source: str, devices: Path) -> Path:
    """The kernel's entry of a device. Raises FileNotFoundError where the source is none."""
    if not source.startswith("/dev/"):
        raise FileNotFoundError(source)
    name = source.removeprefix("/dev/mapper/")
    if name != source:  # the kernel has a number for each, and the name in a file
        for entry in devices.iterdir():
            mapped = entry / "dm" / "name"
            if mapped.exists() and mapped.read_text(encoding="utf-8").strip() == name:
                return entry
    return devices / source.removeprefix("/dev/").replace("/", "!")
