"""Typed, frozen settings from environment variables and mounted secret files."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from typing import Any, Literal, Self, TypeVar
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

SECRETS_DIR = Path("/run/secrets")
"""A file named like a setting holds its value; an environment variable takes precedence."""

Fault = Literal["exit", "unhealthy", "migration", "smoke"]


class SettingsError(Exception):
    """Settings are missing or invalid; the text has one line for each variable."""


class EnvironmentSettings(BaseSettings):
    """Reads each field from the variable of the same name, or from a file in `/run/secrets`.

    The base of the service's settings and of each payment provider's.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    environment: str = Field(default="local", pattern=r"^[a-z][a-z0-9-]{0,31}$")
    practice: bool = False
    """Enables `practice_fault` and `ping?delay_ms=` for rehearsals; refused in production."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if wrong := list(self.errors()):
            raise ValueError("\n".join(wrong))
        return self

    def errors(self) -> Iterator[str]:
        """One line for each rule that the values break: `VARIABLE: reason and remedy`."""
        yield from ()


class Settings(EnvironmentSettings):
    """The service's settings; each field is the environment variable of the same name."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"
    data_dir: Path = Path(".amani/data")
    """Directory of the SQLite database; `/data` in the image."""
    database_url: SecretStr = SecretStr("")
    """PostgreSQL or SQLite URL. Required outside `local`, which defaults to SQLite."""
    secret_key: SecretStr = SecretStr("")
    """At least 32 characters; signs tokens and cursors. Required outside `local`."""
    previous_secret_keys: SecretStr = SecretStr("")
    """Retired values of `secret_key`, comma-separated; their signatures are still accepted."""
    identity: Literal["local", "supabase"] = "local"
    """The identity provider: this service, or a Supabase project."""
    supabase_url: str = ""
    """`https://<ref>.supabase.co`; required if `identity` is `supabase`."""
    supabase_jwt_secret: SecretStr = SecretStr("")
    """The project's legacy secret, if it still signs tokens with HS256."""
    supabase_second_factor: bool = True
    """Whether withdrawals require a sign-in with a second factor (`aal2`)."""
    redis_url: SecretStr = SecretStr("")
    """Redis that counts the rate limits of all processes; without it each counts its own."""
    limit_read: int = Field(default=600, ge=0)
    """Read requests of a user in a minute; 0 is no limit, here and below."""
    limit_write: int = Field(default=120, ge=0)
    """Write requests of a user in a minute."""
    limit_sign_in: int = Field(default=20, ge=0)
    """Requests with a password or a BVN from one address in a minute."""
    limit_pay_out: int = Field(default=10, ge=0)
    """Withdrawals of a user in a minute; refused while `redis_url` is unreachable."""
    cors_origins: str = ""
    """Origins whose pages may call the API from a browser, comma-separated; no wildcard."""
    database_pool_size: int = Field(default=4, ge=1, le=64)
    """Database connections of a process; set it to the number of threads."""
    database_direct_url: SecretStr = SecretStr("")
    """URL past a pooler in transaction mode (PgBouncer), for migrations. If it is set,
    `database_url` is taken to be the pooler: no statement is prepared, and timeouts must be set
    on the database role."""
    database_pipeline: bool = True
    """Whether the hot statements go to PostgreSQL through libpq's pipeline, several in one round
    trip (`adapters/database/wire.py`). `false` sends each one through SQLAlchemy."""
    database_connect_timeout: int = Field(default=3, ge=1, le=60)
    """Seconds after which a connection attempt to the database fails."""
    readiness_cache: float = Field(default=1.0, ge=0, le=30)
    """Seconds for which a positive readiness result is cached."""
    proxy_hops: int = Field(default=0, ge=0, le=5)
    """Number of trusted proxies that add to `X-Forwarded-*`; 0 ignores these headers."""
    fee_basis_points: int = Field(default=500, ge=0, le=10_000)
    """Amani's fee on what a freelancer receives, for new escrows."""
    worker_interval: float = Field(default=1.0, gt=0, le=60)
    """Seconds between two rounds of the worker."""
    payment_provider: str = ""
    """`fincra`, `manual` (bank transfer by hand) or `none`.

    If it is empty, the first provider whose settings are present is used. Without a provider,
    deposits and withdrawals answer 503. Change it only when no deposit or withdrawal is open: the
    new provider does not know the old one's references.
    """
    sentry_dsn: SecretStr = SecretStr("")
    """Receives error reports; needs an image built with `EXTRAS=observability`."""
    otel_exporter_otlp_endpoint: str = ""
    """Receives traces, OTLP over HTTP; needs the same extras."""
    otel_exporter_otlp_headers: SecretStr = SecretStr("")
    """Headers for the collector: `name=value`, comma-separated."""
    otel_traces_sampler_arg: float = Field(default=0.1, ge=0, le=1)
    """Fraction of requests that start a trace; a caller's trace is always continued."""
    practice_fault: Fault | None = None

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, values: dict[str, Any]) -> dict[str, Any]:
        if isinstance(level := values.get("log_level"), str):
            values["log_level"] = level.upper()
        return values

    def errors(self) -> Iterator[str]:
        redis = self.redis_url.get_secret_value()
        url, key = self.database_url.get_secret_value(), self.secret_key.get_secret_value()
        for name, value in (("DATABASE_URL", url), ("SECRET_KEY", key)):
            if not value and self.environment != "local":
                yield (
                    f"{name}: required if ENVIRONMENT={self.environment}; set it, "
                    f"or mount it as {SECRETS_DIR}/{name}"
                )
        if 0 < len(key) < 32:
            yield "SECRET_KEY: shorter than 32 characters; try `openssl rand -hex 32`"
        yield from self._identity_wrongs()
        schemes = ("postgresql://", "postgresql+psycopg://", "sqlite:///")
        if url and not url.startswith(schemes):
            yield f"DATABASE_URL: must start with one of {', '.join(schemes)}"
        yield from self._direct_wrongs()
        if redis and not redis.startswith(("redis://", "rediss://", "unix://")):
            yield "REDIS_URL: must start with one of redis://, rediss://, unix://"
        for origin in self.origins:
            if not re.fullmatch(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?", origin):
                yield f"CORS_ORIGINS: {origin!r} is not an origin like https://app.example.org"
        yield from self._observability_wrongs()
        if self.practice and self.environment == "production":
            yield "PRACTICE: not allowed if ENVIRONMENT=production; unset it"

    def _direct_wrongs(self) -> Iterator[str]:
        direct = self.database_direct_url.get_secret_value()
        for name, value in (("DATABASE_URL", self.database), ("DATABASE_DIRECT_URL", direct)):
            if direct and not value.startswith(("postgresql://", "postgresql+psycopg://")):
                yield f"{name}: must be a PostgreSQL URL if DATABASE_DIRECT_URL is set"

    def _observability_wrongs(self) -> Iterator[str]:
        dsn = self.sentry_dsn.get_secret_value()
        if dsn and not re.fullmatch(r"https?://[^/@\s]+@[^/@\s]+(/[^\s?]*)?/[0-9]+", dsn):
            yield "SENTRY_DSN: must be like https://<key>@<host>/<project>"
        endpoint = self.otel_exporter_otlp_endpoint
        if endpoint and not endpoint.startswith(("https://", "http://")):
            yield "OTEL_EXPORTER_OTLP_ENDPOINT: must start with https:// or http://"

    def _identity_wrongs(self) -> Iterator[str]:
        if any(len(key) < 32 for key in self.previous_keys):
            yield "PREVIOUS_SECRET_KEYS: one of them is shorter than 32 characters"
        if self.identity != "supabase":
            return
        allowed = ("https://", "http://") if self.environment == "local" else ("https://",)
        if not self.supabase_url.startswith(allowed):
            yield (
                "SUPABASE_URL: required if IDENTITY=supabase, with https outside local: "
                "https://<ref>.supabase.co"
            )
        if 0 < len(self.supabase_jwt_secret.get_secret_value()) < 32:
            yield "SUPABASE_JWT_SECRET: shorter than 32 characters; it is in the project's settings"

    @property
    def origins(self) -> tuple[str, ...]:
        return tuple(each.strip() for each in self.cors_origins.split(",") if each.strip())

    @property
    def previous_keys(self) -> tuple[str, ...]:
        """The retired signing keys, newest first."""
        keys = self.previous_secret_keys.get_secret_value().split(",")
        return tuple(key.strip() for key in keys if key.strip())

    @property
    def fault(self) -> Fault | None:
        """The simulated fault; `None` unless `practice` is on."""
        return self.practice_fault if self.practice else None

    @property
    def database(self) -> str:
        """The URL to connect to, with the driver named; it may hold a password."""
        url = self.database_url.get_secret_value()
        return _with_driver(url) or f"sqlite:///{self.data_dir.absolute()}/amani.sqlite3"

    @property
    def direct_database(self) -> str:
        """The URL for migrations; empty if it is that of `database`."""
        return _with_driver(self.database_direct_url.get_secret_value())


def _with_driver(url: str) -> str:
    if url.startswith("postgresql://"):
        return url.replace("postgresql://", "postgresql+psycopg://", 1)
    return url


S = TypeVar("S", bound=EnvironmentSettings)


def load_settings(secrets_dir: Path | None = None) -> Settings:
    """The service's settings. Raises `SettingsError`, which names each invalid variable."""
    return read_settings(Settings, secrets_dir)


def read_settings(kind: type[S], secrets_dir: Path | None = None) -> S:
    """Settings of `kind` from the environment and `secrets_dir`, by default `/run/secrets`.

    Raises `SettingsError`, one line for each invalid variable.
    """
    directory = secrets_dir or SECRETS_DIR
    try:
        # A missing directory is ordinary (nothing mounted); pydantic-settings would warn.
        options: dict[str, Any] = {"_secrets_dir": directory} if directory.is_dir() else {}
        return kind(**options)
    except ValidationError as error:
        raise SettingsError("\n".join(map(_line, error.errors(include_url=False)))) from None


def _line(error: Any) -> str:
    text = str(error["msg"]).removeprefix("Value error, ")
    name = "_".join(map(str, error["loc"])).upper()
    return f"{name}: {text}" if name else text


def signing_key(settings: Settings) -> str:
    """The key that signs tokens and cursors.

    If none is set, which only `local` permits, it is generated once and stored beside the
    database, so that the next release accepts the tokens of this one.
    """
    if key := settings.secret_key.get_secret_value():
        return key
    file = settings.data_dir / "secret-key"
    try:
        if not file.exists():
            _write_key(file)
        return file.read_text()
    except OSError:
        return secrets.token_hex(32)


def _write_key(file: Path) -> None:
    """Write `file` atomically; if several processes start together, only one writes it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent)  # mode 0600
    try:
        with open(handle, "w") as out:
            out.write(secrets.token_hex(32))
        os.link(name, file)
    except FileExistsError:
        pass
    finally:
        os.unlink(name)
