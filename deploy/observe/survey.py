"""The survey: gathers the facts of all hosts at once. I/O without decisions."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from deploy import proxy, secrets
from deploy.database.revisions import read_label
from deploy.errors import DeployError, HostUnreachable
from deploy.observe import probe
from deploy.state import containers, journal
from deploy.state.facts import SLOTS, ContainerFacts, Facts, HostFacts, ImageFacts, Slot

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.hosts.host import Host
    from deploy.secrets import Secrets

T = TypeVar("T")

_POSTGRESQL = 5432

# All questions to a host's own tools in one round trip, as sections between markers.
_SECTIONS = ("clock", "disk", "ports", "journal")
_SCRIPT = """
cd / || exit 1
echo '--- clock'; date +%s.%N
echo '--- disk'; df -Pk /var/lib/docker 2>/dev/null || df -Pk /
echo '--- ports'; cat /proc/net/tcp /proc/net/tcp6 2>/dev/null
echo '--- journal'; tail -n 400 "$1" 2>/dev/null
exit 0
"""
_LISTENING = re.compile(r"^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F]+:0000 0A ", re.MULTILINE)
_EXITED = re.compile(r"^(?:Exited|Dead|Restarting) \((\d+)\)")
_HEALTH = re.compile(r"\((healthy|unhealthy|health: starting)\)")


def gather(environment: Environment, hosts: Mapping[str, Host], wanted: Secrets | None) -> Facts:
    """The facts of every host; an unreachable host is listed with its reason.

    Without `wanted` secrets, the generations on the hosts are not part of the facts.
    """
    found: dict[str, HostFacts] = {}
    unreachable: dict[str, str] = {}

    def ask(host: Host) -> None:
        try:
            found[host.name] = _gather_host(environment, host, wanted)
        except HostUnreachable as error:
            unreachable[host.name] = error.message

    with ThreadPoolExecutor(max_workers=max(1, len(hosts))) as pool:
        schema = pool.submit(read_live_schema, environment)
        for future in [pool.submit(ask, host) for host in hosts.values()]:
            future.result()
        ordered = {name: found[name] for name in hosts if name in found}
    revision = schema.result() or _read_running_revision(environment, hosts, ordered)
    return Facts(ordered, unreachable, revision)


def read_live_schema(environment: Environment) -> str | None:
    """The live revision that the running service reports; None if no host reports one."""
    config = environment.migrations
    for host in environment.hosts_with("web"):
        answer = probe.ask(environment, host.name, config.health_path, timeout=3.0)
        revision = answer.at(config.schema_path)
        if isinstance(revision, str) and revision:
            return revision
    return None


def _read_running_revision(
    environment: Environment, hosts: Mapping[str, Host], found: Mapping[str, HostFacts]
) -> str | None:
    """The live revision that a running web container without traffic reports, or None.

    After a manual downgrade the journal still has the head that the release expects.
    """
    for name, facts in found.items():
        known = {one.id for image in facts.images for one in read_label(image.labels).revisions}
        for container in facts.containers:
            if container.role != "web" or not container.running:
                continue
            with contextlib.suppress(DeployError):
                argv = environment.migrations.current_command
                printed = hosts[name].engine.run_in(container.name, argv, timeout=30)
                # A release that is older than the schema does not know its revision, and fails.
                words = printed.output.split() if printed.status == 0 else []
                if revision := next((word for word in words if word in known), None):
                    return revision
    return None


def _gather_host(environment: Environment, host: Host, wanted: Secrets | None) -> HostFacts:
    engine = host.engine
    config = next(found for found in environment.hosts if found.name == host.name)
    with ThreadPoolExecutor(max_workers=7) as pool:
        script = pool.submit(_sections, environment, host)
        listed = pool.submit(engine.containers, {})
        images = pool.submit(engine.images)
        version = pool.submit(engine.version)
        delivered = pool.submit(_generations, environment, host, wanted)
        front = pool.submit(proxy.read_facts, host, environment)
        database = pool.submit(_database_refusal, host, wanted)
        sections, skew = script.result()
        release = version.result()
        proxied, settled = front.result()
        generation, generations = delivered.result()
        ours, others = _divide(listed.result(), environment)
        return HostFacts(
            name=host.name,
            roles=tuple(config.roles),
            engine=str(release.get("Version", "")),
            architecture=str(release.get("Arch", "")),
            disk_free=_disk_free(sections["disk"]),
            clock_skew=skew,
            busy_ports=frozenset(int(port, 16) for port in _LISTENING.findall(sections["ports"])),
            containers=tuple(sorted(map(_container, ours), key=lambda c: c.name)),
            database=database.result(),
            proxy=proxied,
            proxy_settled=settled,
            images=tuple(map(_image, images.result())),
            used_elsewhere=frozenset(found["ImageID"] for found in others),
            records=journal.parse(sections["journal"]),
            secrets=generation,
            generations=generations,
        )


def _generations(
    environment: Environment, host: Host, wanted: Secrets | None
) -> tuple[str | None, frozenset[str]]:
    if wanted is None or not wanted:
        return None, frozenset()
    current, every = secrets.list_generations(host, environment, wanted)
    return current or "", every


def _database_refusal(host: Host, wanted: Secrets | None) -> str:
    """The reason why the host cannot connect to the address in DATABASE_URL, or an empty text.

    A name without a dot is not tried: it may be known to the containers' network only.
    """
    secret = wanted.values.get("DATABASE_URL") if wanted else None
    url = urlsplit(secret.reveal() if secret else "")
    if not url.scheme.startswith("postgres") or "." not in (url.hostname or ""):
        return ""
    address, port = str(url.hostname), url.port or _POSTGRESQL
    refusal = host.refusal(address, port)
    return f"{address}:{port}: {refusal}" if refusal else ""


def _sections(environment: Environment, host: Host) -> tuple[dict[str, str], float]:
    before = time.time()
    text = host.run(("sh", "-c", _SCRIPT, "facts", journal.path(environment.folder))).text
    middle = (before + time.time()) / 2
    parts = re.split(r"^--- (\w+)\n", text, flags=re.MULTILINE)
    sections = dict.fromkeys(_SECTIONS, "") | dict(zip(parts[1::2], parts[2::2], strict=True))
    return sections, float(sections["clock"] or middle) - middle


def _disk_free(text: str) -> int:
    lines = text.strip().splitlines()
    return int(lines[-1].split()[3]) * 1024 if len(lines) > 1 else 0


def _container(listed: Mapping[str, Any]) -> ContainerFacts:
    labels: Mapping[str, str] = listed.get("Labels") or {}
    status = str(listed.get("Status", ""))
    exited = _EXITED.match(status)
    health = _HEALTH.search(status)
    slot = labels.get(containers.SLOT)
    return ContainerFacts(
        id=listed["Id"],
        name=listed["Names"][0].lstrip("/"),
        role=labels.get(containers.ROLE, ""),
        slot=_slot(slot),
        version=labels.get(containers.VERSION, ""),
        digest=labels.get(containers.DIGEST, ""),
        config=labels.get(containers.CONFIG, ""),
        state=str(listed.get("State", "")),
        health=health.group(1) if health else "",
        started=status,
        exit_code=int(exited.group(1)) if exited else 0,
        labels=labels,
    )


def _slot(text: str | None) -> Slot | None:
    return next((slot for slot in SLOTS if slot == text), None)


def _divide(
    listed: Sequence[Mapping[str, Any]], environment: Environment
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The containers of the environment, and all others on the same engine."""
    ours, others = list[Mapping[str, Any]](), list[Mapping[str, Any]]()
    for found in listed:
        named = (found.get("Labels") or {}).get(containers.ENVIRONMENT)
        (ours if named == environment.name else others).append(found)
    return ours, others


def _image(listed: Mapping[str, Any]) -> ImageFacts:
    return ImageFacts(
        id=listed["Id"],
        digests=tuple(listed.get("RepoDigests") or ()),
        tags=tuple(listed.get("RepoTags") or ()),
        labels=listed.get("Labels") or {},
        size=int(listed.get("Size", 0)),
        created=float(listed.get("Created", 0)),
    )


def call_on_all(hosts: Sequence[Host], work: Callable[[Host], T]) -> dict[str, T | DeployError]:
    """Call `work` for all hosts at once; the result of a failed host is its `DeployError`."""

    def attempt(host: Host) -> T | DeployError:
        try:
            return work(host)
        except DeployError as error:
            return error

    with ThreadPoolExecutor(max_workers=max(1, len(hosts))) as pool:
        results = list(pool.map(attempt, hosts))
    return {host.name: result for host, result in zip(hosts, results, strict=True)}
