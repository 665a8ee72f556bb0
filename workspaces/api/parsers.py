from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from django.conf import settings
from rest_framework import parsers
from rest_framework.exceptions import ParseError

if TYPE_CHECKING:
    from collections.abc import Mapping


def _once(fields: list[tuple[str, Any]]) -> None:
    """Raises ParseError where two of an object's fields have one name."""
    names = [name for name, _ in fields]
    if len(set(names)) < len(names):
        first = next(name for number, name in enumerate(names) if name in names[:number])
        raise ParseError(f'JSON parse error - there is more than one "{first[:100]}"')


class JSONParser(parsers.JSONParser):
    """DRF's, which lets a deeply nested body end in a RecursionError, and texts through that nobody can write down.

    And of two fields with one name takes the last, where another reader on the way may have taken the first.
    """

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        sent = stream.read()
        try:
            found = super().parse(io.BytesIO(sent), media_type, parser_context)
            json.loads(
                sent.decode((parser_context or {}).get("encoding", settings.DEFAULT_CHARSET)), object_pairs_hook=_once
            )
            # Half a character ("\ud800") is allowed in JSON, and in no database, log or answer.
            json.dumps(found, ensure_ascii=False).encode()
        except RecursionError:
            raise ParseError("JSON parse error - nested too deeply") from None
        except UnicodeEncodeError:
            raise ParseError("JSON parse error - a text holds half a character (a lone surrogate)") from None
        return found
