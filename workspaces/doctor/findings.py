"""What the doctor says: a finding, and what it could do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from workspaces.runtimes.base import Verdict

if TYPE_CHECKING:
    from workspaces.runtimes.base import Fact


class Fix(StrEnum):
    """What `--fix` can do; the text is what it is called before it is done."""

    NOTHING = ""
    RECONCILE = "compare rows and containers, and settle what does not agree"
    GIVE_UP = "give up the starts and stops that take too long, with a reason"
    STOP_DISABLED = "close the sessions of disabled accounts and stop what runs for them"
    RESTART = "restart these workspaces (files are kept)"
    PURGE = "delete the rows that nobody can use any more"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`users` are the workspaces that it is about, where it is about some."""

    what: str
    verdict: Verdict
    sentence: str
    fix: Fix = Fix.NOTHING
    users: tuple[int, ...] = ()

    @property
    def ok(self) -> bool:
        return self.verdict is not Verdict.WRONG

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"ok": self.ok}


def well(what: str, sentence: str) -> Finding:
    return Finding(what=what, verdict=Verdict.OK, sentence=sentence)


def advice(what: str, sentence: str, *, fix: Fix = Fix.NOTHING) -> Finding:
    return Finding(what=what, verdict=Verdict.ADVICE, sentence=sentence, fix=fix)


def wrong(what: str, sentence: str, *, fix: Fix = Fix.NOTHING, users: tuple[int, ...] = ()) -> Finding:
    return Finding(what=what, verdict=Verdict.WRONG, sentence=sentence, fix=fix, users=users)


def of_fact(fact: Fact) -> Finding:
    return Finding(what=fact.what, verdict=fact.verdict, sentence=fact.sentence)


def people(users: tuple[int, ...]) -> str:
    """`user 7`, `users 7, 9 and 12 more`: for the start of a sentence."""
    shown = ", ".join(str(user) for user in users[:10])
    more = f" and {len(users) - 10} more" if len(users) > 10 else ""  # noqa: PLR2004
    return f"{'user' if len(users) == 1 else 'users'} {shown}{more}"
