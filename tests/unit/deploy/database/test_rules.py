"""Dangerous migrations are detected with their advice, and each safe rewrite passes.

The cases come from strong_migrations, squawk, and experiments.
"""

from __future__ import annotations

import pytest

from deploy.database.lint import classify
from deploy.database.sql import Script


def script(*statements: str) -> Script:
    return Script("BEGIN;\n\n" + "".join(f"{one};\n\n" for one in statements) + "COMMIT;\n")


def judged(*statements: str, undone: tuple[str, ...] = ()) -> tuple[str, dict[str, str]]:
    kind, found = classify(script(*statements), script(*undone))
    return kind, {finding.rule: finding.advice for finding in found}


CONCURRENTLY = "COMMIT;\n\nCREATE INDEX CONCURRENTLY {} ix ON users (email);\n\nBEGIN"

DANGEROUS = [
    # Statement, rule, class, and a part of the advice.
    ("ALTER TABLE users DROP COLUMN email", "ban-drop-column", "contract", "clients"),
    ("DROP TABLE users", "ban-drop-table", "contract", "clients"),
    ("ALTER TABLE users ALTER COLUMN age TYPE BIGINT", "column-type", "unsafe", "add a column"),
    ("ALTER TABLE users RENAME email TO mail", "rename", "unsafe", "write to both"),
    ("ALTER TABLE users RENAME COLUMN email TO mail", "rename", "unsafe", "backfill"),
    ("ALTER TABLE users RENAME TO people", "rename", "unsafe", "later release"),
    ("ALTER TYPE mood RENAME VALUE 'sad' TO 'low'", "rename", "unsafe", "add the new value"),
    ("ALTER SCHEMA books RENAME TO ledger", "rename", "unsafe", "later release"),
    ("ALTER TABLE users ADD COLUMN n SERIAL", "serial-column", "unsafe", "backfill"),
    (
        "ALTER TABLE users ADD COLUMN n BIGSERIAL PRIMARY KEY",
        "unique-column",
        "unsafe",
        "CONCURRENTLY",
    ),
    (
        "ALTER TABLE users ADD COLUMN t TEXT GENERATED ALWAYS AS (lower(email)) STORED",
        "generated-column",
        "unsafe",
        "plain column",
    ),
    (
        "ALTER TABLE users ADD CONSTRAINT fk FOREIGN KEY (team) REFERENCES teams (id)",
        "adding-foreign-key-constraint",
        "unsafe",
        "NOT VALID",
    ),
    (
        "ALTER TABLE users ADD CONSTRAINT ck CHECK (age > 0)",
        "constraint-missing-not-valid",
        "unsafe",
        "NOT VALID",
    ),
    ("DO $$ BEGIN PERFORM 1; END $$", "raw-sql", "unsafe", "effect of this statement is unknown"),
    ("CREATE INDEX ix ON users (email)", "require-concurrent-index-creation", "unsafe", "concurr"),
    ("DROP INDEX ix", "require-concurrent-index-deletion", "unsafe", ""),
    ("REINDEX INDEX ix", "require-concurrent-reindex", "unsafe", ""),
    (
        "ALTER TABLE users ADD CONSTRAINT u UNIQUE (email)",
        "primary-key",
        "unsafe",
        "USING INDEX",
    ),
    ("ALTER TABLE users ADD PRIMARY KEY (id)", "primary-key", "unsafe", "USING INDEX"),
    ("ALTER TABLE users ADD COLUMN tag TEXT UNIQUE", "unique-column", "unsafe", "USING INDEX"),
    (
        "ALTER TABLE users ADD CONSTRAINT x EXCLUDE USING gist (during WITH &&)",
        "exclusion-constraint",
        "unsafe",
        "new table",
    ),
    ("ALTER TABLE users ADD COLUMN extra JSON", "json-column", "unsafe", "jsonb"),
    ("CREATE TABLE notes (id BIGINT, extra JSON)", "json-column", "unsafe", "jsonb"),
    (
        "ALTER TABLE users ADD COLUMN key UUID DEFAULT gen_random_uuid()",
        "adding-field-with-default",
        "unsafe",
        "",
    ),
    (
        "ALTER TABLE users ADD COLUMN age INT NOT NULL",
        "adding-required-field",
        "unsafe",
        "nullable",
    ),
    ("ALTER TABLE users ALTER COLUMN age SET NOT NULL", "required-column", "unsafe", "NOT VALID"),
    ("ALTER TABLE users ALTER COLUMN age DROP DEFAULT", "drop-default", "contract", "INSERTs"),
    ("ALTER TABLE users SET TABLESPACE fast", "tablespace", "unsafe", "batches"),
    ("LOCK TABLE users", "explicit-lock", "unsafe", "blocks every access"),
    ("TRUNCATE users", "truncate", "unsafe", "batches"),
    ("TRUNCATE users CASCADE", "ban-truncate-cascade", "unsafe", ""),
    ("DROP DATABASE amani", "ban-drop-database", "unsafe", ""),
    ("VACUUM FULL users", "rewrite", "unsafe", "pg_repack"),
    ("CLUSTER users USING ix", "rewrite", "unsafe", "pg_repack"),
    ("DROP SEQUENCE numbers", "drop-object", "contract", "stopped"),
    ("SET lock_timeout = '5s'", "session-setting", "unsafe", "the migration code sets"),
    ("DROP VIEW report", "drop-object", "contract", "stopped"),
    ("DROP TYPE mood", "drop-object", "contract", "stopped"),
    ("UPDATE users SET age = 1", "backfill-unbatched", "unsafe", "batches"),
    (
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS ix ON users (email)",
        "ban-concurrent-index-creation-in-transaction",
        "unsafe",
        "",
    ),
    (CONCURRENTLY.format(""), "index-not-repeatable", "unsafe", "if_not_exists"),
    (
        "ALTER TABLE logs DETACH PARTITION logs_2020",
        "require-concurrent-partition-detach",
        "unsafe",
        "",
    ),
]


@pytest.mark.parametrize(
    ("statement", "rule", "kind", "word"),
    DANGEROUS,
    ids=[f"{one[1]}-{one[0][:40]}" for one in DANGEROUS],
)
def test_dangerous_migration_is_detected_with_advice(statement, rule, kind, word):
    shown, found = judged(statement)
    assert shown == kind
    assert rule in found
    assert word.lower() in found[rule].lower()


TOGETHER = [
    (
        ("ALTER TABLE users ADD COLUMN age INT", "UPDATE users SET age = 1 WHERE id < 100"),
        "backfill-with-schema",
    ),
    (
        ("ALTER TABLE users ADD COLUMN mail TEXT", "ALTER TABLE users DROP COLUMN email"),
        "expand-with-contract",
    ),
    (
        (
            "ALTER TABLE users ADD CONSTRAINT ck CHECK (age > 0) NOT VALID",
            "ALTER TABLE users VALIDATE CONSTRAINT ck",
        ),
        "validate-with-add",
    ),
    (
        ("ALTER TABLE users ADD COLUMN a INT", CONCURRENTLY.format("IF NOT EXISTS")),
        "concurrent-index-in-company",
    ),
]


@pytest.mark.parametrize(("statements", "rule"), TOGETHER, ids=[rule for _, rule in TOGETHER])
def test_unsafe_combination_is_detected(statements, rule):
    shown, found = judged(*statements)
    assert shown == "unsafe"
    assert rule in found


SAFE = [
    ("ALTER TABLE users ADD COLUMN age INT", "expand"),
    ("ALTER TABLE users ADD COLUMN age INT DEFAULT 0 NOT NULL", "expand"),
    ("ALTER TABLE users ADD COLUMN extra JSONB", "expand"),
    ("ALTER TABLE users ALTER COLUMN key SET DEFAULT gen_random_uuid()", "expand"),
    ("ALTER TABLE users ALTER COLUMN age DROP NOT NULL", "expand"),
    (CONCURRENTLY.format("IF NOT EXISTS"), "expand"),
    ("COMMIT;\n\nDROP INDEX CONCURRENTLY IF EXISTS ix;\n\nBEGIN", "expand"),
    ("ALTER TABLE users ADD CONSTRAINT u UNIQUE USING INDEX ix", "expand"),
    (
        "ALTER TABLE users ADD CONSTRAINT fk FOREIGN KEY (team) REFERENCES teams (id) NOT VALID",
        "expand",
    ),
    ("ALTER TABLE users ADD CONSTRAINT ck CHECK (age > 0) NOT VALID", "expand"),
    ("ALTER TABLE users VALIDATE CONSTRAINT ck", "expand"),
    ("ALTER TYPE mood ADD VALUE 'calm'", "expand"),
    ("UPDATE users SET age = 1 WHERE id >= 0 AND id < 1000 AND age IS NULL", "backfill"),
    (
        "CREATE TABLE notes (id BIGINT PRIMARY KEY, owner TEXT NOT NULL UNIQUE);\n\n"
        "CREATE INDEX ix ON notes (owner);\n\nINSERT INTO notes (id, owner) VALUES (1, 'ada')",
        "expand",
    ),
    (
        "ALTER TABLE users VALIDATE CONSTRAINT ck;\n\nALTER TABLE users ALTER COLUMN age SET NOT "
        "NULL;\n\nALTER TABLE users DROP CONSTRAINT ck",
        "contract",
    ),
    ("CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$", "expand"),
    ("COMMENT ON TABLE users IS 'people'", "expand"),
]


@pytest.mark.parametrize(("statement", "kind"), SAFE, ids=[one[0][:60] for one in SAFE])
def test_safe_alternative_passes(statement, kind):
    shown, found = (
        judged(*statement.split(";\n\n")) if "COMMIT" not in statement else judged(statement)
    )
    assert (shown, found.keys() - {"backfill", "required-column"}) == (kind, set())


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("VARCHAR(10)", "VARCHAR(20)", "expand"),
        ("VARCHAR(20)", "VARCHAR(10)", "unsafe"),
        ("VARCHAR(10)", "TEXT", "expand"),
        ("VARCHAR(10)", "VARCHAR", "expand"),
        ("TEXT", "VARCHAR(10)", "unsafe"),
        ("NUMERIC(10, 2)", "NUMERIC(12, 2)", "expand"),
        ("NUMERIC(10, 2)", "NUMERIC(12, 4)", "unsafe"),
        ("INTEGER", "BIGINT", "unsafe"),
        ("INTEGER", "TEXT", "unsafe"),
    ],
)
def test_widening_a_type_is_safe(old, new, kind):
    change = "ALTER TABLE users ALTER COLUMN c TYPE {}"
    assert judged(change.format(new), undone=(change.format(old),))[0] == kind
