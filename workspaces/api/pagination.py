from __future__ import annotations

from rest_framework.pagination import CursorPagination


class NewestFirst(CursorPagination):
    """`{next, previous, results}`; a cursor stays right while rows are added."""

    ordering = ("-time", "-id")
    page_size_query_param = "page_size"
    max_page_size = 200
