"""Package mirrors of base images, and the names of base images."""

from __future__ import annotations

import pytest

from deploy.errors import UsageError
from deploy.images import bases
from deploy.images.debian import Mirrors, read_mirrors


def test_mirror_comes_from_apt_configuration():
    targets = (
        "Docker|Docker CE|bookworm|stable|https://download.test/debian/\n"
        "Debian|Debian|bookworm-updates|main|http://mirror.test/debian/\n"
        "Debian|Debian|bookworm|contrib|http://other.test/debian/\n"
        "Debian|Debian|bookworm|main|http://mirror.test/debian/\n"
        "Debian|Debian-Security|bookworm-security|main|http://mirror.test/security/\n"
    )
    mirrors = Mirrors("http://mirror.test/debian", "http://mirror.test/security")
    assert read_mirrors(targets, "bookworm") == mirrors


def test_release_name_selects_mirror_before_first_update():
    targets = (
        "||bookworm|stable|https://download.test/debian/\n"
        "||bookworm|main|http://mirror.test/debian/\n"
        "||bookworm-security|main|http://mirror.test/security/\n"
    )
    mirrors = Mirrors("http://mirror.test/debian", "http://mirror.test/security")
    assert read_mirrors(targets, "bookworm") == mirrors
    assert read_mirrors(targets, "") == Mirrors()


def test_other_distribution_has_no_mirror():
    targets = "Ubuntu|Ubuntu|noble|main|http://archive.test/ubuntu/\n"
    assert read_mirrors(targets, "") == Mirrors()


def test_unknown_base_image_is_rejected_with_known_names():
    with pytest.raises(UsageError, match="no base image is named nginx:1") as caught:
        bases.ensure_bases(["nginx:1"])
    assert "haproxy:3.0-trixie" in caught.value.hint
