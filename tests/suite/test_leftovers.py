"""What a run that was killed has left is found by its mark and removed; what a living run has made is not touched."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.suite.programs import attempt, docker, run
from tests.suite.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

# In one process: two of these tests would take each other's runs for their own.
pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("runs")]

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ["GUNPOWDER_TEST_DATA"]).parent
ID = os.environ["GUNPOWDER_TEST_ID"]
DEAD = "gptest-dead00-1"
# The same kind of thing under two names: of a run that is over, and of this one.
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
STATE = """
bash /tools/host.sh mounted losetup --noheadings --output BACK-FILE
bash /tools/host.sh mounted cat /proc/self/mountinfo
bash /tools/host.sh mounted ls /run/netns
cat /sys/class/net/*/ifalias 2>/dev/null
iptables-nft-save
"""


def _leftovers(script: str, *, within: float = 120) -> str:
    """Run a piece of shell with the functions of deploy/test/leftovers.sh at hand."""
    head = f"""
set -euo pipefail
cd {ROOT}
. deploy/lib.sh
id={ID} data={DATA} test_image={os.environ["GUNPOWDER_TEST_IMAGE"]}
. deploy/test/leftovers.sh
"""
    return run("bash", "-c", head + script, within=within)


def _host_state() -> str:
    return _leftovers(f"on_host 60 -c '{STATE}'")


def _engine_objects(run_id: str) -> list[str]:
    listed = "for kind in container network volume; do marked_objects $kind; done"
    return _leftovers(f"{listed} | awk '$1 == \"{run_id}\" {{ print $2 }}'").split()


def _plant(run_id: str, *, link: str) -> None:
    values = {"run": run_id, "data": DATA, "link": link, "image": os.environ["GUNPOWDER_TEST_IMAGE"]}
    for line in OBJECTS.format(**values).strip().splitlines():
        run(*line.split())
    mounts, network = (DATA / run_id / name for name in ("mounts.sh", "network.sh"))
    mounts.write_text("set -eu\n" + MOUNTS.format(**values))
    network.write_text(f"set -eu\nbash /tools/host.sh mounted bash {mounts}\n" + NETWORK.format(**values))
    _leftovers(f"on_host 60 {network}")


@pytest.fixture
def planted() -> Iterator[None]:
    """Things of a run that is over, and the same of this run, which lives."""
    _sweep("of", DEAD)
    _plant(DEAD, link="gpdead")
    mine = f"{ID}-planted"
    docker("network", "create", f"{mine}-net")
    (DATA / ID / "planted").mkdir()
    yield
    docker("network", "rm", f"{mine}-net")
    (DATA / ID / "planted").rmdir()
    _sweep("of", DEAD)


def _sweep(choice: str, *runs: str) -> str:
    return _leftovers(f"remove_objects {choice} {' '.join(runs)}\nremove_from_host {choice} {' '.join(runs)}")


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
    assert docker("network", "ls", "--quiet", "--filter", f"name={ID}-planted-net").strip()
    assert (DATA / ID / "planted").is_dir()
    assert docker("inspect", "--format", "{{.State.Running}}", f"{ID}-runner").strip() == "true"


def test_what_a_killed_run_had_to_undo_is_undone_the_last_deed_first() -> None:
    folder = DATA / DEAD / "undo"
    folder.mkdir(parents=True)
    log = DATA / ID / "undone"
    try:
        (folder / "000000-gw0-1.undo").write_text(f"bash\n-c\necho first >>{log}\n")
        (folder / "000001-gw0-1.undo").write_text("false\n")
        (folder / "000002-gw0-1.undo").write_text(f"bash\n-c\necho last >>{log}\n")
        (folder / "000003-gw0-1.part").write_text("half a note")
        told = _sweep("of", DEAD)
        assert log.read_text().split() == ["last", "first"]
        assert "it failed (status 1)" in told
        assert not folder.exists()
    finally:
        log.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("gptest-4f85a1-77-stack-user-1", "gptest-4f85a1-77"),
        ("gptest-4f85a1-77", "gptest-4f85a1-77"),
        ("gpdev-4f85a1-77_default", "gpdev-4f85a1-77"),
        ("gptest-4f85a1-w0-contract", "gptest-4f85a1"),  # as runs were called once
        ("gunpowder-test/gptest-4f85a1-77-image", "gptest-4f85a1-77"),
        ("gunpowder-web-1", ""),
        ("my-gptest-4f85a1-77", ""),
        ("gptest", ""),
        ("gptest-4f85a1-77x", ""),
    ],
)
def test_a_mark_is_a_runs_id_at_the_beginning_of_a_word(word: str, found: str) -> None:
    assert _leftovers(f"printf 'object|%s|\\n' '{word}' | marked").strip() == (f"{found} object" if found else "")


ENDLESS = "tests/suite/endless.py"


def _another_run(**settings: str) -> list[str]:
    """The command that plays a test without an end in a run of its own, as a person would start it."""
    kept = [f"{name}={os.environ[name]}" for name in ("PATH", "HOME", "GUNPOWDER_DOCKER_SOCKET")]
    return [
        *("env", "-i", *kept, *[f"{name}={value}" for name, value in settings.items()]),
        *("bash", str(ROOT / "deploy" / "test.sh"), "pytest", ENDLESS, "-n", "0", "--timeout", "0"),
    ]


def _runners() -> set[str]:
    names = docker("ps", "--format", "{{.Names}}").split()
    return {name for name in names if name.startswith("gpdev-") and name.endswith("-runner")}


@pytest.mark.patient(240, "waits for the deadline of half a minute of another run")
def test_a_run_that_hangs_ends_at_its_deadline_and_says_where() -> None:
    done = attempt(*_another_run(GUNPOWDER_TEST_MINUTES="0.5"), within=200, together=True)
    told = done.stdout
    assert done.returncode == 124, told
    assert "DEADLINE: 0.5 minutes" in told
    assert "test_that_never_ends (tests/suite/endless.py:" in told  # the stack
    assert "-postgres" in told
    end = "\n".join(told.splitlines()[-60:])
    assert f"main {ENDLESS}::test_that_never_ends (call," in end
    assert "Seed:" in end


@pytest.mark.patient(240, "brings up another run and kills it")
def test_a_run_whose_starter_is_killed_ends_and_leaves_nothing_to_the_next() -> None:
    before = _runners()
    run("bash", "-c", f"setsid {' '.join(_another_run())} >/dev/null 2>&1 &")

    def new() -> str:
        return next(iter(_runners() - before), "")

    runner = eventually("the other run's container is there", new, within=60, every=0.5)
    other = runner.removesuffix("-runner")
    eventually(
        "its Postgres is there", lambda: docker("ps", "--quiet", "--filter", f"name={other}-postgres"), within=60
    )
    run("pkill", "--signal", "KILL", "--full", f"deploy/test.sh pytest {ENDLESS}")
    eventually("its container has ended", lambda: runner not in _runners(), within=30)
    assert _engine_objects(other), "a killed run cannot tidy up"
    _leftovers("remove_orphans\nremove_orphans_from_host")
    assert _engine_objects(other) == []
    assert not (DATA / other).exists()
