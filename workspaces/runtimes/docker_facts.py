"""What the doctor is told about a Docker host: pure functions over what the engine and the kernel say.

Every figure has its source beside it; every sentence says what to do.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

from workspaces import naming
from workspaces.runtimes.base import Fact, Verdict
from workspaces.runtimes.docker_objects import SUBNET_BITS
from workspaces.runtimes.kernel_limits import kernel_fact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from workspaces.runtimes.docker_host import Host

# The oldest engine that this was tried with; older ones have no BuildKit by default and no cgroup 2.
OLDEST_ENGINE = (20, 10)
# Redis, Postgres and cookies count in seconds; NTP keeps a machine within a tenth of one.
CLOCK_SECONDS = 2
WIDEST_PLACE = 8  # bits; a route that is wider is a way to everywhere
FULL, NEARLY_FULL = 0.05, 0.15  # what is left of a disk, of file handles, of process ids

_NEEDED = {
    "MemoryLimit": "memory",
    "CpuCfsQuota": "processors",
    "PidsLimit": "processes",
}


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A counter of the kernel and its end."""

    used: int
    of: int

    @property
    def left(self) -> float:
        return 1 - self.used / self.of if self.of else 1.0


def engine_facts(info: Mapping[str, Any], *, asked_at: datetime, answered_at: datetime) -> list[Fact]:
    """From the engine's answer to `/info`; fields that an engine does not have are passed over."""
    facts = [
        _version(str(info.get("ServerVersion", ""))),
        _clock(str(info.get("SystemTime", "")), asked_at=asked_at, answered_at=answered_at),
    ]
    missing = [name for field, name in _NEEDED.items() if info.get(field) is False]
    facts.append(
        Fact(
            what="engine limits",
            verdict=Verdict.WRONG,
            sentence=f"the engine cannot limit {', '.join(missing)}: one workspace can take all of the host's. Turn on "
            "the kernel's control groups for them (`docker info` prints what is missing)",
        )
        if missing
        else Fact(what="engine limits", verdict=Verdict.OK, sentence="memory, processors and processes can be limited")
    )
    if not any(_filters(str(option)) for option in info.get("SecurityOptions") or ()):
        sentence = (
            "the engine filters no system calls (no seccomp): a kernel or an engine without it is not safe enough"
        )
        facts.append(Fact(what="engine security", verdict=Verdict.WRONG, sentence=sentence))
    else:
        facts.append(Fact(what="engine security", verdict=Verdict.OK, sentence="system calls are filtered (seccomp)"))
    facts.append(
        Fact(what="engine restarts", verdict=Verdict.OK, sentence="containers outlive a restart of the engine")
        if info.get("LiveRestoreEnabled")
        else Fact(
            what="engine restarts",
            verdict=Verdict.ADVICE,
            sentence="a restart of the engine ends every editor (files are kept, the next visit starts it again); "
            '`"live-restore": true` in /etc/docker/daemon.json avoids that',
        )
    )
    return facts


def _filters(option: str) -> bool:
    return "name=seccomp" in option and "unconfined" not in option


def _version(text: str) -> Fact:
    numbers = tuple(
        int(part) for part in text.split("+", maxsplit=1)[0].split("-", maxsplit=1)[0].split(".")[:2] if part.isdigit()
    )
    if len(numbers) == len(OLDEST_ENGINE) and numbers < OLDEST_ENGINE:
        oldest = ".".join(map(str, OLDEST_ENGINE))
        sentence = f"Docker {text} is older than {oldest}, the oldest that this was tried with; update it"
        return Fact(what="engine version", verdict=Verdict.WRONG, sentence=sentence)
    return Fact(what="engine version", verdict=Verdict.OK, sentence=f"Docker {text or 'of unknown version'}")


def _clock(text: str, *, asked_at: datetime, answered_at: datetime) -> Fact:
    try:
        # The engine writes nanoseconds, of which Python reads the first six digits.
        there = datetime.fromisoformat(text)
    except ValueError:
        return Fact(what="engine clock", verdict=Verdict.ADVICE, sentence="the engine does not tell its time")
    apart = max(asked_at - there, there - answered_at).total_seconds()
    if apart > CLOCK_SECONDS:
        sentence = f"the engine's clock is {apart:.0f} s away from this process's; turn on NTP on both machines"
        return Fact(what="engine clock", verdict=Verdict.WRONG, sentence=sentence)
    return Fact(what="engine clock", verdict=Verdict.OK, sentence="agrees with this process's")


def image_fact(image: str, found: Mapping[str, Any] | None) -> Fact:
    """Of the image that workspaces are made from, as the engine describes it; None where it has none of that name."""
    if found is None:
        sentence = f"{image} is not on the Docker host: no workspace can be made. `make up` builds it; else correct "
        return Fact(what="image", verdict=Verdict.WRONG, sentence=f"{sentence}GUNPOWDER_WORKSPACE_IMAGE")
    first = [*((found.get("Config") or {}).get("Entrypoint") or ()), ""][0]
    if first != str(naming.FIRST_PROCESS):
        sentence = (
            f"{image} begins with {first or 'nothing of its own'} and not with {naming.FIRST_PROCESS}: whoever writes "
            "into a workspace's log without end keeps the engine busy. Build it FROM the workspace image, and leave "
            "its ENTRYPOINT as it is"
        )
        return Fact(what="image", verdict=Verdict.WRONG, sentence=sentence)
    identifier = str(found.get("Id", "")).removeprefix("sha256:")[:12]
    return Fact(what="image", verdict=Verdict.OK, sentence=f"{image} is there ({identifier})")


def processors_fact(host: Host, options: Mapping[str, Any] | None) -> Fact:
    """Whether one workspace can have all processors busy. `options` of the one made last, None where there is none."""
    if host.processors_for(0) and options is not None and not options.get("CpusetCpus"):
        sentence = (
            "the workspace made last may come to all of them, and others wait for their turn: it is older than this "
            "release and gets its own at its next start, or the engine refuses them (`host_cannot` in the log)"
        )
    elif host.processors_for(0):
        sentence = f"each workspace leaves one of the {host.processors} alone"
        return Fact(what="processors", verdict=Verdict.OK, sentence=sentence)
    elif host.processors == 1:
        sentence = "this host has one: a workspace that is busy makes all others, and the platform, wait for their turn"
    else:
        sentence = (
            "which ones the engine has is not known here (its kernel has no cpuset group, or the worker may not run on "
            "all of them): a workspace that is busy may come to all of them, and others wait for their turn"
        )
    return Fact(what="processors", verdict=Verdict.ADVICE, sentence=sentence)


def counts_fact(host: Host, options: Mapping[str, Any] | None) -> Fact:
    """Of what the kernel counts by user: whether one workspace can use it up. `options` of the one made last."""
    what, verdict = "timers and queues", Verdict.ADVICE
    asked = {str(limit["Name"]) for limit in (options or {}).get("Ulimits") or ()}
    if not host.endless:
        sentence = (
            "this kernel is not known to be 6.15 or newer, and older ones do not bear many timers, so all workspaces "
            "share one limit of them: who takes all leaves none to others. An editor uses none"
        )
    elif options is not None and "sigpending" not in asked:
        sentence = (
            "all workspaces share one limit of POSIX timers, one of message queues and one of locked shared memory: "
            "who takes all leaves none to others. An editor uses none. The engine may not raise them, as within a "
            "container; or the workspace made last is older than this release"
        )
    else:
        verdict, sentence = Verdict.OK, "bounded by each workspace's memory, if the engine may raise their limits"
        if options is not None:
            sentence = "bounded by each workspace's memory"
    return Fact(what=what, verdict=verdict, sentence=sentence)


def host_facts(proc: Path, *, workspaces: int) -> list[Fact]:
    """What the kernel has left. `proc` is the host's: a container sees these of it."""
    facts = [kernel_fact(proc, workspaces=workspaces)]
    handles = _numbers(proc / "sys/fs/file-nr")
    if len(handles) == 3:  # noqa: PLR2004 - used, free, most: see proc_sys_fs(5)
        facts.append(_left("file handles", Limit(used=handles[0] - handles[1], of=handles[2]), "fs.file-max"))
    most = _numbers(proc / "sys/kernel/pid_max") + _numbers(proc / "sys/kernel/threads-max")
    running = _threads(proc)
    if most and running is not None:
        facts.append(_left("processes", Limit(used=running, of=min(most)), "kernel.pid_max and kernel.threads-max"))
    return facts


def _left(what: str, limit: Limit, names: str) -> Fact:
    sentence = f"{limit.used} of {limit.of} in use"
    if limit.left < NEARLY_FULL:
        verdict = Verdict.WRONG if limit.left < FULL else Verdict.ADVICE
        return Fact(what=what, verdict=verdict, sentence=f"{sentence}; raise {names}, or find what holds so many")
    return Fact(what=what, verdict=Verdict.OK, sentence=sentence)


def disk_fact(root: Path) -> Fact:
    """Blocks and inodes of the disk that holds the workspaces."""
    try:
        found = os.statvfs(root)
    except OSError as error:
        sentence = f"{root} cannot be read ({error.strerror}); is GUNPOWDER_WORKSPACE_ROOT mounted in the worker?"
        return Fact(what="disk", verdict=Verdict.WRONG, sentence=sentence)
    space = found.f_bavail / found.f_blocks if found.f_blocks else 1.0
    files = found.f_favail / found.f_files if found.f_files else 1.0
    free = f"{found.f_bavail * found.f_frsize / 2**30:.1f} GB ({space:.0%})"
    if min(space, files) < NEARLY_FULL:
        verdict = Verdict.WRONG if min(space, files) < FULL else Verdict.ADVICE
        what = free if space <= files else f"{files:.0%} of the inodes"
        return Fact(
            what="disk", verdict=verdict, sentence=f"only {what} are left below {root}; free some or enlarge it"
        )
    return Fact(what="disk", verdict=Verdict.OK, sentence=f"{free} free below {root}")


def writes_fact(info: Mapping[str, Any], disk: str) -> Fact:
    """Whether the kernel can bound what a workspace writes to the disk, as the settings ask."""
    verdict = Verdict.ADVICE
    if not disk:
        sentence = (
            "the disk that users' files lie on was not found (a network's, one in memory, or a pool of several): what "
            "a workspace writes there is not bounded"
        )
    elif any("blkio throttle.write" in str(line) or "io.max (w" in str(line) for line in info.get("Warnings") or ()):
        sentence = f"the engine cannot bound what workspaces write to {disk}; `docker info` says what is missing"
    elif str(info.get("CgroupVersion") or "1") == "1":
        sentence = (
            f"of what workspaces write to {disk} only what programs wait for (`fsync`) can be bounded: this host has "
            "version 1 of the kernel's control groups. With version 2 all of it can"
        )
    else:
        verdict, sentence = Verdict.OK, f"what workspaces write to {disk} can be bounded"
    return Fact(what="disk writes", verdict=verdict, sentence=sentence)


def networks_fact(proc: Path, pool: IPv4Network) -> Fact:
    """Whether workspaces' addresses are nobody else's on this host, as its table of routes tells."""
    what = "networks"
    routes = _routes(proc / "net/route")
    if routes is None:
        return Fact(what=what, verdict=Verdict.ADVICE, sentence="the host's routes cannot be read here")
    taken = sorted({str(route) for device, route in routes if route.overlaps(pool) and not _expected(device, route)})
    if taken:
        sentence = (
            f"the host reaches {_some(taken)} elsewhere, and workspaces get addresses of {pool}: what lies there may "
            "be out of its reach while they run. Give GUNPOWDER_NETWORKS others"
        )
        return Fact(what=what, verdict=Verdict.WRONG, sentence=sentence)
    room = 2 ** (SUBNET_BITS - pool.prefixlen)
    sentence = f"{pool} has room for {room} workspaces at once, and is nowhere else in the main table of routes"
    return Fact(what=what, verdict=Verdict.OK, sentence=sentence)


def _expected(device: str, route: IPv4Network) -> bool:
    """Ways to everywhere, also in halves as a tunnel has them, and the networks of workspaces."""
    return route.prefixlen < WIDEST_PLACE or (route.prefixlen == SUBNET_BITS and device.startswith("br-"))


def _routes(file: Path) -> list[tuple[str, IPv4Network]] | None:
    """Device and place of each, from the kernel's table: numbers in hexadecimal, the last byte first."""
    try:
        lines = [line.split() for line in file.read_text(encoding="ascii").splitlines()[1:]]
        return [(line[0], IPv4Network((_address(line[1]), str(IPv4Address(_address(line[7])))))) for line in lines]
    except (OSError, ValueError, IndexError):
        return None


def _address(text: str) -> bytes:
    return bytes.fromhex(text)[::-1]


def folder_facts(root: Path, user_ids: Iterable[int]) -> list[Fact]:
    """Whether everybody who has had a workspace has folders in which one can run. Changes nothing."""
    missing, unusable = [], []
    for user_id in sorted(user_ids):
        for name in (naming.files_folder(user_id), naming.home_folder(user_id)):
            folder = root / name
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                unusable.append(name)
            elif not folder.is_dir():
                missing.append(name)
    if missing or unusable:
        parts = []
        if missing:
            parts.append(
                f"{_some(missing)} went missing: restore them from a backup, or the next start begins with empty ones"
            )
        if unusable:
            parts.append(f"{_some(unusable)} are no folders, so no start is possible: move them out of the way")
        return [Fact(what="folders", verdict=Verdict.WRONG, sentence="; ".join(parts))]
    return [Fact(what="folders", verdict=Verdict.OK, sentence="everybody who has had a workspace has them")]


def _some(names: list[str]) -> str:
    more = len(names) - 10
    return ", ".join(names[:10]) + (f" and {more} more" if more > 0 else "")


def _numbers(file: Path) -> list[int]:
    try:
        return [int(part) for part in file.read_text(encoding="ascii").split()]
    except (OSError, ValueError):
        return []


def _threads(proc: Path) -> int | None:
    """How many threads the whole host has, of which /proc/loadavg tells the number to everybody."""
    try:
        return int((proc / "loadavg").read_text(encoding="ascii").split()[3].split("/")[1])
    except (OSError, ValueError, IndexError):
        return None
