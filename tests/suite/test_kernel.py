"""What `make up` raises of the kernel's limits, on a kernel made of files; and that the doctor asks for the same."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.suite.programs import attempt
from workspaces.runtimes.base import Verdict
from workspaces.runtimes.kernel_limits import COUNTS, kernel_fact

if TYPE_CHECKING:
    from tests.suite.programs import Finished

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "deploy/kernel.conf"
WANTED = {
    name: int(value) for name, value in re.findall(r"^([a-z][\w.-]*) = (\d+)$", CONF.read_text(), flags=re.MULTILINE)
}
ORDINARY = {
    "fs.inotify.max_user_instances": 128,
    "fs.inotify.max_user_watches": 192_536,
    "fs.epoll.max_user_watches": 5_491_533,
    "fs.pipe-user-pages-soft": 16_384,
    "fs.aio-max-nr": 65_536,
    "fs.file-max": 2_466_183,
    "kernel.pty.max": 4096,
    "kernel.pid_max": 32_768,
}


class Kernel:
    """Files that look like /proc and /etc."""

    def __init__(self, root: Path, values: dict[str, int]) -> None:
        self.proc, self.etc = root / "proc", root / "etc"
        self.etc.mkdir()
        for name, value in values.items():
            file = self._file(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{value}\n")

    def _file(self, name: str) -> Path:
        return self.proc / "sys" / name.replace(".", "/")

    def values(self) -> dict[str, int]:
        return {name: int(self._file(name).read_text()) for name in WANTED if self._file(name).exists()}

    def kept(self) -> dict[str, int]:
        lines = (self.etc / "99-z-gunpowder.conf").read_text().splitlines()
        return {name: int(value) for name, _, value in (line.partition(" = ") for line in lines if line[0] != "#")}

    def run(self, mode: str, **settings: str) -> Finished:
        environment = {"GUNPOWDER_PROC": str(self.proc), "GUNPOWDER_SYSCTL_DIR": str(self.etc), **settings}
        kept = {"PATH": os.environ["PATH"]}
        return attempt("bash", str(ROOT / "deploy/kernel.sh"), mode, environment=kept | environment, together=True)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path, ORDINARY)


def test_the_doctor_wants_what_is_raised() -> None:
    assert {count.name: count.wanted for count in COUNTS} == WANTED


def test_all_is_raised_once_and_said(kernel: Kernel) -> None:
    first = kernel.run("keep")
    assert (first.returncode, kernel.values()) == (0, WANTED)
    assert "raised fs.inotify.max_user_instances: 128 to 2147483647" in first.stdout.splitlines()
    assert kernel.kept() == WANTED
    assert (kernel.run("keep").stdout, kernel.values()) == ("", WANTED)


def test_until_the_next_boot_nothing_is_kept(kernel: Kernel) -> None:
    assert kernel.run("now").returncode == 0
    assert kernel.values() == WANTED
    assert list(kernel.etc.iterdir()) == []


def test_nothing_is_ever_lowered(tmp_path: Path) -> None:
    more = {name: min(2 * value, 2**63 - 1) for name, value in WANTED.items()}
    kernel = Kernel(tmp_path, more)
    assert kernel.run("now").stdout == ""
    assert kernel.values() == more
    kernel.run("keep")
    assert (kernel.values(), kernel.kept()) == (more, more)


def test_what_a_kernel_does_not_count_is_passed_over(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, {"kernel.pty.max": 4096})
    assert kernel.run("now").stdout.splitlines() == ["raised kernel.pty.max: 4096 to 65536"]
    assert kernel_fact(kernel.proc, workspaces=10_000).verdict is Verdict.OK


def test_what_cannot_be_kept_is_said(kernel: Kernel) -> None:
    (kernel.etc / "99-z-gunpowder.conf.new").mkdir()
    found = kernel.run("keep")
    assert found.returncode == 0
    assert "not kept for the next boot" in found.stdout


@pytest.mark.parametrize(
    "told",
    [{"GUNPOWDER_RAISE_LIMITS": "no"}, {"GUNPOWDER_RAISE_LIMITS": "False"}, {"DOCKER_HOST": "tcp://192.0.2.1:2375"}],
)
def test_where_it_may_not_it_leaves_all_as_it_is(kernel: Kernel, told: dict[str, str]) -> None:
    found = kernel.run("keep", **told)
    assert (found.returncode, kernel.values(), list(kernel.etc.iterdir())) == (0, ORDINARY, [])
    assert next(iter(told)) in found.stdout or "another machine" in found.stdout


def test_what_the_machine_refuses_is_said_and_is_no_failure(kernel: Kernel) -> None:
    file = kernel.proc / "sys/kernel/pid_max"
    file.unlink()
    file.symlink_to("/proc/sys/kernel/ngroups_max")  # a number that nobody may change
    found = kernel.run("keep")
    assert found.returncode == 0
    assert f"not raised: kernel.pid_max = 4194304 (now {file.read_text().strip()})" in found.stdout.splitlines()
    assert "have root run deploy/kernel.sh keep" in found.stdout
    assert kernel.values() == WANTED | {"kernel.pid_max": int(file.read_text())}


def test_another_word_is_an_error(kernel: Kernel) -> None:
    found = kernel.run("always")
    assert found.returncode == 1
    assert "Use one of: now, keep" in found.stdout


def test_an_ordinary_kernel_carries_so_many_and_is_told_how_to_carry_more(kernel: Kernel) -> None:
    fact = kernel_fact(kernel.proc, workspaces=0)
    assert (fact.what, fact.verdict) == ("kernel limits", Verdict.ADVICE)
    assert "fs.inotify.max_user_watches carries 11 of them" in fact.sentence
    for name, value in WANTED.items():
        assert f"{name} = {value} (now {ORDINARY[name]})" in fact.sentence


def test_the_smallest_count_is_the_one_that_is_named(kernel: Kernel) -> None:
    for name, value in {**WANTED, "kernel.pty.max": 4096}.items():
        (kernel.proc / "sys" / name.replace(".", "/")).write_text(str(value))
    few = kernel_fact(kernel.proc, workspaces=12)
    assert few.verdict is Verdict.ADVICE
    assert "kernel.pty.max carries 12 of them, and one that takes all" in few.sentence
    many = kernel_fact(kernel.proc, workspaces=13)
    assert many.verdict is Verdict.WRONG
    assert "kernel.pty.max carries 12 of them, and there are 13" in many.sentence


def test_a_kernel_that_was_raised_is_good(kernel: Kernel) -> None:
    kernel.run("now")
    assert kernel_fact(kernel.proc, workspaces=250).verdict is Verdict.OK
