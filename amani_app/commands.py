"""The command line: ``flask db ...`` and ``flask amani ...``."""

from __future__ import annotations

import os
import signal
import socket
import threading
import typing as t

import click
import structlog
from flask import Flask
from flask.cli import AppGroup
from flask_migrate import Migrate

from amani_app.adapters.database.engine import db
from amani_app.adapters.database.workers import DatabaseWorkerRegister
from amani_app.application.worker import Worker
from amani_app.build_info import ROOT
from amani_app.container import container
from amani_app.healthcheck import HEARTBEAT

amani = AppGroup("amani", help="The service's own commands.")


def install_commands(app: Flask) -> None:
    """Add the commands to *app*."""
    Migrate(app, db, directory=str(ROOT / "migrations"))
    app.cli.add_command(amani)


@amani.command("schema-head")
def schema_head() -> None:
    """Print the schema revision that this code needs."""
    click.echo(container().schema.expected)


@amani.command("worker")
def worker() -> None:
    """Run background jobs until SIGTERM or SIGINT; the round in hand is finished first."""
    parts = container()
    stop = threading.Event()

    def ask_to_stop(signum: int, _frame: t.Any) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)

    def rest() -> bool:
        HEARTBEAT.touch()
        return stop.wait(parts.settings.worker_interval)

    try:
        Worker(
            name=f"{socket.gethostname()}:{os.getpid()}",
            version=parts.build.version,
            register=DatabaseWorkerRegister(parts.engine),
            readiness=parts.readiness,
            jobs=(),
            log=structlog.get_logger(),
        ).run(rest)
    finally:
        HEARTBEAT.unlink(missing_ok=True)
