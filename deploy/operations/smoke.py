"""`invoke smoke`: every check of a running service, on every way that leads to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deploy.environment.model import load_environment
from deploy.errors import UsageError
from deploy.observe import probe
from deploy.observe.metrics import render
from deploy.observe.smoke_checks import Expected, Finding, Inspection
from deploy.operations.history import history
from deploy.operations.recovery_archive import collect_cluster_facts
from deploy.secrets.sources import load_account

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.events import Events
    from deploy.state.journal import Record


def smoke(name: str, events: Events, *, url: str = "", version: str = "") -> list[Finding]:
    """All findings on every web host, or on `url` alone, in the order of the checks.

    Without a `version` the one that the journal says is live is expected, and the schema revision
    that it needs. Raises UsageError where nothing is live or `url` is none, and HostUnreachable
    where no host can tell what is live.
    """
    environment = load_environment(name, placeholders=bool(url and version))
    account = load_account(environment)
    places = [_place(url)] if url else list(_places(environment))
    expected = Expected(version) if version else _recorded(name, history(name, events))
    inspections = [
        Inspection(place, environment, route, expected, account, redirect)
        for place, route, redirect in places
    ]
    with ThreadPoolExecutor(max_workers=len(inspections)) as pool:
        found = pool.map(lambda inspection: list(inspection.findings()), inspections)
        return [finding for findings in found for finding in findings]


def metrics(name: str, events: Events) -> str:
    """Deploys, certificates and archive of an environment in Prometheus' text format."""
    environment = load_environment(name)
    path, timeout = environment.smoke.version_path, environment.smoke.timeout
    answers = {place: route.get(path, timeout=timeout) for place, route, _ in _places(environment)}
    archived = environment.backups.pitr is not None
    archive = collect_cluster_facts(name, events) if archived else None
    return render(name, history(name, events), answers, archived=archived, archive=archive)


def _places(environment: Environment) -> Iterator[tuple[str, probe.Route, int | None]]:
    hosts = environment.hosts_with("web")
    if environment.smoke.resolve == "dns":
        hosts = hosts[:1]
    for host in hosts:
        route = probe.route(environment, host.name)
        place = environment.domain if environment.smoke.resolve == "dns" else host.name
        yield place, route, environment.proxy.http_port if route.tls else None


def _place(url: str) -> tuple[str, probe.Route, int | None]:
    parts = urlsplit(url)
    try:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        port = 0
    if not port or not parts.hostname or parts.path not in ("", "/"):
        raise UsageError(
            f"{url!r} is no base URL", hint="such as --url=https://staging-api.amani.com"
        )
    route = probe.Route(parts.hostname, port, parts.hostname, tls=parts.scheme == "https")
    return parts.netloc, route, None


def _recorded(name: str, newest_first: Sequence[Record]) -> Expected:
    """What the journal says is live. Pure."""
    oldest_first = [record for record in reversed(newest_first) if record.live]
    if not oldest_first:
        raise UsageError(
            f"the journal of {name} tells of no release that is live",
            hint="name the version that is expected: --version=1.2.3",
        )
    live = oldest_first[-1]
    schemas = [record.schema for record in oldest_first]
    first = schemas.index(live.schema)
    later = frozenset(schemas[first:]) - frozenset(schemas[:first]) - {live.schema, ""}
    return Expected(live.version, live.schema, later)
