"""Hosts as values: a simulation of the effect that each step has on the facts.

`tests/unit/deploy/steps` holds it to all step classes, `tests/integration/deploy/steps` to their
real effects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy.database.revisions import LABEL, History, Kind, Revision, read_label
from deploy.environment.model import Environment, load_environment
from deploy.execute.plan import Plan, Step
from deploy.proxy import container_name
from deploy.state import containers
from deploy.state.facts import (
    FULL_WEIGHT,
    SLOTS,
    ContainerFacts,
    Facts,
    HostFacts,
    ImageFacts,
    ProxyFacts,
    ServerFacts,
    Weights,
    full_share,
    other,
)
from deploy.state.journal import Record
from deploy.state.release import ImageRef, Release, Version
from deploy.steps.backup import BackUp
from deploy.steps.container import Boot, Retire, Verify, VerifyWorker
from deploy.steps.image import DeliverSecrets, Prune, Pull
from deploy.steps.journal import RecordRun
from deploy.steps.proxy import Drain, EnsureProxy, RecordLive, Shift
from deploy.steps.schema import Downgrade, Migrate
from deploy.steps.smoke import Smoke

REPOSITORY = "registry.internal:5000/amani-backend"

_FILE = """
domain: api.internal
hosts:
{hosts}
image: {{repository: "{repository}", registries: ["{repository}"], insecure: true}}
roles: {{worker: {{command: [flask, amani, worker], healthcheck: false}}}}
network: {{subnet: 172.29.40.0/24}}
batch: {batch}
retention: {{standby: {standby}}}
"""
_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJpbmRpbmcga2V5IGZvciB0ZXN0cyBvbmx5ISEhISEh"


def environment(
    folder: Path,
    roles: dict[str, str] | None = None,
    batch: str = '"100%"',
    standby: str = "running",
) -> Environment:
    """An environment of SSH hosts; `roles` maps a host's name to its roles, as YAML."""
    roles = roles or {"one": "[web]", "two": "[web]", "three": "[web, worker]"}
    hosts = "\n".join(
        f'- {{name: {name}, address: 10.9.0.{n}, roles: {roles}, host_keys: ["{_KEY}"]}}'
        for n, (name, roles) in enumerate(roles.items(), 1)
    )
    text = _FILE.format(hosts=hosts, repository=REPOSITORY, batch=batch, standby=standby)
    (folder / "planned.yml").write_text(text)
    return load_environment("planned", folder=folder)


def release(number: int, head: str = "0001", **kinds: Kind) -> Release:
    """The release 1.<number>.0; its revisions count up to `head`, and expand unless `kinds` (by
    `r0002`) says otherwise."""
    ids = [f"{n:04}" for n in range(1, int(head) + 1)]
    history = History(tuple(Revision(id, kinds.get(f"r{id}", "expand")) for id in ids))
    digest = f"sha256:{number:064x}"
    return Release(
        version=Version(f"1.{number}.0"),
        image=ImageRef(REPOSITORY, digest),
        schema_head=head,
        revision=f"{number:040x}",
        created="2026-11-24T00:00:00Z",
        labels={containers.SCHEMA_HEAD: head, LABEL: history.label()},
    )


def bare(environment: Environment) -> Facts:
    """Hosts with an engine and nothing else."""
    return Facts(
        {
            host.name: HostFacts(host.name, tuple(host.roles), architecture="amd64", secrets="")
            for host in environment.hosts
        }
    )


class World:
    """Applies steps to facts. `clock` only orders the journal."""

    def __init__(self, environment: Environment, facts: Facts) -> None:
        self.environment = environment
        self.facts = facts
        self.schema = facts.schema
        self.clock = 0.0

    def run(self, plan: Plan, wanted: Release, steps: int | None = None) -> None:
        """Apply the first `steps` steps of a plan (all of them by default)."""
        for step in list(plan.steps())[:steps]:
            self.apply(step, wanted)

    def apply(self, step: Step, wanted: Release) -> None:
        """Change the facts as the real step changes its host."""
        self.schema = self.facts.schema or self.schema
        host = EFFECTS[type(step)](self, self.facts.hosts[step.host], step, wanted)
        facts = replace(self.facts, hosts={**self.facts.hosts, step.host: host})
        self.facts = replace(facts, schema=self.schema if self._answers(facts) else None)

    def _answers(self, facts: Facts) -> bool:
        """Whether a live release reports the schema, or a running one that knows its revision."""
        for host in facts.hosts.values():
            known = {
                each.id for found in host.images for each in read_label(found.labels).revisions
            }
            web = [found for found in host.containers if found.role == "web" and found.running]
            if any(found.slot == host.live_slot or self.schema in known for found in web):
                return True
        return False

    def ensure_proxy(self, host: HostFacts, step: EnsureProxy, wanted: Release) -> HostFacts:
        weights = full_share(step.live)
        servers = {
            slot: (
                ServerFacts("ready", True, weights[slot], 0)
                if slot in weights
                else ServerFacts("maint", False, 0, 0)
            )
            for slot in SLOTS
        }
        container = ContainerFacts(
            id=f"proxy-{step.host}",
            name=container_name(self.environment),
            role="proxy",
            slot=None,
            version="",
            digest="",
            config="",
            state="running",
        )
        others = tuple(c for c in host.containers if c.role != "proxy")
        proxy = ProxyFacts(True, recorded_weights=weights, servers=servers, present=True)
        return replace(host, proxy=proxy, proxy_settled=True, containers=(*others, container))

    def pull(self, host: HostFacts, step: Pull, wanted: Release) -> HostFacts:
        pulled = image(wanted) if step.digest.startswith("sha256:") else proxy_image(step)
        return replace(host, images=(*host.images, pulled))

    def deliver_secrets(self, host: HostFacts, step: DeliverSecrets, wanted: Release) -> HostFacts:
        made = f"g{len(host.generations) + 1}"
        return replace(host, secrets=made, generations=host.generations | {made})

    def migrate(self, host: HostFacts, step: Migrate, wanted: Release) -> HostFacts:
        self.schema = step.head
        return host

    def downgrade(self, host: HostFacts, step: Downgrade, wanted: Release) -> HostFacts:
        self.schema = step.to
        return host

    def boot(self, host: HostFacts, step: Boot, wanted: Release) -> HostFacts:
        spec = containers.make_slot_container(
            self.environment, step.role, step.slot, wanted, host.secrets or ""
        )
        standing = host.container(step.role, step.slot)
        if standing and standing.config == spec.labels[containers.CONFIG]:
            booted = replace(standing, state="running")
        else:
            self.clock += 1
            booted = ContainerFacts(
                id=f"c{self.clock:g}-{wanted.version}-{step.host}-{spec.name}",
                name=spec.name,
                role=step.role,
                slot=step.slot,
                version=str(wanted.version),
                digest=wanted.image.digest,
                config=spec.labels[containers.CONFIG],
                state="running",
                labels=spec.labels,
            )
        others = tuple(c for c in host.containers if c.name != spec.name)
        return replace(host, containers=(*others, booted))

    def verify(self, host: HostFacts, step: Verify, wanted: Release) -> HostFacts:
        return with_server(host, step.slot, state="drain", up=True, weight=FULL_WEIGHT)

    def shift(self, host: HostFacts, step: Shift, wanted: Release) -> HostFacts:
        host = with_server(host, step.to, state="ready", up=True, weight=FULL_WEIGHT)
        if host.proxy.servers[other(step.to)].state == "ready":
            host = with_server(host, other(step.to), state="drain")
        return record_weights(host, full_share(step.to))

    def record_live(self, host: HostFacts, step: RecordLive, wanted: Release) -> HostFacts:
        return record_weights(host, full_share(step.slot))

    def retire(self, host: HostFacts, step: Retire, wanted: Release) -> HostFacts:
        if step.role == "web":
            host = with_server(host, step.slot, state="maint", up=False)
        retired = host.container(step.role, step.slot)
        return replace(
            host,
            containers=tuple(
                replace(c, state="exited") if c is retired and c.running else c
                for c in host.containers
            ),
        )

    def record(self, host: HostFacts, step: RecordRun, wanted: Release) -> HostFacts:
        self.clock += 1
        made = Record(
            id=f"run-{self.clock:g}",
            kind="deploy",
            environment=self.environment.name,
            hosts=tuple(self.facts.hosts),
            version=str(wanted.version),
            digest=wanted.image.digest,
            revision=wanted.revision,
            outcome="succeeded",
            requested_by="test",
            started=self.clock,
            finished=self.clock,
            schema=wanted.schema_head,
        )
        return replace(host, records=(*host.records, made))

    def prune(self, host: HostFacts, step: Prune, wanted: Release) -> HostFacts:
        return replace(
            host,
            images=tuple(i for i in host.images if i.id not in step.images),
            containers=tuple(c for c in host.containers if c.id not in step.containers),
            generations=host.generations - set(step.secrets),
        )

    def leave(self, host: HostFacts, step: Step, wanted: Release) -> HostFacts:
        """The effect of a step that only waits, checks or makes a backup."""
        return host


EFFECTS: dict[type[Step], Callable[[World, HostFacts, Any, Release], HostFacts]] = {
    BackUp: World.leave,
    Boot: World.boot,
    DeliverSecrets: World.deliver_secrets,
    Downgrade: World.downgrade,
    Drain: World.leave,
    EnsureProxy: World.ensure_proxy,
    Migrate: World.migrate,
    Prune: World.prune,
    Pull: World.pull,
    RecordLive: World.record_live,
    RecordRun: World.record,
    Retire: World.retire,
    Shift: World.shift,
    Smoke: World.leave,
    Verify: World.verify,
    VerifyWorker: World.leave,
}
"""How each class of step changes its host's facts."""


def image(wanted: Release) -> ImageFacts:
    """The image of a release, as a host lists it."""
    return ImageFacts(
        id=f"sha256:{wanted.image.digest[7:][::-1]}",
        digests=(wanted.image.reference,),
        tags=(),
        labels=wanted.labels,
        size=1,
        created=0.0,
    )


def proxy_image(step: Pull) -> ImageFacts:
    """The proxy's image, as a host lists it after its pull."""
    tag = f"{step.repository}:{step.digest}"
    return ImageFacts(id="sha256:proxy", digests=(), tags=(tag,), labels={}, size=1, created=0.0)


def record_weights(host: HostFacts, weights: Weights) -> HostFacts:
    """The host with other weights in its proxy's file."""
    return replace(host, proxy=replace(host.proxy, recorded_weights=weights))


def with_server(host: HostFacts, slot: str, **changes: object) -> HostFacts:
    """The host with one of its proxy's servers changed."""
    servers = dict(host.proxy.servers)
    servers[slot] = dataclasses.replace(servers[slot], **changes)
    return replace(host, proxy=replace(host.proxy, servers=servers))
