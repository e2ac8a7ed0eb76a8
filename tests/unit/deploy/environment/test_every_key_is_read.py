"""Every key of an environment file changes something: no key is without a reader.

`KEYS` has a row for each key: a probe, which renders an artefact with the deployer's own code, and
a second value. The artefacts of the two values must differ. A new key needs a row.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import fabric
import pytest
import yaml

from deploy import proxy
from deploy.backups import catalogue, container, jobs, retention
from deploy.backups.manifest import Backup, BackupManifest
from deploy.backups.program import copies
from deploy.environment.model import Environment, load_environment
from deploy.environment.reference import list_keys
from deploy.errors import DeployError
from deploy.events import Events
from deploy.execute.run import Run
from deploy.hosts import connect as connecting
from deploy.observe import probe, survey
from deploy.observe.smoke_checks import ExpectedRelease, Inspection
from deploy.operations import backup, candidates, data_loss, recovery, restored_database, smoke
from deploy.operations.recovery_context import RecoveryContext
from deploy.pitr import configuration
from deploy.pitr.recovery_target import parse_target
from deploy.pitr.server import open_server
from deploy.planning import preflight
from deploy.planning.blue_green import BlueGreen
from deploy.planning.strategies import STRATEGIES, choose_strategy
from deploy.proxy.configuration import render
from deploy.proxy.container import make_specification
from deploy.proxy.settings import read_settings
from deploy.secrets.secret import Secret, Secrets
from deploy.secrets.sources import list_origins
from deploy.state import containers
from deploy.state.facts import HostFacts
from deploy.steps.container import Verify
from deploy.steps.image import Pull
from deploy.steps.proxy import Drain
from deploy.steps.schema import Downgrade, Migrate
from deploy.steps.smoke import Smoke
from tests.support import clusters
from tests.support.planned_world import REPOSITORY, World, bare, release

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7dVbJc9lrKXXpRUXzVNZ7lWGKgFLBvL0Sr6ZcPEIBY"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJpbmRpbmcga2V5IGZvciB0ZXN0cyBvbmx5ISEhISEh"
AGE = "age1" + "q" * 58
DIGEST = f"sha256:{0:064}"
S3 = {
    "kind": "s3",
    "path": "/r",
    "bucket": "b",
    "endpoint": "https://s3.test",
    "username": "U",
    "key": "K",
}
LOCAL = {"hosts": [{"name": "here", "connection": "local"}], "roles": {}}

# Small on purpose: the rows add what they change. Of `hosts`, a key of `jump` concerns the second.
BASE: dict[str, Any] = {
    "name": "trial",
    "domain": "api.test",
    "directory": "/srv/amani",
    "network": {"subnet": "172.29.77.0/24"},
    "image": {
        "repository": REPOSITORY,
        "registries": [REPOSITORY],
        "credentials": {REPOSITORY: {"username": "USER", "password": "PASSWORD"}},
    },
    "hosts": [
        {"name": "one", "address": "10.0.0.1", "host_keys": [HOST_KEY]},
        {
            "name": "two",
            "address": "10.0.0.2",
            "host_keys": [HOST_KEY],
            "jump": {"address": "10.0.0.9", "user": "ada", "host_keys": [HOST_KEY]},
        },
    ],
    "roles": {"web": {"command": ["serve"]}},
    "retention": {"releases": 2},
    "smoke": {"account": {"username": "NAME", "password": "WORD"}},
    "backups": {
        "copies": [
            {"name": "far", "kind": "ssh", "address": "c.test", "host_keys": [HOST_KEY]}
            | {"path": "/copies", "key": "COPY_KEY"}
        ],
        "pitr": {
            "server": {"address": "10.0.0.5", "host_keys": [HOST_KEY]}
            | {"jump": {"address": "10.0.0.8", "user": "ada", "host_keys": [HOST_KEY]}},
            "repository": {"kind": "ssh", "path": "/r", "address": "r.test"}
            | {"host_keys": [HOST_KEY], "key": "K", "passphrase": "P"},
        },
    },
}

Patch = pytest.MonkeyPatch


class Stop(Exception):
    """Ends what a probe runs once it has seen enough."""


# -- probes: environment in, artefact out ----------------------------------------------------------


def run_of(environment: Environment, **host: Any) -> Run:
    """A run on mocked hosts whose engine returns `host`; events go to the engine's log."""
    hosts = {found.name: MagicMock() for found in environment.hosts}
    for made in hosts.values():
        made.engine.configure_mock(**{f"{name}.return_value": host[name] for name in host})
    emitted = next(iter(hosts.values())).emitted
    return Run(
        id="run",
        kind="deploy",
        environment=environment,
        hosts=hosts,
        release=release(1),
        secrets=Secrets({}),
        events=Events(lambda event: emitted(str(event.text))),
        plan_hash="",
        requested_by="test",
    )


def seen(run: Run, step: Any) -> str:
    """The error that a step ends with; empty if it succeeds."""
    try:
        step.apply(run)
    except DeployError as error:
        return f"{error.message} {error.hint}"
    return ""


def hurry(patch: Patch) -> None:
    """Every look at the clock is 1,000,000 s after the one before."""
    clock = iter(range(0, 10**12, 10**6))
    patch.setattr(time, "monotonic", lambda: float(next(clock)))


def of_proxy(environment: Environment, patch: Patch) -> object:
    settings = read_settings(environment)
    return render(settings, {"blue": 100}), make_specification(settings)


def of_containers(environment: Environment, patch: Patch) -> object:
    one_off = containers.make_one_off_container(
        environment, release(1).image, "", purpose="test", run_id="run", command=("true",)
    )
    web = containers.make_slot_container(environment, "web", "blue", release(1), "")
    return web, one_off


def of_plan(environment: Environment, patch: Patch) -> object:
    """The plans of four releases one after the other, the last one with a migration."""
    world, plans = World(environment, bare(environment)), []
    for number, head in enumerate(("0001", "0001", "0001", "0002"), 1):
        made = BlueGreen().plan(environment, release(number, head), world.facts)
        world.run(made, release(number, head))
        plans.append(made.as_json())
    return plans


def of_strategy(environment: Environment, patch: Patch) -> object:
    patch.setitem(STRATEGIES, "toy", toy := BlueGreen())
    return choose_strategy(environment) is toy


def of_preflight(environment: Environment, patch: Patch) -> object:
    facts = HostFacts("one", ("web",), disk_free=10**6, clock_skew=7, architecture="arm64")
    found = dataclasses.replace(bare(environment), hosts={"one": facts})
    with pytest.raises(DeployError) as caught:
        preflight.check(environment, found, (environment.image.platform,), 0)
    return caught.value.message


def of_secrets(environment: Environment, patch: Patch) -> object:
    values = Secrets({name: Secret(f"sqlite:///{name}") for name in ("DATABASE_URL", "OTHER")})
    return list_origins(environment, environ={}), container.database_url(environment, values)


def of_database(environment: Environment, patch: Patch) -> object:
    return container.database_url(environment, Secrets({}))


def of_connections(environment: Environment, patch: Patch) -> object:
    """The connections that Fabric is asked for. Only those to a jump host succeed."""
    asked = []

    class Connection(MagicMock):
        def __init__(self, host: str = "", **options: Any) -> None:
            super().__init__()
            if host:
                keys = options["connect_kwargs"].pop("transport_factory").keywords["host_keys"]
                ways = {"sock": options["connect_kwargs"].pop("sock", None) is not None}
                asked.append([host, sorted(options.items(), key=str), keys, ways])
                options.pop("config")
                self.open.side_effect = None if host in jumps else OSError("refused")

    server = environment.backups.pitr.server if environment.backups.pitr else None
    ends = (*environment.hosts, *filter(None, [server]))
    jumps = {end.jump.address for end in ends if end.jump}
    patch.setattr(fabric, "Connection", Connection)
    patch.setattr(fabric, "Config", lambda **_: None)
    patch.setattr(connecting, "PromptSocket", MagicMock())
    opened = connecting.connect_all(environment.hosts, environment.timeouts)
    with contextlib.suppress(DeployError, Stop):
        with open_server("trial", environment.backups.pitr, 1.0, environment.timeouts):
            raise Stop
    ends_as = [str(one) if isinstance(one, DeployError) else one.address for one in opened.values()]
    return sorted(asked, key=str), ends_as


def of_command(environment: Environment, patch: Patch) -> object:
    host = connecting.connect(environment.hosts[0], environment.timeouts)
    return host.run(["sleep", "0.2"], check=False)


def of_build(environment: Environment, patch: Patch) -> object:
    from deploy.database import lint
    from deploy.hosts import local
    from deploy.images import build

    info = MagicMock(dirty=environment.domain == "dirty.test", arguments={})
    info.render_tags = lambda tags: tags
    info.version.tag = "1.0.0"
    patch.setattr(candidates.BuildInfo, "of", lambda _: info)
    patch.setattr(lint, "require_agreement", lambda _: None)
    engine = SimpleNamespace(image=lambda _: {"Config": {"Labels": release(1).labels}})
    patch.setattr(local, "LocalHost", lambda _: SimpleNamespace(engine=engine))
    made = MagicMock()
    made.build.return_value.id = DIGEST
    made.push.return_value = {environment.image.repository: DIGEST}
    patch.setattr(build, "build", made.build)
    patch.setattr(build, "push", made.push)
    with contextlib.suppress(DeployError):
        candidates.build_candidate(environment, Secrets({}), Events(lambda _: None))
    builds = [(one.args[1:], one.kwargs["platform"]) for one in made.build.call_args_list]
    return builds, [sorted(one.args[1]) for one in made.push.call_args_list]


def of_registry(environment: Environment, patch: Patch) -> object:
    from deploy.images import registry

    opened = MagicMock(side_effect=Stop)
    patch.setattr(registry, "Registry", opened)
    with contextlib.suppress(Stop):
        candidates.find_candidate(MagicMock(environment=environment), Secrets({}), "1.0.0")
    return opened.mock_calls


def of_steps(environment: Environment, patch: Patch) -> object:
    """The engine calls of steps that succeed."""
    run = run_of(
        environment,
        inspect={"State": {"Status": "exited", "ExitCode": 0}},
        logs="0002",
        containers=[],
        create="made",
    )
    back = Downgrade("one", "0002", "0003", "app", DIGEST, True)
    host: Any = run.hosts["one"]
    host.engine.wait.return_value = 0
    patch.setattr("secrets.token_hex", lambda _: "token")
    session: Any = SimpleNamespace(environment=environment, hosts=run.hosts)
    steps: Any = SimpleNamespace(steps=lambda: [back])
    data_loss.find_data_loss(session, bare(environment), steps)
    for step in (Migrate("one", "0002"), back, Pull("one", "app", DIGEST)):
        step.apply(run)
    return host.engine.create.mock_calls, host.engine.pull.call_args.kwargs["timeout"]


def of_patience(environment: Environment, patch: Patch) -> object:
    """The errors of steps that wait until their timeout."""
    hurry(patch)
    patch.setattr(proxy, "wait_until_up", lambda *_, **__: SimpleNamespace(up=False, check=""))
    patch.setattr(proxy, "wait_drained", lambda *_: 3)
    running = {"State": {"Status": "running"}, "RestartCount": 0}
    steps = (Migrate("one", "0002"), Verify("one", "blue"), Drain("one", "blue"))
    run = run_of(environment, inspect=running, containers=[], logs="")
    host: Any = run.hosts["one"]
    return [seen(run, step) for step in steps], host.emitted.mock_calls


def of_smoke_step(environment: Environment, patch: Patch) -> object:
    asked = MagicMock(return_value=probe.Answer(200, b'{"version": "1.1.0", "other": "2"}'))
    patch.setattr(probe, "ask", lambda _, *args, **options: asked(*args, **options))
    survey.read_live_schema(environment)
    done = seen(run_of(environment), Smoke("one", "1.1.0"))
    return asked.mock_calls, done


class Service(probe.Route):
    """Answers every request in the same way, and keeps the requests."""

    asked: list[Any] = []

    def send(self, method: str, path: str, **options: Any) -> probe.Answer:
        self.asked.append((method, path, options.get("body"), options["timeout"]))
        body = {"version": "1.1.0", "token": "t", "openapi": "3.1", "paths": {"/": {}}}
        answered = json.dumps({**body, "checks": {"schema:revision": [{"observedValue": "0001"}]}})
        now, headers = time.time(), {"x-content-type-options": "nosniff"}
        return probe.Answer(
            200, answered.encode(), "", headers, 0.5, protocol="TLSv1.3", expires=now + 20 * 86400
        )


def of_smoke(environment: Environment, patch: Patch) -> object:
    patch.setattr(Service, "asked", [])
    account = (Secret("ada"), Secret("pass"))
    route = Service("10.0.0.1", 443, "api.test", tls=True)
    made = Inspection("one", environment, route, ExpectedRelease("1.1.0"), account)
    findings = [(found.check, found.passed, found.remark) for found in made.run()]
    return findings, Service.asked, list(smoke.public_routes(environment))


def desk_of(environment: Environment) -> Any:
    """A mock of what requests about backups work with; every job ends what it is part of."""
    keys = {place.name: (Secret("user"), Secret("key")) for place in environment.backups.copies}
    made = MagicMock(environment=environment, keys=keys, secrets=Secrets({}))
    made.container.run.side_effect = Stop
    made.host.engine.create.return_value = "made"
    made.host.engine.wait.return_value = 0
    return made


def of_backup(environment: Environment, patch: Patch) -> object:
    made = desk_of(environment)
    patch.setattr(jobs, "stamp", lambda: "id")
    patch.setattr("secrets.token_hex", lambda _: "token")
    with contextlib.suppress(Stop):
        jobs.back_up(made.container, environment, (), host="one", reason="asked", release="")
    host = MagicMock()
    host.run.return_value.text = ""
    catalogue.publish(host, environment)
    return made.container.mock_calls, [
        one for one in host.mock_calls if one[0] in ("run", "write_file")
    ]


def of_retention(environment: Environment, patch: Patch) -> object:
    values: dict[str, Any] = {field.name: "" for field in dataclasses.fields(BackupManifest)}
    made = [
        Backup(BackupManifest(**{**values, "id": f"{hour}", "taken": hour * 3600.0}))
        for hour in range(0, 24 * 800, 6)
    ]
    return [backup.manifest.id for backup in retention.prunable(made, environment.backups.keep, ())]


def of_examination(environment: Environment, patch: Patch) -> object:
    made = desk_of(environment)
    made.live = {"one": SimpleNamespace(digest=DIGEST)}
    patch.setattr("secrets.token_hex", lambda _: "token")
    patch.setattr(restored_database.secrets, "list_generations", lambda *_: ("", {}))
    patch.setattr(restored_database.secrets, "deliver", lambda *_, **__: "g1")
    patch.setattr(restored_database.secrets, "prune", lambda *_: None)
    with contextlib.suppress(Stop):
        restored_database.check_restored_database(
            made, Secret("sqlite:////data/restored.sqlite3"), boot=True
        )
    return made.host.engine.create.mock_calls, made.container.run.mock_calls


def of_copies(environment: Environment, patch: Patch) -> object:
    """The rclone command for the place that a copy is requested for, and the copy's error."""
    made, found = desk_of(environment), []

    def note(command: object, *, environment: Mapping[str, str], **_: object) -> None:
        known = environment.get("RCLONE_CONFIG_PLACE_KNOWN_HOSTS_FILE")
        text = Path(known).read_text() if known else ""
        said = {name: value for name, value in environment.items() if "/tmp" not in value}
        found.append((command, said, text))

    made.container.run.side_effect = DeployError("full")
    patch.setattr(backup, "open_backup_context", lambda *_: contextlib.nullcontext(made))
    with pytest.raises(DeployError) as caught:
        backup.make_backup("trial", Events(lambda _: None))
    requested = made.container.run.call_args.kwargs["place"]
    copies.listing(MagicMock(run=note), {"place": requested})
    return found, caught.value.message.partition("\n")[2]


def of_recovery(environment: Environment, patch: Patch) -> object:
    config: Any = environment.backups.pitr
    keys = {name: Secret(name) for name in ("U", "K", "P", "OTHER")}
    context = RecoveryContext(environment, config, keys, 5432, "app")
    made, server = MagicMock(), MagicMock()
    made.create.side_effect = Stop
    target = parse_target("2026-11-24T00:00:00Z", "")
    server.facts.return_value = clusters.facts(archiving=None, now=target.timestamp())
    patch.setattr(RecoveryContext, "load", lambda *_: context)
    patch.setattr(RecoveryContext, "open", lambda _: contextlib.nullcontext(server))
    patch.setattr(recovery, "open_backup_context", lambda *_: contextlib.nullcontext())
    patch.setattr(recovery, "recovered_cluster", made)
    with contextlib.suppress(Stop):
        recovery.recover_database("trial", Events(lambda _: None), to="2026-11-24T00:00:00Z")
    port = made.create.call_args.args[-1]
    return configuration.files(environment, clusters.cluster(), config, keys), port


# -- the table -------------------------------------------------------------------------------------


class Key(NamedTuple):
    """A probe, the second value, and what both files have besides (by key)."""

    probe: Callable[[Environment, Patch], object]
    value: Any
    besides: Mapping[str, Any] = {}


TLS = {"proxy.https_port": 443, "proxy.certificate": "/tls/a.pem"}
COPY_S3 = {
    "backups.copies": [
        {"name": "far", "kind": "s3", "path": "bucket", "endpoint": "https://s3.test"}
        | {"region": "eu", "username": "U", "key": "K"}
    ]
}
COPY_EITHER = {"backups.copies": [COPY_S3["backups.copies"][0] | {"address": "c.test"}]}
COPY_EITHER["backups.copies"][0]["host_keys"] = [HOST_KEY]
REPOSITORY_S3 = {"backups.pitr.repository": S3}
UNPUSHED = LOCAL | {"image": {"repository": "app"}}

KEYS: dict[str, Key] = {
    "name": Key(of_containers, "other"),
    "domain": Key(of_smoke, "other.test"),
    "protected": Key(of_build, True, {"domain": "dirty.test"}),
    "directory": Key(of_proxy, "/srv/other"),
    "hosts[].name": Key(of_plan, "first"),
    "hosts[].connection": Key(of_connections, "local"),
    "hosts[].address": Key(of_connections, "10.0.0.7"),
    "hosts[].port": Key(of_connections, 2222),
    "hosts[].user": Key(of_connections, "ada"),
    "hosts[].host_keys": Key(of_connections, [OTHER_KEY]),
    "hosts[].identity_file": Key(of_connections, "/no/such/key"),
    "hosts[].jump.address": Key(of_connections, "10.0.0.7"),
    "hosts[].jump.port": Key(of_connections, 2222),
    "hosts[].jump.user": Key(of_connections, "eve"),
    "hosts[].jump.host_keys": Key(of_connections, [OTHER_KEY]),
    "hosts[].jump.identity_file": Key(of_connections, "/no/such/key"),
    "hosts[].roles": Key(of_plan, ["worker"], {"roles": {"worker": {"command": ["work"]}}}),
    "image.repository": Key(of_build, "other", UNPUSHED),
    "image.registries": Key(of_build, [REPOSITORY, "second.test/app"]),
    "image.insecure": Key(of_registry, True),
    "image.credentials.<name>.username": Key(of_secrets, "OTHER"),
    "image.credentials.<name>.password": Key(of_secrets, "OTHER"),
    "image.tags": Key(of_build, ["latest"]),
    "image.platform": Key(of_build, "linux/arm64"),
    "image.extras": Key(of_build, "observability"),
    "roles.<name>.command": Key(of_containers, ["other"]),
    "roles.<name>.environment": Key(of_containers, {"A": "1"}),
    "roles.<name>.resources.memory": Key(of_containers, "1GB"),
    "roles.<name>.resources.cpus": Key(of_containers, 0.5),
    "roles.<name>.resources.pids": Key(of_containers, 9),
    "roles.<name>.stop_timeout": Key(of_containers, "9s"),
    "roles.<name>.healthcheck": Key(of_containers, False),
    "hardening.read_only": Key(of_containers, False),
    "hardening.drop_capabilities": Key(of_containers, False),
    "hardening.no_new_privileges": Key(of_containers, False),
    "network.subnet": Key(of_proxy, "172.29.78.0/24"),
    "proxy.image": Key(of_proxy, "haproxy:3.2"),
    "proxy.bind": Key(of_proxy, "127.0.0.1"),
    "proxy.http_port": Key(of_proxy, 8080),
    "proxy.https_port": Key(of_proxy, 8443, TLS),
    "proxy.certificate": Key(of_proxy, "/tls/b.pem", TLS),
    "proxy.max_connections": Key(of_proxy, 7),
    "proxy.timeouts.connect": Key(of_proxy, "7s"),
    "proxy.timeouts.client": Key(of_proxy, "7s"),
    "proxy.timeouts.server": Key(of_proxy, "7s"),
    "proxy.timeouts.queue": Key(of_proxy, "7s"),
    "proxy.timeouts.http_request": Key(of_proxy, "7s"),
    "proxy.timeouts.http_keep_alive": Key(of_proxy, "7s"),
    "health.path": Key(of_proxy, "/ready"),
    "health.port": Key(of_proxy, 9000),
    "health.interval": Key(of_proxy, "7s"),
    "health.timeout": Key(of_proxy, "7s"),
    "smoke.paths": Key(of_smoke_step, ["/other"]),
    "smoke.version_path": Key(of_smoke_step, "/other"),
    "smoke.version_field": Key(of_smoke_step, "other"),
    "smoke.timeout": Key(of_smoke_step, "7s"),
    "smoke.resolve": Key(of_smoke, "dns"),
    "smoke.document_path": Key(of_smoke, "/other"),
    "smoke.unknown_path": Key(of_smoke, "/other"),
    "smoke.headers": Key(of_smoke, {"X-Content-Type-Options": ""}),
    "smoke.response_limit": Key(of_smoke, "100ms"),
    "smoke.certificate_days": Key(of_smoke, 30),
    "smoke.account.username": Key(of_secrets, "OTHER"),
    "smoke.account.password": Key(of_secrets, "OTHER"),
    "smoke.account.sign_in_path": Key(of_smoke, "/other"),
    "smoke.account.username_field": Key(of_smoke, "other"),
    "smoke.account.token_field": Key(of_smoke, "other"),
    "smoke.account.path": Key(of_smoke, "/other"),
    "timeouts.connect": Key(of_connections, "7s"),
    "timeouts.command": Key(of_command, "10ms", LOCAL),
    "timeouts.pull": Key(of_steps, "7s"),
    "timeouts.migrate": Key(of_patience, "7s"),
    "timeouts.boot": Key(of_patience, "7s"),
    "timeouts.drain": Key(of_patience, "7s"),
    "timeouts.stop": Key(of_containers, "7s"),
    "strategy": Key(of_strategy, "toy"),
    "batch": Key(of_plan, 2),
    "retention.releases": Key(of_plan, 9),
    "retention.standby": Key(of_plan, "stopped"),
    "migrations.command": Key(of_steps, ["other"]),
    "migrations.downgrade_command": Key(of_steps, ["other"]),
    "migrations.loss_command": Key(of_steps, ["other"]),
    "migrations.current_command": Key(of_steps, ["other"]),
    "migrations.health_path": Key(of_smoke_step, "/other"),
    "migrations.schema_path": Key(of_smoke, "/other"),
    "backups.policy": Key(of_plan, "always"),
    "backups.host": Key(of_plan, "two"),
    "backups.directory": Key(of_backup, "/other"),
    "backups.secret": Key(of_secrets, "OTHER"),
    "backups.sqlite": Key(of_database, "/data/other.sqlite3"),
    "backups.recipients": Key(of_backup, [AGE]),
    "backups.copies[].name": Key(of_copies, "other"),
    "backups.copies[].kind": Key(of_copies, "ssh", COPY_EITHER),
    "backups.copies[].endpoint": Key(of_copies, "https://other.test", COPY_S3),
    "backups.copies[].region": Key(of_copies, "us", COPY_S3),
    "backups.copies[].address": Key(of_copies, "other.test"),
    "backups.copies[].port": Key(of_copies, 2222),
    "backups.copies[].user": Key(of_copies, "ada"),
    "backups.copies[].host_keys": Key(of_copies, [OTHER_KEY]),
    "backups.copies[].path": Key(of_copies, "/other"),
    "backups.copies[].username": Key(of_secrets, "OTHER", COPY_S3),
    "backups.copies[].key": Key(of_secrets, "OTHER"),
    "backups.keep.last": Key(of_retention, 60),
    "backups.keep.daily": Key(of_retention, 60),
    "backups.keep.weekly": Key(of_retention, 60),
    "backups.keep.monthly": Key(of_retention, 1),
    "backups.check_command": Key(of_examination, ["other"]),
    "backups.parallel_from": Key(of_backup, "1GB"),
    "backups.jobs": Key(of_backup, 7),
    "backups.timeout": Key(of_backup, "7s"),
    "backups.textfile": Key(of_backup, "/other.prom"),
    "backups.pitr.server.connection": Key(of_connections, "local"),
    "backups.pitr.server.address": Key(of_connections, "10.0.0.7"),
    "backups.pitr.server.port": Key(of_connections, 2222),
    "backups.pitr.server.user": Key(of_connections, "ada"),
    "backups.pitr.server.host_keys": Key(of_connections, [OTHER_KEY]),
    "backups.pitr.server.identity_file": Key(of_connections, "/no/such/key"),
    "backups.pitr.server.jump.address": Key(of_connections, "10.0.0.7"),
    "backups.pitr.server.jump.port": Key(of_connections, 2222),
    "backups.pitr.server.jump.user": Key(of_connections, "eve"),
    "backups.pitr.server.jump.host_keys": Key(of_connections, [OTHER_KEY]),
    "backups.pitr.server.jump.identity_file": Key(of_connections, "/no/such/key"),
    "backups.pitr.repository.kind": Key(of_recovery, "folder"),
    "backups.pitr.repository.path": Key(of_recovery, "/other"),
    "backups.pitr.repository.bucket": Key(of_recovery, "other", REPOSITORY_S3),
    "backups.pitr.repository.endpoint": Key(of_recovery, "https://other.test", REPOSITORY_S3),
    "backups.pitr.repository.region": Key(of_recovery, "other", REPOSITORY_S3),
    "backups.pitr.repository.address": Key(of_recovery, "other.test"),
    "backups.pitr.repository.port": Key(of_recovery, 2222),
    "backups.pitr.repository.user": Key(of_recovery, "ada"),
    "backups.pitr.repository.host_keys": Key(of_recovery, [OTHER_KEY]),
    "backups.pitr.repository.username": Key(of_secrets, "OTHER", REPOSITORY_S3),
    "backups.pitr.repository.key": Key(of_secrets, "OTHER"),
    "backups.pitr.repository.passphrase": Key(of_secrets, "OTHER"),
    "backups.pitr.archive_timeout": Key(of_recovery, "7s"),
    "backups.pitr.keep": Key(of_recovery, 7),
    "backups.pitr.processes": Key(of_recovery, 7),
    "backups.pitr.port": Key(of_recovery, 7777),
    "settings": Key(of_containers, {"A": "1"}),
    "secrets": Key(of_secrets, ["OTHER"]),
    "optional_secrets": Key(of_secrets, ["OTHER"]),
    "volumes": Key(of_containers, {"data": "/data"}),
    "disk_reserve": Key(of_preflight, "1GB"),
    "clock_skew_limit": Key(of_preflight, "10s"),
}


def put(content: Any, key: str, value: Any) -> None:
    """Set a key: `[]` is the first item that has the rest of the path, `<name>` the first name."""
    first, _, rest = key.partition(".")
    if first == "<name>":
        first = next(iter(content))
    if first.endswith("[]"):
        items = content[first.removesuffix("[]")]
        inner = rest.partition(".")
        content = next((item for item in items if not inner[1] or inner[0] in item), items[0])
        return put(content, rest, value)
    if not rest:
        content[first] = value
    else:
        put(content.setdefault(first, {}), rest, value)


def artefact(key: Key, changes: Mapping[str, Any]) -> str:
    content = copy.deepcopy(BASE)
    for path, value in copy.deepcopy({**key.besides, **changes}).items():
        put(content, path, value)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        Path(folder, f"{content['name']}.yml").write_text(yaml.safe_dump(content))
        environment = load_environment(content["name"], folder=Path(folder), placeholders=True)
        return str(key.probe(environment, patch))


FIRST: dict[str, str] = {}


def first(key: Key) -> str:
    """The artefact of the first value, which many keys share."""
    shared = f"{key.probe.__name__} {key.besides}"
    if shared not in FIRST:
        FIRST[shared] = artefact(key, {})
        assert artefact(key, {}) == FIRST[shared], "the probe is not deterministic"
    return FIRST[shared]


def test_the_table_has_a_row_for_every_key() -> None:
    assert sorted(KEYS) == sorted(list_keys())


@pytest.mark.parametrize("name", KEYS)
def test_another_value_of_a_key_changes_its_artefact(name: str) -> None:
    key = KEYS[name]
    assert artefact(key, {name: key.value}) != first(key)
