from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING, Any

import django
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.urls import get_resolver
from django.utils.http import parse_header_parameters

if TYPE_CHECKING:
    from collections.abc import Mapping

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gunpowder.settings")


class Request(ASGIRequest):
    """A request in UTF-8, whatever charset the client claims.

    Python's `zlib` and `rot13` are codecs too, and Django fails on them before any handler of ours could answer.
    """

    def _set_content_type_params(self, meta: Mapping[str, Any]) -> None:
        self.content_type, self.content_params = parse_header_parameters(meta.get("CONTENT_TYPE", ""))


class Handler(ASGIHandler):
    request_class = Request


django.setup(set_prefix=False)
# All views are imported now: before the server forks, so that its processes share them, and before anybody waits.
_ = get_resolver().url_patterns
application = Handler()
# What is shared stays shared: a collection writes into every object it looks at, and so copies its page.
gc.collect()
gc.freeze()
