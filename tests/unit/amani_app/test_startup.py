"""Startup of the service's processes: settings, imports, and the health check."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from tests.support.service_fixtures import ROOT, Shell


def test_bad_settings_exit_with_message_and_no_traceback(shell: Shell) -> None:
    shell.environ.update(ENVIRONMENT="staging", LOG_LEVEL="loud", PORT="1")
    for words in (("gunicorn", "wsgi:app"), ("flask", "db", "upgrade")):
        done = shell.run(*words)
        assert done.returncode == 2
        assert "LOG_LEVEL" in done.stderr
        assert "Traceback" not in done.stderr


def test_health_check_does_not_import_the_application(shell: Shell) -> None:
    shell.environ["PORT"] = "1"
    seen = shell.run("python", "-X", "importtime", "-m", "amani_app.healthcheck").stderr
    assert "amani_app" in seen
    for heavy in ("flask", "sqlalchemy", "pydantic", "amani_app.factory"):
        assert f" {heavy}\n" not in seen


def test_web_process_does_not_import_alembic(shell: Shell) -> None:
    code = "import sys, wsgi; sys.exit('alembic' in sys.modules or 'flask_migrate' in sys.modules)"
    shell.ok("python", "-c", code)


def test_stale_heartbeat_fails_the_health_check(shell: Shell, tmp_path: Path) -> None:
    beat = tmp_path / "amani-worker.heartbeat"
    beat.touch()
    assert shell.run("python", "-m", "amani_app.healthcheck").returncode == 0
    old = time.time() - 60
    os.utime(beat, (old, old))
    done = shell.run("python", "-m", "amani_app.healthcheck")
    assert done.returncode == 1
    assert "last beat" in done.stderr


def test_worker_count_follows_cpu_quota_unless_set(tmp_path: Path, shell: Shell) -> None:
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
