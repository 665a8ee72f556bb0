"""What a test does to the world is undone: by itself, or, when it was killed, by the next run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.suite import undo
from tests.suite.undo import undone


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
