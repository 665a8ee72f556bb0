"""What a run that was killed has left is found by its mark and removed; what a living run has made is not touched."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.suite import undo
from tests.suite.programs import Background, docker, run
from tests.suite.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

# In one process: two of these tests would take each other's runs for their own.
pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("runs")]

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ["GUNPOWDER_TEST_DATA"]).parent
ID = os.environ["GUNPOWDER_TEST_ID"]
CHECKOUT, NUMBER = ID.split("-")[1:3]
# Marks that only these tests look for: what they plant is nothing for a run that begins meanwhile, and the reverse.
PATTERN = f"gpplant{NUMBER}-[0-9]+"
DEAD, LIVE = f"gpplant{NUMBER}-1", f"gpplant{NUMBER}-2"
OBJECTS = """
docker create --name {run}-odd --label gunpowder.test={run} {image} true
docker run --detach --name {run}-sleeper --label com.docker.compose.project={run}-stack --entrypoint sleep {image} 600
docker run --detach --name {run}-by-label --label gunpowder.instance={run}-stack --entrypoint sleep {image} 600
docker pause {run}-by-label
docker network create {run}-net
docker volume create {run}-volume
mkdir -p {data}/{run}/files
"""
# Where the engine's mounts are.
MOUNTS = """
truncate -s 8M {data}/{run}/disk
device=$(losetup --find --show {data}/{run}/disk)
mkfs.ext4 -q $device
mkdir {data}/{run}/mounted
mount $device {data}/{run}/mounted
mkdir -p /run/netns
touch /run/netns/{run}-space
unshare --net=/run/netns/{run}-space true
"""
NETWORK = """
ip link add {link} type veth peer name {link}p
ip link set {link} alias {run}-link
iptables-nft -N {run}-chain
iptables-nft -A {run}-chain -d 127.0.0.0/8 -m comment --comment {run}-rule -j RETURN
iptables-nft -A OUTPUT -d 127.255.255.254 -m comment --comment "{run} jump" -j {run}-chain
"""
OF_THE_LIVING = """
docker run --detach --name {run}-runner --entrypoint sleep {image} 600
docker network create {run}-net
docker volume create {run}-volume
mkdir -p {data}/{run}/files
"""
CLEAR = """
remove_objects "$(all_objects)" {0}
on_host 60 /tools/host.sh clean {0}
"""
STATE = """
bash /tools/host.sh mounted losetup --noheadings --output BACK-FILE
bash /tools/host.sh mounted cat /proc/self/mountinfo
bash /tools/host.sh mounted ls /run/netns
cat /sys/class/net/*/ifalias 2>/dev/null
iptables-nft-save
"""


def _leftovers(script: str, *, pattern: str = PATTERN) -> str:
    """Run a piece of shell with the functions of deploy/test/leftovers.sh at hand."""
    head = f"""
set -euo pipefail
cd {ROOT}
. deploy/lib.sh
id={ID} data={DATA} test_image={os.environ["GUNPOWDER_TEST_IMAGE"]} RUN_ID='{pattern}'
. deploy/test/leftovers.sh
"""
    return run("bash", "-c", head + script, within=120)


def _host_state() -> str:
    return _leftovers(f"on_host 60 -c '{STATE}'")


def _engine_objects(run_id: str) -> list[str]:
    listed = "for kind in container network volume; do marked_objects $kind; done"
    return _leftovers(f"{listed} | awk '$1 == \"{run_id}\" {{ print $2 }}'").split()


def _plant(lines: str, run_id: str) -> dict[str, str]:
    image = os.environ["GUNPOWDER_TEST_IMAGE"]
    values = {"run": run_id, "data": str(DATA), "link": f"gpl{NUMBER}", "image": image}
    for line in lines.format(**values).strip().splitlines():
        run(*line.split())
    return values


def _clear(run_id: str) -> str:
    return _leftovers(CLEAR.format(run_id))


@pytest.fixture
def planted() -> Iterator[None]:
    """Things of a run that is over, and of one that lives."""
    # Should this run be killed now, the next one does not know these marks.
    names = [f"{DEAD}-odd", f"{DEAD}-sleeper", f"{DEAD}-by-label", f"{LIVE}-runner"]
    notes = [
        undo.note(["docker", "network", "rm", f"{DEAD}-net", f"{LIVE}-net"]),
        undo.note(["docker", "volume", "rm", f"{DEAD}-volume", f"{LIVE}-volume"]),
        undo.note(["docker", "rm", "--force", "--volumes", *names]),
        undo.note(["env", f"RUN_ID={PATTERN}", "bash", "/tools/host.sh", "clean", DEAD, LIVE]),
    ]
    _plant(OF_THE_LIVING, LIVE)
    values = _plant(OBJECTS, DEAD)
    mounts, network = (DATA / DEAD / name for name in ("mounts.sh", "network.sh"))
    mounts.write_text("set -eu\n" + MOUNTS.format(**values))
    network.write_text(f"set -eu\nbash /tools/host.sh mounted bash {mounts}\n" + NETWORK.format(**values))
    _leftovers(f"on_host 60 {network}")
    yield
    _clear(f"{DEAD} {LIVE}")
    for path in notes:
        path.unlink()


@pytest.mark.patient(240, "makes and removes a dozen containers and devices with the real engine")
def test_everything_of_a_run_that_is_over_is_removed_and_nothing_of_one_that_lives(planted: None) -> None:
    before = _host_state()
    assert before.count(DEAD) >= 6, before
    assert len(_engine_objects(DEAD)) == 5
    told = _leftovers("remove_orphans\nremove_orphans_from_host")
    assert _engine_objects(DEAD) == []
    assert DEAD not in _host_state()
    assert not (DATA / DEAD).exists()
    for word in (
        "3 container(s)",
        "1 network(s)",
        "1 volume(s)",
        "mount ",
        "loop device",
        "namespace",
        "interface",
        "chain",
    ):
        assert word in told, told
    assert len(_engine_objects(LIVE)) == 3
    assert (DATA / LIVE / "files").is_dir()


def test_what_a_killed_run_had_to_undo_is_undone_the_last_deed_first() -> None:
    folder = DATA / DEAD / "undo"
    folder.mkdir(parents=True)
    log = DATA / ID / "undone"
    try:
        (folder / "000000-gw0-1.undo").write_text(f"bash\n-c\necho first >>{log}\n")
        (folder / "000001-gw0-1.undo").write_text("false\n")
        (folder / "000002-gw0-1.undo").write_text(f"bash\n-c\necho last >>{log}\n")
        (folder / "000003-gw0-1.part").write_text("half a note")
        told = _clear(DEAD)
        assert log.read_text().split() == ["last", "first"]
        assert "it failed (status 1)" in told
        assert not folder.exists()
    finally:
        log.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("name", "label", "found"),
    [
        ("gptest-4f85a1-77-stack-user-1", "", "gptest-4f85a1-77"),
        ("gptest-4f85a1-77", "", "gptest-4f85a1-77"),
        ("gpdev-4f85a1-77_default", "", "gpdev-4f85a1-77"),
        ("", "gptest-4f85a1-w0-contract", "gptest-4f85a1"),  # runs had no number once
        ("gptest-4f85a1-w0-contract", "", ""),  # which is not enough of a name
        ("gunpowder-test/gptest-4f85a1-77-image", "", "gptest-4f85a1-77"),
        ("gunpowder-web-1", "gunpowder", ""),
        ("my-gptest-4f85a1-77", "", ""),
        ("gpdev-fe-1", "gpdev", ""),
        ("gptest-db", "gptest", ""),
        ("gptest-4f85a1-77x", "", ""),
    ],
)
def test_a_mark_is_a_runs_id_at_the_beginning_of_a_word(name: str, label: str, found: str) -> None:
    told = _leftovers(f"unset RUN_ID; . deploy/test/leftovers.sh; printf '%s\\n' 'object|{name}|{label}' | marked")
    assert told.strip() == (f"{found} object" if found else "")


def test_an_engine_that_does_not_answer_leaves_everything_where_it_is() -> None:
    told = _leftovers("export DOCKER_HOST=unix:///nowhere.sock\nremove_orphans 2>/dev/null || echo refused")
    assert told.strip() == "refused"


ENDLESS = "tests/suite/endless.py"


def _runners() -> set[str]:
    names = docker("ps", "--format", "{{.Names}}").split()
    return {name for name in names if name.startswith(f"gpdev-{CHECKOUT}-") and name.endswith("-runner")}


class AnotherRun:
    """A run of its own, of this checkout, that plays a test without an end."""

    def __init__(self) -> None:
        before = _runners()
        kept = [f"{name}={os.environ[name]}" for name in ("PATH", "HOME", "GUNPOWDER_DOCKER_SOCKET")]
        script = str(ROOT / "deploy" / "test.sh")
        arguments = ("pytest", ENDLESS, "-n", "0", "--timeout", "0")
        self.process = Background("env", "-i", *kept, "bash", script, *arguments)

        try:
            self._await(before)
        except BaseException:
            self.process.end()  # the fixture has nothing to end yet
            raise

    def _await(self, before: set[str]) -> None:
        def runner() -> str:
            return next(iter(_runners() - before), "")

        self.runner = eventually("the other run's container is there", runner, within=60, every=0.5)
        self.id = self.runner.removesuffix("-runner")
        noted = DATA / self.id / "report" / "running-main"
        eventually("it is at its test", lambda: noted.exists() and "call" in noted.read_text(), within=60, every=0.5)


@pytest.fixture
def another_run() -> Iterator[AnotherRun]:
    made = AnotherRun()
    yield made
    made.process.end()
    _leftovers(CLEAR.format(made.id), pattern=f"gpdev-{CHECKOUT}-[0-9]+")


@pytest.mark.patient(240, "brings up another run")
def test_a_run_that_hangs_says_where_at_its_deadline_and_ends(another_run: AnotherRun) -> None:
    summary = DATA / another_run.id / "report" / "summary"
    eventually("the summary on disk says so", lambda: "test_that_never_ends" in summary.read_text(), within=20)
    another_run.process.signal(signal.SIGUSR1)  # the deadline, now
    status, told = another_run.process.result(within=100)
    assert status == 124, told
    assert "DEADLINE" in told
    assert f"main {ENDLESS}::test_that_never_ends (call since " in told
    assert f"test_that_never_ends ({ENDLESS}:" in told  # the stack
    assert f"{another_run.id}-postgres" in told
    end = "\n".join(told.splitlines()[-60:])
    assert "ENDED BY the deadline of 30 minutes" in end
    assert f"main {ENDLESS}::test_that_never_ends (call," in end
    assert "Seed:" in end
    assert another_run.runner not in _runners()


@pytest.mark.patient(240, "brings up another run")
def test_a_run_whose_starter_is_killed_ends_and_leaves_nothing_to_the_next(another_run: AnotherRun) -> None:
    other = another_run.id
    another_run.process.end()
    eventually("its container has ended", lambda: another_run.runner not in _runners(), within=30)
    _leftovers("unset RUN_ID; . deploy/test/leftovers.sh\nremove_orphans\nremove_orphans_from_host")
    listed = docker("ps", "--all", "--format", "{{.Names}}") + docker("volume", "ls", "--format", "{{.Name}}")
    assert other not in listed
    assert not (DATA / other).exists()
