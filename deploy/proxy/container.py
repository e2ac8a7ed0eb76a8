"""The proxy's container on a host, and how it is brought to what its settings say.

What costs what:
- another live slot, weights, maintenance: the runtime API; nothing is reloaded (`runtime.py`);
- timeouts, health check, public paths, the certificate: a reload. Seamless: the listening
  sockets are handed over, old workers end with their last connection;
- image, published ports, network, folders: a new container. *Not* seamless: connections are
  refused from the old one's end to the new one's start, usually below a second, and requests
  under way are cut.
Whichever it is, HAProxy has accepted the new configuration (`haproxy -c`, in the image that will
load it) before anything that serves is touched.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from deploy.errors import DeployError, EngineError, UsageError
from deploy.hosts.engine import ContainerSpec, Mount
from deploy.hosts.host import Host
from deploy.proxy import runtime
from deploy.proxy.configuration import HTTP, HTTPS, digest, read_live, render, with_live
from deploy.proxy.settings import (
    CERTIFICATES,
    CONFIGURATION,
    FOLDER,
    MAINTENANCE,
    ProxySettings,
    settings_of,
)
from deploy.state.containers import CONFIG, ROLE
from deploy.state.facts import ProxyFacts, Slot

if TYPE_CHECKING:
    from deploy.environment.model import Environment

SPECIFICATION = "amani.specification"

_CANDIDATE = "candidate.cfg"
_CHECK_TIMEOUT = 20.0
_START_TIMEOUT = 30.0


@dataclass(frozen=True)
class Change:
    """What `ensure` did, and what it takes to undo it."""

    kind: Literal["none", "created", "started", "reloaded", "recreated"]
    configuration: bytes | None = None
    """The file as it was."""
    specification: str | None = None
    """The container as it was, as its label has it."""


def specification(settings: ProxySettings) -> ContainerSpec:
    """The proxy's container. Its label `amani.config` is a hash of all but the configuration."""
    ports = {HTTP: (settings.bind, settings.http_port)}
    mounts = [Mount(settings.folder, FOLDER)]
    if settings.tls:
        ports[HTTPS] = (settings.bind, settings.https_port or 443)
        mounts.append(Mount(str(PurePosixPath(settings.certificate or "").parent), CERTIFICATES))
    spec = ContainerSpec(
        name=settings.name,
        image=settings.image,
        entrypoint=("haproxy", "-W", "-db", "-S", "/run/master.sock", "-f"),
        command=(f"{FOLDER}/{CONFIGURATION}",),
        mounts=tuple(mounts),
        tmpfs={"/run": "rw,nosuid,nodev,noexec,size=1m,mode=0700"},
        network=settings.network,
        address=settings.proxy_address,
        ports=ports,
        # The master stays root, so that only an exec reaches its sockets, and gives up everything
        # but: reading files that belong to the deploy user, and turning workers into `haproxy`.
        user="0:0",
        capabilities=("DAC_OVERRIDE", "SETGID", "SETUID"),
        pids=512,
        stop_timeout=settings.stop_timeout,
        healthcheck=False,
    )
    text = json.dumps(dataclasses.asdict(spec), sort_keys=True)
    labels = {
        **settings.labels,
        ROLE: "proxy",
        CONFIG: hashlib.sha256(text.encode()).hexdigest()[:16],
        SPECIFICATION: text,
    }
    return dataclasses.replace(spec, labels=labels)


def wanted(settings: ProxySettings) -> str:
    """What `ProxyFacts.config` is where the container and its loaded configuration are right."""
    return f"{specification(settings).labels[CONFIG]}.{digest(settings)}"


def facts(host: Host, environment: Environment) -> tuple[ProxyFacts, bool]:
    """The proxy of a host as it is, and whether it runs with the wanted configuration.

    Of one that does not run, or not answer, only what its file says is known.
    """
    settings = settings_of(environment)
    found = host.engine.inspect(settings.name)
    seen = _read(host, settings) if found is not None and found["State"]["Running"] else None
    if found is None or seen is None:
        text = (host.read_file(settings.path(CONFIGURATION)) or b"").decode(errors="replace")
        recorded = read_live(text)
        return ProxyFacts(running=False, present=found is not None, recorded=recorded), False
    config = f"{_labels(found).get(CONFIG, '')}.{seen.config}"
    return dataclasses.replace(seen, config=config), config == wanted(settings)


def _read(host: Host, settings: ProxySettings) -> ProxyFacts | None:
    """What HAProxy does; None where it does not answer, as while the engine restarts it."""
    try:
        return runtime.read(host.engine, settings.name)
    except (runtime.ProxyError, EngineError):
        return None


def ensure(
    host: Host,
    environment: Environment,
    live: Slot | None,
    *,
    note: Callable[[Change], None] = lambda change: None,
) -> Change:
    """Bring the proxy to its settings; `live` is the slot that it comes up with where it starts.

    Idempotent. Raises `UsageError` with HAProxy's words where it does not accept the configuration,
    `EngineError` where the engine refuses, such as for a port in use; what it had changed until
    then is taken back. `note` is told of the change before it is begun, and of none once it has
    been taken back: where that failed as well, the caller knows what there is to undo.
    """
    settings = settings_of(environment)
    engine = host.engine
    found = engine.inspect(settings.name)
    running = found is not None and bool(found["State"]["Running"])
    same = _labels(found).get(CONFIG) == specification(settings).labels[CONFIG]
    before = host.read_file(settings.path(CONFIGURATION))
    text = render(settings, live).encode()
    if running and same and before == text and facts(host, environment)[1]:
        return Change("none")
    engine.ensure_network(settings.network, settings.subnet, settings.labels)
    if host.read_file(settings.path(MAINTENANCE)) is None:
        host.write_file(settings.path(MAINTENANCE), b"")
    _check(host, settings, text, in_place=running and same)
    change = _change(found is not None, running, same, before, _labels(found))
    note(change)
    try:
        host.write_file(settings.path(CONFIGURATION), text)
        _apply(host, settings, change)
    except DeployError:
        with contextlib.suppress(DeployError):  # what went wrong first tells more
            revert(host, environment, change)
            note(Change("none"))
        raise
    return change


def _change(
    present: bool, running: bool, same: bool, before: bytes | None, labels: Mapping[str, str]
) -> Change:
    if not present:
        return Change("created", before)
    if not same:
        return Change("recreated", before, labels.get(SPECIFICATION))
    return Change("reloaded" if running else "started", before)


def _apply(host: Host, settings: ProxySettings, change: Change) -> None:
    if change.kind == "reloaded":
        runtime.reload(host.engine, settings.name)
        return
    if change.kind == "recreated":
        host.engine.remove(settings.name)
    if change.kind in ("created", "recreated"):
        host.engine.create(specification(settings))
    _start(host, settings.name)


def revert(host: Host, environment: Environment, change: Change) -> None:
    """Undo what `ensure` did. A proxy that it started goes on: nothing is won by an outage."""
    settings, engine = settings_of(environment), host.engine
    if change.kind == "created":
        engine.remove(settings.name)
        if change.configuration is None:
            host.run(["rm", "-f", settings.path(CONFIGURATION)])
    if change.configuration is not None:
        host.write_file(settings.path(CONFIGURATION), change.configuration)
    if change.kind == "reloaded":
        runtime.reload(engine, settings.name)
    if change.kind == "recreated" and change.specification is not None:
        engine.remove(settings.name)
        engine.create(_from_label(settings, change.specification))
        _start(host, settings.name)


def remove(host: Host, environment: Environment) -> None:
    """Remove container and files; connections are cut."""
    settings = settings_of(environment)
    host.engine.remove(settings.name)
    host.run(["rm", "-rf", settings.folder])


def shift(host: Host, environment: Environment, to: Slot, old: Slot | None = None) -> None:
    """Send all new requests to a slot: in the running proxy first, then in its file.

    `old` is where they went before; whatever it says, the other slot gets none afterwards.
    """
    runtime.shift(host.engine, settings_of(environment).name, to)
    record_live(host, environment, to)


def close(host: Host, environment: Environment) -> None:
    """Let no slot serve: 503 for everyone, as before the first deploy."""
    record_live(host, environment, None)
    runtime.close(host.engine, settings_of(environment).name)


def is_ready(host: Host, environment: Environment, slot: Slot) -> bool:
    """Whether a slot could take the traffic at once: up in the proxy's eyes, and answering now."""
    settings = settings_of(environment)
    address = settings.slot_address(slot)
    return runtime.is_ready(host.engine, settings.name, slot, address, settings.health)


def record_live(host: Host, environment: Environment, live: Slot | None) -> None:
    """Write the slot that a restart of the proxy comes back with; what it does now stays.

    Only the slot changes: the rest of the file stays what the proxy has loaded.
    """
    settings = settings_of(environment)
    before = (host.read_file(settings.path(CONFIGURATION)) or b"").decode()
    host.write_file(settings.path(CONFIGURATION), with_live(before, live).encode())


def set_maintenance(host: Host, environment: Environment, on: bool) -> None:
    """Answer 503 to everyone, or no longer: at once, and after a restart of the proxy too."""
    settings = settings_of(environment)
    host.write_file(settings.path(MAINTENANCE), b"on\n" if on else b"")
    runtime.switch_maintenance(host.engine, settings.name, on)


def _check(host: Host, settings: ProxySettings, text: bytes, *, in_place: bool) -> None:
    host.write_file(settings.path(_CANDIDATE), text)
    argv = ("haproxy", "-c", "-f", f"{FOLDER}/{_CANDIDATE}")
    try:
        if in_place:
            result = host.engine.run_in(settings.name, argv, timeout=_CHECK_TIMEOUT)
            status, words = result.status, result.output
        else:
            status, words = _run_once(host, settings, argv)
    finally:
        host.run(["rm", "-f", settings.path(_CANDIDATE)])
    if status != 0:
        raise UsageError(
            f"{host.name}: HAProxy does not accept the proxy's configuration:\n{words.strip()}",
            hint="nothing was changed; the environment's `proxy` and `health` are what it is"
            " made from",
            host=host.name,
        )


def _run_once(host: Host, settings: ProxySettings, argv: tuple[str, ...]) -> tuple[int, str]:
    spec = specification(settings)
    once = dataclasses.replace(
        spec,
        name=f"{settings.name}-check",
        entrypoint=argv[:1],
        command=argv[1:],
        address="",
        ports={},
        restart="no",
        labels={**settings.labels, ROLE: "one-off"},
    )
    engine = host.engine
    engine.remove(once.name)
    engine.create(once)
    try:
        engine.start(once.name)
        return engine.wait(once.name, _CHECK_TIMEOUT), engine.logs(once.name)
    finally:
        engine.remove(once.name)


def _start(host: Host, name: str) -> None:
    """Start the container and wait until HAProxy answers."""
    host.engine.start(name)
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        try:
            runtime.read_servers(host.engine, name)
            return
        except (runtime.ProxyError, EngineError) as error:
            if time.monotonic() > deadline:
                words = host.engine.logs(name, tail=20)
                raise EngineError(
                    f"{host.name}: {name} does not come up: {error.message}\n{words}",
                    host=host.name,
                ) from error
            time.sleep(0.05)


def _labels(found: Mapping[str, Any] | None) -> Mapping[str, str]:
    return (found["Config"]["Labels"] if found else None) or {}


def _from_label(settings: ProxySettings, text: str) -> ContainerSpec:
    values = json.loads(text)
    for name in ("command", "entrypoint", "capabilities"):
        values[name] = None if values[name] is None else tuple(values[name])
    values["mounts"] = tuple(Mount(**mount) for mount in values["mounts"])
    values["ports"] = {int(port): tuple(where) for port, where in values["ports"].items()}
    config = hashlib.sha256(text.encode()).hexdigest()[:16]
    values["labels"] = {**settings.labels, ROLE: "proxy", CONFIG: config, SPECIFICATION: text}
    return ContainerSpec(**values)
