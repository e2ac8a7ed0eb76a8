"""Virtual accounts: bank account numbers that people are paid at.

Class: expand
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "virtual_accounts",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("owner_id", sa.String(length=64), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("provider_id", sa.String(length=64), nullable=False),
        sa.Column("bank_name", sa.String(length=100), nullable=False),
        sa.Column("account_number", sa.String(length=40), nullable=False),
        sa.Column("account_name", sa.String(length=200), nullable=False),
        sa.Column("failure", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('requested', 'pending', 'active', 'declined', 'closed', 'failed')",
            name=op.f("ck_virtual_accounts_state"),
        ),
        sa.CheckConstraint(
            "state <> 'active' OR account_number <> ''",
            name=op.f("ck_virtual_accounts_account_number"),
        ),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_virtual_accounts_owner_id_users")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_virtual_accounts")),
    )
    op.create_index("ix_virtual_accounts_owner_id_id", "virtual_accounts", ["owner_id", "id"])
    op.create_index("ix_virtual_accounts_due_at_id", "virtual_accounts", ["due_at", "id"])
    op.create_index("ix_virtual_accounts_account_number", "virtual_accounts", ["account_number"])
    op.create_index("ix_virtual_accounts_provider_id", "virtual_accounts", ["provider_id"])


def downgrade():
    op.drop_table("virtual_accounts")
