"""The users' folders on the host. Everything below the root may be hostile: no symbolic link is ever followed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from workspaces import naming
from workspaces.errors import StartRefused

if TYPE_CHECKING:
    from pathlib import Path

OWNER = 1000  # `coder` in the workspace image
MODE = 0o700
NOTICE_MODE = 0o755  # the platform's own folder, which the workspace may read
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

README = """# Your workspace

This folder is yours: files here stay when the workspace stops, starts again or gets a new container.

- Everything is saved a moment after you type.
- Settings, extensions and the shell's history are kept too, in your home folder.
- The workspace stops by itself when nobody uses it, and comes back in a second.
"""


@dataclass(frozen=True, kw_only=True)
class HostFolders:
    """Makes and measures `user_{id}` and `home_{id}` below `root`, the platform's own view of the workspace root."""

    root: Path

    def ensure(self, user_id: int) -> None:
        """Make both folders exist with the right owner and mode; idempotent, never touches a file in them.

        A new files folder appears complete with its README, or not at all.
        Raises StartRefused `folder_unusable` or `disk_full`.
        """
        try:
            root = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _ensure_files(root, naming.files_folder(user_id))
                _ensure_folder(root, naming.home_folder(user_id))
                home = os.open(naming.home_folder(user_id), _OPEN_FOLDER, dir_fd=root)
                try:
                    _ensure_mount_point(home, naming.FILES.name)
                finally:
                    os.close(home)
                _ensure_notices(root, naming.notice_folder(user_id))
            finally:
                os.close(root)
        except OSError as error:
            raise _explain(error, user_id) from error

    def tell(self, user_id: int, notice: str) -> None:
        """Replace the notice that the user's workspace reads. Raises OSError."""
        root = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            name = naming.notice_folder(user_id)
            _ensure_notices(root, name)
            folder = os.open(name, _OPEN_FOLDER, dir_fd=root)
            try:
                _replace(folder, naming.NOTICE_FILE, notice.encode())
            finally:
                os.close(folder)
        finally:
            os.close(root)

    def disk_bytes(self, user_id: int, *, seconds: float = 1.0) -> int:
        """Bytes that the user's folders take on disk; stops counting after `seconds` and says what it has."""
        deadline = time.monotonic() + seconds
        folders = (naming.files_folder(user_id), naming.home_folder(user_id))
        return sum(_disk_bytes(self.root / folder, deadline) for folder in folders)


def _ensure_files(root: int, name: str) -> None:
    try:
        os.stat(name, dir_fd=root, follow_symlinks=False)
    except FileNotFoundError:
        _make_files(root, name)
    _ensure_folder(root, name)


def _ensure_folder(root: int, name: str) -> None:
    """Make it if it is missing; owner and mode are set anew each time, so a half-done attempt is healed."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, MODE, dir_fd=root)
    folder = os.open(name, _OPEN_FOLDER, dir_fd=root)
    try:
        found = os.fstat(folder)
        if (found.st_uid, found.st_gid) != (OWNER, OWNER):
            os.fchown(folder, OWNER, OWNER)
        if stat.S_IMODE(found.st_mode) != MODE:
            os.fchmod(folder, MODE)
    finally:
        os.close(folder)


def _ensure_notices(root: int, name: str) -> None:
    """The platform's own folder: no user can write there, so nothing hostile is in it."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, NOTICE_MODE, dir_fd=root)
        os.chmod(name, NOTICE_MODE, dir_fd=root)  # whatever the umask made of it


def _replace(folder: int, name: str, content: bytes) -> None:
    """All of it or the one before: readers never see a half."""
    building = f".{name}.{secrets.token_hex(4)}"
    file = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=folder)
    try:
        with os.fdopen(file, "wb") as stream:
            os.fchmod(stream.fileno(), 0o644)
            stream.write(content)
        os.rename(building, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(building, dir_fd=folder)
        raise


def _make_files(root: int, name: str) -> None:
    """Build under another name, then rename: a worker killed half-way leaves no folder without its README.

    A rename replaces an empty folder silently, so this is only for one that is built with something in it.
    """
    building = f".{name}.{secrets.token_hex(4)}"
    os.mkdir(building, MODE, dir_fd=root)
    folder = os.open(building, _OPEN_FOLDER, dir_fd=root)
    try:
        file = os.open("README.md", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=folder)
        with os.fdopen(file, "w", encoding="utf-8") as stream:
            stream.write(README)
            os.fchown(stream.fileno(), OWNER, OWNER)
        os.fchown(folder, OWNER, OWNER)
        os.fchmod(folder, MODE)
    finally:
        os.close(folder)
    try:
        os.rename(building, name, src_dir_fd=root, dst_dir_fd=root)
    except OSError:
        # Somebody else made it meanwhile and it holds something; ours is the one to go.
        with contextlib.suppress(OSError):
            os.unlink(f"{building}/README.md", dir_fd=root)
        os.rmdir(building, dir_fd=root)


def _ensure_mount_point(home: int, name: str) -> None:
    """The files are mounted at `~/workspace`; whatever else the user put there is moved aside, not deleted."""
    try:
        found = os.stat(name, dir_fd=home, follow_symlinks=False)
    except FileNotFoundError:
        pass
    else:
        if stat.S_ISDIR(found.st_mode):
            return
        os.rename(name, f"{name}.moved-{secrets.token_hex(4)}", src_dir_fd=home, dst_dir_fd=home)
    with contextlib.suppress(FileExistsError):  # another start of the same user made it meanwhile
        os.mkdir(name, MODE, dir_fd=home)
    os.chown(name, OWNER, OWNER, dir_fd=home, follow_symlinks=False)


def _disk_bytes(folder: Path, deadline: float) -> int:
    total = 0
    # fwalk holds each folder open and compares it with what it saw: one swapped for a link meanwhile is not entered.
    with contextlib.suppress(OSError):
        for _, folders, files, place in os.fwalk(folder, follow_symlinks=False):
            if time.monotonic() >= deadline:
                break
            for name in chain(folders, files):
                with contextlib.suppress(OSError):
                    total += os.stat(name, dir_fd=place, follow_symlinks=False).st_blocks * 512
    return total


def _explain(error: OSError, user_id: int) -> StartRefused:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StartRefused(
            "The disk that holds the workspaces is full, so the workspace's folder could not be made. "
            "An administrator must free space; no file was touched.",
            code="disk_full",
        )
    return StartRefused(
        f"The folder of this workspace ({naming.files_folder(user_id)} or {naming.home_folder(user_id)}) cannot be "
        f"used: {error.strerror}. An administrator must look at it; no file was touched.",
        code="folder_unusable",
    )
