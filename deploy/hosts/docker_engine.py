"""The Docker Engine of a host: docker-py's low-level client over the host's own transport."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

from deploy.errors import EngineError, HostUnreachable
from deploy.hosts.engine import ContainerSpec, ExecResult, Progress

if TYPE_CHECKING:
    from deploy.hosts.engine_http import Client, Dial, Dialogue, Stream

T = TypeVar("T")

PATIENCE = 60
"""Seconds for an ordinary call."""

PULL_PATIENCE = 180
"""Seconds between two progress messages of a pull."""

_LOG = {"max-size": "10m", "max-file": "3"}


class DockerEngine:
    """An `Engine` over connections that `dial` opens. The first call negotiates the API version.

    `why_lost` returns the reason why the transport is lost, or None while it is open.
    """

    def __init__(
        self, host: str, dial: Dial, why_lost: Callable[[], str | None] = lambda: None
    ) -> None:
        self._host = host
        self._dial = dial
        self._why_lost = why_lost
        self._connecting, self._networking = threading.Lock(), threading.Lock()
        self._opened: Client | None = None
        self._dialogues: dict[tuple[str, ...], Dialogue] = {}

    # -- connections and errors ------------------------------------------------------------------

    @property
    def _client(self) -> Client:
        with self._connecting:
            if self._opened is None:
                # Imported here: the import takes 0.1 s, which overlaps with the transport's
                # handshake.
                from deploy.hosts.engine_http import Client

                with self._errors():
                    self._opened = Client(self._dial, streaming=False, timeout=PATIENCE)
            return self._opened

    @cached_property
    def _streams(self) -> Client:
        """The client for responses that stay open for long."""
        client = self._client
        version = client.api_version
        return type(client)(self._dial, version=version, streaming=True, timeout=PULL_PATIENCE)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        import docker.errors
        import requests.exceptions

        from deploy.hosts.engine_http import RefusedHijack, is_timeout

        try:
            yield
        except docker.errors.APIError as error:
            words = error.explanation or str(error)
            raise self._refused(_text(words), int(error.status_code or 0)) from error
        except RefusedHijack as error:
            raise self._refused(str(error), error.status) from error
        except (docker.errors.DockerException, ValueError) as error:
            # If the transport is lost, an incomplete response is not an error of the engine.
            if (why := self._why_lost()) is not None:
                raise self._silent(why) from error
            raise self._refused(str(error)) from error
        except (requests.exceptions.RequestException, OSError, EOFError) as error:
            words = "no answer in time" if is_timeout(error) else str(error)
            why = self._why_lost() or f"its Docker Engine stopped answering: {words}"
            raise self._silent(why) from error

    def _silent(self, why: str) -> HostUnreachable:
        return HostUnreachable(
            f"{self._host}: {why}",
            hint="Run the command again when the host answers.",
            host=self._host,
        )

    def _refused(self, words: str, status: int = 0) -> EngineError:
        return EngineError(f"{self._host}: {words}", host=self._host, status=status)

    def _call(self, ask: Callable[[Client], T]) -> T:
        client = self._client
        with self._errors():
            return ask(client)

    def _unless(self, status: int, ask: Callable[[Client], T]) -> T | None:
        """The result of the call, or None if the engine answers with `status`."""
        try:
            return self._call(ask)
        except EngineError as error:
            if error.status == status:
                return None
            raise

    def close(self) -> None:
        """Close the connections. The transport stays open."""
        while self._dialogues:
            self._dialogues.popitem()[1].close()
        for client in (self._opened, self.__dict__.get("_streams")):
            if client is not None:
                client.close()

    # -- the engine ------------------------------------------------------------------------------

    def version(self) -> Mapping[str, Any]:
        """As `Engine.version`, from the first call."""
        return self._client.about

    def info(self) -> Mapping[str, Any]:
        return self._call(lambda client: client.info())

    # -- containers ------------------------------------------------------------------------------

    def containers(self, labels: Mapping[str, str]) -> Sequence[Mapping[str, Any]]:
        wanted = {"label": [f"{key}={value}" for key, value in labels.items()]}
        return self._call(lambda client: client.containers(all=True, filters=wanted))

    def inspect(self, container: str) -> Mapping[str, Any] | None:
        return self._unless(404, lambda client: client.inspect_container(container))

    def create(self, spec: ContainerSpec) -> str:
        return self._call(lambda client: str(_create(client, spec)["Id"]))

    def start(self, container: str) -> None:
        self._call(lambda client: client.start(container))

    def stop(self, container: str, timeout: int) -> None:
        self._unless(404, lambda client: client.stop(container, timeout=timeout))

    def kill(self, container: str, signal: str) -> None:
        self._call(lambda client: client.kill(container, signal))

    def remove(self, container: str) -> None:
        try:
            self._unless(404, lambda client: client.remove_container(container, v=True, force=True))
        except EngineError as error:
            if error.status != 409 or "already in progress" not in error.message:
                raise
            self._unless(404, lambda client: client.wait(container, PATIENCE, "removed"))

    def wait(self, container: str, timeout: float) -> int:
        from requests.exceptions import RequestException

        from deploy.hosts.engine_http import is_timeout

        client = self._streams
        with self._errors():
            try:
                return int(client.wait(container, math.ceil(timeout))["StatusCode"])
            except RequestException as error:
                if not is_timeout(error):
                    raise
        raise self._refused(f"container {container} has not ended within {timeout:g} s")

    def logs(self, container: str, tail: int = 50) -> str:
        printed = self._call(lambda client: client.logs(container, tail=tail))
        return bytes(printed).decode(errors="replace")

    def follow_logs(self, container: str, tail: int = 50) -> Iterator[bytes]:
        """As `Engine.follow_logs`. Lines have no line end."""
        from deploy.hosts.engine_http import read_frames

        client = self._streams
        with self._errors():
            wanted = {"follow": 1, "stdout": 1, "stderr": 1, "tail": tail}
            response = client.open_stream(f"/containers/{container}/logs", wanted)
            with contextlib.closing(response):
                yield from _lines(read_frames(response.raw.read))

    def run_in(
        self,
        container: str,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        timeout: float = 30.0,
    ) -> ExecResult:
        """As `Engine.run_in`. After `timeout` seconds it raises `EngineError`, but the process
        continues: the engine cannot end it."""

        def ask(client: Client) -> ExecResult:
            made = client.exec_create(container, list(argv), stdin=stdin is not None)["Id"]
            body = {"Detach": False, "Tty": False}
            try:
                output = client.hijack(f"/exec/{made}/start", body, stdin or b"", timeout)
            except TimeoutError as error:
                words = f"{argv[0]} in {container} has not ended within {timeout:g} s"
                raise self._refused(words) from error
            status = client.exec_inspect(made)["ExitCode"]
            if status is None:
                raise self._refused(
                    f"{argv[0]} in {container}: its output ended before the process did"
                )
            return ExecResult(int(status), output.decode(errors="replace"))

        return self._call(ask)

    def ask(
        self, container: str, argv: Sequence[str], question: bytes, *, end: bytes, timeout: float
    ) -> str:
        key = (container, *argv)
        known = self._dialogues.get(key)
        if known is not None:
            with contextlib.suppress(EOFError, OSError):
                return self._answer(key, known, question, end, timeout)
        begun = self._dialogues[key] = self._call(lambda client: _enter(client, container, argv))
        try:
            return self._answer(key, begun, question, end, timeout)
        except (EOFError, OSError) as error:
            self._call(lambda client: client.ping())  # or is it the host that is gone?
            words = str(error).strip() or "it ended without an answer"
            raise self._refused(f"{argv[0]} in {container}: {words}") from error

    def _answer(
        self, key: tuple[str, ...], dialogue: Dialogue, question: bytes, end: bytes, timeout: float
    ) -> str:
        try:
            return dialogue.ask(question, end, timeout).decode(errors="replace")
        except (EOFError, OSError) as error:
            self._dialogues.pop(key, None)
            dialogue.close()
            if isinstance(error, TimeoutError):
                self._call(lambda client: client.ping())
                words = f"{key[1]} in {key[0]} has not answered within {timeout:g} s"
                raise self._refused(words) from error
            raise

    def copy_into(self, container: str, folder: str, archive: bytes) -> None:
        """As `Engine.copy_into`. With a read-only root file system, the engine refuses unless
        `folder` is in a volume."""
        self._call(lambda client: client.put_archive(container, folder, archive))

    # -- images ----------------------------------------------------------------------------------

    def images(self) -> Sequence[Mapping[str, Any]]:
        return self._call(lambda client: client.images())

    def image(self, reference: str) -> Mapping[str, Any] | None:
        # docker-py's types lack this method.
        return self._unless(404, lambda client: cast(Any, client).inspect_image(reference))

    def pull(
        self,
        repository: str,
        digest: str,
        *,
        credentials: tuple[str, str] | None = None,
        progress: Progress | None = None,
        timeout: float = 600.0,
    ) -> None:
        """As `Engine.pull`. Default credentials: those of this machine's `docker login`."""
        login = {"username": credentials[0], "password": credentials[1]} if credentials else None
        layers: dict[str, tuple[int, int]] = {}
        error = ""
        late = f"cannot pull {repository} {digest}: not complete within {timeout:g} s"
        with self._cut_after(timeout, late) as client, self._errors():
            for item in client.pull(
                repository, digest, stream=True, auth_config=login, decode=True
            ):
                error = item.get("error", error)
                if progress is not None and _note_layer(layers, item):
                    done, known = (sum(column) for column in zip(*layers.values(), strict=True))
                    progress(done, known)
        if error:
            raise self._refused(f"cannot pull {repository} {digest}: {error}")

    @contextlib.contextmanager
    def _cut_after(self, seconds: float, message: str) -> Iterator[Client]:
        """A client whose connections are closed after `seconds`.

        Raises `EngineError` with `message` in that case.
        """
        streams: list[Stream] = []
        expired = threading.Event()

        def dial(timeout: float) -> Stream:
            streams.append(self._dial(timeout))
            return streams[-1]

        def expire() -> None:
            expired.set()
            for stream in streams:
                with contextlib.suppress(OSError):
                    stream.shutdown(socket.SHUT_RDWR)  # `close` alone wakes no reader of a socket
                stream.close()

        known = self._client
        version = known.api_version
        client = type(known)(dial, version=version, streaming=True, timeout=PULL_PATIENCE)
        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            yield client
        except Exception as error:
            if expired.is_set():
                raise self._late(message) from error
            raise
        finally:
            timer.cancel()
            client.close()
        if expired.is_set():
            raise self._late(message)

    def _late(self, message: str) -> EngineError:
        return EngineError(
            f"{self._host}: {message}",
            hint="check the host's connection to the registry, or raise `timeouts.pull`",
            host=self._host,
        )

    def remove_image(self, reference: str) -> bool:
        try:
            self._unless(404, lambda client: client.remove_image(reference))
        except EngineError as error:
            if error.status == 409 and "container" in error.message:
                return False
            if error.status == 409 and "multiple repositories" in error.message:
                # The engine does not remove an image by its ID while it has several names.
                return all(map(self.remove_image, self._names(reference)))
            raise
        return True

    def _names(self, image: str) -> Sequence[str]:
        found = self.image(image) or {}
        return [*(found.get("RepoTags") or ()), *(found.get("RepoDigests") or ())]

    # -- networks and volumes --------------------------------------------------------------------

    def ensure_network(self, name: str, subnet: str, labels: Mapping[str, str]) -> None:
        # The engine reserves the subnet before it lists the network: of two concurrent calls that
        # create it, one fails because of a network that does not exist yet.
        with self._networking:
            found = self._unless(404, lambda client: client.inspect_network(name))
            if found is None:
                self._call(lambda client: _create_network(client, name, subnet, labels))
                return
        subnets = [str(pool.get("Subnet")) for pool in found["IPAM"]["Config"] or []]
        if subnet not in subnets:
            words = f"network {name} has the subnet {', '.join(subnets) or 'none'}, not {subnet}"
            raise self._refused(words)

    def remove_network(self, name: str) -> None:
        self._unless(404, lambda client: client.remove_network(name))

    def volume(self, name: str) -> Mapping[str, Any] | None:
        return self._unless(404, lambda client: client.inspect_volume(name))

    def remove_volume(self, name: str) -> None:
        self._unless(404, lambda client: client.remove_volume(name))


def _enter(client: Client, container: str, argv: Sequence[str]) -> Dialogue:
    made = client.exec_create(container, list(argv), stdin=True)["Id"]
    return client.open_dialogue(f"/exec/{made}/start", {"Detach": False, "Tty": False}, PATIENCE)


def _create(client: Any, spec: ContainerSpec) -> Any:
    from docker.types import LogConfig, Mount

    host = client.create_host_config(
        network_mode=spec.network or None,
        port_bindings={**spec.ports},
        mounts=[
            Mount(mount.target, mount.source, type=mount.kind, read_only=mount.read_only)
            for mount in spec.mounts
        ],
        tmpfs=dict(spec.tmpfs),
        read_only=spec.read_only,
        cap_drop=["ALL"] if spec.drop_capabilities else None,
        cap_add=list(spec.capabilities),
        security_opt=["no-new-privileges:true"] if spec.no_new_privileges else None,
        # No swap in addition to the memory: it would double the limit.
        mem_limit=spec.memory or None,
        memswap_limit=spec.memory or None,
        nano_cpus=round(spec.cpus * 1e9) or None,
        pids_limit=spec.pids or None,
        restart_policy={"Name": spec.restart},
        log_config=LogConfig(type=LogConfig.types.JSON, config=_LOG),
        init=False,
    )
    endpoint = client.create_endpoint_config(ipv4_address=spec.address) if spec.address else None
    return client.create_container(
        spec.image,
        command=list(spec.command) if spec.command is not None else None,
        entrypoint=list(spec.entrypoint) if spec.entrypoint is not None else None,
        environment=dict(spec.environment),
        labels=dict(spec.labels),
        ports=list(spec.ports),
        user=spec.user or None,
        name=spec.name,
        host_config=host,
        networking_config=(
            client.create_networking_config({spec.network: endpoint}) if endpoint else None
        ),
        healthcheck=None if spec.healthcheck else {"test": ["NONE"]},
        stop_timeout=spec.stop_timeout,
    )


def _create_network(client: Client, name: str, subnet: str, labels: Mapping[str, str]) -> object:
    from docker.types import IPAMConfig, IPAMPool

    ipam = IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)])
    return client.create_network(
        name, driver="bridge", ipam=ipam, labels=dict(labels), check_duplicate=True
    )


def _note_layer(layers: dict[str, tuple[int, int]], news: Mapping[str, Any]) -> bool:
    """Update `layers` with one line of a pull's output. Returns whether it reports progress."""
    layer, status = news.get("id", ""), news.get("status", "")
    if status == "Downloading":
        detail = news.get("progressDetail") or {}
        done = int(detail.get("current", 0))
        layers[layer] = (done, max(done, int(detail.get("total", 0))))
    elif status in ("Download complete", "Pull complete") and layer in layers:
        layers[layer] = (layers[layer][1],) * 2
    else:
        return False
    return True


def _lines(pieces: Iterator[tuple[int, bytes]]) -> Iterator[bytes]:
    """The complete lines of each stream, and at the end the incomplete ones."""
    unfinished: dict[int, bytes] = {}
    for number, piece in pieces:
        *whole, unfinished[number] = (unfinished.get(number, b"") + piece).split(b"\n")
        yield from whole
    yield from filter(None, unfinished.values())


def _text(words: str | bytes) -> str:
    return words.decode(errors="replace") if isinstance(words, bytes) else words
