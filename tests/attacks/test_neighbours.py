"""One tenant takes all that it can of one thing; another one's editor, a third one's start and the platform go on.

`make test` plays a few, `make attacks` all. What it costs is printed as a table of ratios to the quiet stack of the
same run; what is asserted is that nobody is refused anything, and that the platform stays well.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.attacks import greed
from tests.e2e.stack import ASSET
from tests.suite.programs import attempt, docker
from tests.suite.waiting import eventually, pause
from workspaces.runtimes.kernel_limits import COUNTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.stack import Person, Stack

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

SECONDS = float(os.environ.get("GUNPOWDER_ATTACK_SECONDS", "6"))
LONG = SECONDS >= 20  # as `make attacks` has it
# One of each kind of means: a limit of the kernel, the log, processors. Terminals are tried in tests/contract, too.
QUICK = ("inotify", "log", "starts")
THINGS = [each.__name__ for each in greed.GREEDS if LONG or each.__name__ in QUICK]
GREED, NEED = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("greed.py", "need.py"))
SERVICES = ("nginx", "web", "hasher", "worker", "beat", "postgres", "redis")
# What the kernel counts by user, where the engine may not leave it to each workspace's memory: see docs/security.md.
SHARED = {"timers": "Max pending signals", "queues": "Max msgqueue size", "locked": "Max locked memory"}
# What it counts by user and nothing of ours can keep for anybody, while all workspaces are one user to it.
NOBODYS = {"descriptors"}
IDLE = 9.0  # seconds without activity after which one of them is stopped
# What depends on a machine that lets `make up` raise its kernel's limits. On another they end as they always did, and
# the doctor says so (tests/suite/test_kernel.py).
RAISED = {
    "inotify": ("fs.inotify.max_user_instances", "fs.inotify.max_user_watches"),
    "pipes": ("fs.pipe-user-pages-soft",),
    "requests": ("fs.aio-max-nr",),
}


@dataclass
class Figures:
    """Milliseconds of a neighbour's requests, and seconds of a start."""

    requests: list[float]
    start: float
    refused: int = 0

    @property
    def p95(self) -> float:
        return statistics.quantiles(self.requests, n=20)[-1]


@dataclass
class Scene:
    """A neighbour with an open editor, somebody who starts, and how both fare when nobody takes anything."""

    stack: Stack
    neighbour: Person
    starter: Person
    idler: Person
    quiet: Figures
    lines: list[str] = field(default_factory=list)

    def line(self, thing: str, taken: str, found: Figures, missing: dict[str, str]) -> None:
        lacks = ", ".join(f"{name}: {why}" for name, why in missing.items()) or "nothing"
        slower, later = found.p95 / self.quiet.p95, found.start / self.quiet.start
        self.lines.append(
            f"  {thing:<12} p50 {statistics.median(found.requests):6.1f}, p95 {found.p95:7.1f} ms ({slower:4.1f} x), "
            f"start {found.start:5.1f} s ({later:4.1f} x), neighbour lacks {lacks}; took {taken}"
        )


def figures(neighbour: Person, starter: Person, *, seconds: float) -> Figures:
    found, refused = list[float](), 0
    until = time.monotonic() + seconds
    while time.monotonic() < until or len(found) < 20:
        began = time.monotonic()
        try:
            refused += neighbour.editor("healthz", headers=ASSET).status_code != 200
        except httpx.HTTPError:
            refused += 1
        found.append((time.monotonic() - began) * 1000)
        pause(0.02, because="a person's editor asks now and then")
    starter.stop_and_wait(within=60)
    began = time.monotonic()
    starter.start_and_wait(within=120)
    return Figures(found, time.monotonic() - began, refused)


@pytest.fixture(scope="module")
def scene(stack: Stack) -> Iterator[Scene]:
    neighbour, starter, idler = stack.add_user(), stack.add_user(), stack.add_user()
    stack.give_limits({idler.id: {"idle_minutes": IDLE / 60}})
    neighbour.start_and_wait()
    starter.start_and_wait()
    figures(neighbour, starter, seconds=1)  # the first of everything is slower
    quiet = figures(neighbour, starter, seconds=SECONDS / 2)
    made = Scene(stack, neighbour, starter, idler, quiet)
    yield made
    neighbour.leave()
    starter.leave()
    print(
        f"\nOne tenant takes all; quiet: p95 {quiet.p95:.1f} ms, start {quiet.start:.1f} s, {os.cpu_count()} processors"
    )
    print("\n".join(made.lines))


@pytest.fixture
def taker(scene: Scene) -> Iterator[Person]:
    person = scene.stack.add_user()
    person.start_and_wait()
    yield person
    attempt("docker", "kill", person.container, within=120)
    person.leave()
    eventually(
        "everything of it has ended",
        lambda: not docker("ps", "--quiet", "--filter", f"name=^{person.container}$", within=60).strip(),
        within=120,
    )


def unbounded(thing: str, inside: Person) -> set[str]:
    """What the neighbour may lack, because nothing of ours keeps it for them on this machine."""
    counts = [count for count in COUNTS if count.name in RAISED.get(thing, ())]
    short = [count.name for count in counts if not count.suffices(int((Path("/proc") / count.path).read_text()))]
    if short:
        print(f"\n{thing}: this machine's {', '.join(short)} could not be raised, so nothing is kept for neighbours")
    limit = SHARED.get(thing)
    shared = limit is not None and "unlimited" not in inside.shell(f"grep '{limit}' /proc/self/limits")
    if shared:
        print(f"\n{thing}: this engine may not raise their limit, so nothing is kept for neighbours")
    return {thing} if short or shared or thing in NOBODYS else set()


def unwell(stack: Stack) -> list[str]:
    """What the platform's own checks say against it."""
    found = []
    for service in SERVICES:
        state = json.loads(docker("inspect", "--format", "{{json .State}}", stack.service(service), within=60))
        if state["Status"] != "running" or state["Health"]["Status"] == "unhealthy":
            found.append(f"{service}: {state['Status']}, {state['Health']['Status']}")
    if LONG:
        asked = ("docker", "exec", stack.service("worker"), "python", "manage.py", "workspaces", "doctor", "--json")
        platform = {"engine", "workers", "beat", "database clock", "front door", "shut door"}
        said = json.loads(attempt(*asked, within=120).stdout)
        found += [str(each) for each in said["findings"] if each["what"] in platform and each["verdict"] == "wrong"]
    return found


@pytest.mark.patient(300, "somebody takes all, and others start meanwhile")
@pytest.mark.parametrize("thing", THINGS)
def test_one_who_takes_all_takes_it_from_nobody(scene: Scene, taker: Person, thing: str) -> None:
    docker("exec", "--detach", "--user", "1000:1000", taker.container, "python3", "-c", GREED, thing)
    taken = scene.stack.root / f"user_{taker.id}" / "taken"

    def begun() -> str:
        """How much it has got; keys are refused, one and all."""
        got = taken.read_text().strip() if taken.exists() else ""
        return "" if got.startswith("nothing") or (got.startswith("0 ") and thing != "keys") else got

    eventually("it has taken something", begun, within=60)
    pause(SECONDS / 6, because="it takes what it can")
    if LONG:
        scene.idler.start_and_wait(within=120)
    found = figures(scene.neighbour, scene.starter, seconds=SECONDS / 3)
    missing: dict[str, str] = json.loads(scene.neighbour.python(NEED, within=120))
    scene.line(thing, begun(), found, missing)
    assert not set(missing) - unbounded(thing, scene.neighbour)
    assert found.refused == 0
    assert unwell(scene.stack) == []
    if LONG:  # the sweeps go on
        assert scene.idler.wait_for("stopped", within=90)["stop_reason"] == "idle"
