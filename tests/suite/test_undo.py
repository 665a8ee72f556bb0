"""What a test does to the world is undone: by itself, or, when it was killed, by the next run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.suite import undo
from tests.suite.programs import docker
from tests.suite.undo import paused, undone
from tests.suite.waiting import always, eventually


@pytest.fixture(autouse=True)
def _own_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's own notes are not touched."""
    monkeypatch.setattr(undo, "FOLDER", tmp_path / "undo")


def _notes() -> list[str]:
    return [path.read_text() for path in sorted(undo.FOLDER.glob("*.undo"))]


def test_the_note_is_there_before_the_deed_and_gone_after_the_undo(tmp_path: Path) -> None:
    deed = tmp_path / "deed"
    with undone("rm", str(deed)):
        assert _notes() == [f"rm\n{deed}\n"]
        deed.touch()
    assert not deed.exists()
    assert _notes() == []


def test_trouble_in_the_block_is_told_and_undone(tmp_path: Path) -> None:
    deed = tmp_path / "deed"

    def troubled() -> None:
        with undone("rm", str(deed)):
            deed.touch()
            raise KeyError("trouble")

    with pytest.raises(KeyError, match="trouble"):
        troubled()
    assert not deed.exists()
    assert _notes() == []


def test_an_undo_that_fails_fails_the_test(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="status 1"), undone("rm", str(tmp_path / "was never there")):
        pass


def test_a_note_holds_a_word_a_line() -> None:
    with pytest.raises(ValueError, match="line break"):
        undo.note(["echo", "two\nlines"])
    assert not list(Path(undo.FOLDER).glob("*"))


TICKING = "(while :; do date +%N >/tmp/tick; sleep 0.02; done) & (while :; do true; done) & wait"


@pytest.mark.docker
def test_what_is_paused_stands_still_answers_the_engine_and_goes_on() -> None:
    name = f"{os.environ['GUNPOWDER_TEST_ID']}-paused"
    image = os.environ["GUNPOWDER_TEST_IMAGE"]

    def tick() -> str:
        return docker("exec", name, "cat", "/tmp/tick", within=10)  # noqa: S108 - in a container of its own

    with undone("docker", "rm", "--force", "--volumes", name):
        docker("run", "--detach", "--init", "--name", name, "--entrypoint", "sh", image, "-c", TICKING)
        eventually("it ticks", lambda: len({tick(), tick(), tick()}) > 1, within=10)
        with paused(name):
            stopped_at = tick()
            always("it stands still", lambda: tick() == stopped_at, during=1, every=0.1)
        eventually("it ticks on", lambda: tick() != stopped_at, within=10)
