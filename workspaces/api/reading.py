"""How a call's fields are read: all of them, or it is refused. A typing error must not look like success."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from django.http import QueryDict
from rest_framework import serializers
from rest_framework.exceptions import UnsupportedMediaType

if TYPE_CHECKING:
    from django.http import HttpRequest
    from rest_framework.request import Request

TOLD = 20  # of thousands of unknown fields an answer names so many
SHOWN = 100  # letters of such a name


class Input(serializers.Serializer[Any]):
    """What a caller sends. What is wrong with known fields and which are unknown is told at once."""

    also: ClassVar[frozenset[str]] = frozenset()  # read elsewhere

    def to_internal_value(self, data: Any) -> Any:
        unknown = self._unknown(data) if isinstance(data, Mapping) else {}
        try:
            found = super().to_internal_value(data)
        except serializers.ValidationError as problem:
            if isinstance(problem.detail, dict):
                raise serializers.ValidationError({**problem.detail, **unknown}) from problem
            raise
        if unknown:
            raise serializers.ValidationError(unknown)
        return found

    def _unknown(self, data: Mapping[Any, Any]) -> dict[str, list[str]]:
        """What is wrong with the fields' names: unknown ones, and those of an address that are there more than once."""
        known = sorted({*self.fields, *self.also})
        there = f"There is: {', '.join(known)}." if known else "Nothing is asked for here."
        names = sorted({str(name) for name in data} - set(known))
        doubled = [name for name in known if isinstance(data, QueryDict) and len(data.getlist(name)) > 1]
        return {name[:SHOWN]: [f"Unknown. {there}"] for name in names[:TOLD]} | {
            name: ["Given more than once."] for name in doubled
        }


class Nothing(Input):
    """A call that asks for nothing."""


def read(kind: type[Input], request: Request) -> Any:
    """The validated fields: of the address for a GET, of the body for a POST, whose address then may hold none.

    Returns a mapping with a value for every field that has one or a default. Raises ValidationError (400), and what a
    body raises that cannot be read (400, 415).
    """
    if request.method == "POST":
        Nothing(data=request.query_params).is_valid(raise_exception=True)
        given = kind(data=_body(request))
    else:
        given = kind(data=request.query_params)
    given.is_valid(raise_exception=True)
    return given.validated_data


def _body(request: Request) -> Any:
    """No body, and `null`, say as little as an object without fields; `[]` and `0` are no objects."""
    try:
        body: Any = request.data
    except UnsupportedMediaType:
        if not _says_nothing(request._request):
            raise
        return {}
    return {} if body is None or body == "" else body


def _says_nothing(sent: HttpRequest) -> bool:
    """Many a program sends `{}` as a form, for want of a better word, or a form without fields: its closing line."""
    end = f"--{(sent.content_params or {}).get('boundary', '')}--"
    return sent.body.strip() in {b"", b"{}", b"null", end.encode("utf-8", "replace")}
