"""How a call's fields are read: all of them, or it is refused. A typing error must not look like success."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from rest_framework import serializers
from rest_framework.exceptions import ParseError, UnsupportedMediaType

if TYPE_CHECKING:
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
        known = sorted({*self.fields, *self.also})
        there = f"There is: {', '.join(known)}." if known else "Nothing is asked for here."
        names = sorted({str(name) for name in data} - set(known))
        return {name[:SHOWN]: [f"Unknown. {there}"] for name in names[:TOLD]}


class Nothing(Input):
    """A call that asks for nothing."""


def read(kind: type[Input], request: Request) -> Any:
    """The validated fields: of the address for a GET, of the body for a POST, whose address then may hold none.

    Returns a mapping with a value for every field that has one or a default. Raises ValidationError (400), and what a
    body raises that cannot be read, unless the call asks for nothing: then only fields are minded.
    """
    if request.method == "POST":
        Nothing(data=request.query_params).is_valid(raise_exception=True)
        given = kind(data=_body(request) if kind is Nothing else _object(request.data))
    else:
        given = kind(data=request.query_params)
    given.is_valid(raise_exception=True)
    return given.validated_data


def _object(body: Any) -> Any:
    """No body, and `null`, say as little as an object without fields; `[]` and `0` are no objects."""
    return {} if body is None or body == "" else body


def _body(request: Request) -> Mapping[Any, Any]:
    try:
        found = request.data
    except (ParseError, UnsupportedMediaType):
        return {}
    return found if isinstance(found, Mapping) else {}
