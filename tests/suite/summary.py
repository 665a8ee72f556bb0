"""What a run has to say at its end, in few lines: seconds per folder, the slowest tests, the failed ones, the seed."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

SLOWEST = 15
FAILURES = 12
WIDTH = 200


@dataclass(frozen=True)
class Running:
    """A test that one process of the suite is at: its phase is setup, call or teardown."""

    process: str
    nodeid: str
    phase: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.process} {self.nodeid} ({self.phase}, {self.seconds:.0f} s)"


@dataclass
class Summary:
    """Collects results as they come in; `lines` tells them at any moment, in at most 50 lines."""

    seed: str = ""
    total: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # by test, all phases
    failures: dict[str, str] = field(default_factory=dict)  # "call of tests/…": the first error
    done: int = 0

    def add(self, nodeid: str, *, phase: str, seconds: float, error: str | None) -> None:
        self.seconds[nodeid] += seconds
        if phase == "teardown":
            self.done += 1
        if error is not None:
            self.failures[f"{phase} of {nodeid}" if phase != "call" else nodeid] = error

    def lines(self, running: list[Running] | None = None) -> list[str]:
        # Copies: another thread may be adding.
        times, failures = dict(self.seconds), dict(self.failures)
        told = [f"{self.done} of {self.total} tests are over", "", "Seconds per folder"]
        folders = Counter[str]()
        for nodeid, seconds in times.items():
            folders[_folder(nodeid)] += round(seconds * 1000)
        told += [f"{milliseconds / 1000:8.1f}  {folder}" for folder, milliseconds in folders.most_common(12)]
        told += ["", f"The slowest {SLOWEST} tests"]
        slowest = sorted(times.items(), key=lambda pair: -pair[1])[:SLOWEST]
        told += [f"{seconds:8.1f}  {nodeid}"[:WIDTH] for nodeid, seconds in slowest]
        if failures:
            told += ["", f"Failed: {len(failures)}"]
            told += [f"  {name}: {error}"[:WIDTH] for name, error in list(failures.items())[:FAILURES]]
            if len(failures) > FAILURES:
                told.append(f"  … and {len(failures) - FAILURES} more, named above")
        if running:
            told += ["", "Running"]
            told += [f"  {one}"[:WIDTH] for one in running]
        again = f' (the same order and examples: ARGS="--randomly-seed={self.seed}")' if self.seed else ""
        return [*told, "", f"Seed: {self.seed or 'none'}{again}"]


def _folder(nodeid: str) -> str:
    """The folder of a test's file."""
    return nodeid.partition("::")[0].rpartition("/")[0] or "."
