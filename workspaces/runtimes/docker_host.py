"""What of the host a container is made to fit: its processors, its control groups, the disk that holds users' files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

# All workspaces together, in a group of the kernel's beside the one in which the platform's containers are: however
# many they are, they weigh as much as that one group when both want the processors.
_GROUPS = {"cgroupfs": "/gunpowder", "systemd": "gunpowder.slice"}
# Timers count as memory of whoever made them from 5.15 on ("memcg: enable accounting for posix_timers_cache slab"), as
# messages in queues do for longer; but before 6.15 all timers of a host are looked up under one lock, which millions of
# them would keep busy ("posix-timers: Improve hash table performance").
_TAKES_MANY_TIMERS = (6, 15)
# As runc and crun say it.
_LIMIT_REFUSED = re.compile(r"rlimit.*(type (8|1[12])\b|MEMLOCK|SIGPENDING|MSGQUEUE)", re.IGNORECASE)
# Of the processors that it may use, what one workspace gets. With nine tenths of one that two share, starts beside
# somebody who starts programs without end took as long as on the quiet machine, with all of it 4 to 10 s.
_PAUSES = 0.9
SYS, MOUNTS = Path("/sys"), Path("/proc/self/mountinfo")


@dataclass(frozen=True, kw_only=True)
class Host:
    """What is known of the engine's machine, as far as containers are made to fit: 0 and "" are not known."""

    processors: int = 0
    numbers: tuple[int, ...] = ()  # of those processors, as the kernel has them
    group_driver: str = ""  # who makes its control groups: `cgroupfs` or `systemd`
    endless: bool = False  # whether what the kernel counts by user may be left to each workspace's memory
    disk: str = ""  # the device on which users' files lie

    @classmethod
    def of(cls, info: dict[str, Any], *, disk: str = "", mine: Iterable[int] = ()) -> Host:
        """From the engine's answer to `/info`.

        `mine` are the processors on which this process may run: the engine says only how many it has. Where they are
        not as many, which ones the engine has is not known.
        """
        processors, mine = int(info.get("NCPU") or 0), tuple(sorted(mine))
        return cls(
            processors=processors,
            numbers=mine if len(mine) == processors and info.get("CPUSet") else (),
            group_driver=str(info.get("CgroupDriver") or ""),
            endless=_release(info.get("KernelVersion")) >= _TAKES_MANY_TIMERS,
            disk=disk,
        )

    @property
    def group(self) -> str:
        """The group of the kernel's for all workspaces."""
        return _GROUPS.get(self.group_driver, "")

    def share(self, cpus: float) -> float:
        """Of `cpus` processors what one workspace gets here: all but two, and on a small machine half, at most.

        And a little less than those that it may use: whoever never has to pause holds locks of the kernel's for others.
        An editor starts as fast with one processor as with two; measured in docs/adr/0008-neighbours.md.
        """
        if not self.processors:
            return cpus
        return min(cpus, max(self.processors / 2, self.processors - 2), _PAUSES * max(self.processors - 1, 1))

    def processors_for(self, port: int) -> str:
        """The processors for the workspace at this port, as the kernel writes a set: never all of them; "" for any.

        Which one is left out goes by the port, so that all are left out by equally many. One that somebody's programs
        never come to is what keeps others' waits short, the platform's first.
        """
        if len(self.numbers) < 2:  # noqa: PLR2004 - who has one cannot leave one out
            return ""
        out = port % len(self.numbers)
        return ",".join(map(str, self.numbers[:out] + self.numbers[out + 1 :]))

    def still_fits(self, options: dict[str, Any], port: int) -> bool:
        """Whether a container made with these was made for this host as it is now; what is not known fits."""
        disks = {limit["Path"] for limit in options.get("BlkioDeviceWriteBps") or ()}
        if disks and self.disk and disks != {self.disk}:  # named anew since, as at a boot
            return False
        wanted = self.processors_for(port)
        return not wanted or options.get("CpusetCpus") == wanted

    def lost_by(self, other: Host) -> list[str]:
        """What this host has and the other one does not, by name."""
        return [each.name for each in fields(self) if getattr(self, each.name) != getattr(other, each.name)]

    def without(self, refused: str) -> Host | None:
        """The host as it turns out when the engine refuses a start like this; None where that says nothing of it."""
        # An engine that is itself in a container may not see the device.
        if self.disk and f"stat {self.disk}: " in refused:
            return replace(self, disk="")
        # One without the kernel's right to raise limits, as within most containers.
        if self.endless and _LIMIT_REFUSED.search(refused):
            return replace(self, endless=False)
        # Taken away since; the engine may not have noticed, and then the kernel says so.
        if self.numbers and ("CPUs are not available" in refused or "cpuset.cpus" in refused):
            return replace(self, numbers=())
        return None


def memory_of(proc: Path) -> int | None:
    """Bytes that programs could still have, by the kernel's estimate; a container's /proc shows the host's memory."""
    try:
        lines = (proc / "meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _release(version: object) -> tuple[int, ...]:
    """Major and minor number of a kernel; () where there is none to be read."""
    found = re.match(r"(\d+)\.(\d+)", str(version or ""))
    return tuple(map(int, found.groups())) if found else ()


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
