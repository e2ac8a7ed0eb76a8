"""Additional revisions of the schema, for tests of migrations."""

from __future__ import annotations

import shutil
from pathlib import Path

from deploy.machine.checkout import ROOT

ALLOWED = (ROOT / ".dockerignore").read_text().splitlines()
SHIPPED = ("Dockerfile", ".dockerignore", *(line[1:] for line in ALLOWED if line.startswith("!")))
REVISION = '''"""A try.

Class: {kind}
Revises: {down}
"""

import sqlalchemy as sa
from alembic import op

revision = "{id}"
down_revision = {down!r}


def upgrade():
    {up}


def downgrade():
    {back}
'''
ADD = 'op.add_column("users", sa.Column("nickname", sa.Text()))'
DROP = 'op.drop_column("users", "nickname")'


def head() -> str:
    """The id of the newest revision of this checkout."""
    return max(path.name.partition("_")[0] for path in (ROOT / "migrations/versions").glob("0*.py"))


def write_revision(checkout: Path, id: str, down: str, kind: str, up: str, back: str) -> Path:
    """Add a revision to a checkout and return its file."""
    path = checkout / "migrations/versions" / f"{id}_try.py"
    path.write_text(REVISION.format(id=id, down=down or None, kind=kind, up=up, back=back))
    return path


def checkout(folder: Path, *revisions: tuple[str, str, str, str, str]) -> Path:
    """A copy of the files of the image in `folder`, with additional revisions."""
    folder.mkdir()
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy2(source, folder / name)
    for id, down, kind, up, back in revisions:
        write_revision(folder, id, down, kind, up, back)
    return folder
