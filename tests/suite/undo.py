"""What a test does to something that outlives it is undone, even when the test is killed in the middle.

The undo is on disk before the deed is done: as a command in the run's folder. Normally the test itself carries it out.
If the run dies first, the next one does, whichever checkout that is in (deploy/test/host.sh), in a container with the
host's processes and network and the engine's client. So the command must be one that works from there, and
that does no harm where the deed was never done.
"""

from __future__ import annotations

import itertools
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.suite.programs import attempt, docker, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FOLDER = Path(os.environ["GUNPOWDER_TEST_DATA"]) / "undo"
_numbers = itertools.count()


def note(command: Sequence[str]) -> Path:
    """Write down a command that undoes what is about to be done; it is on disk when this returns.

    Raises ValueError for a word with a line break: notes hold a word a line.
    """
    if any("\n" in word for word in command):
        raise ValueError(f"a word of {command!r} has a line break")
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{next(_numbers):06d}-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}-{os.getpid()}.undo"
    hidden = path.with_suffix(".part")
    with hidden.open("w", encoding="utf-8") as file:
        file.write("\n".join(command) + "\n")
        file.flush()
        os.fsync(file.fileno())
    hidden.replace(path)
    return path


@contextmanager
def undone(*command: str, within: float = 60) -> Iterator[None]:
    """`with undone("docker", "start", name): …the deed, and what is to be seen meanwhile…`

    The command runs at the end of the block, whatever happened in it, and must succeed then.
    """
    path = note(command)
    try:
        yield
    except BaseException:
        # The first trouble is the one to tell. What could not be undone is tried again at the end of the run.
        if attempt(*command, within=within).returncode == 0:
            path.unlink()
        raise
    run(*command, within=within)
    path.unlink()


@contextmanager
def paused(container: str) -> Iterator[None]:
    """Let nothing in a container run but its process 1, for the length of the block.

    By signals, never by `docker pause`: where the kernel has the first generation of control groups, that fails now
    and then beside processes that begin ("unable to freeze"). If it meets an `exec`, a health check say, the engine
    waits for the frozen newcomer for ever, and with it whoever asks for that container, even by `docker inspect`.

    A process that has been sent SIGSTOP runs none of its own code any more once `kill` returns. The container needs a
    shell, and one user for all that runs in it.
    """
    with undone("docker", "exec", container, "sh", "-c", "kill -CONT -1"):
        docker("exec", container, "sh", "-c", "kill -STOP -1")
        yield
