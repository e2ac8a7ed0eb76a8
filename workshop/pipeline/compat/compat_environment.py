"""A PostgreSQL server and running releases, in containers that are removed after the trial."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import requests

from deploy.errors import DeployError, EngineError, GateRefused
from workshop.bench.local_service import API

SERVER = "postgres:17-trixie"
PORT, PROVIDER, DATABASE_PORT = 8000, 8090, 5432
_KEYS = ("SECRET_KEY", "PUBLIC_KEY", "BUSINESS_ID", "WEBHOOK_SECRET")
PATIENCE = 60.0
"""Seconds until a container must answer."""
# The guide shows the limit for reading. The other checks write more often than the limits allow.
_SETTINGS = dict.fromkeys(("LIMIT_WRITE", "LIMIT_SIGN_IN", "LIMIT_PAY_OUT"), "0")
_REACHED = (
    "SELECT relname, coalesce(seq_scan, 0) + coalesce(idx_scan, 0) + n_tup_ins"
    " FROM pg_stat_user_tables WHERE relname <> 'alembic_version'"
)


@dataclass(frozen=True)
class RunningRelease:
    """A running release; `url` reaches it from this machine."""

    container: str
    url: str
    provider: str = ""
    """The URL of the payment provider's sandbox, if it has one."""

    def status(self, path: str) -> int:
        """The status of GET; 0 without an answer."""
        try:
            return requests.get(f"{self.url}{API}{path}", timeout=10).status_code
        except requests.RequestException:
            return 0

    @property
    def ready(self) -> bool:
        """Whether its readiness endpoint answers 200."""
        return self.status("/readiness") == 200


def _published(port: int) -> dict[str, tuple[str, None]]:
    return {f"{port}/tcp": ("127.0.0.1", None)}


def _port(container: Any, port: int) -> str:
    return str(container.attrs["NetworkSettings"]["Ports"][f"{port}/tcp"][0]["HostPort"])


def _answers(url: str) -> bool:
    try:
        return bool(requests.get(url, timeout=10).status_code)
    except requests.RequestException:
        return False


class CompatEnvironment:
    """A network with a PostgreSQL server and releases; removed when the `with` block ends."""

    def __init__(self) -> None:
        self.name = f"amani-compat-{uuid.uuid4().hex[:8]}"
        self._containers: list[Any] = []
        self._password = secrets.token_hex(16)  # of this server only

    def __enter__(self) -> Self:
        import docker

        self._engine: Any = docker.from_env(timeout=300)
        try:
            self._network = self._engine.networks.create(self.name)
            self._server = self._begin(
                SERVER,
                ["postgres", "-c", "fsync=off"],
                name=f"{self.name}-server",
                ports=_published(DATABASE_PORT),
                environment={"POSTGRES_USER": "amani", "POSTGRES_PASSWORD": self._password},
            )
            # Over TCP: during the initialisation it listens on its socket only.
            ready = ["pg_isready", "--quiet", "--host=127.0.0.1", "--username=amani"]
            self._await(
                lambda: self._server.exec_run(ready)[0] == 0, "start of the server", self._server
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(lambda each: each.remove(force=True, v=True), self._containers))
        if hasattr(self, "_network"):
            self._network.remove()
        self._engine.close()

    @property
    def url(self) -> str:
        """The URL of the server from this machine, with the password."""
        self._server.reload()
        place = f"127.0.0.1:{_port(self._server, DATABASE_PORT)}"
        return f"postgresql://amani:{self._password}@{place}/postgres"

    # -- databases -------------------------------------------------------------------------------

    def create(self, database: str, template: str = "template1") -> None:
        """Create a database, or replace it, as a copy of one without connections."""
        self._sql("postgres", f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        self._sql("postgres", f"CREATE DATABASE {database} TEMPLATE {template}")

    def snapshot(self, database: str, name: str) -> None:
        """Copy a database that may have connections."""
        self.create(name)
        script = f"set -o pipefail; pg_dump -U amani {database} | psql -XqAt -U amani {name}"
        self._in_server(["bash", "-c", script])

    def revision(self, database: str) -> str:
        """The revision in its table `alembic_version`."""
        return self._sql(database, "SELECT version_num FROM alembic_version")

    def fingerprint(self, database: str) -> str:
        """A hash of the schema and of all rows of a database."""
        argv = ["pg_dump", "--username=amani", "--no-password", database]
        lines = self._in_server(argv).splitlines()
        # These lines contain a random key of the dump.
        kept = [line for line in lines if not line.startswith(("\\restrict", "\\unrestrict"))]
        return hashlib.sha256("\n".join(kept).encode()).hexdigest()

    def uses(self, database: str) -> dict[str, int]:
        """Reads and writes of each table; the counts are complete once all connections ended."""
        lines = self._sql(database, _REACHED).splitlines()
        return {name: int(count) for name, count in (line.split("|") for line in lines)}

    def _sql(self, database: str, statement: str) -> str:
        argv = ["psql", "-XqAt", "--username=amani", f"--dbname={database}", "-c", statement]
        return self._in_server(argv).strip()

    def _in_server(self, argv: list[str]) -> str:
        status, output = self._server.exec_run(argv)
        said = str(output.decode(errors="replace"))
        if status:
            raise DeployError(
                f"{argv[0]} on the trial's server failed with status {status}: {said}"
            )
        return said

    # -- releases --------------------------------------------------------------------------------

    def run(self, image: str, database: str, *command: str) -> str:
        """Run a command of a release; returns its output. Raises `DeployError` if it fails."""
        container = self._begin(image, list(command), **self._service(database))
        status = int(container.wait(timeout=300)["StatusCode"])
        said = str(container.logs().decode(errors="replace"))
        if status:
            tail = "\n".join(said.strip().splitlines()[-15:])
            raise DeployError(f"`{' '.join(command)}` failed with status {status}:\n{tail}")
        return said

    @contextlib.contextmanager
    def serve(self, image: str, database: str, *, paying: bool = False) -> Iterator[RunningRelease]:
        """Run a release on a database; it answers, ready or not. `paying` adds its own sandbox of
        the payment provider."""
        name, url = f"{self.name}-{database}-{len(self._containers)}", ""
        options = self._service(database)
        with contextlib.ExitStack() as stack:
            if paying:
                url = stack.enter_context(self._provider(image, name, options))
            container = stack.enter_context(
                self._running(image, None, name=name, ports=_published(PORT), **options)
            )
            service = RunningRelease(name, f"http://localhost:{_port(container, PORT)}", url)
            self._await(
                lambda: service.status("/ping") == 200, "first answer of the service", container
            )
            yield service

    @contextlib.contextmanager
    def work(self, image: str, service: RunningRelease) -> Iterator[None]:
        """Run a release's worker beside its service."""
        environment = self._engine.containers.get(service.container).attrs["Config"]["Env"]
        options = {**self._service(""), "environment": environment}
        with self._running(image, ["flask", "amani", "worker"], **options):
            yield

    @contextlib.contextmanager
    def _provider(self, image: str, service: str, options: dict[str, Any]) -> Iterator[str]:
        name = f"{service}-provider"
        options["environment"] |= {
            "FINCRA_URL": f"http://{name}:{PROVIDER}",
            **{f"FINCRA_{each}": secrets.token_hex(16) for each in _KEYS},
        }
        words = ["flask", "amani", "sandbox", f"--host={name}", f"--port={PROVIDER}"]
        words += [f"--webhook-url=http://{service}:{PORT}{API}/webhooks/fincra"]
        words += ["--switch=payouts=successful"]
        ports = _published(PROVIDER)
        # The sandbox keeps no data and, as the first process of its container, ignores SIGTERM.
        with self._running(image, words, grace=0, name=name, ports=ports, **options) as container:
            url = f"http://localhost:{_port(container, PROVIDER)}"
            self._await(lambda: _answers(url), "first answer of the provider's sandbox", container)
            yield url

    @contextlib.contextmanager
    def _running(
        self, image: str, command: list[str] | None, *, grace: int = 20, **options: Any
    ) -> Iterator[Any]:
        """Run a container; it gets SIGKILL after `grace` seconds if it does not stop."""
        container = self._begin(image, command, **options)
        try:
            container.reload()
            yield container
        finally:
            container.stop(timeout=grace)

    def await_readiness(self, service: RunningRelease, what: str) -> None:
        """Wait until a service is ready. Raises `GateRefused` with its log if it never is."""
        container = self._engine.containers.get(service.container)
        try:
            self._await(lambda: service.ready, what, container)
        except DeployError as error:
            raise GateRefused(error.message) from None

    def _service(self, database: str) -> dict[str, Any]:
        url = f"postgresql://amani:{self._password}@{self.name}-server:{DATABASE_PORT}/{database}"
        return {
            "environment": {"DATABASE_URL": url, **_SETTINGS},
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "tmpfs": {"/tmp": "mode=1777", "/data": "mode=1777"},  # nosec B108
        }

    def _begin(self, image: str, command: list[str] | None, **options: Any) -> Any:
        import docker.errors

        options.setdefault("name", f"{self.name}-{len(self._containers)}")
        try:
            container = self._engine.containers.create(
                image, command, network=self.name, labels={"amani.compat": self.name}, **options
            )
            self._containers.append(container)
            container.start()
        except docker.errors.DockerException as error:
            raise EngineError(f"this machine's engine: {error}") from None
        return container

    def _await(self, condition: Any, what: str, container: Any) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            container.reload()
            ended = container.status == "exited"
            if ended or time.monotonic() > deadline:
                said = container.logs(tail=15).decode(errors="replace").strip()
                why = "its container ended" if ended else f"not within {PATIENCE:g} s"
                raise DeployError(f"{what}: {why}. The end of its log:\n{said}")
            time.sleep(0.1)
