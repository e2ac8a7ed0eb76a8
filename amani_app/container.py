"""The composition root: the only module that selects an adapter for each port."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from click import Command
from flask import Flask, current_app
from prometheus_client.registry import Collector
from sqlalchemy import Engine

from amani_app.adapters.database import tables  # noqa: F401  (fills the metadata)
from amani_app.adapters.database.engine import db, install_engine
from amani_app.adapters.database.gauges import LedgerGauges
from amani_app.adapters.database.revisions import DatabaseSchema
from amani_app.adapters.database.store import DatabaseStore
from amani_app.adapters.database.workers import DatabaseWorkerRegister
from amani_app.adapters.identity import LocalAccounts
from amani_app.adapters.memory.limits import MemoryLimiter
from amani_app.adapters.providers import PROVIDERS, select_provider
from amani_app.application.common.acting import Context
from amani_app.application.provider.checkouts import Checkouts
from amani_app.application.requests.deposits import DepositUseCases
from amani_app.application.requests.escrows import EscrowUseCases
from amani_app.application.provider.inflows import Inflows
from amani_app.application.common.lifecycle import Lifecycle
from amani_app.application.provider.notices import Notices
from amani_app.application.provider.payouts import Payouts
from amani_app.application.requests.people import PeopleUseCases
from amani_app.application.common.readiness import CheckHealth, CheckReadiness
from amani_app.application.requests.suspense import SuspenseUseCases
from amani_app.application.requests.virtual_accounts import VirtualAccountUseCases
from amani_app.application.requests.withdrawals import WithdrawalUseCases
from amani_app.build_info import BuildIdentity
from amani_app.domain.escrow import FeePolicy
from amani_app.ports.identity import Accounts, Identity
from amani_app.ports.limits import Limiter
from amani_app.ports.payments import Payments
from amani_app.ports.schema import SchemaSource
from amani_app.ports.store import Store
from amani_app.ports.workers import WorkerRegister
from amani_app.settings import EnvironmentSettings, Settings, read_settings


@dataclass(frozen=True)
class Provider:
    """The payment provider, and the use cases that call it."""

    name: str
    """The last part of the webhook's path."""
    payments: Payments
    checkouts: Checkouts
    payouts: Payouts
    inflows: Inflows
    notices: Notices


@dataclass(frozen=True)
class Container:
    """Everything that the entry points use; built once for each process."""

    settings: Settings
    build: BuildIdentity
    engine: Engine
    lifecycle: Lifecycle
    schema: SchemaSource
    readiness: CheckReadiness
    health: CheckHealth
    context: Context
    store: Store
    identity: Identity
    limiter: Limiter
    fallback_limiter: Limiter
    """Counts in this process while `limiter` is unavailable."""
    workers: WorkerRegister
    gauges: Collector
    """The metrics that are read from the database."""
    people: PeopleUseCases
    escrows: EscrowUseCases
    deposits: DepositUseCases
    virtual_accounts: VirtualAccountUseCases
    withdrawals: WithdrawalUseCases
    suspense: SuspenseUseCases
    provider: Provider | None
    """`None` if none is configured: deposits and withdrawals answer 503."""
    provider_settings: EnvironmentSettings | None
    provider_names: frozenset[str]
    """All providers that have an adapter, selected or not."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def new_id() -> str:
    """A new id: 32 hexadecimal digits, unguessable, ordered by the millisecond of its creation."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def install_container(app: Flask, settings: Settings, build: BuildIdentity, key: str) -> Container:
    """Give `app` its database and its container; `key` signs the tokens."""
    install_engine(app, settings)
    with app.app_context():
        made = build_container(settings, build, db.engine, key)
    app.extensions["amani"] = made
    return made


def build_container(
    settings: Settings, build: BuildIdentity, engine: Engine, key: str
) -> Container:
    """Wire the use cases to their adapters; `key` signs the tokens."""
    lifecycle = Lifecycle()
    schema = DatabaseSchema(engine)
    context = Context(utc_now, new_id)
    store = DatabaseStore(engine, utc_now, settings.database_pipeline)
    identity, accounts = _identity(settings, key)
    deposits, withdrawals = DepositUseCases(context), WithdrawalUseCases(context)
    numbers = VirtualAccountUseCases(context)
    selected = select_provider(settings.payment_provider)
    return Container(
        settings=settings,
        build=build,
        engine=engine,
        lifecycle=lifecycle,
        schema=schema,
        readiness=CheckReadiness(lifecycle, schema, settings.readiness_cache),
        health=CheckHealth(schema),
        context=context,
        store=store,
        identity=identity,
        limiter=_limiter(settings),
        fallback_limiter=MemoryLimiter(),
        workers=DatabaseWorkerRegister(engine),
        gauges=LedgerGauges(engine),
        people=PeopleUseCases(context, store, identity, accounts),
        escrows=EscrowUseCases(context, FeePolicy(settings.fee_basis_points)),
        deposits=deposits,
        virtual_accounts=numbers,
        suspense=SuspenseUseCases(context),
        withdrawals=withdrawals,
        provider=(
            build_provider(
                selected[0],
                context,
                store,
                selected[1].payments(),
                deposits,
                numbers,
                withdrawals,
            )
            if selected
            else None
        ),
        provider_settings=selected[1] if selected else None,
        provider_names=frozenset(PROVIDERS),
    )


def _limiter(settings: Settings) -> Limiter:
    if url := settings.redis_url.get_secret_value():
        # Imported only if it is used: the client is a part of the boot.
        from amani_app.adapters.redis import RedisLimiter

        return RedisLimiter(url)
    return MemoryLimiter()


def _identity(settings: Settings, key: str) -> tuple[Identity, Accounts | None]:
    """The identity provider, and the local accounts if this service keeps them."""
    if settings.identity == "supabase":
        # PyJWT is imported late: most installations need it at the first request only.
        from amani_app.adapters.supabase import SupabaseIdentity

        secret = settings.supabase_jwt_secret.get_secret_value()
        second_factor = settings.supabase_second_factor
        return SupabaseIdentity(settings.supabase_url, secret, second_factor=second_factor), None
    local = LocalAccounts([key, *settings.previous_keys])
    return local, local


def provider_commands() -> Iterator[Command]:
    """The commands of all payment providers, selected or not."""
    for kind in PROVIDERS.values():
        yield from read_settings(kind).commands()


def build_provider(
    name: str,
    context: Context,
    store: Store,
    payments: Payments,
    deposits: DepositUseCases,
    virtual_accounts: VirtualAccountUseCases,
    withdrawals: WithdrawalUseCases,
) -> Provider:
    checkouts = Checkouts(context, store, payments, deposits)
    payouts = Payouts(context, store, payments, withdrawals)
    inflows = Inflows(context, store, payments, virtual_accounts)
    notices = Notices(context, store, payments, checkouts, payouts, inflows)
    return Provider(name, payments, checkouts, payouts, inflows, notices)


def container(app: Flask | None = None) -> Container:
    """The container of `app`, by default of the current one."""
    found: Container = (app or current_app).extensions["amani"]
    return found
