"""Django's sessions in the database, but a cookie that cannot be a key of ours is no session, not an error.

Django takes any text of eight letters for a key; Postgres refuses NUL, which a quoted cookie can carry.
"""

from __future__ import annotations

from typing import Any

from django.contrib.sessions.backends import db


class SessionStore(db.SessionStore):
    def _validate_session_key(self, key: Any) -> bool:
        return isinstance(key, str) and key.isascii() and key.isalnum() and super()._validate_session_key(key)  # type: ignore[misc]
