"""The tables. The triggers are in the migrations, because the metadata cannot hold them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

from amani_app.adapters.database.columns import UtcDateTime
from amani_app.adapters.database.engine import db
from amani_app.domain.escrow import Party, EscrowState, MilestoneState
from amani_app.domain.payments import AccountState, DepositState, WithdrawalState
from amani_app.domain.users import Role

ID = String(64)
# SQLite numbers rows by itself only if the type is exactly INTEGER.
SERIAL = BigInteger().with_variant(Integer(), "sqlite")


def one_of(column: str, kinds: Iterable[Any]) -> CheckConstraint:
    """A constraint that `column` holds one of the enumeration's values."""
    values = ", ".join(f"'{kind.value}'" for kind in kinds)
    return CheckConstraint(f"{column} IN ({values})", name=column)


def queue() -> tuple[Column[Any], ...]:
    """The columns that workers claim rows by: the number of claims, and the due time or NULL."""
    return (
        Column("attempts", Integer(), nullable=False, server_default="0"),
        Column("due_at", UtcDateTime()),
    )


worker_heartbeats = Table(
    "worker_heartbeats",
    db.metadata,
    Column("name", String(128), primary_key=True),
    Column("version", String(128), nullable=False),
    Column("seen_at", UtcDateTime(), nullable=False),
)

users = Table(
    "users",
    db.metadata,
    Column("id", ID, primary_key=True),
    Column("email", String(254), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("role", String(16), nullable=False),
    Column("password_hash", Text(), nullable=False),
    Column("token_version", Integer(), nullable=False),
    Column("created_at", UtcDateTime(), nullable=False),
    one_of("role", Role),
    CheckConstraint("email = lower(email)", name="email_lower"),
)

accounts = Table(
    "accounts",
    db.metadata,
    Column("id", String(128), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("owner", ID, nullable=False),
    Column("currency", String(3), nullable=False),
    # Of guarded accounts only: a house account has no row for transactions to queue at.
    Column("posted", BigInteger()),
    Column("reserved", BigInteger()),
    Column("version", BigInteger()),
    # No release has ever written 'transit'; taking it out would need a migration.
    CheckConstraint(
        "kind IN ('wallet', 'hold', 'transit', 'fees', 'provider', 'suspense')", name="kind"
    ),
    CheckConstraint(
        "(kind IN ('wallet', 'hold')) = "
        "(posted IS NOT NULL AND reserved IS NOT NULL AND version IS NOT NULL)",
        name="guarded",
    ),
    CheckConstraint("reserved >= 0", name="reserved"),
    CheckConstraint("posted - reserved >= 0", name="available"),
    Index("ix_accounts_owner", "owner"),
)

transfers = Table(
    "transfers",
    db.metadata,
    Column("id", ID, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("reference", ID, nullable=False),
    Column("pending_id", ID, ForeignKey("transfers.id"), unique=True),
    Column("account_id", String(128), ForeignKey("accounts.id")),
    Column("amount", BigInteger()),
    Column("at", UtcDateTime(), nullable=False),
    UniqueConstraint("reference", "reason", "kind"),
    CheckConstraint("kind IN ('direct', 'pending', 'post', 'void')", name="kind"),
    CheckConstraint("(kind IN ('post', 'void')) = (pending_id IS NOT NULL)", name="settles"),
    CheckConstraint(
        "(kind = 'pending') = (account_id IS NOT NULL AND amount IS NOT NULL)", name="reserves"
    ),
    CheckConstraint("amount > 0", name="amount"),
)

entries = Table(
    "entries",
    db.metadata,
    Column("id", SERIAL, primary_key=True, autoincrement=True),
    # Deferred: a transfer is written after its entries, and seals them.
    Column(
        "transfer_id",
        ID,
        ForeignKey("transfers.id", deferrable=True, initially="DEFERRED"),
        nullable=False,
    ),
    Column("account_id", String(128), ForeignKey("accounts.id"), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("amount", BigInteger(), nullable=False),
    Column("balance_after", BigInteger()),
    Column("version", BigInteger()),
    UniqueConstraint("transfer_id", "account_id"),
    UniqueConstraint("account_id", "version"),
    CheckConstraint("amount <> 0", name="amount"),
    CheckConstraint("balance_after >= 0", name="balance_after"),
    # An account's id ends with its currency.
    CheckConstraint("substr(account_id, length(account_id) - 2) = currency", name="currency"),
    Index("ix_entries_account_id_id", "account_id", "id"),
)

escrows = Table(
    "escrows",
    db.metadata,
    Column("id", ID, primary_key=True),
    Column("title", String(200), nullable=False),
    Column("client_id", ID, ForeignKey("users.id"), nullable=False),
    Column("freelancer_id", ID, ForeignKey("users.id"), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("fee_basis_points", Integer(), nullable=False),
    Column("silence_days", Integer(), nullable=False),
    Column("state", String(32), nullable=False),
    Column("cancel_asked_by", String(16)),
    Column("version", Integer(), nullable=False),
    Column("created_at", UtcDateTime(), nullable=False),
    one_of("state", EscrowState),
    one_of("cancel_asked_by", (Party.CLIENT, Party.FREELANCER)),
    CheckConstraint("client_id <> freelancer_id", name="two_people"),
    CheckConstraint("fee_basis_points BETWEEN 0 AND 10000", name="fee_basis_points"),
    Index("ix_escrows_client_id_id", "client_id", "id"),
    Index("ix_escrows_freelancer_id_id", "freelancer_id", "id"),
)

milestones = Table(
    "milestones",
    db.metadata,
    Column("id", ID, primary_key=True),
    Column("escrow_id", ID, ForeignKey("escrows.id"), nullable=False),
    Column("position", Integer(), nullable=False),
    Column("title", String(200), nullable=False),
    Column("amount", BigInteger(), nullable=False),
    Column("due", Date()),
    Column("state", String(32), nullable=False),
    Column("submitted_at", UtcDateTime()),
    Column("expires_at", UtcDateTime()),
    UniqueConstraint("escrow_id", "position"),
    one_of("state", MilestoneState),
    CheckConstraint("amount > 0", name="amount"),
    Index("ix_milestones_state_expires_at", "state", "expires_at"),
)

deposits = Table(
    "deposits",
    db.metadata,
    Column("id", ID, primary_key=True),
    Column("owner_id", ID, ForeignKey("users.id"), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("asked", BigInteger(), nullable=False),
    Column("received", BigInteger()),
    Column("state", String(16), nullable=False),
    Column("link", Text(), nullable=False),
    Column("created_at", UtcDateTime(), nullable=False),
    *queue(),
    one_of("state", DepositState),
    CheckConstraint("asked > 0", name="asked"),
    CheckConstraint(
        "state <> 'credited' OR (received IS NOT NULL AND received >= asked)", name="received"
    ),
    Index("ix_deposits_owner_id_id", "owner_id", "id"),
    Index("ix_deposits_due_at_id", "due_at", "id"),
)

virtual_accounts = Table(
    "virtual_accounts",
    db.metadata,
    Column("id", ID, primary_key=True),
    Column("owner_id", ID, ForeignKey("users.id"), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("state", String(16), nullable=False),
    # Nothing of what the provider must know of a person stands here.
    Column("provider_id", String(64), nullable=False),
    Column("bank_name", String(100), nullable=False),
    Column("account_number", String(40), nullable=False),
    Column("account_name", String(200), nullable=False),
    Column("failure", String(200), nullable=False),
    Column("created_at", UtcDateTime(), nullable=False),
    *queue(),
    one_of("state", AccountState),
    CheckConstraint("state <> 'active' OR account_number <> ''", name="account_number"),
    Index("ix_virtual_accounts_owner_id_id", "owner_id", "id"),
    Index("ix_virtual_accounts_due_at_id", "due_at", "id"),
    Index("ix_virtual_accounts_account_number", "account_number"),
    Index("ix_virtual_accounts_provider_id", "provider_id"),
)

withdrawals = Table(
    "withdrawals",
    db.metadata,
    # Also the id of the pending transfer that reserves the amount.
    Column("id", ID, ForeignKey("transfers.id"), primary_key=True),
    Column("owner_id", ID, ForeignKey("users.id"), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("amount", BigInteger(), nullable=False),
    Column("bank_code", String(16), nullable=False),
    Column("account_number", String(32), nullable=False),
    Column("account_name", String(200), nullable=False),
    Column("state", String(16), nullable=False),
    Column("corrected", Boolean(), server_default=false(), nullable=False),
    Column("doubted_at", UtcDateTime()),
    Column("failure", String(200), nullable=False),
    Column("created_at", UtcDateTime(), nullable=False),
    *queue(),
    one_of("state", (state for state in WithdrawalState if not state.corrected)),
    CheckConstraint("amount > 0", name="amount"),
    Index("ix_withdrawals_owner_id_id", "owner_id", "id"),
    Index("ix_withdrawals_due_at_id", "due_at", "id"),
)

inbox = Table(
    "inbox",
    db.metadata,
    # A hash of the notice, because the provider gives it no id.
    Column("id", ID, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("event", String(64), nullable=False),
    Column("reference", String(64), nullable=False),
    Column("status", String(32), nullable=False),
    Column("body", Text(), nullable=False),
    Column("received_at", UtcDateTime(), nullable=False),
    Column("outcome", String(16)),
    *queue(),
    CheckConstraint("(outcome IS NULL) = (due_at IS NOT NULL)", name="due"),
    Index("ix_inbox_due_at_id", "due_at", "id"),
)

outbox = Table(
    "outbox",
    db.metadata,
    Column("id", ID, primary_key=True),
    Column("topic", String(64), nullable=False),
    Column("subject", ID, nullable=False),
    Column("payload", Text(), nullable=False),
    Column("created_at", UtcDateTime(), nullable=False),
    Column("delivered_at", UtcDateTime()),
    *queue(),
    Index("ix_outbox_delivered_at_id", "delivered_at", "id"),
)

audit_log = Table(
    "audit_log",
    db.metadata,
    Column("id", ID, primary_key=True),
    Column("at", UtcDateTime(), nullable=False),
    Column("actor", ID, nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", ID, nullable=False),
    Column("before", Text(), nullable=False),
    Column("after", Text(), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("remote_addr", String(64), nullable=False),
    Index("ix_audit_log_subject_id", "subject", "id"),
)

idempotency_keys = Table(
    "idempotency_keys",
    db.metadata,
    Column("caller", ID, primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("status", Integer(), nullable=False),
    Column("body", Text(), nullable=False),
    Column("created_at", UtcDateTime(), nullable=False),
    Index("ix_idempotency_keys_created_at", "created_at"),
)
