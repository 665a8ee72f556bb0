"""What the kernel counts by user or for the whole host, and how many workspaces that carries; pure.

All workspaces are one user to the kernel. Where a count ends before memory does, one of them can take all of it.
`deploy/kernel.conf` holds the values that leave only memory, of which each workspace has its own limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workspaces.runtimes.base import Fact, Verdict

if TYPE_CHECKING:
    from pathlib import Path

# Terminals of one workspace, a limit of its own: each costs the kernel about 20 KB that nobody is charged for.
TERMINALS = 256
# The kernel keeps this many terminals for the host itself (kernel.pty.reserve).
_KEPT_TERMINALS = 1024


@dataclass(frozen=True, kw_only=True)
class Count:
    """A count of the kernel: its name, the value that leaves it to memory, and what one workspace may come to need."""

    name: str
    wanted: int
    each: int
    kept: int = 0  # what is not for workspaces
    endless: bool = False  # whether 0 means that there is no limit

    @property
    def path(self) -> str:
        return f"sys/{self.name.replace('.', '/')}"

    def suffices(self, now: int) -> bool:
        return now == 0 if self.endless else now >= self.wanted

    def carries(self, now: int) -> int:
        """How many workspaces `now` is enough for, when nobody takes more than they need."""
        return max(0, now - self.kept) // self.each


# What one workspace needs, counted in /proc/*/fd and fdinfo. An editor without a window holds 13 pipes of 16 pages, 14
# watched descriptors, 62 open files and no inotify instance. Each window adds a process that hosts extensions and one
# that watches files, with an instance each; a user's own tools take as much again.
COUNTS = (
    Count(name="fs.inotify.max_user_instances", wanted=2**31 - 1, each=4),
    # One for each folder of a project, but for those in node_modules: this is a large one. VS Code's own documentation
    # recommends 524,288 to who has several.
    Count(name="fs.inotify.max_user_watches", wanted=2**31 - 1, each=16_384),
    Count(name="fs.epoll.max_user_watches", wanted=2**31 - 1, each=200),
    Count(name="fs.pipe-user-pages-soft", wanted=0, each=50 * 16, endless=True),
    Count(name="fs.aio-max-nr", wanted=2**30, each=1024),  # an editor uses none; a database that a user runs does
    Count(name="fs.file-max", wanted=2**63 - 1, each=8192),
    Count(name="kernel.pty.max", wanted=65_536, each=TERMINALS, kept=_KEPT_TERMINALS),
    Count(name="kernel.pid_max", wanted=4_194_304, each=512),
)


def kernel_fact(proc: Path, *, workspaces: int) -> Fact:
    """Which counts one workspace can use up, and how many workspaces the smallest carries. `proc` is the host's.

    A count that the kernel does not have is passed over.
    """
    what = "kernel limits"
    short = [
        (count, now) for count in COUNTS if (now := _read(proc / count.path)) is not None and not count.suffices(now)
    ]
    if not short:
        return Fact(
            what=what,
            verdict=Verdict.OK,
            sentence="what the kernel counts by user and a machine may raise is bounded by each workspace's own memory",
        )
    least, now = min(short, key=lambda found: found[0].carries(found[1]))
    carried = least.carries(now)
    few = carried < max(workspaces, 1)
    names = "; ".join(f"{count.name} = {count.wanted} (now {value})" for count, value in short)
    return Fact(
        what=what,
        verdict=Verdict.WRONG if few else Verdict.ADVICE,
        sentence=f"all workspaces share what the kernel counts by user: {least.name} carries {carried} of them"
        + (f", and there are {workspaces}" if few else "")
        + ", and one that takes all takes it from all. `make up` as root raises it, or put into "
        f"/etc/sysctl.d/99-z-gunpowder.conf and run `sysctl --system`: {names}",
    )


def _read(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
