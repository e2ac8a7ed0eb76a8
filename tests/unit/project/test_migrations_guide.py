"""docs/migrations.md: its commands create a revision in a copy of the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from deploy.machine.checkout import ROOT, program
from tests.support.guide import BLOCK, commands
from tests.support.revisions import checkout, head

PAGE = ROOT / "docs" / "migrations.md"
MODEL = '    Column("email", String(254), nullable=False, unique=True),\n'


def test_every_code_block_is_runnable():
    text = PAGE.read_text()
    kinds = [kind for kind, _ in BLOCK.findall(text)]
    # The other two run on practice hosts, in tests/e2e/test_schema_changes.py.
    assert kinds == ["write", "rollback", "schema"]
    assert text.count("```sh") == text.count("<!-- run:") == 3 and "```console" not in text


def test_guide_commands_create_and_check_a_revision(tmp_path: Path):
    here = checkout(tmp_path / "checkout")
    for package in ("deploy", "workshop"):
        compiled = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, here / package, ignore=compiled)
    for name in ("tasks.py", "invoke.yaml"):
        shutil.copy2(ROOT / name, here)
    tables = here / "amani_app/adapters/database/tables.py"
    model = tables.read_text()
    assert model.count(MODEL) == 1
    environ = {**os.environ, "DATABASE_URL": f"sqlite:///{tmp_path}/scratch.sqlite3"}

    def run(*words: str) -> str:
        told = [program("invoke" if words[0] == "./inv" else words[0]), *words[1:]]
        done = subprocess.run(told, cwd=here, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("flask", "db", "upgrade")
    tables.write_text(model.replace(MODEL, f'{MODEL}    Column("time_zone", String(64)),\n'))
    *_, (said,) = ([run(*words)] for words in commands(PAGE, "write"))
    (written,) = set((here / "migrations/versions").glob("*.py")) - {
        here / "migrations/versions" / path.name
        for path in (ROOT / "migrations/versions").glob("*.py")
    }
    text = written.read_text()
    assert f'down_revision = "{head()}"' in text and "time_zone" in text
    assert said.splitlines()[-1].endswith(": ok: states expand, its SQL shows expand")
