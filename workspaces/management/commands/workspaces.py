"""The operator's tool: `manage.py workspaces VERB`."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from workspaces import access, lifecycle, logins, operator
from workspaces.admission import Queue
from workspaces.api.representation import represent
from workspaces.errors import WorkspaceError
from workspaces.models import Transition, Workspace
from workspaces.naming import user_name
from workspaces.states import SENTENCES, Reason, State

LABELS = {"ok": "ok", "advice": "ADVICE", "wrong": "WRONG"}
COLUMNS = ("user_id", "username", "state", "port", "container", "last_activity_at", "stop_reason")


class Command(BaseCommand):
    help = "Look at workspaces and act on them, through the same lifecycle as the API."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        # On every verb, so that `workspaces list --json` works as people type it.
        common = argparse.ArgumentParser(add_help=False)
        common.add_argument("--json", action="store_true", help="print JSON for programs")
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

        listing = verbs.add_parser("list", parents=[common], help="every workspace, latest change first")
        listing.add_argument("--state", choices=[str(state) for state in State], help="only those in this state")
        for verb, text in (
            ("show", "one workspace with its history"),
            ("start", "start a user's workspace"),
            ("stop", "stop a user's workspace"),
            ("restart", "stop a user's workspace and start it again"),
            ("unlock", "forget a user's wrong passwords: they may try again at once"),
        ):
            named = verbs.add_parser(verb, parents=[common], help=text)
            named.add_argument("user", help="a user's id or username")
        sweep = verbs.add_parser("sweep", parents=[common], help="run the idle sweep now (on a worker)")
        sweep.add_argument("--dry-run", action="store_true", help="only list what would stop, and why")
        verbs.add_parser("reconcile", parents=[common], help="compare rows and containers now (on a worker)")
        diagnosis = verbs.add_parser("doctor", parents=[common], help="say what is wrong (on a worker)")
        diagnosis.add_argument("--fix", action="store_true", help="and put right what a program may; says what it did")

    def handle(self, *args: Any, **options: Any) -> None:
        del args
        try:
            getattr(self, f"_{options['verb']}")(options)
        except WorkspaceError as error:
            raise CommandError(f"{error.message} ({error.code})") from error

    def _list(self, options: dict[str, Any]) -> None:
        rows = access.all_workspaces().order_by("-changed_at")
        if options["state"]:
            rows = rows.filter(state=options["state"])
        queue = Queue()
        found = [represent(row, queue=queue) | {"username": row.user.get_username()} for row in rows]
        if options["json"]:
            self._json(found)
            return
        self._table([{name: row[name] for name in COLUMNS} for row in found])

    def _show(self, options: dict[str, Any]) -> None:
        workspace = access.get_workspace_for(_user(options["user"]))
        history = Transition.objects.filter(workspace_id=workspace.pk).select_related("actor")[:20]
        shown = represent(workspace)
        events = [
            {
                "time": row.time.astimezone(UTC).isoformat(),
                "from": row.from_state,
                "to": row.to_state,
                "reason": row.reason,
                "actor": row.actor.get_username() if row.actor else None,
                "explanation": row.detail.get("sentence") or SENTENCES.get(row.reason, ""),
                "detail": row.detail,
            }
            for row in history
        ]
        if options["json"]:
            self._json(shown | {"history": events})
            return
        for name, value in shown.items():
            self.stdout.write(f"{name:>18}  {json.dumps(value) if isinstance(value, dict | list) else value}")
        self.stdout.write("\nHistory, newest first:")
        for event in events:
            by = f" by {event['actor']}" if event["actor"] else ""
            line = f"{event['time']}  {event['from']} -> {event['to']}  {event['reason']}{by}. {event['explanation']}"
            self.stdout.write(f"  {line}")
            if event["detail"]:
                self.stdout.write(f"      {json.dumps(event['detail'])}")

    def _start(self, options: dict[str, Any]) -> None:
        self._report(options, lifecycle.request_start(_user(options["user"]), actor=None, reason=Reason.STAFF))

    def _stop(self, options: dict[str, Any]) -> None:
        workspace = access.get_workspace_for(_user(options["user"]))
        self._report(options, lifecycle.request_stop(workspace, actor=None, reason=Reason.STAFF))

    def _restart(self, options: dict[str, Any]) -> None:
        self._report(options, lifecycle.request_restart(_user(options["user"]), actor=None, reason=Reason.STAFF))

    def _unlock(self, options: dict[str, Any]) -> None:
        user = _user(options["user"])
        held = logins.forget_wrong_passwords(user)
        if options["json"]:
            self._json({"user_id": user.pk, "held": held})
        else:
            self.stdout.write(f"user {user.pk}: {'may try again' if held else 'nothing was held against this account'}")

    def _sweep(self, options: dict[str, Any]) -> None:
        self._actions(options, operator.ask("sweep", dry_run=options["dry_run"]))

    def _reconcile(self, options: dict[str, Any]) -> None:
        self._actions(options, operator.ask("reconcile"))

    def _doctor(self, options: dict[str, Any]) -> None:
        answer = operator.ask("doctor", fix=options["fix"])
        if options["json"]:
            self._json(answer)
        else:
            for sentence in answer["done"]:
                self.stdout.write(f"DID     {sentence}")
            for finding in answer["findings"]:
                self.stdout.write(f"{LABELS[finding['verdict']]:<6}  {finding['what']}: {finding['sentence']}")
                if finding["fix"]:
                    self.stdout.write(f"        --fix would {finding['fix']}")
        if not all(finding["ok"] for finding in answer["findings"]):
            sys.exit(1)

    def _report(self, options: dict[str, Any], workspace: Workspace) -> None:
        if options["json"]:
            self._json(represent(workspace))
        else:
            self.stdout.write(f"user {workspace.user_id}: {workspace.state}")

    def _actions(self, options: dict[str, Any], report: dict[str, Any]) -> None:
        if options["json"]:
            self._json(report)
        elif not report["actions"] and not report["skipped"]:
            self.stdout.write("nothing to do")
        for action in [] if options["json"] else report["actions"]:
            self.stdout.write("  ".join(f"{name}={value}" for name, value in action.items()))
        if report["skipped"]:
            raise CommandError(report["skipped"])

    def _json(self, value: Any) -> None:
        self.stdout.write(json.dumps(value, default=_plain, indent=2))

    def _table(self, rows: list[dict[str, Any]]) -> None:
        cells = [COLUMNS, *(tuple("-" if row[c] is None else str(row[c]) for c in COLUMNS) for row in rows)]
        widths = [max(len(row[index]) for row in cells) for index in range(len(COLUMNS))]
        for row in cells:
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.stdout.write(line.rstrip())


def _user(name: str) -> Any:
    """The user by id, else by username: a user may be called `7`, but ids are what operators copy."""
    users = get_user_model()._default_manager
    found = users.filter(pk=int(name)).first() if name.isdecimal() and len(name) < 19 else None  # noqa: PLR2004 - bigint
    found = found or users.filter(username=user_name(name)).first()
    if found is None:
        raise CommandError(f"There is no user {name!r}. `manage.py workspaces list` shows who has a workspace.")
    return found


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
