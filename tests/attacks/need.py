"""Runs inside a workspace: takes a little of all that the kernel counts by user, and prints what it did not get."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import socket

LIBC = ctypes.CDLL(None, use_errno=True)
ARM = os.uname().machine == "aarch64"
SYS_IO_SETUP, SYS_TIMER_CREATE, SYS_MQ_OPEN = (0, 107, 180) if ARM else (206, 222, 240)
PIPE_SIZE = 65536  # what a pipe holds, unless its user has too many
F_GETPIPE_SZ = 1032
IPC_RMID, SHM_LOCK = 0, 11


def checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def inotify() -> None:
    for _ in range(4):
        held = checked(LIBC.inotify_init())
        for folder in (b"/", b"/usr", b"/etc", b"/opt", b"/home"):
            checked(LIBC.inotify_add_watch(held, folder, 0x2))


def ptys() -> None:
    for _ in range(8):
        os.openpty()


def timers() -> None:
    made = ctypes.c_int()
    for _ in range(8):
        checked(LIBC.syscall(SYS_TIMER_CREATE, 1, None, ctypes.byref(made)))


def pipes() -> None:
    _, writer = os.pipe()
    size = fcntl.fcntl(writer, F_GETPIPE_SZ)
    if size < PIPE_SIZE:
        raise OSError(0, f"a pipe of {size} bytes")


def queues() -> None:
    os.close(checked(LIBC.syscall(SYS_MQ_OPEN, b"need", os.O_CREAT | os.O_RDWR, 0o600, None)))
    LIBC.mq_unlink(b"/need")


def epolls() -> None:
    held = select.epoll()
    for _ in range(200):
        held.register(os.eventfd(0), select.EPOLLIN)


def requests() -> None:
    context = ctypes.c_ulong()
    checked(LIBC.syscall(SYS_IO_SETUP, 64, ctypes.byref(context)))


def sockets() -> None:
    held = [socket.socketpair() for _ in range(50)]
    for one, other in held:
        one.send(b"x" * 1000)
        other.recv(1000)


def descriptors() -> None:
    one, _ = socket.socketpair()
    socket.send_fds(one, [b"x"], [0])


def locked() -> None:
    segment = checked(LIBC.shmget(0, 4096, 0o1600))
    try:
        checked(LIBC.shmctl(segment, SHM_LOCK, None))
    finally:
        LIBC.shmctl(segment, IPC_RMID, None)


def processes() -> None:
    for _ in range(20):
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


def files() -> None:
    for _ in range(500):
        os.open("/dev/null", os.O_RDONLY)


NEEDS = (inotify, ptys, timers, pipes, queues, epolls, requests, sockets, descriptors, locked, processes, files)

if __name__ == "__main__":
    missing: dict[str, str] = {}
    for need in NEEDS:
        try:
            need()
        except OSError as error:
            missing[need.__name__] = str(error.strerror)
    print(json.dumps(missing))
