"""A cache for comfort: throttles and nothing else. Without Redis it forgets instead of failing requests."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import structlog
from django.core.cache.backends.redis import RedisCache
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import Callable

logger = structlog.get_logger(__name__)


@lru_cache(maxsize=8)
def _shared_client(make: Callable[..., Any], servers: tuple[str, ...], options: tuple[tuple[str, Any], ...]) -> Any:
    return make(list(servers), **dict(options))


class ForgivingRedisCache(RedisCache):
    @property
    def _cache(self) -> Any:
        """One pool a process. Django makes a backend for each request's thread, each with a pool of its own."""
        return _shared_client(self._class, tuple(self._servers), tuple(sorted(self._options.items())))  # type: ignore[attr-defined]

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        try:
            return super().get(key, default, version)
        except (RedisError, OSError) as error:
            logger.warning("cache_unavailable", error=type(error).__name__)
            return default

    def set(self, key: Any, value: Any, timeout: Any = 300, version: int | None = None) -> None:
        try:
            super().set(key, value, timeout, version)
        except (RedisError, OSError) as error:
            logger.warning("cache_unavailable", error=type(error).__name__)
