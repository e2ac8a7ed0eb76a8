"""The base images, under their names on Docker Hub: pulled if it answers, else made from Debian
packages, so that nothing depends on it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.errors import EngineError, UsageError
from deploy.images.debian import Announce, File, make_image

if TYPE_CHECKING:
    from docker import APIClient

RECIPES = Path(__file__).with_name("recipes")
SILENCE = 15
"""Seconds without data from Docker Hub after which it counts as unreachable."""


@dataclass(frozen=True)
class Base:
    """How to make one base image from Debian packages."""

    name: str
    packages: tuple[str, ...]
    changes: tuple[str, ...]
    files: Mapping[str, File] = field(default_factory=dict)
    customise: str = ""

    @property
    def recipe(self) -> str:
        """Hash of everything that the image is made from, except the versions of the packages."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


def _script(name: str) -> File:
    return File((RECIPES / name).read_text(), 0o755)


def list_bases() -> tuple[Base, ...]:
    """All base images, with those that a deploy needs first."""
    return (
        Base(
            name="python:3.13-slim-trixie",
            packages=("ca-certificates", "python3-venv", "python3-pip", "python-is-python3"),
            changes=('CMD ["python3"]', "ENV LANG=C.UTF-8"),
            # Debian protects its own Python from pip, which an image does not need. Bytecode that
            # is valid without a check of its source starts faster, and a read-only file system
            # could not renew it.
            customise="""
                rm -f /usr/lib/python3.*/EXTERNALLY-MANAGED
                python3 -m compileall -qf --invalidation-mode unchecked-hash /usr/lib/python3*
            """,
        ),
        Base(
            name="haproxy:3.0-trixie",
            packages=("ca-certificates", "haproxy"),
            changes=(
                'CMD ["haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]',
                "USER haproxy",
                "WORKDIR /var/lib/haproxy",
            ),
            customise="""
                groupmod -g 99 haproxy
                usermod -u 99 haproxy
                chown haproxy:haproxy /var/lib/haproxy
                mkdir -p /usr/local/etc/haproxy
            """,
        ),
        Base(
            name="registry:2",
            packages=("ca-certificates", "docker-registry"),
            changes=(
                'ENTRYPOINT ["/usr/bin/docker-registry", "serve"]',
                'CMD ["/etc/docker/registry/config.yml"]',
                "EXPOSE 5000",
                "VOLUME /var/lib/registry",
            ),
            files={"/etc/docker/registry/config.yml": File((RECIPES / "registry.yml").read_text())},
            customise="mkdir -p /var/lib/registry",
        ),
        Base(
            name="postgres:17-trixie",
            packages=("ca-certificates", "postgresql-17"),
            changes=(
                'ENTRYPOINT ["docker-entrypoint.sh"]',
                'CMD ["postgres"]',
                "ENV LANG=C.UTF-8",
                "ENV PGDATA=/var/lib/postgresql/data",
                "ENV PATH=/usr/lib/postgresql/17/bin:/usr/local/sbin:/usr/local/bin"
                ":/usr/sbin:/usr/bin:/sbin:/bin",
                "EXPOSE 5432",
                "VOLUME /var/lib/postgresql/data",
            ),
            files={"/usr/local/bin/docker-entrypoint.sh": _script("postgres-entrypoint.sh")},
            customise="""
                rm -rf /var/lib/postgresql/17 /etc/postgresql/17 /var/log/postgresql
                groupmod -g 999 postgres
                usermod -u 999 postgres
                mkdir -p /docker-entrypoint-initdb.d /var/lib/postgresql/data
                chown -R postgres:postgres /var/lib/postgresql
                chmod 700 /var/lib/postgresql/data
            """,
        ),
        Base(
            name="amani-backup:17-trixie",
            packages=(
                "age",
                "ca-certificates",
                "postgresql-client-17",
                "python3",
                "python3-psycopg",
                "rclone",
                "zstd",
            ),
            changes=(
                'CMD ["python3"]',
                "ENV LANG=C.UTF-8",
                # Debian's own wrappers of these are Perl scripts that look for clusters.
                "ENV PATH=/usr/lib/postgresql/17/bin:/usr/local/sbin:/usr/local/bin"
                ":/usr/sbin:/usr/bin:/sbin:/bin",
            ),
        ),
        Base(
            name="redis:8-trixie",
            packages=("ca-certificates", "redis-server"),
            changes=(
                'ENTRYPOINT ["docker-entrypoint.sh"]',
                'CMD ["redis-server"]',
                "EXPOSE 6379",
                "VOLUME /data",
                "WORKDIR /data",
            ),
            files={"/usr/local/bin/docker-entrypoint.sh": _script("redis-entrypoint.sh")},
            customise="""
                groupmod -g 999 redis
                usermod -u 999 redis
                mkdir /data
                chown redis:redis /data
            """,
        ),
        Base(
            name="prom/prometheus:v2.53.3",
            packages=("ca-certificates", "prometheus"),
            changes=(
                'ENTRYPOINT ["/usr/bin/prometheus"]',
                'CMD ["--config.file=/etc/prometheus/prometheus.yml",'
                ' "--storage.tsdb.path=/prometheus"]',
                "EXPOSE 9090",
                "USER nobody",
                "VOLUME /prometheus",
                "WORKDIR /prometheus",
            ),
            customise="install -d -o nobody -g nogroup /prometheus",
        ),
        Base(
            name="prom/alertmanager:v0.28.1",
            packages=("ca-certificates", "prometheus-alertmanager"),
            changes=(
                'ENTRYPOINT ["/usr/bin/prometheus-alertmanager"]',
                'CMD ["--config.file=/etc/alertmanager/alertmanager.yml",'
                ' "--storage.path=/alertmanager"]',
                "EXPOSE 9093",
                "USER nobody",
                "VOLUME /alertmanager",
                "WORKDIR /alertmanager",
            ),
            customise="install -d -o nobody -g nogroup /alertmanager",
        ),
        # Compose v2, for distributions without it, such as Debian 12.
        Base(
            name="amani-compose:2-trixie",
            packages=("ca-certificates", "docker-cli", "docker-compose"),
            changes=('ENTRYPOINT ["docker", "compose"]',),
        ),
    )


def select(names: Iterable[str]) -> list[str]:
    """The base images among these names, each once."""
    known = {base.name for base in list_bases()}
    return [name for name in dict.fromkeys(names) if name in known]


def ensure_bases(
    names: Iterable[str] = (), *, force: bool = False, announce: Announce = print
) -> None:
    """Ensure that the engine has the base images `names`, by default all of them.

    An existing image stays, unless `force` is set or it was made here from another recipe. A
    missing one is pulled, or made from Debian packages if the pull fails. Raises `UsageError` for
    an unknown name or if an image cannot be made, `EngineError` if the engine does not answer.
    """
    known = {base.name: base for base in list_bases()}
    wanted = list(names) or list(known)
    if strangers := [name for name in wanted if name not in known]:
        raise UsageError(f"no base image is named {strangers[0]}", hint=_choices(known))
    hub = Hub()
    for name in wanted:
        base = known[name]
        if not force and _is_current(hub.engine, base):
            continue
        if force or not hub.pull(name, announce):
            labels = {"amani.base": "debian-packages", "amani.base.recipe": base.recipe}
            make_image(
                name,
                base.packages,
                files=base.files,
                customise=base.customise,
                changes=base.changes,
                labels=labels,
                announce=announce,
            )


class Hub:
    """Docker Hub, or the engine's configured mirror of it. After a failure it is not asked again in
    this run."""

    def __init__(self) -> None:
        import docker
        import docker.errors

        try:
            self.engine: APIClient = docker.from_env(timeout=SILENCE).api
        except docker.errors.DockerException as error:
            raise EngineError(f"the Docker Engine does not answer: {error}") from None
        self._answers = True

    def pull(self, name: str, announce: Announce) -> bool:
        """Pull an image. If that is impossible, announce the reason and return False."""
        import docker.errors
        import requests

        if not self._answers:
            return False
        repository, _, tag = name.rpartition(":")
        try:
            for event in self.engine.pull(repository, tag=tag, stream=True, decode=True):
                if "error" in event:
                    raise docker.errors.DockerException(event["error"])
        except docker.errors.NotFound:
            return False
        except (docker.errors.DockerException, requests.RequestException) as error:
            announce(f"Docker Hub does not serve {name}: {_brief(error)}")
            self._answers = False
            return False
        announce(f"pulled {name}")
        return True


def _is_current(engine: APIClient, base: Base) -> bool:
    return any(
        (image["Labels"] or {}).get("amani.base.recipe", base.recipe) == base.recipe
        for image in engine.images(base.name)
    )


def _choices(known: Iterable[str]) -> str:
    return f"Known images: {', '.join(known)}"


def _brief(error: Exception) -> str:
    explanation = getattr(error, "explanation", None) or str(error)
    return str(explanation).strip().splitlines()[0][:160]
