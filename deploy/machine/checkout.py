"""The root of this checkout, and the programs of its virtual environment."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def program(name: str) -> str:
    """The path of a program that the locked requirements installed beside this Python."""
    return str(Path(sys.prefix) / "bin" / name)
