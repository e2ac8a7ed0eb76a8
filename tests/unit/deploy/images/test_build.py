"""Dockerfiles, and the docker client that builds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.errors import UsageError
from deploy.events import Events
from deploy.images import build


def test_checkout_without_dockerfile_is_rejected(tmp_path: Path):
    with pytest.raises(UsageError, match=f"there is no {tmp_path}/Dockerfile"):
        build.build(tmp_path, {}, [], events=Events())


def test_base_images_are_resolved_through_arguments_and_stages():
    dockerfile = (
        "ARG PYTHON=python:3.13-slim-trixie\nFROM --platform=linux/amd64 ${PYTHON} AS builder\n"
        "FROM haproxy:3.0-trixie\nFROM builder\nFROM other/image:1\nFROM $PYTHON\n"
    )
    assert build.find_base_names(dockerfile) == ["python:3.13-slim-trixie", "haproxy:3.0-trixie"]


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs fake docker clients on PATH, given folder, version and support of buildx."""
    folders: list[Path] = []

    def install(name: str, version: str, buildx: bool) -> str:
        folder = tmp_path / name
        folder.mkdir()
        script = folder / "docker"
        script.write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && echo "Docker version {version}, build x" && exit\n'
            f"exit {0 if buildx else 1}\n"
        )
        script.chmod(0o755)
        folders.append(folder)
        monkeypatch.setenv("PATH", ":".join([*map(str, folders), "/usr/bin", "/bin"]))
        monkeypatch.setattr("os.get_exec_path", lambda: [str(each) for each in folders])
        return str(script)

    return install


def test_client_with_buildx_is_preferred(clients):
    clients("a", "20.10.24", buildx=False)
    newer = clients("b", "27.0.1", buildx=True)
    assert build.find_client()[:3] == [newer, "buildx", "build"]


def test_old_client_has_buildkit_and_new_client_needs_buildx(clients):
    clients("a", "28.2.2", buildx=False)
    older = clients("b", "20.10.24+dfsg1", buildx=False)
    assert build.find_client() == [older, "build"]


def test_missing_client_is_reported_with_package_to_install(clients):
    clients("a", "28.2.2", buildx=False)
    with pytest.raises(UsageError, match="no docker client") as caught:
        build.find_client()
    assert "docker-buildx" in caught.value.hint
