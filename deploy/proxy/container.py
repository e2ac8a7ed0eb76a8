"""The proxy's container on a host, and how a change of its settings is applied.

The cost of a change:
- live slot, weights, maintenance: the runtime API, without a reload (`runtime.py`);
- timeouts, health check, public paths, the certificate: a reload. Seamless: the new worker takes
  over the listening sockets, and an old worker ends with its last connection;
- image, published ports, network, folders: a new container. *Not* seamless: connections are
  refused between the end of the old container and the start of the new one, usually below a
  second, and running requests are cut.
In each case HAProxy accepts the new configuration (`haproxy -c`, in the image that will load it)
before anything that serves is changed.
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
from deploy.proxy.configuration import (
    HTTP,
    HTTPS,
    hash_configuration,
    read_weights,
    render,
    with_weights,
)
from deploy.proxy.settings import (
    CERTIFICATES,
    CONFIGURATION,
    FOLDER,
    MAINTENANCE,
    ProxySettings,
    container_name,
    read_settings,
)
from deploy.state.containers import CONFIG, ROLE
from deploy.state.facts import ProxyFacts, Slot, full_share

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.state.facts import Weights

SPECIFICATION = "amani.specification"

_CANDIDATE = "candidate.cfg"
_CHECK_TIMEOUT = 20.0
_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 5


@dataclass(frozen=True)
class ProxyChange:
    """The change that `ensure` made, with the values that `revert` needs."""

    kind: Literal["none", "created", "started", "reloaded", "recreated"]
    configuration: bytes | None = None
    """The previous configuration file."""
    specification: str | None = None
    """The previous container's specification, from its label."""


def make_specification(settings: ProxySettings) -> ContainerSpec:
    """The proxy's container. Its label `amani.config` is a hash without the configuration."""
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
        address=settings.address,
        ports=ports,
        # The master runs as root, so that only an exec reaches its sockets. Its capabilities are
        # those to read the deploy user's files and to change the workers' user to `haproxy`.
        user="0:0",
        capabilities=("DAC_OVERRIDE", "SETGID", "SETUID"),
        pids=512,
        stop_timeout=_STOP_TIMEOUT,
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


def make_config(settings: ProxySettings) -> str:
    """The value of `ProxyFacts.config` if container and loaded configuration are as wanted."""
    return f"{make_specification(settings).labels[CONFIG]}.{hash_configuration(settings)}"


def read_facts(host: Host, environment: Environment) -> tuple[ProxyFacts, bool]:
    """The facts of a host's proxy, and whether it runs with the wanted configuration.

    If it does not run or does not answer, only its file is known.
    """
    settings = read_settings(environment)
    found = host.engine.inspect(settings.name)
    seen = _read(host, settings) if found is not None and found["State"]["Running"] else None
    if found is None or seen is None:
        text = (host.read_file(settings.path(CONFIGURATION)) or b"").decode(errors="replace")
        weights = read_weights(text)
        return ProxyFacts(False, present=found is not None, recorded_weights=weights), False
    config = f"{_labels(found).get(CONFIG, '')}.{seen.config}"
    return dataclasses.replace(seen, config=config), config == make_config(settings)


def _read(host: Host, settings: ProxySettings) -> ProxyFacts | None:
    """The facts that HAProxy reports; None if it does not answer, as during its restart."""
    try:
        return runtime.read(host.engine, settings.name)
    except (runtime.ProxyError, EngineError):
        return None


def ensure(
    host: Host,
    environment: Environment,
    live: Slot | None,
    *,
    note: Callable[[ProxyChange], None] = lambda change: None,
) -> ProxyChange:
    """Apply the proxy's settings; `live` is the slot that gets the traffic once it has started.

    Idempotent. Raises `UsageError` with HAProxy's output if it rejects the configuration, and
    `EngineError` if the engine refuses, as for a port in use; the change is then reverted. `note`
    is called with the change before it begins, and with the change `none` after a revert that
    succeeded, so that the caller always knows what is left to revert.
    """
    settings = read_settings(environment)
    engine = host.engine
    found = engine.inspect(settings.name)
    running = found is not None and bool(found["State"]["Running"])
    same = _labels(found).get(CONFIG) == make_specification(settings).labels[CONFIG]
    before = host.read_file(settings.path(CONFIGURATION))
    text = render(settings, full_share(live)).encode()
    if running and same and before == text and read_facts(host, environment)[1]:
        return ProxyChange("none")
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
        with contextlib.suppress(DeployError):  # the first error is the cause
            revert(host, environment, change)
            note(ProxyChange("none"))
        raise
    return change


def _change(
    present: bool, running: bool, same: bool, before: bytes | None, labels: Mapping[str, str]
) -> ProxyChange:
    if not present:
        return ProxyChange("created", before)
    if not same:
        return ProxyChange("recreated", before, labels.get(SPECIFICATION))
    return ProxyChange("reloaded" if running else "started", before)


def _apply(host: Host, settings: ProxySettings, change: ProxyChange) -> None:
    if change.kind == "reloaded":
        runtime.reload(host.engine, settings.name)
        return
    if change.kind == "recreated":
        host.engine.remove(settings.name)
    if change.kind in ("created", "recreated"):
        host.engine.create(make_specification(settings))
    _start(host, settings.name)


def revert(host: Host, environment: Environment, change: ProxyChange) -> None:
    """Revert a change of `ensure`. A proxy that it started keeps running."""
    settings, engine = read_settings(environment), host.engine
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
    """Remove the proxy's container and files; open connections are cut."""
    settings = read_settings(environment)
    host.engine.remove(settings.name)
    host.run(["rm", "-rf", settings.folder])


def is_running(host: Host, environment: Environment) -> bool:
    """Whether the engine runs the proxy's container; HAProxy itself is not asked."""
    found = host.engine.inspect(container_name(environment))
    return found is not None and bool(found["State"]["Running"])


def shift(host: Host, environment: Environment, to: Slot) -> None:
    """Send all new requests to a slot, first in the running proxy and then in its file."""
    runtime.shift(host.engine, read_settings(environment).name, to)
    record_weights(host, environment, full_share(to))


def close(host: Host, environment: Environment) -> None:
    """Take both slots out of service: every request gets 503, as before the first deploy."""
    record_weights(host, environment, {})
    runtime.close(host.engine, read_settings(environment).name)


def is_ready(host: Host, environment: Environment, slot: Slot) -> bool:
    """Whether a slot can take the traffic now: the proxy finds it up, and it answers the health
    check once more."""
    return runtime.is_ready(host.engine, read_settings(environment), slot)


def record_weights(host: Host, environment: Environment, weights: Weights) -> None:
    """Write the weights with which the proxy restarts. The running proxy does not change.

    The rest of the file stays equal to the configuration that the proxy has loaded.
    """
    settings = read_settings(environment)
    before = (host.read_file(settings.path(CONFIGURATION)) or b"").decode()
    host.write_file(settings.path(CONFIGURATION), with_weights(before, weights).encode())


def set_maintenance(host: Host, environment: Environment, on: bool) -> None:
    """Start or end maintenance: at once, and in the file for a restart of the proxy."""
    settings = read_settings(environment)
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
            hint="the proxy was not changed; its configuration is rendered from `proxy` and "
            "`health` in the environment file",
            host=host.name,
        )


def _run_once(host: Host, settings: ProxySettings, argv: tuple[str, ...]) -> tuple[int, str]:
    spec = make_specification(settings)
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
    """Start the container and wait until HAProxy answers. Raises `EngineError` if it does not."""
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
                    f"{host.name}: {name} did not start: {error.message}\n{words}",
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
