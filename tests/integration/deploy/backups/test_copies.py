"""Copies of backups by SSH: sent, read back and fetched; the place may be unreachable."""

from __future__ import annotations

import io
import shutil
import tarfile
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deploy.backups.container import BASE
from deploy.errors import DeployError, UsageError
from deploy.operations.backup import copy_backup, fetch_backup, list_backups, make_backup
from deploy.operations.restore import verify_backup
from tests.integration.deploy.backups.conftest import SILENT, BackupSite
from tests.support.waiting import eventually

pytestmark = pytest.mark.engine


def key_pair() -> tuple[str, str]:
    """A private and a public key in the formats of OpenSSH."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        forms.Encoding.PEM, forms.PrivateFormat.OpenSSH, forms.NoEncryption()
    )
    public = key.public_key().public_bytes(forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH)
    return private.decode(), public.decode()


class CopyServer:
    """An SFTP server for copies, in a container."""

    def __init__(self, site: BackupSite) -> None:
        host_key, self.host_key = key_pair()
        self.key, client = key_pair()
        command = ["rclone", "serve", "sftp", "/srv", "--addr=:22", "--key=/srv/hostkey"]
        self.container = site.engine.containers.create(
            BASE,
            [*command, "--authorized-keys=/srv/authorized", "--user=backup"],
            name=f"{site.name}-away-{uuid.uuid4().hex[:6]}",
            network=f"amani-{site.name}",
            labels={"amani.environment": site.name},
        )
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, content in (("hostkey", host_key), ("authorized", client + "\n")):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o600
                archive.addfile(entry, io.BytesIO(content.encode()))
        self.container.put_archive("/srv", buffer.getvalue())

    def start(self) -> None:
        self.container.start()
        eventually(lambda: b"server listening" in self.container.logs())

    def config(self, **changes: Any) -> dict[str, Any]:
        """The section for this place in an environment's file."""
        config = {"name": "away", "kind": "ssh", "address": self.container.name, "path": "/vault"}
        return {**config, "host_keys": [self.host_key], "key": "AWAY_KEY", **changes}

    def run(self, script: str) -> str:
        status, output = self.container.exec_run(["sh", "-c", script])
        assert status == 0, output
        return str(output.decode())


@pytest.fixture
def away(site: BackupSite, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[CopyServer]:
    """A running place for copies, configured in the environment."""
    made = CopyServer(site)
    made.start()
    monkeypatch.setenv("AMANI_SECRET_AWAY_KEY", made.key)
    site.environment(database, copies=[made.config()])
    yield made
    made.container.remove(force=True)


def test_a_lost_backup_is_fetched_from_its_copy(site: BackupSite, away: CopyServer):
    manifest = make_backup(site.name, SILENT).manifest
    files = away.run("find /srv/vault -type f -printf '%P %s\\n' | sort").splitlines()
    assert files[0] == f"{site.name}/{manifest.id}/archive {manifest.size}"
    assert [file.split()[0] for file in files[1:]] == [f"{site.name}/{manifest.id}/manifest.json"]
    shutil.rmtree(site.backups / manifest.id)
    with pytest.raises(UsageError, match="has no backup"):
        verify_backup(site.name, SILENT)
    assert fetch_backup(site.name, SILENT) == manifest.id
    assert [found.manifest for found in list_backups(site.name, SILENT)] == [manifest]
    assert verify_backup(site.name, SILENT).level == "restored"
    assert fetch_backup(site.name, SILENT, id=manifest.id, place="away") == manifest.id


def test_a_damaged_copy_is_refused(site: BackupSite, away: CopyServer):
    manifest = make_backup(site.name, SILENT).manifest
    shutil.rmtree(site.backups / manifest.id)
    path = f"/srv/vault/{site.name}/{manifest.id}/archive"
    away.run(f"printf XYZ | dd of={path} bs=1 seek=1000 conv=notrunc")
    with pytest.raises(DeployError, match="SHA-256 of the archive differs"):
        fetch_backup(site.name, SILENT)
    assert list_backups(site.name, SILENT) == [] and site.partials() == []


def test_if_the_place_for_copies_is_unreachable_the_backup_stays_on_the_host(
    site: BackupSite, away: CopyServer
):
    away.container.stop(timeout=0)
    with pytest.raises(DeployError, match="is complete on here, but these copies failed") as caught:
        make_backup(site.name, SILENT)
    (found,) = list_backups(site.name, SILENT)
    assert caught.value.exit_code == 5
    assert f"invoke db.copy --env={site.name} --id={found.manifest.id}" in caught.value.hint
    assert verify_backup(site.name, SILENT).level == "restored"
    away.container.start()
    eventually(lambda: away.container.logs().count(b"server listening") == 2)
    copy_backup(site.name, SILENT)
    assert f"{found.manifest.id}/manifest.json" in away.run("find /srv/vault")


def test_a_place_for_copies_with_an_unexpected_host_key_gets_no_copy(
    site: BackupSite, database: str, away: CopyServer, monkeypatch: pytest.MonkeyPatch
):
    site.environment(database, copies=[away.config(host_keys=[key_pair()[1]])])
    with pytest.raises(DeployError, match="key (mismatch|is unknown)|knownhosts"):
        make_backup(site.name, SILENT)
    assert "vault" not in away.run("ls /srv")
    monkeypatch.delenv("AMANI_SECRET_AWAY_KEY")
    with pytest.raises(UsageError, match="AWAY_KEY"):
        make_backup(site.name, SILENT)


def test_an_unknown_backup_and_an_unknown_place_for_copies_are_refused(
    site: BackupSite, away: CopyServer
):
    make_backup(site.name, SILENT)
    with pytest.raises(UsageError, match="away has no backup x"):
        fetch_backup(site.name, SILENT, id="x")
    with pytest.raises(UsageError, match="no place for copies called 'nowhere'"):
        fetch_backup(site.name, SILENT, place="nowhere")
