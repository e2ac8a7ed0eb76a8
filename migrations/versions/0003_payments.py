"""Deposits, withdrawals, the inbox of notices, and when an event is due.

Class: expand
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def queue():
    """When a row is due, if ever, and how often it was claimed."""
    return (
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
    )


def upgrade():
    op.add_column("outbox", sa.Column("due_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "deposits",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("owner_id", sa.String(length=64), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("asked", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("link", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        *queue(),
        sa.CheckConstraint(
            "state IN ('opening', 'pending', 'credited', 'suspended', 'failed')",
            name=op.f("ck_deposits_state"),
        ),
        sa.CheckConstraint("asked > 0", name=op.f("ck_deposits_asked")),
        sa.CheckConstraint(
            "state <> 'credited' OR (received IS NOT NULL AND received >= asked)",
            name=op.f("ck_deposits_received"),
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_deposits_owner_id_users")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deposits")),
    )
    op.create_index("ix_deposits_owner_id_id", "deposits", ["owner_id", "id"])
    op.create_index("ix_deposits_due_at_id", "deposits", ["due_at", "id"])
    op.create_table(
        "withdrawals",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("owner_id", sa.String(length=64), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("bank_code", sa.String(length=16), nullable=False),
        sa.Column("account_number", sa.String(length=32), nullable=False),
        sa.Column("account_name", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("doubted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        *queue(),
        sa.CheckConstraint(
            "state IN ('requested', 'sending', 'processing', 'paid', 'failed')",
            name=op.f("ck_withdrawals_state"),
        ),
        sa.CheckConstraint("amount > 0", name=op.f("ck_withdrawals_amount")),
        sa.ForeignKeyConstraint(
            ["id"], ["transfers.id"], name=op.f("fk_withdrawals_id_transfers")
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_withdrawals_owner_id_users")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_withdrawals")),
    )
    op.create_index("ix_withdrawals_owner_id_id", "withdrawals", ["owner_id", "id"])
    op.create_index("ix_withdrawals_due_at_id", "withdrawals", ["due_at", "id"])
    op.create_table(
        "inbox",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("reference", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        *queue(),
        sa.CheckConstraint(
            "(outcome IS NULL) = (due_at IS NOT NULL)", name=op.f("ck_inbox_due")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbox")),
    )
    op.create_index("ix_inbox_due_at_id", "inbox", ["due_at", "id"])


def downgrade():
    for table in ("inbox", "withdrawals", "deposits"):
        op.drop_table(table)
    op.drop_column("outbox", "due_at")
