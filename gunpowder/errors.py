"""Answers for what nobody caught: a database that is away is a 503 that says so, not a 500."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from django.db import InterfaceError, OperationalError
from psycopg_pool import PoolTimeout

from workspaces.api.errors import error_response, wants_json
from workspaces.web import views

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeout)
SENTENCE = "The database does not answer. Open editors go on working; try again in a moment."


def server_error(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
    if isinstance(sys.exc_info()[1], DATABASE_AWAY):
        if wants_json(request):
            return error_response(503, "database_unavailable", SENTENCE, headers={"Retry-After": "5"})
        return views.unavailable(request, SENTENCE)
    return views.server_error(request, *args, **kwargs)
