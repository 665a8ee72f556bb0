"""Makes the first admin and the demo user if they are missing; never changes an account that exists."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser
from django.db import IntegrityError, transaction

from workspaces import conf


class Command(BaseCommand):
    help = "Make the accounts `admin` and `demo` if they are missing; existing accounts are left alone."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--migrate", action="store_true", help="bring the database up to date before that")

    def handle(self, *args: Any, **options: Any) -> None:
        del args
        if options["migrate"]:  # in one process: to start a second takes longer than all it does
            call_command("migrate", interactive=False, stdout=self.stdout, stderr=self.stderr)
        env = conf.env()
        self._ensure("admin", env.admin_password or env.secret("admin_password"), is_staff=True, is_superuser=True)
        if env.demo_user:
            self._ensure("demo", env.demo_password or env.secret("demo_password"))

    def _ensure(self, username: str, password: str, **flags: Any) -> None:
        users: Any = get_user_model()._default_manager
        if users.filter(username=username).exists():
            return
        if not password:
            self.stderr.write(f"{username}: no password is set or generated, so the account was not made.")
            return
        try:
            with transaction.atomic():
                users.create_user(username, password=password, **flags)
        except IntegrityError:  # another migrate made it meanwhile
            return
        self.stdout.write(f"made the account {username}")
