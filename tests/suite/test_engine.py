"""The engine's script is not misled by what a killed engine has left. Processes are real, the engine is not touched."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.suite.programs import attempt, run
from tests.suite.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]


class Box:
    """A folder that the script takes for the one with the engine's pid files, and processes with chosen names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine, self.containerd = folder / "docker.pid", folder / "containerd.pid"
        self.pids: list[int] = []

    def process(self, name: str, *, mark: str = "") -> int:
        """A process whose name in the kernel's list is `name`; ended with the test."""
        program = self.folder / name
        if not program.exists():
            shutil.copy("/usr/bin/sleep", program)
        started = run("bash", "-c", f"{mark} setsid {program} 600 >/dev/null 2>&1 </dev/null & echo $!")
        pid = int(started)
        self.pids.append(pid)
        comm = Path(f"/proc/{pid}/comm")
        eventually(f"process {pid} is {name}", lambda: comm.read_text().strip() == name, within=10, every=0.01)
        return pid

    def zombie(self, name: str) -> int:
        """A process of that name that has ended, and for whose end its parent does not ask."""
        program = self.folder / name
        shutil.copy("/usr/bin/true", program)
        child = f"it = subprocess.Popen(['{program}']); print(it.pid, flush=True)"
        parent = f"import subprocess, time; {child}; time.sleep(600)"
        out = self.folder / "zombie"
        run("bash", "-c", f'setsid python3 -c "{parent}" >{out} 2>&1 </dev/null & echo $!')
        eventually("the parent says so", lambda: out.read_text().strip(), within=20)
        pid = int(out.read_text())
        self.pids.append(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]))
        eventually("it is a zombie", lambda: ") Z " in Path(f"/proc/{pid}/stat").read_text(), within=10)
        return pid

    def script(self, lines: str) -> str:
        """Run lines of shell with the functions of deploy/engine.sh, which know these files only."""
        head = f"""
. {ROOT}/deploy/engine.sh
ENGINE_PID={self.engine} CONTAINERD_PID={self.containerd} ENGINE_LOCK={self.folder}/lock ENGINE_LOG={self.folder}/log
"""
        return run("bash", "-c", head + lines)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    for pid in made.pids:
        attempt("kill", "-KILL", str(pid))


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and ") Z " not in status.read_text()


@pytest.mark.parametrize("name", ["engine", "containerd"])
@pytest.mark.parametrize(
    "make", [lambda _: 99_999_999, lambda box: box.process("sleep"), lambda box: box.zombie("containerd")]
)
def test_a_pid_file_that_names_nobody_or_somebody_else_is_removed(
    box: Box, name: str, make: Callable[[Box], int]
) -> None:
    pid = make(box)
    path: Path = getattr(box, name)
    path.write_text(str(pid))
    assert "is no " in box.script("clear_stale")
    assert not path.exists()
    if box.pids:
        assert alive(box.pids[-1]), "somebody else's process is left alone"


def test_a_running_engine_and_its_containerd_are_left_alone(box: Box) -> None:
    box.engine.write_text(str(engine := box.process("dockerd")))
    box.containerd.write_text(str(containerd := box.process("containerd")))
    assert box.script("clear_stale") == ""
    assert alive(engine)
    assert alive(containerd)
    assert box.containerd.exists()


@pytest.mark.parametrize("frozen", [False, True])
def test_a_containerd_that_has_lost_its_engine_is_ended(box: Box, *, frozen: bool) -> None:
    box.containerd.write_text(str(pid := box.process("containerd")))
    if frozen:
        run("kill", "-STOP", str(pid))
    assert f"Ending containerd (process {pid})" in box.script("clear_stale")
    eventually("it has ended", lambda: not alive(pid), within=10)
    assert not box.containerd.exists()


def test_an_engine_is_ours_by_its_environment(box: Box) -> None:
    ours, other = box.process("dockerd", mark="GUNPOWDER_STARTED_ENGINE=1"), box.process("dockerd")
    assert box.script(f"is_ours {ours} && echo ours; is_ours {other} || echo other").split() == ["ours", "other"]


def test_an_engine_of_ours_that_hangs_is_ended_and_one_of_others_is_named(box: Box) -> None:
    never = "export DOCKER_HOST=unix:///nowhere.sock\nSTART_SECONDS=1\n"
    box.engine.write_text(str(ours := box.process("dockerd", mark="GUNPOWDER_STARTED_ENGINE=1")))
    run("kill", "-STOP", str(ours))
    assert f"The engine (process {ours}) hangs; replacing it" in box.script(never + "settle_engine")
    assert not alive(ours)

    box.engine.write_text(str(other := box.process("dockerd")))
    done = attempt("bash", "-c", f". {ROOT}/deploy/engine.sh\nENGINE_PID={box.engine}\n{never}settle_engine")
    assert done.returncode == 1
    assert f"The Docker engine (process {other}) does not answer." in done.stderr
    assert "it was not started by this project, so it is left alone" in done.stderr
    assert alive(other)


def test_a_question_that_is_never_answered_has_a_deadline(box: Box) -> None:
    """A socket that accepts and says nothing, as a hung engine's does."""
    listener = (
        "import socket, time; s = socket.socket(socket.AF_UNIX); "
        f"s.bind('{box.folder}/hung.sock'); s.listen(9); time.sleep(600)"
    )
    run("bash", "-c", f'setsid python3 -c "{listener}" >/dev/null 2>&1 </dev/null & echo $!')
    eventually("it listens", (box.folder / "hung.sock").exists, within=20)
    question = "ask_engine 1 version >/dev/null 2>&1 || echo status $?"
    told = box.script(f"export DOCKER_HOST=unix://{box.folder}/hung.sock\n{question}")
    assert told.strip() == "status 124"
    attempt("pkill", "--full", f"{box.folder}/hung.sock")
