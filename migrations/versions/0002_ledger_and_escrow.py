"""People, the ledger, escrows, outbox, audit log and idempotency keys.

Class: expand
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = (
    "accounts",
    "audit_log",
    "idempotency_keys",
    "outbox",
    "users",
    "escrows",
    "transfers",
    "entries",
    "milestones",
)
APPEND_ONLY = ("entries", "transfers", "audit_log")
UNBALANCED = """EXISTS (
    SELECT 1 FROM entries WHERE transfer_id = NEW.id GROUP BY currency HAVING sum(amount) <> 0)"""
WITHOUT_ENTRIES = "(SELECT count(*) FROM entries WHERE transfer_id = NEW.id) < 2"
WITH_ENTRIES = "EXISTS (SELECT 1 FROM entries WHERE transfer_id = NEW.id)"
# A transfer is written after its entries; from then on they are sealed.
WRONG_TRANSFER = f"""
    (NEW.kind IN ('direct', 'post') AND ({WITHOUT_ENTRIES} OR {UNBALANCED}))
    OR (NEW.kind IN ('pending', 'void') AND {WITH_ENTRIES})"""
SEALED = "EXISTS (SELECT 1 FROM transfers WHERE id = NEW.transfer_id)"


def upgrade():
    create_tables()
    if op.get_context().dialect.name == "postgresql":
        guard_postgresql()
    else:
        guard_sqlite()


def guard_postgresql():
    """Append-only tables, sealed transfers, and entries that sum to zero at the commit."""
    body = "RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} END $$"
    refuse = "RAISE EXCEPTION '{}' USING ERRCODE = 'integrity_constraint_violation';"
    op.execute(f"CREATE FUNCTION refuse_change() {body.format(refuse.format('append-only'))}")
    for name, wrong, words in (
        ("check_sealed", SEALED, "the transfer is sealed"),
        ("check_transfer", WRONG_TRANSFER, "the entries do not make this transfer"),
        (
            "check_balanced",
            UNBALANCED.replace("NEW.id", "NEW.transfer_id"),
            "the entries do not sum to zero",
        ),
    ):
        check = f"IF {wrong} THEN {refuse.format(words)} END IF; RETURN NEW;"
        op.execute(f"CREATE FUNCTION {name}() {body.format(check)}")
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    op.execute(
        "CREATE TRIGGER sealed BEFORE INSERT ON entries "
        "FOR EACH ROW EXECUTE FUNCTION check_sealed()"
    )
    op.execute(
        "CREATE TRIGGER entries_first BEFORE INSERT ON transfers "
        "FOR EACH ROW EXECUTE FUNCTION check_transfer()"
    )
    op.execute(
        "CREATE CONSTRAINT TRIGGER balanced AFTER INSERT ON entries "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_balanced()"
    )


def guard_sqlite():
    """The same rules; the deferred foreign key makes an entry without a transfer impossible."""
    trigger = "CREATE TRIGGER {} BEFORE {} ON {} {} BEGIN SELECT RAISE(ABORT, '{}'); END"
    for table in APPEND_ONLY:
        for verb in ("UPDATE", "DELETE"):
            name = f"{table}_no_{verb.lower()}"
            op.execute(trigger.format(name, verb, table, "", "append-only"))
    sealed = ("entries_sealed", "INSERT", "entries", f"WHEN {SEALED}", "the transfer is sealed")
    op.execute(trigger.format(*sealed))
    words = "the entries do not make this transfer"
    first = ("transfers_entries_first", "INSERT", "transfers", f"WHEN {WRONG_TRANSFER}", words)
    op.execute(trigger.format(*first))


def create_tables():
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("posted", sa.BigInteger(), nullable=True),
        sa.Column("reserved", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "(kind IN ('wallet', 'hold')) = "
            "(posted IS NOT NULL AND reserved IS NOT NULL AND version IS NOT NULL)",
            name=op.f("ck_accounts_guarded"),
        ),
        sa.CheckConstraint(
            "kind IN ('wallet', 'hold', 'transit', 'fees', 'provider', 'suspense')",
            name=op.f("ck_accounts_kind"),
        ),
        sa.CheckConstraint("posted - reserved >= 0", name=op.f("ck_accounts_available")),
        sa.CheckConstraint("reserved >= 0", name=op.f("ck_accounts_reserved")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
    )
    op.create_index("ix_accounts_owner", "accounts", ["owner"])

    op.create_table(
        "audit_log",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("before", sa.Text(), nullable=False),
        sa.Column("after", sa.Text(), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("remote_addr", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index("ix_audit_log_subject_id", "audit_log", ["subject", "id"])

    op.create_table(
        "idempotency_keys",
        sa.Column("caller", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("caller", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])

    op.create_table(
        "outbox",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("topic", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index("ix_outbox_delivered_at_id", "outbox", ["delivered_at", "id"])

    op.create_table(
        "users",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("token_version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("role IN ('member', 'arbiter', 'admin')", name=op.f("ck_users_role")),
        sa.CheckConstraint("email = lower(email)", name=op.f("ck_users_email_lower")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("email", name=op.f("uq_users_email")),
    )
    op.create_table(
        "escrows",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("freelancer_id", sa.String(length=64), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("fee_basis_points", sa.Integer(), nullable=False),
        sa.Column("silence_days", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("cancel_asked_by", sa.String(length=16), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "cancel_asked_by IN ('client', 'freelancer')", name=op.f("ck_escrows_cancel_asked_by")
        ),
        sa.CheckConstraint(
            "state IN ('draft', 'accepted', 'funded', 'completed', 'cancelled')",
            name=op.f("ck_escrows_state"),
        ),
        sa.CheckConstraint("client_id <> freelancer_id", name=op.f("ck_escrows_two_people")),
        sa.CheckConstraint(
            "fee_basis_points BETWEEN 0 AND 10000", name=op.f("ck_escrows_fee_basis_points")
        ),
        sa.ForeignKeyConstraint(
            ["client_id"], ["users.id"], name=op.f("fk_escrows_client_id_users")
        ),
        sa.ForeignKeyConstraint(
            ["freelancer_id"], ["users.id"], name=op.f("fk_escrows_freelancer_id_users")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_escrows")),
    )
    op.create_index("ix_escrows_client_id_id", "escrows", ["client_id", "id"])
    op.create_index("ix_escrows_freelancer_id_id", "escrows", ["freelancer_id", "id"])

    op.create_table(
        "transfers",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("reference", sa.String(length=64), nullable=False),
        sa.Column("pending_id", sa.String(length=64), nullable=True),
        sa.Column("account_id", sa.String(length=128), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(kind = 'pending') = (account_id IS NOT NULL AND amount IS NOT NULL)",
            name=op.f("ck_transfers_reserves"),
        ),
        sa.CheckConstraint(
            "(kind IN ('post', 'void')) = (pending_id IS NOT NULL)",
            name=op.f("ck_transfers_settles"),
        ),
        sa.CheckConstraint(
            "kind IN ('direct', 'pending', 'post', 'void')", name=op.f("ck_transfers_kind")
        ),
        sa.CheckConstraint("amount > 0", name=op.f("ck_transfers_amount")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_transfers_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["pending_id"], ["transfers.id"], name=op.f("fk_transfers_pending_id_transfers")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transfers")),
        sa.UniqueConstraint("pending_id", name=op.f("uq_transfers_pending_id")),
        sa.UniqueConstraint(
            "reference", "reason", "kind", name=op.f("uq_transfers_reference_reason_kind")
        ),
    )
    op.create_table(
        "entries",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("transfer_id", sa.String(length=64), nullable=False),
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("balance_after", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("amount <> 0", name=op.f("ck_entries_amount")),
        sa.CheckConstraint("balance_after >= 0", name=op.f("ck_entries_balance_after")),
        sa.CheckConstraint(
            "substr(account_id, length(account_id) - 2) = currency",
            name=op.f("ck_entries_currency"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_entries_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["transfer_id"],
            ["transfers.id"],
            name=op.f("fk_entries_transfer_id_transfers"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entries")),
        sa.UniqueConstraint("account_id", "version", name=op.f("uq_entries_account_id_version")),
        sa.UniqueConstraint(
            "transfer_id", "account_id", name=op.f("uq_entries_transfer_id_account_id")
        ),
    )
    op.create_index("ix_entries_account_id_id", "entries", ["account_id", "id"])

    op.create_table(
        "milestones",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("escrow_id", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("due", sa.Date(), nullable=True),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('planned', 'funded', 'submitted', 'changes-requested', 'disputed', "
            "'released', 'refunded', 'split', 'cancelled')",
            name=op.f("ck_milestones_state"),
        ),
        sa.CheckConstraint("amount > 0", name=op.f("ck_milestones_amount")),
        sa.ForeignKeyConstraint(
            ["escrow_id"], ["escrows.id"], name=op.f("fk_milestones_escrow_id_escrows")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_milestones")),
        sa.UniqueConstraint("escrow_id", "position", name=op.f("uq_milestones_escrow_id_position")),
    )
    op.create_index("ix_milestones_state_expires_at", "milestones", ["state", "expires_at"])


def downgrade():
    for table in reversed(TABLES):
        op.drop_table(table)
    if op.get_context().dialect.name == "postgresql":
        for function in ("refuse_change", "check_sealed", "check_transfer", "check_balanced"):
            op.execute(f"DROP FUNCTION {function}()")
