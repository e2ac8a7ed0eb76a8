"""Startup of the service's processes: settings, imports, and the health check."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from tests.support.service_fixtures import ROOT, Shell


def test_bad_settings_end_the_start_with_a_line_and_no_trace(shell: Shell) -> None:
    shell.environ.update(ENVIRONMENT="staging", LOG_LEVEL="loud", PORT="1")
    for words in (("gunicorn", "wsgi:app"), ("flask", "db", "upgrade")):
        done = shell.run(*words)
        assert done.returncode == 2
        assert "LOG_LEVEL" in done.stderr
        assert "Traceback" not in done.stderr


def test_liveness_imports_nothing_of_the_application(shell: Shell) -> None:
    shell.environ["PORT"] = "1"
    seen = shell.run("python", "-X", "importtime", "-m", "amani_app.healthcheck").stderr
    assert "amani_app" in seen
    for heavy in ("flask", "sqlalchemy", "pydantic", "amani_app.factory"):
        assert f" {heavy}\n" not in seen


def test_a_web_process_does_not_import_alembic(shell: Shell) -> None:
    code = "import sys, wsgi; sys.exit('alembic' in sys.modules or 'flask_migrate' in sys.modules)"
    shell.ok("python", "-c", code)


def test_a_stuck_worker_is_not_alive(shell: Shell, tmp_path: Path) -> None:
    beat = tmp_path / "amani-worker.heartbeat"
    beat.touch()
    assert shell.run("python", "-m", "amani_app.healthcheck").returncode == 0
    old = time.time() - 60
    os.utime(beat, (old, old))
    done = shell.run("python", "-m", "amani_app.healthcheck")
    assert done.returncode == 1
    assert "last beat" in done.stderr


def test_workers_follow_the_quota_unless_told(tmp_path: Path, shell: Shell) -> None:
    def workers(**environ: str) -> int:
        code = "import runpy; print(runpy.run_path('gunicorn.conf.py')['workers'])"
        done = subprocess.run(
            shell.argv("python", "-c", code),
            cwd=ROOT,
            env={**shell.environ, **environ},
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout)

    assert workers(WEB_CONCURRENCY="7") == 7
    assert workers() >= 2
