"""The image, and the containers that run it."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from deploy.environment.sections.values import (
    Bytes,
    Command,
    Platform,
    Repository,
    Section,
    Value,
    Variable,
    WholeSeconds,
    check_subnet,
)


class RegistryLogin(Section):
    """Names of the secrets that the deployer logs in to a registry with."""

    username: Variable
    """The secret with the user name."""
    password: Variable
    """The secret with the password or access token."""


class ImageConfig(Section):
    """The image's registries, tags and build options."""

    repository: Repository = "amani-backend"
    """The repository that hosts pull from, always by digest."""
    registries: tuple[Repository, ...] = ()
    """Repositories that a build is pushed to. The first must be `repository`. Empty: the image
    stays in this machine's engine, and nothing is pushed or pulled."""
    insecure: bool = False
    """Use plain HTTP for the registries."""
    credentials: dict[Repository, RegistryLogin] = {}
    """The logins, by repository."""
    tags: tuple[str, ...] = ()
    """Tags of a build, made of `{sha}`, `{version}`, `{branch}` and `{number}`. A tag with an
    unknown part is omitted: `{version}` is known only on a commit that carries a version."""
    platform: Platform = "linux/amd64"
    """The platform that the image is built for."""
    extras: Literal["", "observability"] = ""
    """Optional requirements of a build: `observability` adds Sentry and OpenTelemetry."""

    @property
    def registered(self) -> bool:
        """Whether hosts pull the image from a registry."""
        return bool(self.registries)

    @field_validator("tags")
    @classmethod
    def _check_tags(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        for tag in tags:
            parts = set(re.findall(r"\{(.*?)\}", tag))
            if unknown := parts - {"sha", "version", "branch", "number"}:
                raise ValueError(
                    f"{tag!r} names {{{min(unknown)}}}; allowed: {{sha}}, {{version}}, {{branch}},"
                    " {number}"
                )
            if not re.fullmatch(r"\w[\w.-]{0,127}", re.sub(r"\{.*?\}", "x", tag), re.ASCII):
                raise ValueError(f"{tag!r} is not an image tag: letters, digits, '.', '_', '-'")
        return tags

    @model_validator(mode="after")
    def _check_repositories(self) -> Self:
        if self.registries and self.registries[0] != self.repository:
            raise ValueError(
                f"the first of `registries` must be `repository` ({self.repository}),"
                f" not {self.registries[0]}"
            )
        if foreign := self.credentials.keys() - set(self.registries):
            raise ValueError(
                f"`credentials` are given for {min(foreign)}, which is not in `registries`"
            )
        return self


class ResourcesConfig(Section):
    """Memory, processor and process limits of a container."""

    memory: Bytes = 512_000_000
    """Memory, such as `512MB` or `1GiB`. 0: no limit."""
    cpus: Annotated[float, Field(ge=0)] = 1.0
    """Processors, such as 0.5 or 2. 0: no limit."""
    pids: Annotated[int, Field(ge=0)] = 256
    """Processes and threads. 0: no limit."""


class RoleConfig(Section):
    """Command, variables and limits of a role's containers."""

    command: Command | None = None
    """The command, as a list. Default: the image's own command."""
    environment: dict[Variable, Value] = {}
    """Environment variables in addition to `settings`."""
    resources: ResourcesConfig = ResourcesConfig.model_construct()
    """Limits of each container."""
    stop_timeout: WholeSeconds = 30
    """Time between SIGTERM and SIGKILL."""
    healthcheck: bool = True
    """Run the image's own HEALTHCHECK."""


class HardeningConfig(Section):
    """Restrictions of every container. All are on by default."""

    read_only: bool = True
    """Make the root file system read-only."""
    drop_capabilities: bool = True
    """Drop all Linux capabilities."""
    no_new_privileges: bool = True
    """Forbid privileges through setuid programs."""


class NetworkConfig(Section):
    """The environment's bridge network on each host."""

    subnet: Annotated[str, AfterValidator(check_subnet)]
    """A private subnet, such as `172.29.10.0/24`. Environments that share a host need different
    subnets."""
