"""What a user can do by their own means: another program in the place of the editor, in their own container."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.suite.programs import docker

if TYPE_CHECKING:
    from tests.e2e.stack import Person

# The editor's parent is stopped, so that it starts no other; its child ends and frees the port.
PUSH_ASIDE = r"""
import os, signal

def command(pid):
    try:
        return open(f"/proc/{pid}/cmdline").read()
    except OSError:
        return ""

started = "/opt/node/bin/node\0/opt/code-server/out/node/entry"
editors = sorted(int(pid) for pid in os.listdir("/proc") if pid.isdigit() and command(pid).startswith(started))
for number, pid in enumerate(editors):
    os.kill(pid, signal.SIGKILL if number else signal.SIGSTOP)
"""


def usurp(person: Person, program: str) -> None:
    """Start `program` (Python, of the standard library alone) in the editor's place. It listens on 8080 when it can."""
    source = f"{PUSH_ASIDE}\n{program}"
    docker("exec", "--detach", "--user", "1000:1000", person.container, "python3", "-c", source)
