"""Fly.io, where the platform itself builds, migrates (release command) and replaces machines."""

from __future__ import annotations

import shutil
import subprocess

from deploy.checkout import ROOT
from deploy.errors import ReleaseFailed, UsageError
from deploy.images.schema import read_head
from deploy.release import BuildInfo


def deploy() -> None:
    """Run flyctl on this checkout; raises `UsageError` without it, `ReleaseFailed` if it fails."""
    flyctl = shutil.which("flyctl")
    if flyctl is None:
        raise UsageError("there is no flyctl on PATH", hint="https://fly.io/docs/flyctl/install")
    argv = [flyctl, "deploy", "--remote-only", "--yes"]
    head = read_head(ROOT / "migrations" / "versions")
    for name, value in {**BuildInfo.of(ROOT).arguments, "SCHEMA_HEAD": head}.items():
        argv += ["--build-arg", f"{name}={value}"]
    if subprocess.run(argv, cwd=ROOT).returncode != 0:
        raise ReleaseFailed("flyctl could not deploy; its own words stand above")
