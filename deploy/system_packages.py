"""Packages of this machine: installed where that is allowed, else asked for in one clear line."""

from __future__ import annotations

import os
import shutil
import subprocess  # nosec B404 - argument lists of our own making only
from collections.abc import Callable, Sequence

from deploy.errors import UsageError

Announce = Callable[[str], None]


def privileged(argv: Sequence[str]) -> list[str] | None:
    """`argv` as root would run it: unchanged for root, behind sudo where that asks for no
    password, None where neither is so."""
    if os.geteuid() == 0:
        return list(argv)
    if shutil.which("sudo") is None:
        return None
    asked = subprocess.run(["sudo", "-n", "true"], capture_output=True)  # nosec B603 B607
    return ["sudo", "-n", *argv] if asked.returncode == 0 else None


def ensure(packages: Sequence[str], purpose: str, announce: Announce = print) -> None:
    """Install those of the packages that are missing, and say so.

    Raises `UsageError`, with the command to type, without the rights, without apt, or where apt
    fails.
    """
    missing = [package for package in packages if not _is_installed(package)]
    if not missing:
        return
    by_hand = f"Type: sudo apt-get update && sudo apt-get install {' '.join(missing)}"
    if shutil.which("apt-get") is None:
        what = f"{purpose} needs {', '.join(missing)}, and there is no apt-get here to install it"
        raise UsageError(what, hint="Install it with the means of this system.")
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    apt = privileged([*environment, "apt-get", "-q", "-o", "DPkg::Lock::Timeout=120"])
    if apt is None:
        what = f"{purpose} needs {', '.join(missing)}, and installing packages needs root"
        raise UsageError(what, hint=by_hand)
    announce(f"installing {', '.join(missing)} ({purpose})")
    install = [*apt, "install", "--yes", "--no-install-recommends", *missing]
    # The lists of a fresh machine are empty, those of an old one name files that are gone.
    updated = _run([*apt, "update"])
    done = _run(install)
    if done.returncode != 0:
        tail = "\n".join((updated.stdout + done.stdout).strip().splitlines()[-8:])
        raise UsageError(f"apt-get could not install {', '.join(missing)}:\n{tail}", hint=by_hand)


def _is_installed(package: str) -> bool:
    argv = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    if shutil.which("dpkg-query") is None:
        return False
    done = subprocess.run(argv, capture_output=True, text=True)  # nosec B603
    return done.stdout == "installed"


def _run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # nosec B603
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
