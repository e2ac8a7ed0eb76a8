"""Rate limits: counting, and the headers and errors that callers receive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy import Engine

from amani_app import create_app
from amani_app.adapters.memory.limits import MemoryLimiter
from amani_app.adapters.redis import RedisLimiter
from amani_app.api.limits import Limits
from amani_app.api.operations import Operation
from amani_app.api.problems import RequestRefused
from amani_app.api.routes import OPERATIONS
from amani_app.ports.limits import Limiter, LimiterUnavailable, Quota
from amani_app.settings import Settings
from tests.support.people import API, PASSWORD, UNLIMITED, World, cheapen_hashing
from tests.support.redis_server import RedisServer
from tests.support.service_fixtures import SECRET_KEY
from tests.support.waiting import eventually
from tests.unit.amani_app.adapters.test_identity import Clock

QUOTA = Quota("write", 3)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.now -= clock.now % 60  # the start of a window
    return clock


@pytest.fixture(params=["memory", "redis"])
def limiter(request: pytest.FixtureRequest, clock: Clock) -> Iterator[Limiter]:
    if request.param == "memory":
        yield MemoryLimiter(clock)
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    limiter = RedisLimiter(server.url, clock)
    yield limiter
    limiter.close()


class TestContract:
    def test_quota_is_enforced(self, limiter: Limiter) -> None:
        found = [limiter.hit(QUOTA, "ada") for _ in range(4)]
        assert [each.remaining for each in found] == [2, 1, 0, 0]
        assert [each.exceeded for each in found] == [False, False, False, True]
        assert {each.reset for each in found} == {60}

    def test_each_request_counts_for_one_window(self, limiter: Limiter, clock: Clock) -> None:
        for wait in (0, 20, 20):
            clock.now += wait
            assert not limiter.hit(QUOTA, "ada").exceeded
        for wait, reset in ((0, 20), (19.5, 1)):
            clock.now += wait
            late = limiter.hit(QUOTA, "ada")
            assert (late.exceeded, late.reset, late.used) == (True, reset, 3)
        clock.now += 0.5  # The first request is one window old, so exactly one more is allowed.
        again = limiter.hit(QUOTA, "ada")
        assert (again.exceeded, again.remaining, again.reset) == (False, 0, 20)
        assert limiter.hit(QUOTA, "ada").exceeded

    @pytest.mark.parametrize("edge", [0.0, 30.0, 59.9])
    def test_no_sliding_window_exceeds_the_quota(
        self, limiter: Limiter, clock: Clock, edge: float
    ) -> None:
        """A fixed window would allow two quotas around its edge."""
        clock.now += edge
        taken = []
        for _ in range(60):
            if not limiter.hit(QUOTA, "ada").exceeded:
                taken.append(clock.now)
            clock.now += 7.3
        assert len(taken) >= 3 * 7
        for begin in taken:
            assert sum(begin <= each < begin + QUOTA.seconds for each in taken) <= 3

    def test_request_after_retry_after_is_allowed(self, limiter: Limiter, clock: Clock) -> None:
        for wait in (0, 1.7, 3.2):
            clock.now += wait
            limiter.hit(QUOTA, "ada")
        for _ in range(20):
            standing = limiter.hit(QUOTA, "ada")
            if standing.exceeded:
                clock.now += standing.reset
                assert not limiter.hit(QUOTA, "ada").exceeded

    def test_lowered_limit_applies_immediately(self, limiter: Limiter, clock: Clock) -> None:
        for _ in range(3):
            limiter.hit(QUOTA, "ada")
        lower = Quota(QUOTA.name, 2)
        found = limiter.hit(lower, "ada")
        assert (found.exceeded, found.remaining) == (True, 0)

    def test_users_and_quotas_are_counted_separately(self, limiter: Limiter) -> None:
        for _ in range(4):
            limiter.hit(QUOTA, "ada")
        assert limiter.hit(QUOTA, "ben").used == 1
        assert limiter.hit(Quota("read", 3), "ada").used == 1

    def test_concurrent_requests_are_all_counted(self, limiter: Limiter) -> None:
        quota = Quota("write", 1_000)
        threads = [
            threading.Thread(target=lambda: [limiter.hit(quota, "ada") for _ in range(25)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert limiter.hit(quota, "ada").used == 101


def test_idle_callers_are_forgotten_after_one_window(clock: Clock) -> None:
    limiter = MemoryLimiter(clock)
    for number in range(50):
        limiter.hit(QUOTA, f"somebody-{number}")
    clock.now += QUOTA.seconds
    limiter.hit(QUOTA, "ada")
    assert list(limiter._times) == [(QUOTA.name, "ada")]


def test_redis_uses_its_own_clock_and_expires_keys(redis_server: RedisServer) -> None:
    limiter, brief = RedisLimiter(redis_server.url), Quota("write", 2, seconds=1)
    for used in (1, 2):
        assert limiter.hit(brief, "ada").used == used
    assert limiter.hit(brief, "ada").exceeded
    assert eventually(lambda: not limiter.hit(brief, "ada").exceeded)
    with Redis.from_url(redis_server.url) as look:
        assert eventually(lambda: look.dbsize() == 0)
    limiter.close()


def test_processes_share_counts_in_redis(redis_server: RedisServer, clock: Clock) -> None:
    one, other = RedisLimiter(redis_server.url, clock), RedisLimiter(redis_server.url, clock)
    one.hit(QUOTA, "ada")
    assert other.hit(QUOTA, "ada").used == 2
    one.close()
    other.close()


class TestRedisAway:
    @pytest.fixture
    def away(self, redis_server: RedisServer) -> Iterator[RedisLimiter]:
        limiter = RedisLimiter(redis_server.url)
        limiter.hit(QUOTA, "ada")
        redis_server.stop()
        yield limiter
        limiter.close()

    def test_reads_writes_and_sign_ins_are_counted_per_process(
        self, app: Flask, away: RedisLimiter
    ) -> None:
        limits = Limits(away, MemoryLimiter(), {"read": 2, "write": 2, "sign-in": 2, "pay-out": 2})
        with app.test_request_context():
            for kind in ("read", "write", "sign-in"):
                limits.count(kind, "ada")
                limits.count(kind, "ada")
                with pytest.raises(RequestRefused) as refused:
                    limits.count(kind, "ada")
                assert refused.value.problem.status == 429

    def test_payout_without_redis_returns_503(self, app: Flask, away: RedisLimiter) -> None:
        limits = Limits(away, MemoryLimiter(), {"pay-out": 2})
        with app.test_request_context(), pytest.raises(RequestRefused) as refused:
            limits.count("pay-out", "ada")
        assert refused.value.problem.status == 503
        assert refused.value.problem.headers["Retry-After"] == "2"

    def test_redis_is_used_again_after_recovery(
        self, redis_server: RedisServer, away: RedisLimiter
    ) -> None:
        with pytest.raises(LimiterUnavailable):
            away.hit(QUOTA, "ada")
        redis_server.start()

        def back() -> bool:
            try:
                return away.hit(QUOTA, "ben").used > 0
            except LimiterUnavailable:
                return False

        assert eventually(back)


class TestOverHttp:
    @pytest.fixture
    def start(
        self, sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Callable[..., Flask]]:
        cheapen_hashing(monkeypatch)
        apps: list[Flask] = []

        def start(**changes: Any) -> Flask:
            url = sqlite_engine.url.render_as_string(hide_password=False)
            told = {**UNLIMITED, **changes, "secret_key": SECRET_KEY, "database_url": url}
            apps.append(create_app(Settings(**told)))
            return apps[-1]

        yield start
        for app in apps:
            app.extensions["amani"].engine.dispose()

    def sign_in(self, client: FlaskClient, address: str = "203.0.113.1") -> Any:
        body = {"email": "ada@example.org", "password": "wrong password"}
        environ = {"REMOTE_ADDR": address}
        return client.post(f"{API}/auth/login", json=body, environ_base=environ)

    def test_responses_carry_rate_limit_headers(self, start: Callable[..., Flask]) -> None:
        ada = World(start(limit_read=2)).person("ada")
        found = [ada.get("/wallets") for _ in range(3)]
        assert [each.status_code for each in found] == [200, 200, 429]
        assert found[0].headers["RateLimit-Policy"] == '"read";q=2;w=60'
        assert found[0].headers["RateLimit"].startswith('"read";r=1;t=')
        last = found[2]
        assert (last.content_type, last.json["code"]) == (
            "application/problem+json",
            "quota-exceeded",
        )
        reset = last.headers["RateLimit"].rpartition("t=")[2]
        assert last.headers["Retry-After"] == reset
        assert 1 <= int(reset) <= 60

    def test_users_have_separate_quotas(self, start: Callable[..., Flask]) -> None:
        world = World(start(limit_read=1))
        ada, ben = world.person("ada"), world.person("ben")
        assert [each.get("/wallets").status_code for each in (ada, ben, ada)] == [200, 200, 429]

    def test_password_attempts_are_limited_by_address(self, start: Callable[..., Flask]) -> None:
        client = start(limit_sign_in=2).test_client()
        statuses = [self.sign_in(client).status_code for _ in range(3)]
        assert statuses == [401, 401, 429]
        assert self.sign_in(client, "203.0.113.2").status_code == 401

    @pytest.mark.parametrize("redis", [False, True])
    def test_processes_share_counts_only_with_redis(
        self, start: Callable[..., Flask], redis_server: RedisServer, redis: bool
    ) -> None:
        told = {"redis_url": redis_server.url} if redis else {}
        one, other = (start(limit_sign_in=1, **told).test_client() for _ in range(2))
        assert self.sign_in(one).status_code == 401
        assert self.sign_in(other).status_code == (429 if redis else 401)

    def test_reads_continue_without_redis(
        self, start: Callable[..., Flask], redis_server: RedisServer
    ) -> None:
        app = start(limit_read=5, limit_sign_in=5, redis_url=redis_server.url)
        ada = World(app).person("ada")
        redis_server.stop()
        assert ada.get("/wallets").status_code == 200
        assert self.sign_in(app.test_client()).status_code == 401

    def test_sign_up_is_counted(self, start: Callable[..., Flask]) -> None:
        client = start(limit_sign_in=1).test_client()
        body = {"email": "ada@example.org", "name": "Ada", "password": PASSWORD}
        first = client.post(f"{API}/auth/signup", json=body)
        assert first.status_code == 201
        assert first.headers["RateLimit"].startswith('"sign-in";r=0')
        assert client.post(f"{API}/auth/signup", json=body).status_code == 429

    def test_unlimited_responses_carry_no_rate_limit_headers(
        self, start: Callable[..., Flask]
    ) -> None:
        found = self.sign_in(start().test_client())
        assert "RateLimit" not in found.headers


def test_operations_have_the_quota_of_their_kind() -> None:
    operations: dict[str, Operation] = {o.name: o for o, _ in OPERATIONS}
    for operation in operations.values():
        fields = operation.body.model_fields if operation.body else {}
        if {"password", "current", "bvn"} & set(fields):
            assert operation.quota == "sign-in", operation.name
        if operation.method == "POST" and operation.path.startswith("/withdrawals"):
            assert operation.quota == "pay-out", operation.name
    assert operations["sign_in"].quota == "sign-in"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("redis_url", "http://x"),
        ("cors_origins", "*"),
        ("cors_origins", "https://a.example/path"),
        ("cors_origins", "https://a.example,null"),
        ("limit_read", -1),
    ],
)
def test_invalid_settings_are_rejected(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name.upper() if name != "limit_read" else name):
        Settings(**{name: value})


class TestOrigins:
    @pytest.fixture
    def client(self, settings: Settings) -> FlaskClient:
        told = "https://app.example, http://localhost:3000"
        return create_app(settings.model_copy(update={"cors_origins": told})).test_client()

    def test_allowed_origin_gets_cors_headers(self, client: FlaskClient) -> None:
        headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        asked = client.options(f"{API}/escrows", headers=headers)
        assert asked.status_code == 200
        assert asked.headers["Access-Control-Allow-Origin"] == "https://app.example"
        for name in ("Authorization", "Idempotency-Key", "If-Match"):
            assert name in asked.headers["Access-Control-Allow-Headers"]
        found = client.get(f"{API}/wallets", headers={"Origin": "http://localhost:3000"})
        assert found.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
        assert "ETag" in found.headers["Access-Control-Expose-Headers"]
        assert "Origin" in found.headers["Vary"]

    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "null", "https://app.example.evil", "https://app.exampl"]
    )
    def test_other_origin_gets_no_cors_headers(self, client: FlaskClient, origin: str) -> None:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        for found in (
            client.options(f"{API}/escrows", headers=headers),
            client.get(f"{API}/ping", headers=headers),
        ):
            assert not [name for name in found.headers.keys() if name.startswith("Access-Control")]

    def test_no_origin_is_allowed_by_default(self, settings: Settings) -> None:
        client = create_app(settings).test_client()
        found = client.get(f"{API}/ping", headers={"Origin": "https://app.example"})
        assert "Access-Control-Allow-Origin" not in found.headers


@pytest.mark.parametrize(("environment", "expected"), [("production", True), ("staging", False)])
def test_production_requires_tls(settings: Settings, environment: str, expected: bool) -> None:
    app = create_app(settings.model_copy(update={"environment": environment}))
    found = app.test_client().get(f"{API}/ping").headers
    assert ("Strict-Transport-Security" in found) is expected
