"""docs/api.md: its commands run in one shell and print the documented output."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.service_fixtures import ROOT, free_port

PAGE = ROOT / "docs" / "api.md"
BLOCK = re.compile(r"```sh\n(?P<script>.*?)```(?:\n```text\n(?P<prints>.*?)```)?", re.S)


def test_walk_through_commands_print_documented_output(tmp_path: Path) -> None:
    blocks = list(BLOCK.finditer(PAGE.read_text()))
    assert len(blocks) >= 10
    # A mark ends the output of each block, so that extra output is detected.
    script = "".join(f"{block['script']}\necho '=== end of block'\n" for block in blocks)
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "PORT": str(free_port()),
        "WEB_CONCURRENCY": "1",
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_PROXY": "localhost",
    }
    stop = "trap '[ -z \"${server:-}\" ] || kill $server 2> /dev/null || true' EXIT\n"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", stop + script],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
    )
    printed = done.stdout.split("=== end of block\n")
    expected = [block["prints"] or "" for block in blocks]
    assert list(map(str.strip, printed[: len(expected)])) == list(
        map(str.strip, expected)
    ), done.stderr
    assert done.returncode == 0, done.stderr
