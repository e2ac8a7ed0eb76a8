"""`invoke image.retention`: every registry of an environment, without what has had its time."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from deploy.errors import GateRefused
from deploy.images.expiry import Tagged, sweep
from deploy.images.github_packages import HOST, GitHubPackages
from deploy.images.registry import Registry, RegistryError
from deploy.secrets import load_secrets

if TYPE_CHECKING:
    from deploy.environment.model import Environment


def expire(environment: Environment, *, keep: int, dry_run: bool) -> None:
    """Delete what has expired in each of the environment's registries, or only print it.

    Raises `GateRefused` naming the registries that did not let it, once all have been asked.
    """
    secrets = load_secrets(environment, containers=False)
    word = "would go" if dry_run else "goes"
    refused: list[str] = []

    def announce(image: Tagged) -> None:
        print(f"{word}: {', '.join(image.tags)} of {image.created:%Y-%m-%d} ({image.digest})")

    for repository in environment.image.registries:
        print(f"{repository}:")
        login = secrets.registry(repository)
        packages = GitHubPackages(repository, login[1] if login else "")
        with (
            Registry(
                repository, credentials=login, insecure=environment.image.insecure
            ) as registry,
            closing(packages),
        ):
            there = packages if repository.startswith(f"{HOST}/") else registry
            try:
                sweep(
                    registry,
                    datetime.now(UTC),
                    keep=keep,
                    announce=announce,
                    remove=None if dry_run else there.delete,
                )
            except RegistryError as error:
                refused.append(f"{error.message}\n  {error.hint}" if error.hint else error.message)
    if refused:
        raise GateRefused("\n".join(refused))
