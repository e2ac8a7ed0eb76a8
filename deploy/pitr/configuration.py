"""The configuration files of pgBackRest and PostgreSQL on the database's machine. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.environment.sections import PitrConfig, RepositoryConfig
    from deploy.pitr.facts import Cluster
    from deploy.secrets.secret import Secret

FOLDER = "/etc/pgbackrest"
NOTE = "amani-pitr.json"
"""A file in a cluster's folder: which recovery created the cluster, or replaced it."""


@dataclass(frozen=True)
class ConfigurationFile:
    """A file for PostgreSQL's user to read; a `secret` one for no other user."""

    content: str
    secret: bool = False


def config_path(environment: str) -> str:
    """The path of pgBackRest's configuration for an environment."""
    return f"{FOLDER}/amani-{environment}.conf"


def settings_path(cluster: Cluster, environment: str) -> str:
    """The path of PostgreSQL's settings for archiving, in the included folder conf.d."""
    return f"{cluster.config}/conf.d/amani-{environment}.conf"


def files(
    environment: Environment, cluster: Cluster, config: PitrConfig, keys: Mapping[str, Secret]
) -> dict[str, ConfigurationFile]:
    """The files that a cluster needs to archive, by path."""
    name = environment.name
    repository = config.repository
    found = {
        config_path(name): ConfigurationFile(
            "\n".join(_pgbackrest(name, cluster, config, keys)), secret=True
        ),
        settings_path(cluster, name): ConfigurationFile("\n".join(_settings(name, config))),
    }
    if repository.kind == "ssh":
        key = keys[repository.key or ""].reveal().rstrip("\n") + "\n"
        found[_beside(name, "key")] = ConfigurationFile(key, secret=True)
        found[_beside(name, "known_hosts")] = ConfigurationFile(_known_hosts(repository))
    return found


def archive_command(environment: str) -> str:
    """PostgreSQL's `archive_command`, which it runs for each segment."""
    return f"pgbackrest --config={config_path(environment)} --stanza={environment} archive-push %p"


def _beside(environment: str, what: str) -> str:
    return f"{FOLDER}/amani-{environment}.{what}"


def _known_hosts(repository: RepositoryConfig) -> str:
    port = repository.port
    place = repository.address if port == 22 else f"[{repository.address}]:{port}"
    return "".join(f"{place} {' '.join(key.split()[:2])}\n" for key in repository.host_keys)


def _settings(name: str, config: PitrConfig) -> Iterator[str]:
    yield "# Written by `invoke db.pitr.setup`."
    yield "archive_mode = on"
    yield f"archive_command = '{archive_command(name)}'"
    yield f"archive_timeout = {config.archive_timeout}"
    yield ""


def _pgbackrest(
    name: str, cluster: Cluster, config: PitrConfig, keys: Mapping[str, Secret]
) -> Iterator[str]:
    repository = config.repository
    yield "# Written by `invoke db.pitr.setup`."
    yield "[global]"
    yield from _repository(name, repository, keys)
    if repository.passphrase:
        yield "repo1-cipher-type=aes-256-cbc"
        yield f"repo1-cipher-pass={keys[repository.passphrase].reveal()}"
    yield "repo1-bundle=y"
    yield f"repo1-retention-full={config.keep}"
    yield f"process-max={config.processes}"
    yield "compress-type=zst"
    yield "start-fast=y"
    yield "io-timeout=15"
    yield "log-level-console=warn"
    yield ""
    yield f"[{name}]"
    yield f"pg1-path={cluster.data}"
    yield f"pg1-port={cluster.port}"
    yield f"pg1-socket-path={cluster.socket}"
    yield ""


def _repository(
    name: str, repository: RepositoryConfig, keys: Mapping[str, Secret]
) -> Iterator[str]:
    yield f"repo1-path={repository.path}"
    if repository.kind == "folder":
        yield "repo1-type=posix"
    elif repository.kind == "s3":
        endpoint = urlsplit(repository.endpoint)
        yield "repo1-type=s3"
        yield f"repo1-s3-bucket={repository.bucket}"
        yield f"repo1-s3-endpoint={endpoint.hostname}"
        yield f"repo1-s3-region={repository.region}"
        yield "repo1-s3-uri-style=path"
        yield f"repo1-s3-key={keys[repository.username or ''].reveal()}"
        yield f"repo1-s3-key-secret={keys[repository.key or ''].reveal()}"
        if endpoint.port:
            yield f"repo1-storage-port={endpoint.port}"
    else:
        yield "repo1-type=sftp"
        yield f"repo1-sftp-host={repository.address}"
        yield f"repo1-sftp-host-port={repository.port}"
        yield f"repo1-sftp-host-user={repository.user}"
        yield f"repo1-sftp-private-key-file={_beside(name, 'key')}"
        yield f"repo1-sftp-known-host={_beside(name, 'known_hosts')}"
        yield "repo1-sftp-host-key-hash-type=sha256"
