"""The command line: `flask db ...` and `flask amani ...`."""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import click
import structlog
from flask import Flask
from flask.cli import AppGroup
from flask_migrate import Migrate

from amani_app.telemetry import observability
from amani_app.application.common.acting import Actor, NotFound
from amani_app.application.worker.jobs import ExpireSilence, ForgetAnswers
from amani_app.application.worker.outbox import DeliverEvents
from amani_app.application.requests.people import SHORTEST_PASSWORD
from amani_app.application.provider.reconciliation import Reconcile
from amani_app.application.requests.seeding import Seeder
from amani_app.application.requests.withdrawals import REQUESTED
from amani_app.application.worker.worker import WorkerJob, Worker
from amani_app.build_info import ROOT
from amani_app.container import Container, container, provider_commands
from amani_app.domain.errors import DomainError
from amani_app.domain.money import Money
from amani_app.domain.users import Role, User
from amani_app.healthcheck import HEARTBEAT
from amani_app.ports.schema import UnknownRevision
from amani_app.ports.store import UnitOfWork

OPERATOR = Actor("operator")
amani = AppGroup("amani", help="The service's own commands.")


def install_commands(app: Flask) -> None:
    Migrate(app, app.extensions["sqlalchemy"], directory=str(ROOT / "migrations"))
    for command in provider_commands():
        amani.add_command(command)
    app.cli.add_command(amani)


@amani.command("schema-head")
def schema_head() -> None:
    """Print the schema revision that this code needs."""
    click.echo(container().schema.expected)


@amani.command("schema-loss")
@click.argument("revision")
def schema_loss(revision: str) -> None:
    """Print what a downgrade to REVISION would delete: each table and column with data."""
    # The deployer reads stdout and stderr as one stream.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        for line in container().schema.losses(revision):
            click.echo(line)
    except UnknownRevision as error:
        raise click.UsageError(str(error)) from None


@amani.command("reconcile")
def reconcile() -> None:
    """Recompute all balances; print each difference and exit 1 if there is one.

    With a payment provider, its balance is compared with the ledger as well.
    """
    parts = container()
    found = Reconcile(parts.store, parts.provider.payments if parts.provider else None)()
    for line in found:
        click.echo(line)
    if found:
        raise SystemExit(1)


@amani.command("user-create")
@click.argument("email")
@click.option("--name", required=True)
@click.option("--role", type=click.Choice([role.value for role in Role]), default="member")
@click.password_option(envvar="AMANI_PASSWORD", help="Prompts for it unless AMANI_PASSWORD is set.")
def user_create(email: str, name: str, role: str, password: str) -> None:
    """Create a member, an arbiter or an administrator; print the id."""
    _create(email, name, password, Role(role))


@amani.group("admin")
def admin() -> None:
    """Manage the users with the role of administrator."""


@admin.command("create")
@click.argument("email")
@click.option("--name", default="Administrator", show_default=True)
@click.password_option(envvar="AMANI_PASSWORD", help="Prompts for it unless AMANI_PASSWORD is set.")
def admin_create(email: str, name: str, password: str) -> None:
    """Create an administrator; print the id."""
    _create(email, name, password, Role.ADMIN)


def _create(email: str, name: str, password: str, role: Role) -> None:
    _require_length(password)
    try:
        user = container().people.sign_up(OPERATOR, email, name, password, role)
    except DomainError as error:
        raise click.ClickException(str(error)) from None
    click.echo(user.id)


def _require_length(password: str) -> None:
    if len(password) < SHORTEST_PASSWORD:
        raise click.UsageError(f"the password must have at least {SHORTEST_PASSWORD} characters")


@amani.command("deposit")
@click.argument("email")
@click.argument("amount")
@click.option("--currency", default="NGN", show_default=True)
@click.option("--reference", required=True, help="The bank's reference; it is booked once.")
def deposit(email: str, amount: str, currency: str, reference: str) -> None:
    """Book a bank transfer of AMOUNT (major units) that arrived for EMAIL."""
    parts = container()

    def change(unit: UnitOfWork) -> Money:
        owner, money = _person(unit, email).id, Money.parse(amount, currency)
        return parts.deposits.collected(unit, OPERATOR, owner, reference, money, money)

    _book(change)


@amani.group("suspense")
def suspense() -> None:
    """List and clear money without a known owner."""


@suspense.command("list")
def suspense_list() -> None:
    """Print each item in suspense: time, transfer, amount, reason, reference."""
    parts = container()
    for each in parts.store.read(parts.suspense.waiting):
        columns = (f"{each.at:%Y-%m-%d %H:%M}", each.transfer, each.amount, each.reason)
        click.echo("  ".join(map(str, (*columns, each.reference))))


@suspense.command("attribute")
@click.argument("transfer")
@click.argument("email")
def suspense_attribute(transfer: str, email: str) -> None:
    """Credit the item that TRANSFER put into suspense to EMAIL; a negative item is debited."""
    give = container().suspense.attribute
    _book(lambda unit: give(unit, OPERATOR, transfer, _person(unit, email).id))


@suspense.command("send-back")
@click.argument("transfer")
def suspense_send_back(transfer: str) -> None:
    """Record that the provider returned the item that TRANSFER put into suspense."""
    send_back = container().suspense.send_back
    _book(lambda unit: send_back(unit, OPERATOR, transfer))


def _book(change: Callable[[UnitOfWork], Money]) -> None:
    try:
        click.echo(str(container().store.run(change)))
    except DomainError as error:
        raise click.ClickException(str(error)) from None


def _person(unit: UnitOfWork, email: str) -> User:
    user = unit.users.by_email(email.lower())
    if user is None:
        raise NotFound(f"there is no user {email}")
    return user


@amani.command("seed")
@click.option("--users", default=20, show_default=True, type=click.IntRange(3, 100_000))
@click.option("--escrows", default=50, show_default=True, type=click.IntRange(0, 1_000_000))
@click.option(
    "--random", "number", type=int, help="Seed of the random choices, for a repeatable result."
)
@click.password_option(
    envvar="AMANI_PASSWORD", help="For all users; prompts for it unless AMANI_PASSWORD is set."
)
def seed(users: int, escrows: int, number: int | None, password: str) -> None:
    """Fill a development database with users and escrows; print two of the addresses."""
    parts = container()
    if parts.settings.environment == "production":
        raise click.UsageError("seeding is refused if ENVIRONMENT=production")
    _require_length(password)
    chance = random.Random(number)  # nosec B311
    seeder = Seeder(parts.context, parts.store, parts.people, parts.escrows, parts.deposits, chance)
    try:
        with click.progressbar(
            seeder.make_people(users, password), length=users, label="users", file=sys.stderr
        ) as bar:
            people = list(bar)
        with click.progressbar(
            seeder.make_escrows(escrows, people),
            length=escrows,
            label="escrows",
            file=sys.stderr,
        ) as bar:
            made = len(list(bar))
    except DomainError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{users} users, {made} escrows")
    click.echo(f"arbiter {people[0].email}\nmember {people[1].email}")


@amani.command("worker")
def worker() -> None:
    """Run background jobs until SIGTERM or SIGINT; the current item is finished first."""
    parts = container()
    observability.start(None, parts.settings, parts.build, parts.provider_settings)
    stop = threading.Event()

    def ask_to_stop(signum: int, _frame: Any) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)

    def going() -> bool:
        HEARTBEAT.touch()
        return not stop.is_set()

    def rest() -> bool:
        HEARTBEAT.touch()
        return stop.wait(parts.settings.worker_interval)

    try:
        Worker(
            name=f"{socket.gethostname()}:{os.getpid()}",
            version=parts.build.version,
            register=parts.workers,
            readiness=parts.readiness,
            jobs=_jobs(parts),
            log=structlog.get_logger(),
            going=going,
        ).run(rest)
    finally:
        HEARTBEAT.unlink(missing_ok=True)


def _jobs(parts: Container) -> list[WorkerJob]:
    context, store, provider = parts.context, parts.store, parts.provider
    listeners = {REQUESTED: provider.payouts.send} if provider else {}
    jobs: list[WorkerJob] = [
        ExpireSilence(store, parts.escrows, context.now),
        ForgetAnswers(store, context.now),
        DeliverEvents(context, store, listeners, kept=[REQUESTED]),
    ]
    if provider:
        jobs += [provider.notices, provider.payouts, provider.checkouts, provider.inflows]
    return jobs
