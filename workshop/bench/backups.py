"""Speed and size of backups of a database in use, and completeness of a restore."""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from deploy import secrets
from deploy.backups.container import database_url, open_container
from deploy.environment.model import Environment
from deploy.errors import DeployError
from deploy.events import Events
from deploy.operations.backup import make_backup
from deploy.operations.host_session import open_session
from deploy.operations.maintenance import set_maintenance
from deploy.operations.one_off import run_one_off
from deploy.operations.restore import restore_backup, run_drill
from workshop.bench import practice_releases

VERSION = "0.0.1-bench"
SILENT = Events()
_SEED = "flask amani seed --users 10 --escrows 60 --random 7 --password bench-password-long"
_FILL = """
CREATE TABLE bench.rows_{} AS
    SELECT g AS id, (random() * 1e9)::bigint AS amount, md5(random()::text) AS note, now() AS at
    FROM generate_series(1, {}) g
"""
_WRITES = """
DROP TABLE IF EXISTS bench_writes;
CREATE TABLE bench_writes (id bigserial PRIMARY KEY, amount bigint NOT NULL);
CHECKPOINT
"""
# The baseline: a plain dump, flushed to disk. The URL is read from standard input.
_PLAIN = 'read -r PGURL && pg_dump "$PGURL" | zstd -q -3 >/backups/plain && sync /backups/plain'


@dataclass
class Writer:
    """Inserts rows in a thread, each in a transaction of its own, as fast as the server commits."""

    url: str
    acknowledged: list[tuple[float, int]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def work(self) -> None:
        """Insert rows until the `with` block ends."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            while not self._stop.is_set():
                query = "INSERT INTO bench_writes (amount) VALUES (7) RETURNING id"
                row = connection.execute(query).fetchone()
                self.acknowledged.append((time.time(), int(row[0]) if row else 0))

    def __enter__(self) -> Writer:
        self._thread = threading.Thread(target=self.work)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)


def run(name: str, rows: int, rounds: int, jobs: int = 1) -> dict[str, Any]:
    """Compare backups with `pg_dump | zstd`, then drop a database in use and restore it.

    Returns the figures as JSON values. The rows are in as many tables as there are `jobs`; several
    jobs dump into a directory. Raises `DeployError` if a row that was acknowledged before the
    snapshot is missing, or if the reconciliation after the restore fails.
    """
    apart = {"parallel_from": 0} if jobs > 1 else {}
    with practice_releases.practice_fleet(name, hosts=1, jobs=jobs, **apart) as environment:
        practice_releases.publish(environment, [VERSION])
        practice_releases.deploy_version(name, VERSION)
        url = database_url(environment, secrets.load_secrets(environment, registries=False))
        if run_one_off(name, _SEED.split(), SILENT)[0]:
            raise DeployError("the service could not be seeded")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA IF EXISTS bench CASCADE")
            connection.execute("CREATE SCHEMA bench")
            for number in range(jobs):
                connection.execute(_FILL.format(number, rows // jobs).encode())
            for statement in _WRITES.split(";"):
                connection.execute(statement.encode())
        ours, whole, plain = [], [], []
        for _ in range(rounds):
            plain.append(_plain(environment))
            made = make_backup(name, SILENT).manifest
            ours.append(made.dump_seconds)
            whole.append(made.seconds)
        loss = _lose_and_restore(name, url)
        drill = run_drill(name, SILENT)
        size = made.database_size
        return {
            "format": made.format,
            "jobs": made.jobs,
            "rows": made.rows,
            "database_mb": round(size / 1e6, 1),
            "archive_mb": round(made.size / 1e6, 1),
            "dump_mb_per_second": round(size / 1e6 / statistics.median(ours), 1),
            "plain_mb_per_second": round(size / 1e6 / statistics.median(plain), 1),
            "ratio_to_plain": round(statistics.median(plain) / statistics.median(ours), 3),
            "ratio_with_test": round(statistics.median(plain) / statistics.median(whole), 3),
            **loss,
            "rto_seconds": round(drill.recovery, 2),
            "drill_seconds": round(drill.total, 2),
        }


def _plain(environment: Environment) -> float:
    values = secrets.load_secrets(environment, registries=False)
    with open_session(environment, SILENT) as session:
        host = session.hosts[environment.database_host.name]
        with open_container(host, environment, values, SILENT, run_id="plain") as container:
            given = database_url(environment, values).encode() + b"\n"
            started = time.monotonic()
            done = host.engine.run_in(container.id, ["sh", "-c", _PLAIN], stdin=given, timeout=3600)
            seconds = time.monotonic() - started
            host.engine.run_in(container.id, ["rm", "-f", "/backups/plain"])
        if done.status:
            raise DeployError(f"pg_dump | zstd failed: {done.output}")
        return seconds


def _lose_and_restore(name: str, url: str) -> dict[str, Any]:
    with Writer(url) as writer:
        time.sleep(1)
        asked = time.time()
        manifest = make_backup(name, SILENT).manifest
    set_maintenance(name, SILENT, on=True)
    with psycopg.connect(url.rpartition("/")[0] + "/postgres", autocommit=True) as connection:
        connection.execute(
            sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(manifest.database))
        )
    restored = restore_backup(name, SILENT, id=manifest.id, replace=True)
    set_maintenance(name, SILENT, on=False)
    status, said = run_one_off(name, ("flask", "amani", "reconcile"), SILENT)
    if status:
        raise DeployError(f"the reconciliation after the restore failed: {said}")
    with psycopg.connect(url) as connection:
        there = {row[0] for row in connection.execute("SELECT id FROM bench_writes").fetchall()}
    expected = {id for at, id in writer.acknowledged if at < asked}
    if missing := expected - there:
        raise DeployError(f"{len(missing)} acknowledged writes are missing")
    if len(there) != manifest.tables["public.bench_writes"]["rows"]:
        raise DeployError("the rows are not those of the manifest")
    return {
        "acknowledged_before_snapshot": len(expected),
        "missing": 0,
        "writes_during_backup": len(writer.acknowledged) - len(expected),
        "restore_seconds": round(restored.seconds, 2),
    }
