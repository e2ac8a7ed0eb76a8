"""The course of a deploy: timeouts, retention, migrations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from deploy.environment.sections.values import (
    Command,
    HttpPath,
    JsonPointer,
    Seconds,
    Section,
    WholeSeconds,
)


class TimeoutsConfig(Section):
    """The timeouts of a deploy's steps and connections."""

    connect: Seconds = 10.0
    """For each phase of an SSH connection: TCP, banner, authentication, channel."""
    command: Seconds = 60.0
    """For a command on a host."""
    pull: Seconds = 600.0
    """For the pull of an image."""
    migrate: Seconds = 300.0
    """For one migration, and for the command of `invoke exec`."""
    boot: Seconds = 60.0
    """For a new container to become ready."""
    drain: Seconds = 30.0
    """For the old slot to finish its requests."""
    stop: WholeSeconds = 30
    """Time between SIGTERM and SIGKILL for one-off containers. For the containers of a role see
    `roles.<name>.stop_timeout`."""


class RetentionConfig(Section):
    """Images and containers that are kept for a rollback."""

    releases: Annotated[int, Field(ge=1)] = 5
    """Releases whose image stays on the hosts, including the live release."""
    standby: Literal["running", "stopped"] = "running"
    """The state of the previous release's web container until the next deploy. `running`: the proxy
    keeps checking it, and a rollback only shifts the traffic. `stopped`: it stops after its last
    request, which frees its memory and its database connections."""


class MigrationsConfig(Section):
    """Commands that read and change the database schema."""

    command: Command = ("flask", "db", "upgrade")
    """Upgrades the schema to a revision, which is appended. Runs for each new revision in a one-off
    container of the new image."""
    downgrade_command: Command = ("flask", "db", "downgrade")
    """Downgrades the schema to a revision, which is appended. Runs in the image that contains the
    newer revisions."""
    loss_command: Command = ("flask", "amani", "schema-loss")
    """Prints the data that a downgrade to a revision, which is appended, would lose: one line for
    each table or column."""
    current_command: Command = ("flask", "db", "current")
    """Prints the live revision."""
    health_path: HttpPath = "/api/v1/health"
    """The path whose JSON contains the live revision."""
    schema_path: JsonPointer = "/checks/schema:revision/0/observedValue"
    """The JSON pointer (RFC 6901) to the revision in that JSON."""
