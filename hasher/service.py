"""The process: a unix socket, one hash at a time. `python -m hasher [SOCKET]`.

A line of JSON each way, one question a connection, which stays open until the answer:
    {"who": "whose turn", "password": "base64", "salt": "text", "iterations": 600000, "more": 400000, "first": false}
      → {"hash": "base64"}: of so many iterations; `more` are worked as well, so that old hashes take as long as new
      → {"wait": 3}: too many ask, or this one waited too long; again after so many seconds
      → {"error": "…"}: this is no question
    `first`: it had its turn already, this is its second half
    {} → {"waiting": 2, "working": 0.3}: how many wait, and for how long one has been worked on, for health checks
Nothing of a question is ever logged or kept. Who closes the connection is not worked for any more.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hasher import SOCKET
from hasher.turns import Turns

LONGEST_LINE = 2**16
#: Whoever waits longer is told to come again: a proxy gives up after a minute.
LONGEST_WAIT = 25.0
#: So many requests of web may wait here, each of which is a thread there.
ROOM = 64
#: Seconds that a hash takes before any was made: 1,000,000 rounds of SHA-256 took 0.4 to 0.6 s on the machines tried.
GUESS = 0.5
MOST_ITERATIONS = 10_000_000
ASKING_SECONDS = 5  # from a connection to its whole question
UNREADABLE = (ValueError, KeyError, TypeError, ArithmeticError, RecursionError)


class Question:
    """What is asked for, and where its answer is awaited."""

    def __init__(self, asked: dict[str, Any]) -> None:
        """Raises one of UNREADABLE for what is no question."""
        self.who = str(asked["who"])[:100]
        self.first = asked.get("first") is True
        self._password = base64.b64decode(asked["password"], validate=True)
        self._salt = str(asked["salt"]).encode()
        self._iterations, self._more = int(asked["iterations"]), int(asked.get("more", 0))
        if not (0 < self._iterations <= MOST_ITERATIONS and 0 <= self._more <= MOST_ITERATIONS):
            raise ValueError("so many iterations are not worked here")
        self.answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def work(self) -> bytes:
        found = hashlib.pbkdf2_hmac("sha256", self._password, self._salt, self._iterations)
        if self._more:
            hashlib.pbkdf2_hmac("sha256", self._password, self._salt, self._more)
        return found

    def settle(self, answer: dict[str, Any]) -> None:
        if not self.answer.done():  # whoever asked may have gone
            self.answer.set_result(answer)


class Service:
    def __init__(self) -> None:
        self._turns: Turns[Question] = Turns(room=ROOM, longest=LONGEST_WAIT, each=GUESS)
        self._something = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._began: float | None = None

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with contextlib.suppress(OSError, TimeoutError):
            try:
                asked = json.loads(await asyncio.wait_for(reader.readline(), ASKING_SECONDS))
                answer = await self._ask(Question(asked), reader) if asked != {} else self._standing()
            except UNREADABLE as problem:
                answer = {"error": f"no question: {type(problem).__name__}"}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    def _standing(self) -> dict[str, Any]:
        working = 0.0 if self._began is None else time.monotonic() - self._began
        return {"waiting": len(self._turns), "working": round(working, 1)}

    async def _ask(self, question: Question, reader: asyncio.StreamReader) -> dict[str, Any]:
        if question.first:
            self._turns.go_first(question)
        else:
            busy, gave_up = self._turns.join(question.who, question)
            if busy:
                return {"wait": busy.seconds}
            if gave_up:
                gave_up.settle({"wait": self._turns.busy().seconds})
        self._something.set()
        gone = asyncio.create_task(_until_closed(reader))
        try:
            either: set[asyncio.Future[Any]] = {gone, question.answer}
            await asyncio.wait(either, timeout=LONGEST_WAIT, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        if not question.answer.done():
            self._turns.leave(question.who, question)
            question.settle({"wait": self._turns.busy().seconds})
        return question.answer.result()

    async def work(self) -> None:
        """For ever: whoever is next."""
        while True:
            question = self._turns.next()
            if question is None:
                self._something.clear()
                await self._something.wait()
                continue
            self._began = time.monotonic()
            found = await asyncio.get_running_loop().run_in_executor(self._thread, question.work)
            self._turns.took(time.monotonic() - self._began)
            self._began = None
            question.settle({"hash": base64.b64encode(found).decode()})


async def _until_closed(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):  # closed all the same
        await reader.read(1)


def listen(path: Path) -> socket.socket:
    """What an earlier process left at `path` is replaced. Its folder says who may come in, its group is web's."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o660)
    return listener


async def serve(listener: socket.socket) -> None:
    """Answer until SIGTERM or SIGINT."""
    service, ended = Service(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    server = await asyncio.start_unix_server(service.answer, sock=listener, limit=LONGEST_LINE, backlog=ROOM)
    working, end = asyncio.create_task(service.work()), asyncio.create_task(ended.wait())
    # A worker that fails ends the process, which is then started anew: it must not look alive and answer nobody.
    await asyncio.wait({working, end}, return_when=asyncio.FIRST_COMPLETED)
    server.close()
    if working.done():
        working.result()


def main() -> None:
    status = 1
    try:
        asyncio.run(serve(listen(Path(sys.argv[1] if len(sys.argv) > 1 else SOCKET))))
        status = 0
    except Exception:  # noqa: BLE001 - written here, because the exit below says nothing
        traceback.print_exc()
    finally:
        os._exit(status)  # a hash that nobody waits for any more does not hold the end up
