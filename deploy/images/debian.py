"""Images from Debian packages: mmdebstrap makes the root file system, the engine imports it.

No registry is needed, only a Debian mirror.
"""

from __future__ import annotations

import io
import os
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import EngineError, UsageError
from deploy.machine.packages import ensure_packages

SUITE = "trixie"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
EPOCH = 1754697600
"""The release date of trixie (9 August 2025 UTC). No file of an image is newer."""

# Documentation and translations: a third of the size, unused in a container.
UNREAD = ("man", "info", "doc", "locale", "lintian", "bug")
KEPT = ("doc/*/copyright", "locale/locale.alias")
# Mirrors, proxies and credentials of this network must not be in an image.
FORGET_MIRROR = """
rm -f /etc/apt/apt.conf.d/99mmdebstrap /etc/apt/sources.list /etc/apt/sources.list.d/*
rm -rf /var/cache/apt/* /var/cache/debconf/*-old /var/lib/apt/lists/* /var/log/*.log /var/log/apt
"""

Announce = Callable[[str], None]


@dataclass(frozen=True)
class File:
    """A file to add to an image, owned by root."""

    content: str
    mode: int = 0o644


@dataclass(frozen=True)
class Mirrors:
    """The mirrors of Debian's archive and of its security updates.

    Empty if this machine's apt has no Debian source: mmdebstrap then uses Debian's own servers.
    """

    archive: str = ""
    security: str = ""


def make_image(
    name: str,
    packages: Sequence[str],
    *,
    files: Mapping[str, File] | None = None,
    customise: str = "",
    changes: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    announce: Announce = print,
) -> str:
    """Make the image `name` (repository:tag) of Debian trixie with `packages`. Returns its ID.

    `files` are added by absolute path before `customise`, a POSIX shell script that runs inside the
    new root as root (`sh -eu`). `changes` are Dockerfile instructions that `docker import` accepts:
    CMD, ENTRYPOINT, ENV, EXPOSE, USER, VOLUME, WORKDIR, HEALTHCHECK. Takes 30 seconds or more.
    Raises `UsageError` if mmdebstrap is missing and may not be installed, or if it fails;
    `EngineError` if the engine does not answer or refuses.
    """
    ensure_packages(("mmdebstrap", "debian-archive-keyring"), f"making {name}", announce)
    announce(f"making {name} from Debian packages")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="image-") as folder:
        tarball = Path(folder, "root.tar")
        _bootstrap(Path(folder), tarball, packages, dict(files or {}), customise)
        lines = [f"LABEL {key}={value}" for key, value in sorted((labels or {}).items())]
        image = _import(tarball, name, [*changes, *lines])
    announce(f"made {name} in {time.monotonic() - started:.0f} s")
    return image


def find_mirrors() -> Mirrors:
    """The mirrors that this machine's apt uses for Debian."""
    form = "$(ORIGIN)|$(LABEL)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)"
    argv = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
    if shutil.which("apt-get") is None:
        return Mirrors()
    done = subprocess.run(argv, capture_output=True, text=True)
    return read_mirrors(done.stdout, _codename())


def read_mirrors(targets: str, codename: str) -> Mirrors:
    """Parse apt's list of index files, one `origin|label|release|component|uri` per line.

    Before the first `apt-get update`, origin and label are unknown. Then the release's name
    decides: `codename` is the Debian release that runs here (empty on other systems).
    """
    archive = security = ""
    for line in targets.splitlines():
        origin, label, release, component, uri = line.split("|")
        known = origin == "Debian" or (not origin and codename and release.startswith(codename))
        if component != "main" or not known:
            continue
        if label == "Debian-Security" or release.endswith("-security"):
            security = security or uri.rstrip("/")
        elif "-" not in release:
            archive = archive or uri.rstrip("/")
    return Mirrors(archive, security)


def _codename() -> str:
    release = Path("/etc/os-release")
    facts = dict(
        line.split("=", 1)
        for line in (release.read_text() if release.exists() else "").split()
        if "=" in line
    )
    return facts.get("VERSION_CODENAME", "").strip('"') if facts.get("ID") == "debian" else ""


def _bootstrap(
    folder: Path,
    tarball: Path,
    packages: Sequence[str],
    files: dict[str, File],
    customise: str,
) -> None:
    laid = folder / "files.tar"
    files["/.customise"] = File(f"{customise}\n{FORGET_MIRROR}")
    laid.write_bytes(_archive(files))
    options = folder / "apt.conf"
    options.write_text(_apt_options())
    options.chmod(0o600)
    mirrors = find_mirrors()
    signed = f"deb [signed-by={KEYRING}]"
    argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}"]
    argv += [f"--aptopt={options}"]
    argv += [f"--dpkgopt=path-exclude=/usr/share/{place}/*" for place in UNREAD]
    argv += [f"--dpkgopt=path-include=/usr/share/{place}" for place in KEPT]
    argv += [f"--customize-hook=tar-in {shlex.quote(str(laid))} /"]
    argv += ['--customize-hook=chroot "$1" sh -eu /.customise && rm "$1/.customise"']
    argv += [SUITE, str(tarball)]
    if mirrors.archive:
        argv += [f"{signed} {mirrors.archive} {SUITE} main"]
        argv += [f"{signed} {mirrors.archive} {SUITE}-updates main"]
    if mirrors.archive and mirrors.security:
        argv += [f"{signed} {mirrors.security} {SUITE}-security main"]
    environment = dict(
        os.environ, SOURCE_DATE_EPOCH=os.environ.get("SOURCE_DATE_EPOCH", str(EPOCH))
    )
    done = subprocess.run(
        argv,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        tail = "\n".join(done.stdout.strip().splitlines()[-12:])
        hint = "A Debian mirror must be reachable; apt's own configuration names it."
        raise UsageError(f"mmdebstrap failed:\n{tail}", hint=hint)


def _apt_options() -> str:
    """Options for this machine's network configuration of apt, which mmdebstrap does not read
    itself."""
    done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True)
    ways = ("Acquire::http", "Acquire::https", "Acquire::Retries")
    return "".join(f"{line}\n" for line in done.stdout.splitlines() if line.startswith(ways))


def _archive(files: Mapping[str, File]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for folder in sorted(_folders(files)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, EPOCH
            archive.addfile(entry)
        for path, file in sorted(files.items()):
            entry = tarfile.TarInfo("." + path)
            content = file.content.encode()
            entry.size, entry.mode, entry.mtime = len(content), file.mode, EPOCH
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def _folders(paths: Iterable[str]) -> set[str]:
    """The folders that the files need, except those that are links in a merged /usr."""
    parents = {str(parent) for path in paths for parent in Path(path).parents}
    return {f".{parent}" for parent in parents if parent.count("/") > 1}


def _import(tarball: Path, name: str, changes: Sequence[str]) -> str:
    import docker
    import docker.errors

    repository, _, tag = name.rpartition(":")
    try:
        engine = docker.from_env(timeout=600).api
        engine.import_image_from_file(str(tarball), repository, tag, list(changes))
        return str(engine.images(name, quiet=True)[0])
    except docker.errors.DockerException as error:
        raise EngineError(f"the engine did not import {name}: {error}") from None
