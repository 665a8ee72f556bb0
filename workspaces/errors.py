"""What can go wrong, split by whose fault it is and whether to try again."""

from __future__ import annotations


class WorkspaceError(Exception):
    """Base of all; `code` is for programs, the text is a sentence for a person."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class RuntimeUnavailable(WorkspaceError):
    """We could not ask. Nothing is known, so nothing may change; try again later."""

    code = "runtime_unavailable"


class NobodyAnswers(WorkspaceError):
    """A worker was asked for something and did not answer in time."""

    code = "no_worker"


class StartRefused(WorkspaceError):
    """The runtime answered that this start cannot work; the workspace becomes `failed` with this code."""

    code = "start_failed"


class PassingRefusal(StartRefused):
    """Refused for something that is known to pass: another attempt a moment later usually works."""

    code = "engine_busy"


class PortTaken(StartRefused):
    """Somebody else listens there; another port may work at once."""

    code = "port_taken"


class NoPortFree(StartRefused):
    """Every allowed port is held or in use."""

    code = "no_port_free"


class StopRefused(WorkspaceError):
    """The runtime answered that this container cannot be stopped."""

    code = "stop_failed"


class AccessDenied(WorkspaceError):
    """This user may not have a workspace (any more)."""

    code = "access_denied"


class NotRunning(WorkspaceError):
    """Only a running workspace can do that."""

    code = "not_running"


class TryLater(WorkspaceError):
    """Refused for now, and nothing was done. `retry_after` is in seconds."""

    code = "throttled"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StartsTooOften(TryLater):
    """More transitions into `starting` than one user may cause."""


class PasswordsBusy(TryLater):
    """More log-ins wait to be checked than can be soon."""


class LoginsTooOften(TryLater):
    """More tries to log in than one address may make."""


class LockedOut(TryLater):
    """Too many wrong passwords for one account from one place."""


class PasswordsUnavailable(WorkspaceError):
    """What checks passwords does not answer."""

    code = "login_unavailable"
