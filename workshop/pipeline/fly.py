"""Deploy to Fly.io, which builds, migrates (release command) and replaces machines itself."""

from __future__ import annotations

import shutil
import subprocess

from deploy.database.checkout import read_checkout
from deploy.errors import ReleaseFailed, UsageError
from deploy.machine.checkout import ROOT
from deploy.state.release import BuildInfo


def deploy() -> None:
    """Run flyctl on this checkout; raises `UsageError` without it, `ReleaseFailed` if it fails."""
    flyctl = shutil.which("flyctl")
    if flyctl is None:
        raise UsageError("flyctl is not on PATH", hint="https://fly.io/docs/flyctl/install")
    argv = [flyctl, "deploy", "--remote-only", "--yes"]
    schema = read_checkout(ROOT / "migrations" / "versions").arguments
    for name, value in {**BuildInfo.of(ROOT).arguments, **schema}.items():
        argv += ["--build-arg", f"{name}={value}"]
    if subprocess.run(argv, cwd=ROOT).returncode != 0:
        raise ReleaseFailed("flyctl could not deploy; its output is above")
