"""Backups in another place, by SSH: sent, read back, fetched; and what happens when it is away."""

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

from deploy.backups.tool import BASE
from deploy.errors import DeployError, UsageError
from deploy.operations.backups import back_up, copy, fetch, listing, verify
from tests.integration.deploy.backups.conftest import SILENT, Place
from tests.support.waiting import eventually

pytestmark = pytest.mark.engine


def key_pair() -> tuple[str, str]:
    """A private and a public key as OpenSSH writes them."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        forms.Encoding.PEM, forms.PrivateFormat.OpenSSH, forms.NoEncryption()
    )
    public = key.public_key().public_bytes(forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH)
    return private.decode(), public.decode()


class Away:
    """Another machine, by SSH."""

    def __init__(self, place: Place) -> None:
        host_key, self.host_key = key_pair()
        self.key, client = key_pair()
        command = ["rclone", "serve", "sftp", "/srv", "--addr=:22", "--key=/srv/hostkey"]
        self.container = place.engine.containers.create(
            BASE,
            [*command, "--authorized-keys=/srv/authorized", "--user=backup"],
            name=f"{place.name}-away-{uuid.uuid4().hex[:6]}",
            network=f"amani-{place.name}",
            labels={"amani.environment": place.name},
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

    def told(self, **changes: Any) -> dict[str, Any]:
        """This place, as an environment names it."""
        told = {"name": "away", "kind": "ssh", "address": self.container.name, "path": "/vault"}
        return {**told, "host_keys": [self.host_key], "key": "AWAY_KEY", **changes}

    def run(self, script: str) -> str:
        status, output = self.container.exec_run(["sh", "-c", script])
        assert status == 0, output
        return str(output.decode())


@pytest.fixture
def away(place: Place, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Away]:
    """A place for copies that answers, which the environment names."""
    made = Away(place)
    made.start()
    monkeypatch.setenv("AMANI_SECRET_AWAY_KEY", made.key)
    place.environment(database, copies=[made.told()])
    yield made
    made.container.remove(force=True)


def test_a_copy_brings_the_backup_back_when_the_host_has_lost_it(place: Place, away: Away):
    manifest = back_up(place.name, SILENT).manifest
    files = away.run("find /srv/vault -type f -printf '%P %s\\n' | sort").splitlines()
    assert files[0] == f"{place.name}/{manifest.id}/archive {manifest.size}"
    assert [file.split()[0] for file in files[1:]] == [f"{place.name}/{manifest.id}/manifest.json"]
    shutil.rmtree(place.backups / manifest.id)
    with pytest.raises(UsageError, match="has no backup"):
        verify(place.name, SILENT)
    assert fetch(place.name, SILENT) == manifest.id
    assert [found.manifest for found in listing(place.name, SILENT)] == [manifest]
    assert verify(place.name, SILENT).level == "restored"
    assert fetch(place.name, SILENT, id=manifest.id, place="away") == manifest.id


def test_a_damaged_copy_is_not_taken_for_the_backup(place: Place, away: Away):
    manifest = back_up(place.name, SILENT).manifest
    shutil.rmtree(place.backups / manifest.id)
    path = f"/srv/vault/{place.name}/{manifest.id}/archive"
    away.run(f"printf XYZ | dd of={path} bs=1 seek=1000 conv=notrunc")
    with pytest.raises(DeployError, match="its SHA-256 is another"):
        fetch(place.name, SILENT)
    assert listing(place.name, SILENT) == [] and place.partials() == []


def test_while_the_place_is_away_the_backup_stays_on_the_host(place: Place, away: Away):
    away.container.stop(timeout=0)
    with pytest.raises(DeployError, match="is whole on here, but not everywhere") as caught:
        back_up(place.name, SILENT)
    (found,) = listing(place.name, SILENT)
    assert caught.value.exit_code == 5
    assert f"invoke db.copy --env={place.name} --id={found.manifest.id}" in caught.value.hint
    assert verify(place.name, SILENT).level == "restored"
    away.container.start()
    eventually(lambda: away.container.logs().count(b"server listening") == 2)
    copy(place.name, SILENT)
    assert f"{found.manifest.id}/manifest.json" in away.run("find /srv/vault")


def test_a_place_with_another_host_key_gets_nothing(
    place: Place, database: str, away: Away, monkeypatch: pytest.MonkeyPatch
):
    place.environment(database, copies=[away.told(host_keys=[key_pair()[1]])])
    with pytest.raises(DeployError, match="key (mismatch|is unknown)|knownhosts"):
        back_up(place.name, SILENT)
    assert "vault" not in away.run("ls /srv")
    monkeypatch.delenv("AMANI_SECRET_AWAY_KEY")
    with pytest.raises(UsageError, match="AWAY_KEY"):
        back_up(place.name, SILENT)


def test_what_is_not_there_is_told(place: Place, away: Away):
    back_up(place.name, SILENT)
    with pytest.raises(UsageError, match="away has no backup x"):
        fetch(place.name, SILENT, id="x")
    with pytest.raises(UsageError, match="no place for copies called 'nowhere'"):
        fetch(place.name, SILENT, place="nowhere")
