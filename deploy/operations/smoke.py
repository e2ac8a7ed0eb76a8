"""`invoke smoke`: the smoke test of a running service, on every route to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deploy.environment.model import load_environment
from deploy.errors import UsageError
from deploy.observe import probe
from deploy.observe.smoke_checks import CheckResult, ExpectedRelease, Inspection
from deploy.operations.history import read_history
from deploy.secrets.sources import load_account

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.events import Events
    from deploy.state.journal import Record


def run_smoke_checks(
    name: str, events: Events, *, url: str = "", version: str = ""
) -> list[CheckResult]:
    """Run all checks on every web host, or on the base URL `url` only; return all findings.

    Expects `version`, or else the live release of the journal and its schema revision. Raises
    `UsageError` if no release is live or `url` is not a base URL, and `HostUnreachable` if no host
    with a journal is reachable.
    """
    environment = load_environment(name, placeholders=bool(url and version))
    account = load_account(environment)
    places = [_place(url)] if url else list(public_routes(environment))
    expected = (
        ExpectedRelease(version) if version else expect_live(name, read_history(name, events))
    )
    inspections = [
        Inspection(place, environment, route, expected, account, redirect)
        for place, route, redirect in places
    ]
    with ThreadPoolExecutor(max_workers=len(inspections)) as pool:
        found = pool.map(lambda inspection: list(inspection.run()), inspections)
        return [finding for findings in found for finding in findings]


def public_routes(environment: Environment) -> Iterator[tuple[str, probe.Route, int | None]]:
    """Yield a name, a route and the port that redirects to HTTPS (None without TLS).

    There is one for each web host, or a single one for the domain if `smoke.resolve` is `dns`.
    """
    hosts = environment.hosts_with("web")
    if environment.smoke.resolve == "dns":
        hosts = hosts[:1]
    for host in hosts:
        route = probe.make_route(environment, host.name)
        place = environment.domain if environment.smoke.resolve == "dns" else host.name
        yield place, route, environment.proxy.http_port if route.tls else None


def expect_live(name: str, newest_first: Sequence[Record]) -> ExpectedRelease:
    """Return the version and schema revisions of the live release of a journal. Pure.

    Raises `UsageError` if the journal of the environment `name` has no live release.
    """
    oldest_first = [record for record in reversed(newest_first) if record.live]
    if not oldest_first:
        raise UsageError(
            f"the journal of {name} has no live release",
            hint="name the expected version: --version=1.2.3",
        )
    live = oldest_first[-1]
    schemas = [record.schema for record in oldest_first]
    first = schemas.index(live.schema)
    later = frozenset(schemas[first:]) - frozenset(schemas[:first]) - {live.schema, ""}
    return ExpectedRelease(live.version, live.schema, later)


def _place(url: str) -> tuple[str, probe.Route, int | None]:
    parts = urlsplit(url)
    try:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        port = 0
    if not port or not parts.hostname or parts.path not in ("", "/"):
        raise UsageError(
            f"{url!r} is not a base URL",
            hint="use a scheme and a host, such as --url=https://staging-api.amani.com",
        )
    route = probe.Route(parts.hostname, port, parts.hostname, tls=parts.scheme == "https")
    return parts.netloc, route, None
