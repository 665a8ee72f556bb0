"""Refresh tokens that the release before kept in clear: forgotten after every migration.

Not once for all: that release still answers while this one comes up, and again if this one is taken back, and writes
new ones each time. They open nothing here, because they name no family.
"""

from __future__ import annotations

from typing import Any

import structlog
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db import OperationalError, connection, transaction

logger = structlog.get_logger(__name__)

TABLES = ("token_blacklist_blacklistedtoken", "token_blacklist_outstandingtoken")
LOCK_SECONDS = 5  # everything that reads users waits as long as this does


def forget(**_: Any) -> None:
    """Empty the tables, take their hold on users, and take their permissions out of the admin. Idempotent.

    Where the locks are not to be had soon, nothing is changed; the next migration tries again.
    """
    with connection.cursor() as cursor:
        there = [table for table in TABLES if table in connection.introspection.table_names(cursor)]
    if not there:
        return
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
            # First what locks users as well: whoever deletes one takes these tables after that.
            for statement in _statements_that_let_users_go(cursor, there):
                cursor.execute(statement)
            cursor.execute(f"TRUNCATE {', '.join(there)}")
            ContentType.objects.filter(app_label="token_blacklist").delete()
    except OperationalError as problem:
        logger.warning("old_tokens_kept", error=str(problem).strip(), next="the next migration tries again")


def _statements_that_let_users_go(cursor: Any, tables: list[str]) -> list[str]:
    """A row that comes in later would keep its user from being deleted."""
    users = get_user_model()._meta.db_table
    return [
        f"ALTER TABLE {table} DROP CONSTRAINT {connection.ops.quote_name(name)}"
        for table in tables
        for name, found in connection.introspection.get_constraints(cursor, table).items()
        if found["foreign_key"] and found["foreign_key"][0] == users
    ]
