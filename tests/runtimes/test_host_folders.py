"""The users' folders on a real file system, hostile contents included."""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.suite.waiting import together
from workspaces.errors import StartRefused
from workspaces.runtimes import host_folders
from workspaces.runtimes.host_folders import MODE, OWNER, README, HostFolders

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folders(tmp_path: Path) -> HostFolders:
    root = tmp_path / "root"
    root.mkdir()
    return HostFolders(root=root)


def _owner_and_mode(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid, found.st_mode & 0o777


def test_both_folders_are_made_with_owner_mode_and_a_readme(folders: HostFolders) -> None:
    folders.ensure(7)
    assert sorted(path.name for path in folders.root.iterdir()) == ["home_7", "notice_7", "user_7"]
    for folder in ("home_7", "user_7", "home_7/workspace"):
        assert _owner_and_mode(folders.root / folder) == (OWNER, OWNER, MODE)
    readme = folders.root / "user_7" / "README.md"
    assert readme.read_text() == README
    assert _owner_and_mode(readme)[:2] == (OWNER, OWNER)
    assert list((folders.root / "home_7").iterdir()) == [folders.root / "home_7" / "workspace"]


def test_again_changes_nothing(folders: HostFolders) -> None:
    folders.ensure(7)
    (folders.root / "user_7" / "README.md").write_text("mine")
    (folders.root / "user_7" / "kept").write_text("kept")
    os.chmod(folders.root / "user_7" / "kept", 0o640)  # noqa: PTH101 - both at once reads better here
    folders.ensure(7)
    assert (folders.root / "user_7" / "README.md").read_text() == "mine"
    assert _owner_and_mode(folders.root / "user_7" / "kept")[2] == 0o640


def test_a_deleted_readme_stays_deleted(folders: HostFolders) -> None:
    folders.ensure(7)
    (folders.root / "user_7" / "README.md").unlink()
    folders.ensure(7)
    assert list((folders.root / "user_7").iterdir()) == []


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o000])
def test_a_wrong_owner_or_mode_is_healed(folders: HostFolders, mode: int) -> None:
    (folders.root / "user_7").mkdir()
    (folders.root / "user_7").chmod(mode)
    folders.ensure(7)
    assert _owner_and_mode(folders.root / "user_7") == (OWNER, OWNER, MODE)


@pytest.mark.parametrize("name", ["user_7", "home_7"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "file", "fifo"])
def test_anything_but_a_folder_is_refused_and_left_alone(
    folders: HostFolders, tmp_path: Path, name: str, kind: str
) -> None:
    target = tmp_path / "precious"
    if kind != "dangling link":
        target.mkdir()
        target.chmod(0o755)
    place = folders.root / name
    if kind in {"link", "dangling link"}:
        place.symlink_to(target)
    elif kind == "file":
        place.write_text("precious")
    else:
        os.mkfifo(place)
    with pytest.raises(StartRefused) as refusal:
        folders.ensure(7)
    assert refusal.value.code == "folder_unusable"
    assert "user_7" in refusal.value.message
    if kind == "link":
        assert _owner_and_mode(target)[2] == 0o755
        assert list(target.iterdir()) == []
    elif kind == "file":
        assert place.read_text() == "precious"


@pytest.mark.parametrize("kind", ["link", "file", "fifo"])
def test_what_stands_where_the_files_are_mounted_is_moved_aside(
    folders: HostFolders, tmp_path: Path, kind: str
) -> None:
    (folders.root / "home_7").mkdir()
    place = folders.root / "home_7" / "workspace"
    if kind == "link":
        place.symlink_to(tmp_path)
    elif kind == "file":
        place.write_text("precious")
    else:
        os.mkfifo(place)
    folders.ensure(7)
    assert place.is_dir()
    assert not place.is_symlink()
    (aside,) = (folders.root / "home_7").glob("workspace.moved-*")
    assert aside.is_symlink() if kind == "link" else aside.exists()


def test_a_missing_root_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StartRefused) as refusal:
        HostFolders(root=tmp_path / "missing").ensure(7)
    assert refusal.value.code == "folder_unusable"
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, "disk_full"), (errno.EDQUOT, "disk_full"), (errno.EACCES, "folder_unusable")]
)
def test_trouble_with_the_disk_is_told_by_its_name(number: int, code: str) -> None:
    refusal = host_folders._explain(OSError(number, os.strerror(number)), 7)
    assert refusal.code == code
    assert "no file was touched" in refusal.message


def test_many_at_once_make_one_complete_folder(folders: HostFolders) -> None:
    users = range(1, 31)
    for user_id in users:
        together(*[partial(folders.ensure, user_id)] * 8)
    assert {path.name for path in folders.root.iterdir()} == {
        f"{kind}_{n}" for kind in ("home", "notice", "user") for n in users
    }
    assert all((folders.root / f"user_{n}" / "README.md").read_text() == README for n in users)


def test_the_disk_is_counted_without_following_anything(folders: HostFolders, tmp_path: Path) -> None:
    folders.ensure(7)
    before = folders.disk_bytes(7)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "large").write_bytes(b"x" * 2**20)
    (folders.root / "user_7" / "link").symlink_to(outside)
    (folders.root / "user_7" / "loop").symlink_to(folders.root / "user_7")
    assert folders.disk_bytes(7) < before + 2**20
    (folders.root / "home_7" / "large").write_bytes(b"x" * 2**20)
    assert folders.disk_bytes(7) >= 2**20


def test_counting_gives_up_in_time_and_minds_no_missing_folder(folders: HostFolders) -> None:
    assert folders.disk_bytes(7) == 0
    folders.ensure(7)
    assert folders.disk_bytes(7, seconds=0) == 0


# --- what a workspace is told ------------------------------------------------------------------------------------


def test_a_notice_replaces_the_one_before_and_its_reader_cannot_write(folders: HostFolders) -> None:
    folders.ensure(7)
    for text in ('{"a": 1}', '{"a": 2}'):
        folders.tell(7, text)
        file = folders.root / "notice_7" / "status.json"
        assert file.read_text() == text
    assert [path.name for path in file.parent.iterdir()] == ["status.json"]
    assert _owner_and_mode(file) == (0, 0, 0o644)
    assert _owner_and_mode(file.parent) == (0, 0, 0o755)


def test_a_notice_can_be_told_before_the_first_start(folders: HostFolders) -> None:
    folders.tell(7, "{}")
    assert (folders.root / "notice_7" / "status.json").read_text() == "{}"


def test_readers_never_see_half_a_notice(folders: HostFolders) -> None:
    texts = [letter * 5000 for letter in "abcdef"]
    folders.tell(7, texts[0])
    file, seen = folders.root / "notice_7" / "status.json", set()
    writing = [1] * 4

    def write() -> None:
        for text in texts * 5:
            folders.tell(7, text)
        writing.pop()

    def read() -> None:
        while writing:
            seen.add(file.read_text())

    together(read, *[write] * 4)
    assert seen <= set(texts)


def test_a_notice_that_cannot_be_written_leaves_nothing_behind(folders: HostFolders) -> None:
    folders.tell(7, "{}")
    file = folders.root / "notice_7" / "status.json"
    file.unlink()
    file.mkdir()  # a rename over a folder fails
    with pytest.raises(OSError, match="directory"):
        folders.tell(7, "{}")
    assert [path.name for path in file.parent.iterdir()] == ["status.json"]
