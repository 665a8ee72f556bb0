"""THE SEAM: what a runtime must do. Five idempotent verbs and a few reads over frozen values.

No ORM, no Celery, no settings in here or in any runtime: values come in, observations go out.

Every method may raise `RuntimeUnavailable`: "I could not ask", which is never a phase. Absent is a phase, never an
error. Every runtime passes tests/contract/test_runtime_contract.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

# For so long an editor is asked for its health, unless somebody has more patience.
HEALTH_SECONDS = 3.0


class Phase(StrEnum):
    ABSENT = "absent"
    CREATED = "created"  # exists, never started or in a restart
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"
    REMOVING = "removing"  # also `dead`: the name is in use, the container is not


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where the editor listens, as seen from the platform's own network namespace."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class WorkspaceSpec:
    """All that makes two containers interchangeable, but for `generation`. Built in `spec.py` only.

    `hash` covers every field except `generation`: another hash means that the container must be replaced.
    Sizes are bytes, `cpus` is processors, `stop_grace` is seconds; `disk_write` is bytes a second and `disk_writes`
    writes a second, both 0 for no limit.
    """

    name: str
    user_id: int
    instance: str
    generation: int
    image: str
    endpoint: Endpoint
    memory: int
    cpus: float
    pids: int
    disk_write: int
    disk_writes: int
    stop_grace: int
    secret: str = field(repr=False)
    hash: str = ""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What the runtime answered about one name at one moment. `user_id` None: not one of ours."""

    name: str
    phase: Phase
    container_id: str = ""
    user_id: int | None = None
    generation: int = 0
    spec_hash: str = ""
    image: str = ""
    endpoint: Endpoint | None = None
    exit_code: int | None = None
    out_of_memory: bool = False

    @property
    def alive(self) -> bool:
        return self.phase in {Phase.RUNNING, Phase.PAUSED}


@dataclass(frozen=True, kw_only=True)
class Health:
    """The editor's own answer. `ready` False: it answered wrongly or not at all."""

    ready: bool
    last_heartbeat_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """One sample. `cpu_seconds` only grows while the container lives; sizes are bytes.

    `read_at` is when the engine read it, which on a busy one is seconds after it was asked; None where it does not say.
    """

    cpu_seconds: float
    memory_bytes: int
    memory_limit_bytes: int
    pids: int
    disk_bytes: int
    read_at: datetime | None = None


class RequestVerb(StrEnum):
    KEEP = "keep"
    STOP = "stop"
    STOP_WHEN_DONE = "stop_when_done"
    CANCEL = "cancel"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What somebody inside asked of the platform: a button in the editor, or `gunpowder` in a terminal."""

    id: str
    verb: RequestVerb
    asked_at: datetime | None = None
    minutes: float = 0


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a workspace says of itself. A user's word: checked for form, and its times never lie in the future.

    `present_at` None: nothing in there reports presence (no extension, or what it wrote makes no sense). `alive_at` is
    when that which reports it last said that it still notices: what an ended one wrote says nothing of now.
    """

    present_at: datetime | None = None
    alive_at: datetime | None = None
    source: str = ""
    request: Request | None = None


@dataclass(frozen=True, kw_only=True)
class Signals:
    """One look at a workspace that runs. None, each time: it could not be learnt.

    `commands` are the names of the foreground commands of its terminals, `cpu_seconds` only grows while the container
    lives (read at `cpu_read_at`, where the engine says so), `connected` is whether anybody is connected now.
    """

    ready: bool
    report: Report | None
    commands: tuple[str, ...] | None
    cpu_seconds: float | None
    connected: bool | None
    last_heartbeat_at: datetime | None = None
    cpu_read_at: datetime | None = None


class Verdict(StrEnum):
    OK = "ok"
    ADVICE = "advice"  # works, and would work better or longer otherwise
    WRONG = "wrong"


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Something about where workspaces run that an operator should know; the sentence says what to do about it."""

    what: str
    verdict: Verdict
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Change:
    """A container began to run, or did not any more; which of both was true a moment ago."""

    name: str
    began: bool


class Runtime(Protocol):
    def ensure_running(self, spec: WorkspaceSpec) -> Observation:
        """Make exactly one container with `spec.hash` run under `spec.name`, and its folders exist.

        1. Create the user's folders if absent (a README in a new one); existing files are never touched.
        2. Absent: create and start. Stopped with the same hash: start. Another hash: replace, keeping the files.
        Safe to call again, in parallel, and after a half-done call. Returns once the container runs; whether the
        editor answers yet is `health`.
        Raises PortTaken when `spec.endpoint` is in use (no container is left behind), StartRefused with a code
        and a sentence when this cannot work as it is.
        """
        ...

    def observe(self, name: str) -> Observation:
        """Say what is there now. An unknown name is `Phase.ABSENT`."""
        ...

    def ensure_stopped(self, name: str, *, generation: int, grace: int) -> None:
        """SIGTERM, `grace` seconds, SIGKILL. Absent or already stopped: nothing to do.

        A container that carries a newer generation than `generation` belongs to a later start and is left alone.
        Raises StopRefused when the runtime answered that it cannot.
        """
        ...

    def ensure_removed(self, name: str) -> None:
        """Remove the container, running or not; never the user's files. Absent: nothing to do."""
        ...

    def observe_all(self) -> Iterator[Observation]:
        """Every container of this instance, running or not, in any order; one that vanishes meanwhile is left out."""
        ...

    def changes(self) -> Iterator[Change]:
        """Say which of this instance's containers begin and end from now on, as it happens, asked for or not.

        Blocks between two of them; ends when the runtime ends the conversation. A hint: some may be missing or doubled.
        Listens when it returns. Raises RuntimeUnavailable when the runtime does not answer.
        """
        ...

    def health(self, endpoint: Endpoint, *, seconds: float = HEALTH_SECONDS) -> Health:
        """Ask the editor whether it answers, so that asking does not count as activity. Takes at most `seconds`.

        `last_heartbeat_at` is now while anybody is connected, else when the editor last saw somebody.
        """
        ...

    def report(self, endpoint: Endpoint, *, secret: str) -> Report:
        """Read what the workspace says of itself, so that asking does not count as activity. Takes at most 3 s.

        Nothing there, or nothing that makes sense, is an empty Report. `secret` is the editor's inner one.
        Raises RuntimeUnavailable when there was no answer.
        """
        ...

    def signals(self, name: str) -> Signals:
        """Look at everything that tells whether a workspace is in use. Changes nothing and counts as nothing.

        Takes at most 15 s in all, usually a tenth of one; a part that could not be learnt in time is None. A container
        that does not run is not `ready`, and nothing else is known of it.
        """
        ...

    def tell(self, user_id: int, notice: str) -> None:
        """Let the workspace of `user_id` read `notice` (a JSON text), all of it or the one before.

        It stays readable to later containers of that user. Raises RuntimeUnavailable when it could not be told.
        """
        ...

    def port_free(self, endpoint: Endpoint) -> bool:
        """Whether nothing listens there now. True is a hint: `ensure_running` may still find it taken."""
        ...

    def logs(self, name: str, *, tail: int) -> list[str]:
        """The last `tail` lines that the container wrote; an absent one wrote none."""
        ...

    def usage(self, name: str) -> Usage | None:
        """A sample of what a running container uses; None when it does not run."""
        ...

    def memory_available(self) -> int | None:
        """Bytes that more workspaces could use where they run; None where that is not known. Never asks for long."""
        ...

    def examine(self, *, image: str, user_ids: frozenset[int]) -> list[Fact]:
        """Look at the place where workspaces run: its version and settings, its limits, its clock, what is left of it.

        `image` is what workspaces are made from, `user_ids` are those who have files. For the doctor: takes up to 30 s.
        """
        ...

    def ping(self) -> None:
        """Return if the runtime answers, else raise RuntimeUnavailable."""
        ...
