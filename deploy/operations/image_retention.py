"""`invoke image.retention`: delete expired images from the registries of an environment."""

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


def delete_expired_images(environment: Environment, *, keep: int, dry_run: bool) -> None:
    """Delete the expired images from each registry of an environment, or only list them.

    At least `keep` images of each kind remain. Tries all registries before it raises
    `GateRefused`, which names each registry that refused.
    """
    secrets = load_secrets(environment, containers=False)
    action = "would delete" if dry_run else "deleting"
    refused: list[str] = []

    def announce(image: Tagged) -> None:
        print(f"{action}: {', '.join(image.tags)} of {image.created:%Y-%m-%d} ({image.digest})")

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
            # GitHub's registry has no API to delete an image; its packages API has.
            deleter = packages if repository.startswith(f"{HOST}/") else registry
            try:
                sweep(
                    registry,
                    datetime.now(UTC),
                    keep=keep,
                    announce=announce,
                    remove=None if dry_run else deleter.delete,
                )
            except RegistryError as error:
                refused.append(f"{error.message}\n  {error.hint}" if error.hint else error.message)
    if refused:
        raise GateRefused("\n".join(refused))
