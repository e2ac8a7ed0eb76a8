"""Check a built image: its user, labels and size, and that no layer contains a secret."""

from __future__ import annotations

import json
import re
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from deploy.errors import GateRefused

USER = "10001:10001"
OWN_BUDGET = 20_000_000
"""Bytes of an image above its floor: the service and the bytecode of the standard library."""
LARGEST = 8_000_000
"""Files with more bytes are checked by their names only."""
_PREFIX = "org.opencontainers.image."
_EXTRAS = """
from amani_app.telemetry.observability import require_extras
from amani_app.settings import Settings
require_extras(Settings(sentry_dsn="https://k@sentry.invalid/1",
                        otel_exporter_otlp_endpoint="https://collector.invalid"))
"""
LABELS = (
    *(_PREFIX + name for name in ("version", "revision", "created")),
    *(_PREFIX + name for name in ("title", "description", "source")),
    "amani.schema.head",
)
BUILD_INFO = {"version", "commit", "build_time", "build_number", "branch"}
_NAMES = re.compile(
    r"(^|/)(\.env(\.[^/]*)?|\.netrc|\.pypirc|pip\.conf|id_(rsa|ecdsa|ed25519)|\.git|[^/]*\.age)"
    r"(/|$)"
)
_CONTENTS = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{64}"
    rb"|AGE-SECRET-KEY-1[0-9A-Z]{20}"
    rb"|\bgh[pousr]_[A-Za-z0-9]{36}\b"
    rb"|\bAKIA[0-9A-Z]{16}\b"
)


@dataclass(frozen=True)
class Size:
    """Bytes of an image, of its base, and of the locked dependencies."""

    image: int
    base: int
    dependencies: int

    @property
    def floor(self) -> int:
        """The base and the locked dependencies."""
        return self.base + self.dependencies

    def __str__(self) -> str:
        own = self.image - self.floor
        return (
            f"{self.image / 1e6:.1f} MB; floor {self.floor / 1e6:.1f} MB (base "
            f"{self.base / 1e6:.1f}, locked dependencies {self.dependencies / 1e6:.1f}); "
            f"above it {own / 1e6:.1f} MB of {OWN_BUDGET / 1e6:.0f} MB allowed"
        )


def check(image: str, base: str) -> Size:
    """Check an image of this machine's engine that was built on `base`; returns its size.

    Raises `GateRefused` with all findings.
    """
    import docker

    client = docker.from_env(timeout=300)
    api: Any = client.api  # its stubs lack some of its methods
    try:
        found, below = api.inspect_image(image), api.inspect_image(base)
        size = Size(found["Size"], below["Size"], _dependencies(api.history(image)))
        wrong = [*structure(found), *over_budget(size)]
        known = set(below["RootFS"]["Layers"])
        with tempfile.TemporaryFile() as saved:
            for chunk in api.get_image(image):
                saved.write(chunk)
            saved.seek(0)
            wrong += leaks(saved, known)
    finally:
        client.close()
    if wrong:
        raise GateRefused(f"the image {image} failed its checks:\n- " + "\n- ".join(wrong))
    return size


def structure(found: Mapping[str, Any]) -> list[str]:
    """The findings in an image's configuration: labels, user, health check, environment."""
    config = found["Config"]
    labels = config.get("Labels") or {}
    wrong = [f"it has no label {name}" for name in LABELS if not labels.get(name)]
    if config.get("User") != USER:
        wrong.append(f"it runs as {config.get('User') or 'root'}, not as {USER}")
    if not config.get("Healthcheck"):
        wrong.append("it has no health check")
    secret = re.compile(r"^[A-Z_]*(SECRET|PASSWORD|TOKEN|API_KEY)[A-Z_]*=", re.ASCII)
    names = [entry.partition("=")[0] for entry in config.get("Env") or () if secret.match(entry)]
    return wrong + [f"its environment holds {name}" for name in names]


def over_budget(size: Size) -> list[str]:
    """A finding if the image exceeds its floor by more than the budget."""
    return [f"it is too large: {size}"] if size.image - size.floor > OWN_BUDGET else []


def leaks(saved: IO[bytes], known: set[str]) -> list[str]:
    """The findings in the layers of a saved image: secrets, and a missing or incomplete
    build-info.json. Skips the layers with `known` diff ids. A file that a later layer deletes is
    still in the image."""
    wrong: list[str] = []
    complete = False
    with tarfile.open(fileobj=saved) as archive:
        for layer in _layers(archive, known):
            with tarfile.open(fileobj=layer) as files:
                for entry in files:
                    if _NAMES.search(entry.name):
                        wrong.append(f"a layer holds /{entry.name}")
                    content = _content(files, entry)
                    if _CONTENTS.search(content):
                        wrong.append(f"a layer holds a key or token in /{entry.name}")
                    complete |= entry.name == "app/build-info.json" and _is_complete(content)
    return wrong if complete else [*wrong, "/app/build-info.json is missing or incomplete"]


def _layers(archive: tarfile.TarFile, known: set[str]) -> Iterator[IO[bytes]]:
    manifest = json.loads(_read(archive, "manifest.json"))[0]
    config = json.loads(_read(archive, manifest["Config"]))
    for diff, path in zip(config["rootfs"]["diff_ids"], manifest["Layers"], strict=True):
        if diff not in known and (layer := archive.extractfile(path)) is not None:
            yield layer


def _content(files: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    if not entry.isreg() or entry.size > LARGEST:
        return b""
    opened = files.extractfile(entry)
    return opened.read() if opened is not None else b""


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    opened = archive.extractfile(name)
    if opened is None:
        raise GateRefused(f"the saved image has no {name}")
    return opened.read()


def _is_complete(content: bytes) -> bool:
    return set(json.loads(content)) >= BUILD_INFO


def _dependencies(history: Sequence[Mapping[str, Any]]) -> int:
    return sum(layer["Size"] for layer in history if "COPY /venv /venv" in layer["CreatedBy"])


def require_extras(image: str) -> None:
    """Raise `GateRefused` if the image lacks the packages for Sentry and OpenTelemetry."""
    import docker
    from docker.errors import ContainerError

    client = docker.from_env(timeout=300)
    try:
        client.containers.run(
            image, ["python", "-c", _EXTRAS], remove=True, read_only=True, network_mode="none"
        )
    except ContainerError as error:
        raise GateRefused(
            f"the image {image} lacks the packages of its extras: {_last_line(error)}"
        ) from None
    finally:
        client.close()


def _last_line(error: Any) -> str:
    said: bytes = error.stderr or b""
    return said.decode(errors="replace").strip().rpartition("\n")[2]


def run(checkout: Path, reports: Path) -> Size:
    """Build and check the checkout's image, and write its size to `reports`/image.json.

    Also builds and checks the image with the extras, which must contain their packages.
    """
    from deploy.events import Events
    from deploy.images import build
    from deploy.machine.engine import ensure_engine
    from deploy.state.release import BuildInfo

    ensure_engine()
    arguments = BuildInfo.of(checkout).arguments
    built = build.build(checkout, arguments, ["amani-backend:ci"], events=Events())
    base = build.find_base_names((checkout / "Dockerfile").read_text())[0]
    size = check(built.id, base)
    more = {**arguments, "EXTRAS": "observability"}
    extended = build.build(checkout, more, ["amani-backend:ci-observability"], events=Events())
    check(extended.id, base)
    require_extras(extended.id)
    found = {"image": built.id, "size": size.image, "floor": size.floor, "budget": OWN_BUDGET}
    (reports / "image.json").write_text(json.dumps(found, indent=2) + "\n")
    return size
