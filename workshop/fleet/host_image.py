"""The image of a practice host: Debian trixie with sshd and a Docker Engine under a supervisor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docker import DockerClient

REPOSITORY = "amani/practice-host"
HOST_FILES = Path(__file__).with_name("host")
PACKAGES = (
    "ca-certificates",
    "docker-cli",
    "docker.io",
    "iproute2",
    "iptables",
    "openssh-server",
    "procps",
    "runit",
    "socat",
)
PLACES = {
    "init": ("/usr/local/sbin/practice-init", 0o755),
    "network": ("/usr/local/sbin/practice-network", 0o755),
    "wipe": ("/usr/local/sbin/practice-wipe", 0o755),
    "await-engine": ("/usr/local/sbin/await-engine", 0o755),
    "containerd.toml": ("/etc/containerd/config.toml", 0o644),
    "run-containerd": ("/usr/local/lib/practice/containerd/run", 0o755),
    "run-docker": ("/usr/local/lib/practice/docker/run", 0o755),
    "run-registry": ("/usr/local/lib/practice/registry/run", 0o755),
    "run-sshd": ("/usr/local/lib/practice/ssh/run", 0o755),
    "sshd.conf": ("/etc/ssh/sshd_config.d/practice.conf", 0o644),
}
# The services are in the folder that sv reads, and links to sv replace the init scripts, so that
# `service docker restart` reaches the supervisor.
CUSTOMISE = """
rm -f /etc/ssh/ssh_host_*
useradd --create-home --shell /bin/bash --password '*' --groups docker deploy
install -d -m 0700 /root/.ssh
install -d -m 0700 -o deploy -g deploy /home/deploy/.ssh
install -d -m 0755 -o deploy -g deploy /var/lib/amani
rm -rf /etc/service
ln -s /usr/local/lib/practice /etc/service
ln -sf /usr/bin/sv /etc/init.d/docker
ln -sf /usr/bin/sv /etc/init.d/ssh
"""
CHANGES = ('ENTRYPOINT ["/usr/local/sbin/practice-init"]', "VOLUME /var/lib/docker")


def host_image() -> str:
    """The image's name with a hash of its recipe, so that other checkouts can have others."""
    contents = [(HOST_FILES / name).read_text() for name in PLACES]
    recipe = repr((PACKAGES, PLACES, contents, CUSTOMISE, CHANGES))
    return f"{REPOSITORY}:trixie-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"


def ensure_host_image(client: DockerClient, announce: Callable[[str], None]) -> None:
    """Build the image from this recipe if the engine does not have it.

    Raises `UsageError` if it cannot be built here, `EngineError` if the engine refuses.
    """
    from deploy.images.debian import File, make_image

    if not client.images.list(host_image()):
        files = {
            place: File((HOST_FILES / name).read_text(), mode)
            for name, (place, mode) in PLACES.items()
        }
        make_image(
            host_image(),
            PACKAGES,
            files=files,
            customise=CUSTOMISE,
            changes=CHANGES,
            announce=announce,
        )
