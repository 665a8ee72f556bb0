"""What the doctor is told of a Docker host."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

import pytest

from workspaces.runtimes import docker_facts
from workspaces.runtimes.base import Fact, Verdict
from workspaces.runtimes.docker_host import Host

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NOW = datetime(2026, 11, 26, 6, 21, 13, tzinfo=UTC)
GOOD: dict[str, Any] = {
    "ServerVersion": "20.10.24+dfsg1",
    "SystemTime": "2026-11-26T06:21:13.458539573Z",
    "MemoryLimit": True,
    "CpuCfsQuota": True,
    "PidsLimit": True,
    "LiveRestoreEnabled": True,
    "SecurityOptions": ["name=seccomp,profile=default"],
}


def engine(info: dict[str, Any], *, took: timedelta = timedelta(seconds=1)) -> list[Fact]:
    return docker_facts.engine_facts(info, asked_at=NOW, answered_at=NOW + took)


def verdicts(facts: Iterable[Fact]) -> dict[str, str]:
    return {fact.what: str(fact.verdict) for fact in facts if fact.verdict is not Verdict.OK}


def test_a_good_engine_is_good() -> None:
    facts = engine(GOOD)
    assert verdicts(facts) == {}
    assert len(facts) == 5


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"ServerVersion": "19.03.15"}, {"engine version": "wrong"}),
        ({"ServerVersion": "29.1.2"}, {}),
        ({"ServerVersion": "master-dockerproject"}, {}),
        ({"SystemTime": "2026-11-26T06:21:23Z"}, {"engine clock": "wrong"}),
        ({"SystemTime": "2026-11-26T06:21:03Z"}, {"engine clock": "wrong"}),
        ({"SystemTime": "yesterday"}, {"engine clock": "advice"}),
        ({"MemoryLimit": False}, {"engine limits": "wrong"}),
        ({"PidsLimit": False}, {"engine limits": "wrong"}),
        ({"SecurityOptions": ["name=apparmor"]}, {"engine security": "wrong"}),
        ({"SecurityOptions": ["name=seccomp,profile=unconfined"]}, {"engine security": "wrong"}),
        ({"SecurityOptions": None}, {"engine security": "wrong"}),
        ({"LiveRestoreEnabled": False}, {"engine restarts": "advice"}),
    ],
)
def test_what_an_engine_lacks_is_said(change: dict[str, Any], expected: dict[str, str]) -> None:
    assert verdicts(engine(GOOD | change)) == expected


@pytest.mark.parametrize(
    ("info", "disk", "verdict", "said"),
    [
        ({"CgroupVersion": "2"}, "/dev/vda", Verdict.OK, "what workspaces write to /dev/vda can be bounded"),
        ({"CgroupVersion": "1"}, "/dev/vda", Verdict.ADVICE, "only what programs wait for"),
        ({}, "/dev/vda", Verdict.ADVICE, "only what programs wait for"),
        ({"CgroupVersion": "2"}, "", Verdict.ADVICE, "was not found"),
        (
            {"CgroupVersion": "2", "Warnings": ["WARNING: No io.max (wbps) support"]},
            "/dev/vda",
            Verdict.ADVICE,
            "the engine cannot bound",
        ),
        (
            {"Warnings": ["WARNING: No blkio throttle.write_bps_device support"]},
            "/dev/vda",
            Verdict.ADVICE,
            "the engine cannot bound",
        ),
    ],
)
def test_what_bounds_the_writes_to_the_disk_is_said(
    info: dict[str, Any], disk: str, verdict: Verdict, said: str
) -> None:
    fact = docker_facts.writes_fact(info, disk)
    assert fact.verdict is verdict
    assert said in fact.sentence


def test_how_long_the_answer_took_is_no_difference_of_clocks() -> None:
    slow = {**GOOD, "SystemTime": "2026-11-26T06:21:28Z"}
    assert verdicts(engine(slow, took=timedelta(seconds=20))) == {}


def test_an_engine_that_says_nothing_of_a_field_is_not_blamed_for_it() -> None:
    said = engine({"SecurityOptions": GOOD["SecurityOptions"], "LiveRestoreEnabled": True})
    assert verdicts(said) == {"engine clock": "advice"}


def test_an_image_is_there_or_not() -> None:
    assert docker_facts.image_fact("a:b", None).verdict is Verdict.WRONG
    found = {"Id": "sha256:0123456789abcdef", "Config": {"Entrypoint": ["/usr/local/bin/workspace-init", "x"]}}
    there = docker_facts.image_fact("a:b", found)
    assert (there.verdict, there.sentence) == (Verdict.OK, "a:b is there (0123456789ab)")


@pytest.mark.parametrize(
    "config",
    [
        {"Entrypoint": ["/usr/bin/entrypoint.sh"]},
        {"Entrypoint": ["sh", "-c", "/usr/local/bin/workspace-init"]},
        {"Entrypoint": []},
        {"Entrypoint": None},
        {},
        None,
    ],
)
def test_an_image_without_our_first_process_is_told(config: dict[str, Any] | None) -> None:
    fact = docker_facts.image_fact("a:b", {"Id": "sha256:0123456789abcdef", "Config": config})
    assert fact.verdict is Verdict.WRONG
    assert "not with /usr/local/bin/workspace-init" in fact.sentence


@pytest.mark.parametrize(
    ("info", "mine", "newest", "verdict", "said"),
    [
        ({"NCPU": 2, "CPUSet": True}, (0, 1), {"CpusetCpus": "1"}, Verdict.OK, "leaves one of the 2 alone"),
        ({"NCPU": 2, "CPUSet": True}, (0, 1), None, Verdict.OK, "leaves one of the 2 alone"),
        ({"NCPU": 2, "CPUSet": True}, (0, 1), {"CpusetCpus": ""}, Verdict.ADVICE, "may come to all"),
        ({"NCPU": 1, "CPUSet": True}, (0,), {"CpusetCpus": ""}, Verdict.ADVICE, "this host has one"),
        ({"NCPU": 4, "CPUSet": False}, (0, 1, 2, 3), None, Verdict.ADVICE, "not known here"),
        ({"NCPU": 4, "CPUSet": True}, (0, 1), None, Verdict.ADVICE, "not known here"),
    ],
)
def test_whether_a_workspace_can_have_all_processors_busy_is_said(
    info: dict[str, Any], mine: tuple[int, ...], newest: dict[str, Any] | None, verdict: Verdict, said: str
) -> None:
    fact = docker_facts.processors_fact(Host.of(info, mine=mine), newest)
    assert fact.verdict is verdict
    assert said in fact.sentence


ROUTES = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


@pytest.mark.parametrize(
    ("routes", "verdict", "said"),
    [
        ([], Verdict.OK, "room for 32768"),
        (["eth0 00000000 0101A8C0 0003 0 0 0 00000000 0 0 0"], Verdict.OK, "room"),  # the way to everywhere
        (["eth0 0001A8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0"], Verdict.OK, "room"),
        (["br-1 080012C6 00000000 0001 0 0 0 FCFFFFFF 0 0 0"], Verdict.OK, "room"),  # a workspace's own
        (["tun0 000012C6 00000000 0001 0 0 0 0000FFFF 0 0 0"], Verdict.WRONG, "198.18.0.0/16"),
        (["tun0 00000080 00000000 0001 0 0 0 00000080 0 0 0"], Verdict.OK, "room"),  # half of everywhere
        (["eth1 080012C6 00000000 0001 0 0 0 FCFFFFFF 0 0 0"], Verdict.WRONG, "198.18.0.8/30"),
        (["nonsense"], Verdict.ADVICE, "cannot be read"),
    ],
)
def test_addresses_that_the_host_reaches_elsewhere_are_told(
    routes: list[str], verdict: Verdict, said: str, proc: Path
) -> None:
    (proc / "net").mkdir()
    (proc / "net/route").write_text(ROUTES + "".join(f"{line}\n" for line in routes))
    fact = docker_facts.networks_fact(proc, IPv4Network("198.18.0.0/15"))
    assert fact.verdict is verdict
    assert said in fact.sentence


RAISED = {"Ulimits": [{"Name": "nofile"}, {"Name": "sigpending"}, {"Name": "msgqueue"}]}


@pytest.mark.parametrize(
    ("endless", "options", "verdict", "said"),
    [
        (True, RAISED, Verdict.OK, "bounded by each workspace's memory"),
        (True, None, Verdict.OK, "if the engine may"),
        (True, {"Ulimits": [{"Name": "nofile"}]}, Verdict.ADVICE, "share one limit"),
        (True, {"Ulimits": None}, Verdict.ADVICE, "share one limit"),
        (False, None, Verdict.ADVICE, "not known to be 6.15"),
    ],
)
def test_whether_one_can_use_up_timers_is_said(
    *, endless: bool, options: dict[str, Any] | None, verdict: Verdict, said: str
) -> None:
    fact = docker_facts.counts_fact(Host(endless=endless), options)
    assert fact.verdict is verdict
    assert said in fact.sentence


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A kernel with room for everything."""
    for name, text in {
        "sys/fs/file-nr": "3000\t0\t9223372036854775807",
        "sys/kernel/pid_max": "4194304",
        "sys/kernel/threads-max": "200000",
        "loadavg": "0.1 0.2 0.3 2/400 12345",
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return tmp_path


def test_a_kernel_with_room_is_good(proc: Path) -> None:
    facts = docker_facts.host_facts(proc, workspaces=100)
    assert verdicts(facts) == {}
    assert {fact.what for fact in facts} == {"kernel limits", "file handles", "processes"}


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("sys/fs/file-nr", "900 0 1000", {"file handles": "advice"}),
        ("sys/fs/file-nr", "990 0 1000", {"file handles": "wrong"}),
        ("loadavg", "0 0 0 2/199000 1", {"processes": "wrong"}),
        ("sys/kernel/threads-max", "420", {"processes": "wrong"}),
    ],
)
def test_what_a_kernel_is_short_of_is_said(proc: Path, file: str, text: str, expected: dict[str, str]) -> None:
    (proc / file).write_text(text)
    assert verdicts(docker_facts.host_facts(proc, workspaces=100)) == expected


def test_a_kernel_that_tells_nothing_is_no_error(tmp_path: Path) -> None:
    assert verdicts(docker_facts.host_facts(tmp_path, workspaces=5)) == {}


def test_a_disk_says_what_is_left_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "free below" in docker_facts.disk_fact(tmp_path).sentence or docker_facts.disk_fact(tmp_path).verdict != "ok"

    class Found:
        f_frsize, f_blocks, f_bavail, f_files, f_favail = 4096, 1000, 100, 1000, 900

    monkeypatch.setattr("os.statvfs", lambda _: Found)
    assert docker_facts.disk_fact(tmp_path).verdict is Verdict.ADVICE
    Found.f_bavail = 10
    assert docker_facts.disk_fact(tmp_path).verdict is Verdict.WRONG
    Found.f_bavail, Found.f_favail = 900, 1
    assert "inodes" in docker_facts.disk_fact(tmp_path).sentence
    monkeypatch.undo()
    assert docker_facts.disk_fact(tmp_path / "nowhere").verdict is Verdict.WRONG


def test_folders_that_are_missing_or_none_are_said(tmp_path: Path) -> None:
    for name in ("user_7", "home_7", "user_8"):
        (tmp_path / name).mkdir()
    assert docker_facts.folder_facts(tmp_path, {7})[0].verdict is Verdict.OK
    (missing,) = docker_facts.folder_facts(tmp_path, {7, 8})
    assert missing.verdict is Verdict.WRONG
    assert "home_8 went missing" in missing.sentence
    (tmp_path / "home_8").symlink_to("/etc")
    (link,) = docker_facts.folder_facts(tmp_path, range(7, 9))
    assert "home_8 are no folders" in link.sentence
    (many,) = docker_facts.folder_facts(tmp_path, range(100, 120))
    assert "and 30 more" in many.sentence
