"""Whether the provider has taken back the word by which a withdrawal was settled.

Class: expand
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade():
    op.add_column(
        "withdrawals",
        sa.Column("corrected", sa.Boolean(), server_default=sa.false(), nullable=False),
    )


def downgrade():
    op.drop_column("withdrawals", "corrected")
