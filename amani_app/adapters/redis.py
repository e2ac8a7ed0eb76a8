"""Limits counted in Redis: by all processes of all hosts together."""

from __future__ import annotations

import hashlib
import math
import time
import typing as t

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from amani_app.ports.limits import LimiterUnavailable, Quota, QuotaUsage

PATIENCE = 0.25
"""Seconds for a connection, and for an answer: a slow Redis must not slow the service down."""
AWAY = 1.0
"""Seconds after a failure in which Redis is not asked again."""


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
"""A list of the times within the last window, newest first: in one step, whoever else counts."""


class RedisLimiter:
    """See ``ports.limits.Limiter``. One round trip a count; nothing is connected to before.

    The time is Redis' own, the same for all hosts, unless *clock* gives one.
    """

    def __init__(self, url: str, clock: t.Callable[[], float] | None = None) -> None:
        self._redis = Redis.from_url(
            url,
            socket_timeout=PATIENCE,
            socket_connect_timeout=PATIENCE,
            retry=Retry(NoBackoff(), 1),  # a connection that was closed meanwhile
        )
        self._hit = self._redis.register_script(HIT)
        self._clock = clock
        self._away_until = 0.0

    def hit(self, quota: Quota, whose: str) -> QuotaUsage:
        """Under a key that Redis drops when somebody has not come for a window."""
        if time.monotonic() < self._away_until:
            raise LimiterUnavailable("Redis was away a moment ago")
        # What is counted by (an address, a person) is nobody's who looks into Redis.
        subject = hashlib.sha256(whose.encode()).hexdigest()[:32]
        now = repr(self._clock()) if self._clock else ""
        told: list[str | int] = [quota.amount, quota.seconds, now]
        try:
            used, exceeded, left = self._hit([f"amani:times:{quota.name}:{subject}"], told)
        except RedisError as error:
            self._away_until = time.monotonic() + AWAY
            raise LimiterUnavailable("Redis is away") from error
        return QuotaUsage(quota, int(used), max(1, math.ceil(float(left))), bool(exceeded))

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()
