"""Fixtures of the tests of the service."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, create_engine

from amani_app import create_app
from amani_app.adapters.database.engine import tune_postgres, tune_sqlite
from amani_app.adapters.providers import PROVIDERS
from amani_app.settings import Settings
from tests.support.postgres import PostgresServer

ROOT = Path(__file__).resolve().parents[2]
SECRET_KEY = "a key of the tests, and of nothing else"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = (
        *Settings.model_fields,
        *(f for kind in PROVIDERS.values() for f in kind.model_fields),
    )
    for name in [*fields, "build_version", "build_sha", "build_time"]:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once for SQLite and once for PostgreSQL."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/amani.sqlite3"


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of an empty SQLite database."""
    return f"sqlite:///{tmp_path}/amani.sqlite3"


@pytest.fixture
def settings(sqlite_url: str) -> Settings:
    """Settings with an empty SQLite database."""
    return Settings(database_url=sqlite_url, secret_key=SECRET_KEY, readiness_cache=0)


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    """An application on an empty SQLite database."""
    app = create_app(settings)
    yield app
    app.extensions["amani"].engine.dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A test client of `app`."""
    return app.test_client()


def free_port() -> int:
    """An unused TCP port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Shell:
    """Runs the project's programs from the root of the checkout."""

    def __init__(self, **environ: str) -> None:
        names = ("PATH", "HOME", "LANG", "COVERAGE_PROCESS_CONFIG")
        kept = {k: v for k, v in os.environ.items() if k in names}
        self.environ = {**kept, "PYTHONDONTWRITEBYTECODE": "1", **environ}

    def argv(self, *words: str) -> list[str]:
        """`words`, with the path of the program in this virtual environment."""
        return [str(Path(sys.executable).parent / words[0]), *words[1:]]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run to completion and return status and output."""
        return subprocess.run(
            self.argv(*words),
            cwd=ROOT,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def ok(self, *words: str) -> str:
        """Run and return stdout. Fails the test if the exit status is not 0."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def start(self, *words: str, log: Path) -> subprocess.Popen[bytes]:
        """Start without waiting; stdout and stderr go to `log`."""
        with log.open("wb") as out:
            return subprocess.Popen(
                self.argv(*words), cwd=ROOT, env=self.environ, stdout=out, stderr=out
            )


@pytest.fixture
def shell(database_url: str, tmp_path: Path) -> Shell:
    """A shell with `DATABASE_URL` set to `database_url`."""
    return Shell(DATABASE_URL=database_url, TMPDIR=str(tmp_path))


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer) -> str:
    """The name of a migrated PostgreSQL database, used as a template."""
    name = postgres_server.create_database()
    Shell(DATABASE_URL=postgres_server.url(name)).ok("flask", "db", "upgrade")
    return name


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, used as a template."""
    file = tmp_path_factory.mktemp("migrated") / "amani.sqlite3"
    Shell(DATABASE_URL=f"sqlite:///{file}").ok("flask", "db", "upgrade")
    return file


@pytest.fixture
def sqlite_engine(migrated_sqlite: Path, tmp_path: Path) -> Iterator[Engine]:
    """A migrated SQLite database for one test."""
    file = shutil.copy(migrated_sqlite, tmp_path / "migrated.sqlite3")
    engine = create_engine(f"sqlite:///{file}", connect_args={"timeout": 20})
    tune_sqlite(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def postgres_engine(postgres_server: PostgresServer, migrated_template: str) -> Iterator[Engine]:
    """A migrated PostgreSQL database for one test."""
    name = postgres_server.create_database(migrated_template)
    url = postgres_server.url(name)
    engine = create_engine(url, pool_size=10, isolation_level="AUTOCOMMIT")
    tune_postgres(engine, pooled=False)
    yield engine
    engine.dispose()
