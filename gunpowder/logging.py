"""Logs are events with fields, one JSON object a line on standard error; request and task bind theirs once."""

from __future__ import annotations

import logging
import re
from typing import Any

import structlog

_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


QUERY = re.compile(r"\?[^\s'\")]*")


class OneLine(logging.Filter):
    """What Django says of a request that it refused (an unknown Host, for one): a line, not a traceback for each."""

    LONGEST = 300

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("django.security."):
            record.exc_info = record.exc_text = None
            # A refused Referer or Origin is repeated whole.
            record.msg, record.args = QUERY.sub("?...", record.getMessage())[: self.LONGEST], ()
        return True


def configuration(*, level: str) -> dict[str, Any]:
    """The dictConfig for every process."""
    structlog.configure(
        processors=[
            *_SHARED,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {
                "()": "structlog.stdlib.ProcessorFormatter",
                "foreign_pre_chain": [*_SHARED, structlog.processors.format_exc_info],
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.JSONRenderer(default=str),
                ],
            }
        },
        "filters": {"one_line": {"()": OneLine}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "filters": ["one_line"]}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # One line per task says nothing that the transition's own line does not say better.
            "celery.worker.strategy": {"level": "WARNING"},
            "celery.app.trace": {"level": "WARNING"},
            "django.request": {"level": "ERROR"},
            "celery.beat": {"level": "WARNING"},
            "django_celery_beat": {"level": "WARNING"},
        },
    }
