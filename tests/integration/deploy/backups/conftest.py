"""An environment on this machine's engine, whose database is a PostgreSQL server of its own."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import docker.errors
import psycopg
import pytest
import yaml

from deploy.backups.container import BASE
from deploy.events import Events
from deploy.images.bases import ensure_bases
from deploy.machine.checkout import ROOT, program
from tests.support.waiting import eventually

PASSWORD = "open-sesame-9"
SILENT = Events()
APART = {"parallel_from": 0, "jobs": 2}
"""Settings with which two jobs dump the database, as a directory."""


class BackupSite:
    """An environment and its database server, and the deployer's commands for them."""

    def __init__(self, folder: Path) -> None:
        self.name = f"backup-{uuid.uuid4().hex[:8]}"
        self.folder = folder
        self.engine = docker.from_env()
        self._home = folder / "home"
        self._made: list[Any] = []

    def start(self) -> None:
        ensure_bases(["postgres:17-trixie", BASE])
        self._subnet = self._make_network()
        self.server = self.engine.containers.run(
            "postgres:17-trixie",
            ["postgres", "-c", "fsync=off"],
            name=f"{self.name}-server",
            network=f"amani-{self.name}",
            environment={"POSTGRES_USER": "amani", "POSTGRES_PASSWORD": PASSWORD},
            detach=True,
        )
        self.server.reload()
        address = self.server.attrs["NetworkSettings"]["Networks"][f"amani-{self.name}"]
        self.address = address["IPAddress"]
        eventually(self._answers)

    def _answers(self) -> bool:
        # Over TCP: during its initialization the server listens on its socket only.
        with contextlib.suppress(psycopg.OperationalError), self.connect("postgres"):
            return True
        return False

    def _make_network(self) -> str:
        for _ in range(50):
            subnet = f"172.{random.randint(20, 28)}.{random.randint(0, 255)}.0/28"
            pool = docker.types.IPAMPool(subnet=subnet)
            try:
                self.engine.networks.create(
                    f"amani-{self.name}",
                    ipam=docker.types.IPAMConfig(pool_configs=[pool]),
                    labels={"amani.environment": self.name},
                )
            except docker.errors.APIError:  # taken
                continue
            return subnet
        raise AssertionError("no subnet is free")

    def stop(self) -> None:
        mine = {"label": f"amani.environment={self.name}"}
        for container in [*self.engine.containers.list(all=True, filters=mine), self.server]:
            container.remove(force=True, v=True)
        self.engine.networks.get(f"amani-{self.name}").remove()
        for volume in self.engine.volumes.list():
            if volume.name.startswith(f"amani-{self.name}-"):
                volume.remove(force=True)
        self.engine.close()

    def url(self, database: str) -> str:
        return f"postgresql://amani:{PASSWORD}@{self.address}:5432/{database}"

    def connect(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url(database), autocommit=True, connect_timeout=5)

    def environment(self, database: str = "", **backups: Any) -> str:
        """Write the environment file; without a database it uses SQLite in a volume."""
        content = {
            "domain": "localhost",
            "directory": str(self.home),
            "hosts": [{"name": "here", "connection": "local", "roles": ["web"]}],
            "network": {"subnet": self._subnet},
            "image": {"repository": self.name},
            "optional_secrets": ["DATABASE_URL"],
            "volumes": {"data": "/data"},
            "backups": backups,
        }
        (self.folder / f"{self.name}.yml").write_text(yaml.safe_dump(content))
        secrets = self.folder / f".env.{self.name}"
        secrets.write_text(f"DATABASE_URL={self.url(database)}\n" if database else "")
        secrets.chmod(0o600)
        return self.name

    @property
    def home(self) -> Path:
        return self._home

    @property
    def backups(self) -> Path:
        return self._home / "backups"

    def fresh_home(self) -> None:
        """Use a new, empty folder of the deployer, so that there are no backups."""
        self._home = self.folder / uuid.uuid4().hex[:8]

    def partials(self) -> list[str]:
        return [path.name for path in self.backups.glob("*.partial")]

    def tools(self) -> list[Any]:
        labels = [f"amani.environment={self.name}", "amani.one-off=backup"]
        return list(self.engine.containers.list(all=True, filters={"label": labels}))

    def in_tool(self, script: str) -> tuple[int, str]:
        """Run Python in the backup container; its status and output."""
        status, output = self.tools()[0].exec_run(["python3", "-c", script])
        return int(status), output.decode()

    def invoke(
        self, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [program("invoke"), *arguments, f"--env={self.name}"],
            cwd=ROOT,
            env={**os.environ, "AMANI_ENVIRONMENTS": str(self.folder), **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture(scope="module")
def running_site() -> Iterator[BackupSite]:
    with tempfile.TemporaryDirectory(prefix="backups-") as folder:
        site = BackupSite(Path(folder))
        site.start()
        try:
            yield site
        finally:
            site.stop()


@pytest.fixture
def site(running_site: BackupSite, monkeypatch: pytest.MonkeyPatch) -> BackupSite:
    """The site, with an environment that was never backed up."""
    monkeypatch.setenv("AMANI_ENVIRONMENTS", str(running_site.folder))
    monkeypatch.delenv("AMANI_AGE_IDENTITY", raising=False)
    running_site.fresh_home()
    return running_site


@pytest.fixture
def database(site: BackupSite) -> Iterator[str]:
    """A database with a ledger of 2,000 rows; its name. `scratch` is dumped, but never measured."""
    name = f"db_{uuid.uuid4().hex[:8]}"
    with site.connect("postgres") as connection:
        connection.execute(f"CREATE DATABASE {name}")
    with site.connect(name) as connection:
        connection.execute(
            "CREATE TABLE ledger (id bigserial PRIMARY KEY, amount bigint, note text);"
            "INSERT INTO ledger (amount, note)"
            " SELECT g * 100, md5(g::text) || md5((-g)::text) FROM generate_series(1, 2000) g;"
            "CREATE UNLOGGED TABLE scratch (id int);"
            "CREATE TABLE alembic_version (version_num text);"
            "INSERT INTO alembic_version VALUES ('0007')"
        )
    site.environment(name)
    yield name
    with site.connect("postgres") as connection:
        query = "SELECT datname FROM pg_database WHERE datname LIKE %s"
        for (left,) in connection.execute(query, [f"{name}%"]).fetchall():
            connection.execute(f"DROP DATABASE {left} WITH (FORCE)")


@pytest.fixture
def held_dump(site: BackupSite, database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection whose lock makes a dump of the database wait."""
    with site.connect(database) as connection:
        connection.execute("BEGIN")
        connection.execute("LOCK TABLE scratch")
        yield connection
        connection.execute("ROLLBACK")


@pytest.fixture
def held_rows(site: BackupSite, database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection whose lock makes a dump wait after some rows of a table."""
    with site.connect(database) as connection:
        connection.execute(
            "CREATE TABLE letters (content text);"
            "INSERT INTO letters SELECT md5(random()::text) FROM generate_series(1, 50000);"
            "INSERT INTO letters SELECT string_agg(content, '') FROM letters"
        )
        # The last row is in the TOAST table, which is read through this index.
        (index,) = connection.execute(
            "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class c"
            " ON indrelid = c.reltoastrelid WHERE c.relname = 'letters'"
        ).fetchone() or ("",)
        connection.execute("BEGIN")
        connection.execute(f"REINDEX INDEX {index}")
        yield connection
        connection.execute("ROLLBACK")


def wait_for_dump(site: BackupSite, database: str, what: str = "LOCK TABLE") -> None:
    """Wait until a dump waits for a lock, with a query that begins with `what`."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
        " AND query LIKE %s"
    )
    deadline = time.monotonic() + 60
    with site.connect("postgres") as connection:
        while connection.execute(query, [database, f"{what}%"]).fetchone() != (1,):
            assert time.monotonic() < deadline, "no dump waits"
            time.sleep(0.05)
