"""The lock files: every package of a set with the hashes of what may be installed."""

from __future__ import annotations

import subprocess

from deploy.errors import UsageError
from deploy.machine.checkout import ROOT, program

LOCKS = {
    "requirements/service.in": "requirements.txt",
    "requirements/observability.in": "requirements-observability.txt",
    "requirements/deploy.in": "requirements-deploy.txt",
    "requirements/dev.in": "requirements-dev.txt",
}


def lock_all() -> None:
    """Write each lock from its `.in`, keeping versions that still fit; raises `UsageError` where
    no set of versions does."""
    for source, lock in LOCKS.items():
        argv = [program("uv"), "pip", "compile", source, "-o", lock]
        argv += ["--universal", "--python-version", "3.11", "--generate-hashes", "--quiet"]
        argv += ["--no-emit-index-url", "--no-emit-find-links"]
        argv += ["--custom-compile-command", "invoke lock-requirements"]
        if subprocess.run(argv, cwd=ROOT).returncode != 0:
            raise UsageError(f"{source} cannot be resolved; uv's own words stand above")
        print(f"{source} -> {lock}")
