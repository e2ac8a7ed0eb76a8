"""Limits counted in Redis: by all processes of all hosts together."""

from __future__ import annotations

import hashlib
import time
import typing as t

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from amani_app.ports.limits import LimiterUnavailable, Quota, Standing

PATIENCE = 0.25
"""Seconds for a connection, and for an answer: a slow Redis must not slow the service down."""
AWAY = 1.0
"""Seconds after a failure in which Redis is not asked again."""


class RedisLimiter:
    """See ``ports.limits.Limiter``. One round trip a count; nothing is connected to before."""

    def __init__(self, url: str, clock: t.Callable[[], float] = time.time) -> None:
        self._redis = Redis.from_url(
            url,
            socket_timeout=PATIENCE,
            socket_connect_timeout=PATIENCE,
            retry=Retry(NoBackoff(), 1),  # a connection that was closed meanwhile
        )
        self._clock = clock
        self._away_until = 0.0

    def hit(self, quota: Quota, whose: str) -> Standing:
        """Under a key of the window, which Redis drops when the window is over."""
        if time.monotonic() < self._away_until:
            raise LimiterUnavailable("Redis was away a moment ago")
        window, into = divmod(int(self._clock()), quota.seconds)
        # What is counted by (an address, a person) is nobody's who looks into Redis.
        subject = hashlib.sha256(whose.encode()).hexdigest()[:32]
        key = f"amani:limit:{quota.name}:{window}:{subject}"
        try:
            with self._redis.pipeline() as asked:
                asked.incr(key)
                asked.expire(key, quota.seconds)
                used = int(asked.execute()[0])
        except RedisError as error:
            self._away_until = time.monotonic() + AWAY
            raise LimiterUnavailable("Redis is away") from error
        return Standing(quota, used, quota.seconds - into)

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()
