"""The backup program as a process, and the URLs that it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.backups.container import archive_program
from deploy.backups.program.pipes import Failure
from deploy.backups.program.postgres import Postgres


@contextmanager
def program(folder: Path, **environ: str) -> Iterator[subprocess.Popen[str]]:
    path = folder / "program.pyz"
    path.write_bytes(archive_program())
    with subprocess.Popen(
        [sys.executable, str(path)],
        env={**os.environ, "BACKUPS": str(folder), **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def send(process: subprocess.Popen[str], **request: object) -> Mapping[str, object]:
    assert process.stdin and process.stdout
    print(json.dumps(request), file=process.stdin, flush=True)
    return dict(json.loads(process.stdout.readline()))


def test_an_unknown_job_has_the_state_unknown(tmp_path: Path):
    with program(tmp_path) as process:
        assert send(process, job="poll", number=3) == {"state": "unknown"}
        process.communicate(timeout=60)
        assert process.returncode == 0


def test_the_program_ends_without_requests(tmp_path: Path):
    with program(tmp_path, PATIENCE="1") as process:
        assert send(process, job="poll", number=1) == {"state": "unknown"}
        assert process.wait(60) == 3


def test_a_repeated_request_starts_one_job(tmp_path: Path):
    request = {"job": "describe", "number": 1, "url": f"sqlite:///{tmp_path}/amani.sqlite3"}
    with program(tmp_path) as process:
        send(process, **request)
        said = send(process, **request)
        while said["state"] == "running":
            said = send(process, job="poll", number=1)
        assert said["result"] == {"name": "amani", "exists": False, "replaced": []}
        process.communicate(timeout=60)


@pytest.mark.parametrize("url", ["postgresql://a b c", "postgresql://u:p%0Aq@h/d"])
def test_an_invalid_url_is_reported_without_its_password(url: str):
    with pytest.raises(Failure) as caught:
        Postgres(url)
    assert caught.value.kind == "usage" and "p%0Aq" not in caught.value.text
