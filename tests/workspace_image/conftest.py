"""One container for a module, and what takes long started with it."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import pytest

from tests.suite.waiting import eventually
from tests.workspace_image.box import FOLDER, REPORT, TOLD_FOLDER, Box, script
from tests.workspace_image.told import STEPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.suite.programs import Background

WITHOUT_FOLDERS = """
workspace-entrypoint >/tmp/log 2>&1 &
for ((tenths = 0; tenths < 600; tenths++)); do
    if curl --silent --fail --output /dev/null 127.0.0.1:8080/healthz; then echo healthy; break; fi
    sleep 0.1
done
gunpowder keep; echo "status $?"
gunpowder status; echo "status $?"
cat /tmp/log
kill -9 "$(pgrep --full 'out/node/entry$')"
wait %1
echo "ended $?"
"""


@pytest.fixture(scope="module")
def fresh_box() -> Iterator[Box]:
    box = Box()
    try:
        box.up()
        yield box
    finally:
        box.down()


@pytest.fixture(scope="module")
def heartbeats(fresh_box: Box) -> dict[str, int]:
    """The editor's last heartbeat after each kind of request. It moves once a minute at most, so this comes first."""
    seen = {"never": fresh_box.last_heartbeat()}
    for _ in range(3):
        fresh_box.report()
    seen["report"] = fresh_box.last_heartbeat()
    fresh_box.get(f"/vscode-remote-resource?path={REPORT}&x=1")
    seen["another"] = fresh_box.last_heartbeat()
    return seen


@pytest.fixture(scope="module")
def box(fresh_box: Box, heartbeats: dict[str, int]) -> Box:
    return fresh_box


@pytest.fixture(scope="module", autouse=True)
def presence(fresh_box: Box) -> Background:
    """What the extension reports of a person, in a container of its own; takes 40 seconds."""
    return fresh_box.alone('node -e "$SCRIPT"', "--tmpfs", FOLDER, "--env", f"SCRIPT={script('presence.js')}")


@pytest.fixture(scope="module", autouse=True)
def without_folders(fresh_box: Box) -> Background:
    """An editor and its command in a container that was made without the folders; its working half is ended there."""
    return fresh_box.alone(WITHOUT_FOLDERS)


@pytest.fixture(scope="module", autouse=True)
def unanswered(box: Box) -> Background:
    """A request that nobody answers; takes 30 seconds."""
    waiting = box.background("gunpowder keep 7h")
    eventually("it is asked", lambda: box.report().get("request"), within=30)
    return waiting


@pytest.fixture(scope="module", autouse=True)
def notices(fresh_box: Box) -> Background:
    """What the extension shows for each of `tests.workspace_image.told.STEPS`; takes 25 seconds."""
    steps = " ".join(shlex.quote(json.dumps(step)) for step in STEPS)
    command = f'node -e "$SCRIPT" -- {steps}'
    options = ("--tmpfs", FOLDER, "--tmpfs", TOLD_FOLDER, "--env", f"SCRIPT={script('notices.js')}")
    return fresh_box.alone(command, *options)
