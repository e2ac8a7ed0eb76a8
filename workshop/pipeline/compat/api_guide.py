"""Run the commands of a release's API guide, docs/api.md, against a running service."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.images.build import find_client
from workshop.pipeline.compat.compat_environment import RunningRelease

PAGE = "docs/api.md"
_BLOCK = re.compile(r"```sh\n(?P<script>.*?)```(?:\n```text\n(?P<prints>.*?)```)?", re.DOTALL)
_END = "=== end of block"
# The guide creates the schema and starts the server; both exist here.
_PROGRAMS = {
    "flask": '[ "$1" != db ] || exit 0\nexec {docker} exec {container} flask "$@"',
    "gunicorn": "exec sleep 300",
}


def run_guide(source: Path, service: RunningRelease) -> list[str]:
    """Run the guide in `source`; returns a line for the first output that is different."""
    blocks = list(_BLOCK.finditer((source / PAGE).read_text()))
    script = "".join(f"{block['script']}\necho '{_END}'\n" for block in blocks)
    with tempfile.TemporaryDirectory(prefix="compat-guide-") as home:
        programs = Path(home) / "bin"
        programs.mkdir()
        for name, text in _PROGRAMS.items():
            line = text.format(docker=find_client()[0], container=service.container)
            (programs / name).write_text(f"#!/bin/sh\n{line}\n")
            (programs / name).chmod(0o755)
        python = Path(sys.executable).parent
        environ = {
            "PATH": f"{programs}:{python}:{os.environ['PATH']}",
            "HOME": home,
            "TMPDIR": home,
            "PORT": service.url.rpartition(":")[2],
            "NO_PROXY": "localhost",
        }
        stop = "trap '[ -z \"${server:-}\" ] || kill $server 2> /dev/null || true' EXIT\n"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", stop + script],
            cwd=source,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )
    return _compare(blocks, done.stdout.split(f"{_END}\n"), done.stderr.strip())


def _compare(blocks: list[re.Match[str]], printed: list[str], errors: str) -> list[str]:
    for number, block in enumerate(blocks):
        found = printed[number].strip() if number < len(printed) - 1 else None
        wanted = (block["prints"] or "").strip()
        if found == wanted:
            continue
        last = block["script"].strip().splitlines()[-1]
        if found is not None:
            return [f"{PAGE}: `{last}` prints {found!r}, expected {wanted!r}"]
        said = "\n".join([*printed[number].strip().splitlines()[-3:], *errors.splitlines()[-3:]])
        return [f"{PAGE}: failed before the end of `{last}`: {said}"]
    return []
