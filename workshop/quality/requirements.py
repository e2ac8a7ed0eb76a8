"""The lock files: all packages of a set with the hashes of their files."""

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
    """Write each lock file from its `.in` file; keeps versions that still fit. Raises `UsageError`
    if the requirements cannot be resolved."""
    for source, lock in LOCKS.items():
        argv = [program("uv"), "pip", "compile", source, "-o", lock]
        argv += ["--universal", "--python-version", "3.11", "--generate-hashes", "--quiet"]
        argv += ["--no-emit-index-url", "--no-emit-find-links"]
        argv += ["--custom-compile-command", "invoke lock-requirements"]
        if subprocess.run(argv, cwd=ROOT).returncode != 0:
            raise UsageError(f"{source} cannot be resolved; the output of uv is above")
        print(f"{source} -> {lock}")
