from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import DataError
from rest_framework.exceptions import NotFound
from rest_framework.pagination import CursorPagination

MAX_PAGE = 200


class NewestFirst(CursorPagination):
    """`{next, previous, results}`; a cursor stays right while rows are added."""

    ordering: Any = ("-time", "-id")
    page_size_query_param = "page_size"
    max_page_size = MAX_PAGE

    def decode_cursor(self, request: Any) -> Any:
        """One that says nothing is none that we gave: those that we give say where to go on, or that it is back."""
        cursor = super().decode_cursor(request)
        if cursor is not None and request.query_params[self.cursor_query_param] and not any(cursor):
            raise NotFound(str(self.invalid_cursor_message))
        return cursor

    def paginate_queryset(self, queryset: Any, request: Any, view: Any = None) -> Any:
        """DRF hands the position in a cursor to the query as it came: one that is no time is no cursor of ours."""
        try:
            return super().paginate_queryset(queryset, request, view)
        except (ValidationError, ValueError, OverflowError, DataError):
            raise NotFound(str(self.invalid_cursor_message)) from None


class LatestChangeFirst(NewestFirst):
    ordering = ("-changed_at", "-pk")
