"""Commands in pages of docs/: blocks below `<!-- run: KIND -->`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

BLOCK = re.compile(r"<!-- run: (\w+) -->\n```sh\n(.*?)```", re.DOTALL)


def commands(page: Path, kind: str) -> list[list[str]]:
    """The arguments of each command in the blocks of `kind`."""
    return [
        shlex.split(line)
        for found, text in BLOCK.findall(page.read_text())
        if found == kind
        for line in text.strip().splitlines()
    ]
