"""Rate limits in Redis, shared by all processes of all hosts."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from amani_app.ports.limits import LimiterUnavailable, Quota, QuotaUsage

PATIENCE = 0.25
"""Timeout in seconds for connecting and for a response, so that Redis never delays a request."""
RETRY_AFTER = 1.0
"""Seconds after a failure in which Redis is not called."""


HIT = """
local amount, seconds, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if not now then
    local time = redis.call('TIME')
    now = time[1] + time[2] / 1000000
end
local oldest = redis.call('LINDEX', KEYS[1], -1)
while oldest and tonumber(oldest) <= now - seconds do
    redis.call('RPOP', KEYS[1])
    oldest = redis.call('LINDEX', KEYS[1], -1)
end
local used, exceeded = redis.call('LLEN', KEYS[1]), 1
if used < amount then
    redis.call('LPUSH', KEYS[1], string.format('%.6f', now))
    redis.call('EXPIRE', KEYS[1], seconds)
    used, exceeded = used + 1, 0
end
return {used, exceeded, string.format('%.6f', tonumber(oldest or now) + seconds - now)}
"""
"""Keeps a list of the times in the last window, newest first. A script runs atomically."""


class RedisLimiter:
    """One round trip for each request; connects at the first one.

    The time is Redis' own, the same for all hosts, unless `clock` is given.
    """

    def __init__(self, url: str, clock: Callable[[], float] | None = None) -> None:
        self._redis = Redis.from_url(
            url,
            socket_timeout=PATIENCE,
            socket_connect_timeout=PATIENCE,
            retry=Retry(NoBackoff(), 1),  # for a pooled connection that was closed
        )
        self._hit = self._redis.register_script(HIT)
        self._clock = clock
        self._paused_until = 0.0

    def hit(self, quota: Quota, whose: str) -> QuotaUsage:
        """Counts under a key that expires after a window without requests."""
        if time.monotonic() < self._paused_until:
            raise LimiterUnavailable("Redis was unreachable a moment ago")
        # Hashed, so that addresses and user ids are not readable in Redis.
        subject = hashlib.sha256(whose.encode()).hexdigest()[:32]
        now = repr(self._clock()) if self._clock else ""
        arguments: list[str | int] = [quota.amount, quota.seconds, now]
        try:
            used, exceeded, left = self._hit([f"amani:times:{quota.name}:{subject}"], arguments)
        except RedisError as error:
            self._paused_until = time.monotonic() + RETRY_AFTER
            raise LimiterUnavailable("Redis is unreachable") from error
        return QuotaUsage(quota, int(used), max(1, math.ceil(float(left))), bool(exceeded))

    def close(self) -> None:
        self._redis.close()
