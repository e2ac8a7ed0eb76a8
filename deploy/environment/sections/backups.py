"""Backups, their copies, and point-in-time recovery."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from deploy.environment.sections.hosts import ServerConfig, SSHServer
from deploy.environment.sections.values import (
    AbsolutePath,
    Address,
    Bytes,
    HostKey,
    Name,
    Port,
    Recipient,
    Seconds,
    Section,
    Variable,
    WholeSeconds,
    check_absolute,
)


class KeepConfig(Section):
    """Backups that `db.prune` keeps. Backups for a rollback to a kept release are always kept."""

    last: Annotated[int, Field(ge=1)] = 7
    """The number of newest backups."""
    daily: Annotated[int, Field(ge=0)] = 7
    """The number of days whose newest backup is kept."""
    weekly: Annotated[int, Field(ge=0)] = 5
    """The number of weeks whose newest backup is kept."""
    monthly: Annotated[int, Field(ge=0)] = 12
    """The number of months whose newest backup is kept."""


class StoreConfig(SSHServer):
    """A place on another machine: an S3-compatible store, or a folder reached by SSH (SFTP)."""

    endpoint: str = ""
    """For `s3`: the URL, such as `https://s3.eu-west-1.amazonaws.com`."""
    region: str = ""
    """For `s3`: the region."""
    address: Address = "127.0.0.1"
    """For `ssh`: DNS name or IP address."""
    port: Port = 22
    """For `ssh`: the port."""
    user: str = "backup"
    """For `ssh`: the user to log in as."""
    host_keys: tuple[HostKey, ...] = ()
    """For `ssh`: the server's public host keys. A server with any other key is refused."""
    username: Variable | None = None
    """For `s3`: the secret with the access key's ID."""
    key: Variable | None = None
    """The secret with the secret access key or the private SSH key."""

    def _require(self, kind: str, **given: object) -> None:
        """Raise ValueError that names the keys of a kind if one of them has no value."""
        if not all(given.values()):
            *first, last = (f"`{name}`" for name in given)
            raise ValueError(f"`kind: {kind}` needs {', '.join(first)} and {last}")

    @property
    def addressed(self) -> bool:
        """Whether the file gives an `address`."""
        return "address" in self.model_fields_set


class CopyConfig(StoreConfig):
    """A place on another machine for copies of every `db.backup`."""

    name: Name
    """The place's name in every output and in `--place`."""
    kind: Literal["s3", "ssh"]
    """`s3`: an S3-compatible store. `ssh`: another machine, by SSH (SFTP)."""
    path: str
    """For `s3`: the bucket, or `bucket/folder`. For `ssh`: the folder."""
    key: Variable
    """The secret with the secret access key or the private SSH key."""

    @model_validator(mode="after")
    def _check_complete(self) -> Self:
        if self.kind == "s3":
            self._require("s3", endpoint=self.endpoint, username=self.username)
        else:
            self._require("ssh", address=self.addressed, host_keys=self.host_keys)
        return self


class RepositoryConfig(StoreConfig):
    """The pgBackRest repository of base backups and write-ahead log."""

    kind: Literal["folder", "s3", "ssh"]
    """`folder`: a folder of the database's machine, best on another disk. `s3`: an S3-compatible
    store. `ssh`: another machine, by SSH (SFTP; pgBackRest 2.46 or newer)."""
    path: AbsolutePath
    """The folder, or the prefix in the bucket. No other environment may use it."""
    bucket: str = ""
    """For `s3`: the bucket."""
    endpoint: str = ""
    """For `s3`: the URL, such as `https://s3.eu-west-1.amazonaws.com`. HTTPS only."""
    region: str = "us-east-1"
    """For `s3`: the region."""
    passphrase: Variable | None = None
    """The secret that encrypts the repository (AES-256). Default: no encryption."""

    @model_validator(mode="after")
    def _check_complete(self) -> Self:
        if self.kind == "s3":
            self._require("s3", bucket=self.bucket, username=self.username, key=self.key)
            if not re.fullmatch(r"https://[^/\s]+", self.endpoint):
                raise ValueError("`endpoint` must be such as https://s3.eu-west-1.amazonaws.com")
        if self.kind == "ssh":
            self._require("ssh", address=self.addressed, host_keys=self.host_keys, key=self.key)
        return self


class PitrConfig(Section):
    """Point-in-time recovery of a PostgreSQL on a machine of your own, by pgBackRest."""

    server: ServerConfig
    """The machine that PostgreSQL runs on."""
    repository: RepositoryConfig
    """The repository of base backups and write-ahead log."""
    archive_timeout: Annotated[WholeSeconds, Field(ge=1, le=86400)] = 60
    """The most data, as time, that the loss of the machine can cost (RPO). A segment of the log is
    archived at most this long after its first change."""
    keep: Annotated[int, Field(ge=1)] = 2
    """The number of full backups to keep, with the write-ahead log since the oldest of them."""
    processes: Annotated[int, Field(ge=1, le=999)] = 2
    """The number of parallel processes that compress and copy."""
    port: Port = 5433
    """The port of a restored cluster until it is the live one. The host that makes backups must
    reach it."""


class BackupsConfig(Section):
    """Backups of the database: their schedule, their places and their retention."""

    policy: Literal["always", "when-migrating", "never"] = "when-migrating"
    """The deploys and rollbacks that make a backup first: all, those that change the schema, or
    none. The first deploy makes none."""
    host: Name | None = None
    """The host that makes and keeps backups. Default: the first web host."""
    directory: Annotated[str, AfterValidator(lambda path: path and check_absolute(path))] = ""
    """The folder for backups on that host. Default: `backups` in the deployer's folder."""
    secret: Variable = "DATABASE_URL"
    """The secret with the database's URL. Without a value, the database is SQLite."""
    sqlite: AbsolutePath = "/data/amani.sqlite3"
    """The path of the SQLite database, in one of `volumes`."""
    recipients: tuple[Recipient, ...] = ()
    """Public age keys that archives are encrypted for. Keep the private keys off the host."""
    copies: tuple[CopyConfig, ...] = ()
    """Places for copies of every `db.backup`."""
    keep: KeepConfig = KeepConfig.model_construct()
    """Backups that `db.prune` keeps."""
    check_command: tuple[str, ...] = ("flask", "amani", "reconcile")
    """Checks the content of a restored database. Runs in a container of the live image."""
    parallel_from: Bytes = 10_000_000_000
    """The size from which a PostgreSQL database is dumped by several jobs, such as `500MB` or
    `20GiB`. Several jobs are faster if there are enough processors and tables, and need twice the
    disk space. 0: always."""
    jobs: Annotated[int, Field(ge=1, le=64)] | None = None
    """The number of jobs of a parallel dump or restore. Default: one for each processor of the
    host, at most 4; 1 if the host has two processors or lacks the disk space. 1: never parallel."""
    timeout: Seconds = 3600.0
    """For one backup or restore."""
    textfile: AbsolutePath | None = None
    """The file for the textfile collector of node_exporter. Default: `metrics.prom` in the folder
    for backups."""
    pitr: PitrConfig | None = None
    """Point-in-time recovery. Default: restores to the time of a backup only."""
