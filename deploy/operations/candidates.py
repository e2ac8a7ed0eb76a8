"""Releases that can be deployed: built from this checkout, or found by their version.

A version is looked up in a registry, in this machine's engine or on the hosts.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from deploy.errors import EngineError, GateRefused, UsageError
from deploy.machine.checkout import ROOT
from deploy.state.release import BuildInfo, ImageRef, Release, find_same_content

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.environment.model import Environment
    from deploy.events import Events
    from deploy.images.registry import Registry, RemoteImage
    from deploy.operations.host_session import HostSession
    from deploy.secrets import Secrets
    from deploy.state.facts import Facts


@dataclass(frozen=True)
class Candidate:
    """A release that can be deployed.

    `platforms` are those of its image (empty: unknown); `size` is its download in bytes.
    """

    release: Release
    platforms: tuple[str, ...] = ()
    size: int = 0


def build_candidate(environment: Environment, secrets: Secrets, events: Events) -> Candidate:
    """Build this checkout's image, tag it and push it as the environment's `image` section states.

    Raises `GateRefused` if the environment is protected and the checkout has uncommitted changes,
    or if a migration is not of the class that it states.
    """
    from deploy.database import lint
    from deploy.images.build import build, push

    info = BuildInfo.of(ROOT)
    if info.dirty and environment.protected:
        raise GateRefused(
            f"{environment.name} is protected, and this checkout has uncommitted changes",
            hint="commit them (`git status` lists them), or deploy a --version",
        )
    lint.require_agreement(ROOT)
    config = environment.image
    tags = (*info.render_tags(config.tags), info.version.tag)
    repositories = config.registries or (config.repository,)
    references = [
        f"{repository}:{tag}" for repository in repositories for tag in dict.fromkeys(tags)
    ]
    events.emit("note", f"building {info.version}", step="build")
    arguments = info.arguments | ({"EXTRAS": config.extras} if config.extras else {})
    built = build(ROOT, arguments, references, platform=config.platform, events=events)
    if not config.registered:
        image = ImageRef(config.repository, built.id, registered=False)
        return Candidate(Release.from_labels(image, _local_labels(built.id)))
    logins = {r: login for r in repositories if (login := secrets.registry(r))}
    digests = push(references, logins, events=events)
    image = ImageRef(config.repository, digests[config.repository])
    return Candidate(Release.from_labels(image, _local_labels(built.id)), (config.platform,))


def promote_image(
    environment: Environment, earlier: Environment, secrets: Secrets, events: Events
) -> Candidate | None:
    """Promote the image that was built for an earlier environment from the files of this commit.

    Copies the image to the registries of `environment` and gives it that environment's tags.
    Returns None if there is no such image or the checkout has uncommitted changes. Nothing is
    built: both environments run the same digest, which keeps its version and commit. `secrets`
    hold the logins of all registries. Raises `UsageError` if one of the environments has no
    registry, and `RegistryError` if a registry refuses.
    """
    from deploy.images.promotion import promote
    from deploy.images.registry import Registry

    config, before = environment.image, earlier.image
    if unregistered := [e.name for e in (environment, earlier) if not e.image.registered]:
        raise UsageError(f"{unregistered[0]} has no registry, which a promotion needs")
    info = BuildInfo.of(ROOT)
    if info.dirty:
        return None

    def open_registry(repository: str, insecure: bool) -> Registry:
        login = secrets.registry(repository)
        return Registry(repository, credentials=login, insecure=insecure)

    with ExitStack() as stack:
        source = stack.enter_context(open_registry(before.repository, before.insecure))
        remote = _built_of(info, before.tags, source, config.platform)
        if remote is None:
            return None
        tags = dict.fromkeys((*info.render_tags(config.tags), info.version.tag))
        targets = [
            stack.enter_context(open_registry(repository, config.insecure))
            for repository in config.registries
        ]
        promote(source, remote.digest, targets, tags)
    image = ImageRef(config.repository, remote.digest)
    release = Release.from_labels(image, remote.labels)
    events.emit(
        "note", f"promoting {release.version}, built for {earlier.name} from the same files"
    )
    return Candidate(release, remote.platforms, remote.size)


def _built_of(
    info: BuildInfo, templates: Sequence[str], source: Registry, platform: str
) -> RemoteImage | None:
    """Return the image of a commit with the same files as this one, or None."""
    from deploy.images.registry import NotInRegistry

    of_commit = [template for template in templates if "{sha}" in template]
    for sha in find_same_content(ROOT):
        for tag in replace(info, sha=sha).render_tags(of_commit):
            try:
                remote = source.resolve(tag, platform=platform)
            except NotInRegistry:
                continue
            # A tag can move to another image. The label is part of the digest.
            if remote.labels.get("org.opencontainers.image.revision") == sha:
                return remote
    return None


def find_candidate(session: HostSession, secrets: Secrets, version: str) -> Candidate:
    """Find a release by its version, tag or digest.

    Looks in the environment's registry, or in this machine's engine if it has none. Raises
    `UsageError`, which lists the newest tags, if there is no such image.
    """
    environment = session.environment
    if not environment.image.registered:
        return _find_in_engine(environment, version)
    return _find_in_registry(environment, secrets, version)


def find_candidate_on_hosts(facts: Facts, repository: str, digest: str) -> Candidate | None:
    """Return the release with this digest if every host holds its image, else None. Pure."""
    if not all(host.holds(digest) for host in facts.hosts.values()):
        return None
    for host in facts.hosts.values():
        for image in host.images:
            registered = any(name.endswith(digest) for name in image.digests)
            if registered or image.id == digest:
                reference = ImageRef(repository, digest, registered=image.id != digest)
                return Candidate(Release.from_labels(reference, image.labels))
    return None


def _find_in_registry(environment: Environment, secrets: Secrets, version: str) -> Candidate:
    from deploy.images.registry import NotInRegistry, Registry

    config = environment.image
    with Registry(
        config.repository,
        credentials=secrets.registry(config.repository),
        insecure=config.insecure,
    ) as registry:
        for name in _names(version):
            try:
                remote = registry.resolve(name, platform=config.platform)
            except NotInRegistry:
                continue
            release = Release.from_labels(ImageRef(config.repository, remote.digest), remote.labels)
            return Candidate(release, remote.platforms, remote.size)
        tags = registry.list_tags()
    raise _unknown(f"{config.repository} has no image {version}", tags)


def _find_in_engine(environment: Environment, version: str) -> Candidate:
    from deploy.hosts.local import LocalHost

    repository = environment.image.repository
    engine = LocalHost("this machine").engine
    tags = []
    for listed in engine.images():
        ours = [t.removeprefix(f"{repository}:") for t in listed.get("RepoTags") or ()]
        tags += [tag for tag in ours if "/" not in tag and ":" not in tag]
        if set(ours) & set(_names(version)) or listed["Id"] == version:
            image = ImageRef(repository, listed["Id"], registered=False)
            return Candidate(Release.from_labels(image, listed.get("Labels") or {}))
    raise _unknown(f"this machine's engine has no image {repository}:{version}", tags)


def _names(version: str) -> tuple[str, ...]:
    """The possible tags of a version: with and without `v`, and `-` in place of `+`."""
    tag = version.replace("+", "-")
    bare = tag.removeprefix("v")
    return tuple(dict.fromkeys((tag, bare, f"v{bare}")))


def _unknown(message: str, tags: list[str]) -> UsageError:
    newest = ", ".join(sorted(tags)[-10:])
    return UsageError(
        message,
        hint=(
            f"it has: {newest}"
            if tags
            else "it has no images; `invoke deploy` without --version builds one"
        ),
    )


def _local_labels(image: str) -> dict[str, str]:
    from deploy.hosts.local import LocalHost

    found = LocalHost("this machine").engine.image(image)
    if found is None:
        raise EngineError(
            f"this machine's engine does not have the image {image} that it just built"
        )
    return dict(found["Config"].get("Labels") or {})
