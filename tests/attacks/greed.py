"""Runs inside a workspace, as its user, with what every workspace has: takes all it can of one thing, and keeps it.

    python3 greed.py THING

How much it got is in `~/workspace/taken`, written as it grows: the host reads it there, because where a thing is used
up no further command starts in this container.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LIBC = ctypes.CDLL(None, use_errno=True)
WORKSPACE = Path("/home/coder/workspace")
TAKEN, SCRATCH = WORKSPACE / "taken", WORKSPACE / "scratch"
ARM = os.uname().machine == "aarch64"
SYS_IO_SETUP, SYS_TIMER_CREATE, SYS_MQ_OPEN, SYS_ADD_KEY = (0, 107, 180, 217) if ARM else (206, 222, 240, 248)
F_SETPIPE_SZ, SHM_LOCK = 1031, 11
IN_MODIFY = 0x2


def tell(what: str) -> None:
    TAKEN.write_text(f"{what}\n")


def checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def spread(count: int, work: Callable[[int], None]) -> None:
    """Run `work`, which never ends by itself, in `count` processes for ever; one that the kernel ends is replaced.

    They begin together: the last of many would wait long for its turn beside those that spin already.
    """
    numbers: dict[int, int] = {}
    gate, opens = os.pipe()

    def one(number: int) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                with contextlib.suppress(OSError):
                    os.close(opens)
                os.read(gate, 1)  # ends when nobody holds the other end any more
                work(number)
            finally:
                os._exit(1)
        numbers[pid] = number

    for number in range(count):
        with contextlib.suppress(OSError):
            one(number)
    os.close(opens)
    tell(f"{len(numbers)} processes")
    while True:
        pid, _ = os.wait()
        time.sleep(0.05)
        with contextlib.suppress(OSError):
            one(numbers.pop(pid, 0))


def hold(take: Callable[[], object], *, most: int, what: str, processes: int = 1) -> None:
    """Call `take` until it fails or `most` are held by so many processes; keep them for ever.

    `most` is what fits into the memory of a workspace: beyond, the kernel would end it, and nothing would be held.
    """
    tell("nothing yet")
    counters = [TAKEN.with_name(f"taken-{number}") for number in range(processes)]
    for counter in counters:
        counter.write_text("0 …")
        with contextlib.suppress(OSError):
            if os.fork() == 0:
                hold_alone(take, most=most // processes, counter=counter)
    while True:
        found = [counter.read_text().split() for counter in counters]
        whole = [words for words in found if len(words) > 1]  # one that is being written is empty
        ends = ", ".join(sorted({words[1] for words in whole}))
        tell(f"{sum(int(words[0]) for words in whole)} {what} ({ends})")
        time.sleep(0.5)


def hold_alone(take: Callable[[], object], *, most: int, counter: Path) -> None:
    held, end = list[object](), "no end"
    while len(held) < most:
        try:
            held.append(take())
        except OSError as error:
            end = errno.errorcode.get(error.errno or 0, "?")
            break
        if len(held) % 100 == 1:
            counter.write_text(f"{len(held)} …")
    counter.write_text(f"{len(held)} {end}")
    while True:
        signal.pause()


# --- what is worked with -----------------------------------------------------------------------------------------


def cpu() -> None:
    def work(_: int) -> None:
        while True:
            pass

    spread(400, work)


def starts() -> None:
    def work(_: int) -> None:
        while True:
            os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)

    spread(200, work)


def memory() -> None:
    def work(_: int) -> None:
        kept = list[bytearray]()
        while True:
            kept.append(bytearray(os.urandom(4096) * 256))

    spread(4, work)


def disk() -> None:
    """Writes that are waited for, large and small ones, without end; always the same files."""
    block = os.urandom(1 << 20)
    SCRATCH.mkdir(exist_ok=True)

    def work(number: int) -> None:
        while True:
            with (SCRATCH / f"big-{number}").open("wb") as file:
                for _ in range(16):
                    file.write(block)
                os.fsync(file.fileno())
            for small in range(50):
                with (SCRATCH / f"small-{number}-{small}").open("wb") as file:
                    file.write(b"x")
                    os.fsync(file.fileno())

    spread(4, work)


def log() -> None:
    """Into everything of everybody's that may lead into the container's log."""
    own = {str(os.getpid()), str(os.getppid())}
    others = [each for each in Path("/proc").iterdir() if each.name.isdigit() and each.name not in own]
    pipes_there = list[int]()
    for place in (each / "fd" / end for each in others for end in ("1", "2")):
        with contextlib.suppress(OSError):
            if str(place.readlink()).startswith("pipe:"):
                pipes_there.append(os.open(place, os.O_WRONLY))

    def work(number: int) -> None:
        while True:
            os.write(pipes_there[number % len(pipes_there)], b"y\n" * 32768)

    spread(4 if pipes_there else 0, work)


def connections() -> None:
    """To every port of the gateway, from ever new ones."""
    routes = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    gateway = next(int(route[2], 16).to_bytes(4, "little") for route in routes if route[1] == "00000000")

    def work(_: int) -> None:
        while True:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                for port in range(1, 65536):
                    with contextlib.suppress(OSError):
                        one.sendto(b"x", (socket.inet_ntoa(gateway), port))

    spread(6, work)


def names() -> None:
    """Its own name, of the engine, which answers here."""
    name = socket.gethostname().encode()
    question = b"gp\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + bytes([len(name)]) + name + b"\x00\x00\x01\x00\x01"

    def work(_: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(1)
            while True:
                with contextlib.suppress(OSError):
                    asking.sendto(question, ("127.0.0.11", 53))
                    asking.recv(512)

    spread(4, work)


# --- what is held ------------------------------------------------------------------------------------------------


def inotify() -> None:
    SCRATCH.mkdir(exist_ok=True)
    folders = [SCRATCH / str(number) for number in range(200)]
    for folder in folders:
        folder.mkdir(exist_ok=True)

    def take() -> int:
        held = checked(LIBC.inotify_init())
        for folder in folders:
            checked(LIBC.inotify_add_watch(held, bytes(folder), IN_MODIFY))
        return held

    hold(take, most=8000, what="inotify instances of 200 watches")


def ptys() -> None:
    hold(lambda: os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY), most=40_000, what="terminals", processes=5)


def timers() -> None:
    def take() -> int:
        made = ctypes.c_int()
        return checked(LIBC.syscall(SYS_TIMER_CREATE, 1, None, ctypes.byref(made)))

    hold(take, most=300_000, what="timers")


def pipes() -> None:
    def take() -> tuple[int, int]:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        with contextlib.suppress(PermissionError):  # beyond the kernel's limit: go on with smaller ones
            fcntl.fcntl(writer, F_SETPIPE_SZ, 1 << 20)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * (1 << 16))
        return reader, writer

    hold(take, most=600, what="filled pipes of up to 1 MB")


def queues() -> None:
    number = itertools.count()

    def take() -> int:
        name = f"greed-{next(number)}".encode()
        return checked(LIBC.syscall(SYS_MQ_OPEN, name, os.O_CREAT | os.O_RDWR, 0o600, None))

    hold(take, most=4000, what="message queues")


def keys() -> None:
    number = itertools.count()

    def take() -> int:
        return checked(LIBC.syscall(SYS_ADD_KEY, b"user", f"greed-{next(number)}".encode(), b"x", 1, -4))

    hold(take, most=100_000, what="keys")


def files() -> None:
    hold(lambda: os.open("/dev/null", os.O_RDONLY), most=4_000_000, what="open files", processes=150)


def epolls() -> None:
    polled = [os.eventfd(0) for _ in range(2000)]

    def take() -> select.epoll:
        held = select.epoll(1)
        for one in polled:
            held.register(one, select.EPOLLIN)
        return held

    hold(take, most=1500, what="epoll instances of 2,000 each")


def requests() -> None:
    def take() -> int:
        context = ctypes.c_ulong()
        return checked(LIBC.syscall(SYS_IO_SETUP, 128, ctypes.byref(context)))

    hold(take, most=50_000, what="contexts of asynchronous requests", processes=4)


def sockets() -> None:
    def take() -> tuple[socket.socket, socket.socket]:
        one, other = socket.socketpair()
        one.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                one.send(b"x" * 65536)
        return one, other

    hold(take, most=2000, what="filled socket pairs")


def descriptors() -> None:
    """Sent to a socket that nobody reads: so many may be on their way of one user's."""

    def take() -> tuple[socket.socket, socket.socket]:
        one, other = socket.socketpair()
        socket.send_fds(one, [b"x"], [0] * 253)
        return one, other

    hold(take, most=1000, what="messages of 253 descriptors")


def locked() -> None:
    """Shared memory that must stay in memory."""

    def take() -> int:
        segment = checked(LIBC.shmget(0, 65536, 0o1600))
        return checked(LIBC.shmctl(segment, SHM_LOCK, None))

    hold(take, most=4000, what="locked segments of 64 KB")


def locks() -> None:
    SCRATCH.mkdir(exist_ok=True)
    number = itertools.count()
    with (SCRATCH / "locked").open("w+b") as file:
        hold(lambda: fcntl.lockf(file, fcntl.LOCK_EX, 1, 2 * next(number)), most=1_000_000, what="locks")


WORKED = (cpu, starts, memory, disk, log, connections, names)
HELD = (
    inotify,
    ptys,
    timers,
    pipes,
    queues,
    keys,
    files,
    epolls,
    requests,
    sockets,
    descriptors,
    locked,
    locks,
)
GREEDS = (*WORKED, *HELD)

if __name__ == "__main__":
    {greed.__name__: greed for greed in GREEDS}[sys.argv[1]]()
