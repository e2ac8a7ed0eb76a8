"""Packages of this machine: installed if that is allowed, else named in an error."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence

from deploy.errors import UsageError

Announce = Callable[[str], None]


def add_root(argv: Sequence[str]) -> list[str] | None:
    """`argv` with root's rights: unchanged for root, with sudo if that needs no password, else
    None."""
    if os.geteuid() == 0:
        return list(argv)
    if shutil.which("sudo") is None:
        return None
    asked = subprocess.run(["sudo", "-n", "true"], capture_output=True)
    return ["sudo", "-n", *argv] if asked.returncode == 0 else None


def ensure_packages(packages: Sequence[str], purpose: str, announce: Announce = print) -> None:
    """Install the missing packages, and report them.

    Raises `UsageError` with the command to run if the rights or apt are missing, or if apt fails.
    """
    missing = [package for package in packages if not _is_installed(package)]
    if not missing:
        return
    apt = _apt(missing, purpose)
    announce(f"installing {', '.join(missing)} ({purpose})")
    # A new machine has no package lists, and old lists name files that no longer exist.
    updated = _run([*apt, "update"])
    done = _run([*apt, "install", "--yes", "--no-install-recommends", *missing])
    if done.returncode != 0:
        tail = "\n".join((updated.stdout + done.stdout).strip().splitlines()[-8:])
        hint = _by_hand(missing)
        raise UsageError(f"apt-get could not install {', '.join(missing)}:\n{tail}", hint=hint)


def find_known_packages(
    packages: Sequence[str], purpose: str, announce: Announce = print
) -> list[str]:
    """The packages that this distribution has; some names exist only in some distributions.

    Updates apt's lists first. Raises `UsageError` as `ensure_packages` does.
    """
    announce(f"looking for {', '.join(packages)} ({purpose})")
    _run([*_apt(packages, purpose), "update"])
    return [name for name in packages if _run(["apt-cache", "show", name]).returncode == 0]


def _apt(packages: Sequence[str], purpose: str) -> list[str]:
    """The start of an apt-get command line with the rights to install."""
    if shutil.which("apt-get") is None:
        what = (
            f"missing: {', '.join(packages)} ({purpose}), and this system has no apt-get to "
            "install them"
        )
        raise UsageError(what, hint="Install them with this system's package manager.")
    options = ["-q", "-o", "DPkg::Lock::Timeout=120"]
    apt = add_root(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *options])
    if apt is None:
        what = f"missing: {', '.join(packages)} ({purpose}), and installing packages needs root"
        raise UsageError(what, hint=_by_hand(packages))
    return apt


def _by_hand(packages: Sequence[str]) -> str:
    return f"Run: sudo apt-get update && sudo apt-get install {' '.join(packages)}"


def _is_installed(package: str) -> bool:
    argv = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    if shutil.which("dpkg-query") is None:
        return False
    done = subprocess.run(argv, capture_output=True, text=True)
    return done.stdout == "installed"


def _run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
