"""Promotion of images in real registries: further tags and registries, the same digest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import yaml

from deploy.environment.model import load_environment
from deploy.errors import UsageError
from deploy.events import Event, Events
from deploy.images import build
from deploy.images.promotion import promote
from deploy.images.registry import Manifest, NotInRegistry, Registry, Unauthorised
from deploy.machine.checkout import ROOT
from deploy.operations import candidates
from deploy.secrets import load_secrets
from deploy.state.release import BuildInfo

pytestmark = pytest.mark.engine
LOGIN = ("deployer", "correct horse")
INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.fixture(scope="module")
def guarded(start_registry) -> str:
    """A registry that requires a login."""
    user, password = LOGIN
    entry = f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"
    return start_registry(
        {
            "REGISTRY_AUTH": "htpasswd",
            "REGISTRY_AUTH_HTPASSWD_REALM": "here",
            "REGISTRY_AUTH_HTPASSWD_PATH": "/etc/docker/registry/htpasswd",
        },
        {"htpasswd": entry.encode()},
    )


def push(make_image, reference: str, **labels: str) -> str:
    return build.push([make_image(reference, labels)], events=Events())[
        reference.rpartition(":")[0]
    ]


def test_an_image_is_tagged_in_its_own_repository_and_in_another_registry(
    registry: str, guarded: str, make_image
):
    repository, elsewhere = f"{registry}/promotion/own", f"{guarded}/promotion/other"
    digest = push(make_image, f"{repository}:staging-1", kind="plain")
    with (
        Registry(repository, insecure=True) as own,
        Registry(elsewhere, insecure=True, credentials=LOGIN) as other,
    ):
        for _ in range(2):  # the second call copies nothing
            promote(own, digest, [own, other], ["latest", "prod-1"])
        assert {own.resolve(tag).digest for tag in ("latest", "prod-1", "staging-1")} == {digest}
        found = other.resolve("latest")
        assert (found.digest, found.labels) == (digest, {"kind": "plain"})
        assert other.manifest("prod-1").content == own.manifest("staging-1").content
        layers = [blob for blob, _ in other.manifest("latest").blobs]
        assert len(layers) == 2 and all(map(other.has_blob, layers))


def test_promoting_an_index_copies_all_its_images(registry: str, guarded: str, make_image):
    repository = f"{registry}/promotion/index"
    parts = []
    for arch in ("amd64", "arm64"):
        push(make_image, f"{repository}:{arch}", arch=arch)
        with Registry(repository, insecure=True) as client:
            part = client.manifest(arch)
        platform = {"os": "linux", "architecture": arch}
        parts.append({"mediaType": part.media_type, "digest": part.digest,
                      "size": len(part.content), "platform": platform})  # fmt: skip
    content = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": parts}).encode()
    with (
        Registry(repository, insecure=True) as own,
        Registry(f"{guarded}/promotion/index", insecure=True, credentials=LOGIN) as other,
    ):
        own.put_manifest("both", Manifest(content, INDEX, ""))
        digest = own.resolve("both").digest
        promote(own, digest, [other], ["1.0.0"])
        assert other.resolve("1.0.0", platform="linux/arm64").labels == {"arch": "arm64"}
        assert other.resolve("1.0.0").digest == digest


def test_promotion_without_credentials_is_refused(registry: str, guarded: str, make_image):
    repository = f"{registry}/promotion/refused"
    digest = push(make_image, f"{repository}:1", kind="refused")
    with (
        Registry(repository, insecure=True) as own,
        Registry(f"{guarded}/promotion/refused", insecure=True) as other,
        pytest.raises(Unauthorised, match="no credentials"),
    ):
        promote(own, digest, [other], ["latest"])


@pytest.fixture
def pair(registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two environments with a repository each, and the build information of a clean checkout."""
    for name, tags in (("early", ["early-{sha}"]), ("late", ["latest", "late-{sha}"])):
        repository = f"{registry}/promotion/{tmp_path.name.lower().strip('_')}-{name}"
        content = {
            "domain": "late.test",
            "hosts": [{"name": "web-1", "connection": "local", "roles": ["web"]}],
            "network": {"subnet": "172.29.99.0/24"},
            "image": {"repository": repository, "registries": [repository], "insecure": True,
                      "tags": tags},
        }  # fmt: skip
        (tmp_path / f"{name}.yml").write_text(yaml.safe_dump(content))
    told = BuildInfo.of(ROOT)
    clean = type(told)(**{**vars(told), "dirty": False})
    monkeypatch.setattr(candidates.BuildInfo, "of", lambda checkout: clean)
    early, late = (load_environment(name, folder=tmp_path) for name in ("early", "late"))
    yield early, late, clean


def labels(info: BuildInfo, revision: str = "") -> dict[str, str]:
    return {
        "org.opencontainers.image.version": "1.4.0-dev.3",
        "org.opencontainers.image.revision": revision or info.sha,
        "amani.schema.head": "0003",
    }


def promoted(early, late, heard: list[Event] | None = None) -> candidates.Candidate | None:
    events = Events((heard if heard is not None else []).append)
    return candidates.promote_image(late, early, load_secrets(late, containers=False), events)


def test_an_image_built_from_the_same_commit_is_promoted(pair, make_image):
    early, late, info = pair
    assert promoted(early, late) is None  # there is none yet
    tag = f"early-{info.short_sha}"
    digest = push(make_image, f"{early.image.repository}:{tag}", **labels(info))
    heard: list[Event] = []
    found = promoted(early, late, heard)
    assert found is not None
    assert found.release.image.digest == digest
    assert str(found.release.version) == "1.4.0-dev.3"
    with Registry(late.image.repository, insecure=True) as registry:
        assert set(registry.list_tags()) >= {"latest", f"late-{info.short_sha}"}
        assert registry.resolve("latest").digest == digest
    assert "built for early from the same files" in heard[-1].text


def test_an_image_built_from_a_commit_with_the_same_files_is_promoted(
    pair, make_image, monkeypatch
):
    early, late, info = pair
    squashed = "5" * 40
    monkeypatch.setattr(candidates, "find_same_content", lambda checkout: (info.sha, squashed))
    digest = push(
        make_image,
        f"{early.image.repository}:early-{squashed[:12]}",
        **labels(info, revision=squashed),
    )
    found = promoted(early, late)
    assert found is not None and found.release.image.digest == digest
    with Registry(late.image.repository, insecure=True) as registry:
        assert registry.resolve(f"late-{info.short_sha}").digest == digest


def test_an_image_labelled_with_another_commit_is_not_promoted(pair, make_image):
    early, late, info = pair
    tag = f"early-{info.short_sha}"
    push(make_image, f"{early.image.repository}:{tag}", **labels(info, revision="f" * 40))
    assert promoted(early, late) is None
    with Registry(late.image.repository, insecure=True) as registry:
        with pytest.raises(NotInRegistry):
            registry.resolve("latest")


def test_with_uncommitted_changes_no_image_is_promoted(pair, make_image, monkeypatch):
    early, late, info = pair
    push(make_image, f"{early.image.repository}:early-{info.short_sha}", **labels(info))
    dirty = type(info)(**{**vars(info), "dirty": True})
    monkeypatch.setattr(candidates.BuildInfo, "of", lambda checkout: dirty)
    assert promoted(early, late) is None


def test_promoting_from_an_environment_without_a_registry_is_refused(pair):
    _, late, _ = pair
    local = load_environment("local", folder=ROOT / "config" / "environments")
    with pytest.raises(UsageError, match="local has no registry"):
        promoted(local, late)
