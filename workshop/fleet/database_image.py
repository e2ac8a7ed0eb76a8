"""The image of a practice database host: Debian trixie with sshd and PostgreSQL as a package."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from workshop.fleet.host_image import HOST_FILES

if TYPE_CHECKING:
    from docker import DockerClient

REPOSITORY = "amani/practice-database"
FILES = Path(__file__).with_name("database")
PACKAGES = ("ca-certificates", "openssh-server", "postgresql-17", "procps", "runit", "sudo")
PLACES = {
    FILES / "init": ("/usr/local/sbin/practice-init", 0o755),
    HOST_FILES / "run-sshd": ("/usr/local/lib/practice/ssh/run", 0o755),
    HOST_FILES / "sshd.conf": ("/etc/ssh/sshd_config.d/practice.conf", 0o644),
}
# Configuration and data of the clusters are in one volume, so that both survive or neither.
# pgBackRest is not installed; its packages are in a local repository.
CUSTOMISE = """
rm -f /etc/ssh/ssh_host_*
useradd --create-home --shell /bin/bash --password '*' deploy
echo 'deploy ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/deploy
install -d -m 0700 /root/.ssh
install -d -m 0700 -o deploy -g deploy /home/deploy/.ssh
rm -rf /etc/service
ln -s /usr/local/lib/practice /etc/service
ln -sf /usr/bin/sv /etc/init.d/ssh
pg_conftool 17 main set listen_addresses '*'
echo 'host all all all scram-sha-256' >>/etc/postgresql/17/main/pg_hba.conf
mv /etc/postgresql /var/lib/postgresql/etc
ln -s /var/lib/postgresql/etc /etc/postgresql
apt-get install -qq --download-only --no-install-recommends pgbackrest >/dev/null
mkdir /srv/packages
mv /var/cache/apt/archives/*.deb /srv/packages
cd /srv/packages
for file in *.deb; do
    dpkg-deb --field "$file"
    echo "Filename: ./$file"
    echo "Size: $(stat --format=%s "$file")"
    echo "SHA256: $(sha256sum "$file" | cut -d' ' -f1)"
    echo
done >Packages
"""
CHANGES = ('ENTRYPOINT ["/usr/local/sbin/practice-init"]', "VOLUME /var/lib/postgresql")


def database_image() -> str:
    """The image's name with a hash of its recipe, so that other checkouts can have others."""
    contents = {path: path.read_text() for path in PLACES}
    texts = [(*place, contents[path]) for path, place in PLACES.items()]
    recipe = repr((PACKAGES, texts, CUSTOMISE, CHANGES))
    return f"{REPOSITORY}:trixie-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"


def ensure_database_image(client: DockerClient, announce: Callable[[str], None]) -> None:
    """Build the image from this recipe if the engine does not have it.

    Raises `UsageError` if it cannot be built here, `EngineError` if the engine refuses.
    """
    from deploy.images.debian import File, make_image

    if client.images.list(database_image()):
        return
    files = {place: File(path.read_text(), mode) for path, (place, mode) in PLACES.items()}
    make_image(
        database_image(),
        PACKAGES,
        files=files,
        customise=CUSTOMISE,
        changes=CHANGES,
        announce=announce,
    )
