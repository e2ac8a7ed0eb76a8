"""A world of hosts as values: what each step does to the facts, as the real one does it."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path

from deploy.database.revisions import LABEL, History, Kind, Revision
from deploy.environment.model import Environment, load_environment
from deploy.execute.plan import Plan, Step
from deploy.state import containers
from deploy.state.facts import ContainerFacts, Facts, HostFacts, ImageFacts, ProxyFacts, ServerFacts
from deploy.state.journal import Record
from deploy.state.release import ImageRef, Release, Version
from deploy.steps import environment as env_steps
from deploy.steps import image as image_steps
from deploy.steps import slot as slot_steps
from deploy.steps.backup import BackUp
from deploy.steps.schema import Downgrade, Migrate

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
        self.clock = 0.0

    def run(self, plan: Plan, wanted: Release, steps: int | None = None) -> None:
        """Apply the first `steps` steps of a plan (all of them by default)."""
        for step in list(plan.steps())[:steps]:
            self.apply(step, wanted)

    def apply(self, step: Step, wanted: Release) -> None:
        """The effect of one step."""
        host = self.facts.hosts[step.host]
        match step:
            case env_steps.EnsureProxy():
                servers = {
                    slot: ServerFacts("ready" if slot == step.live else "maint", True, 100, 0)
                    for slot in ("blue", "green")
                }
                proxy = ProxyFacts(True, recorded=step.live, servers=servers, present=True)
                front_door = ContainerFacts(
                    id=f"proxy-{step.host}",
                    name="amani-planned-proxy",
                    role="proxy",
                    slot=None,
                    version="",
                    digest="",
                    config="",
                    state="running",
                )
                others = tuple(c for c in host.containers if c.role != "proxy")
                host = replace(
                    host, proxy=proxy, proxy_settled=True, containers=(*others, front_door)
                )
            case image_steps.Pull():
                pulled = image(wanted) if step.digest.startswith("sha256:") else front(step)
                host = replace(host, images=(*host.images, pulled))
            case image_steps.DeliverSecrets():
                made = f"g{len(host.generations) + 1}"
                host = replace(host, secrets=made, generations=host.generations | {made})
            case Migrate():
                self.facts = replace(self.facts, schema=step.head)
            case Downgrade():
                self.facts = replace(self.facts, schema=step.to)
            case BackUp():
                pass
            case slot_steps.Boot():
                host = self._boot(host, step, wanted)
            case slot_steps.Verify():
                host = with_server(host, step.slot, state="drain", up=True)
            case slot_steps.Shift():
                host = with_server(host, step.to, state="ready", up=True)
                if step.old:
                    host = with_server(host, step.old, state="drain")
                host = replace(host, proxy=replace(host.proxy, recorded=step.to))
            case env_steps.RecordLive():
                host = replace(host, proxy=replace(host.proxy, recorded=step.slot))
            case slot_steps.Retire():
                host = self._retire(host, step)
            case env_steps.Record():
                host = replace(host, records=(*host.records, self._record(wanted)))
            case image_steps.Prune():
                host = replace(
                    host,
                    images=tuple(i for i in host.images if i.id not in step.images),
                    containers=tuple(c for c in host.containers if c.id not in step.containers),
                    generations=host.generations - set(step.secrets),
                )
            case slot_steps.Drain() | slot_steps.VerifyWorker() | env_steps.Smoke():
                pass
            case _:
                raise AssertionError(f"the world does not know {step}")
        self.facts = replace(self.facts, hosts={**self.facts.hosts, step.host: host})

    def _boot(self, host: HostFacts, step: slot_steps.Boot, wanted: Release) -> HostFacts:
        spec = containers.slot_container(
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

    def _retire(self, host: HostFacts, step: slot_steps.Retire) -> HostFacts:
        if step.role == "web":
            host = with_server(host, step.slot, state="maint", up=False)
        return replace(
            host,
            containers=tuple(
                (
                    replace(c, state="exited")
                    if c.role == step.role and c.slot == step.slot and c.running
                    else c
                )
                for c in host.containers
            ),
        )

    def _record(self, wanted: Release) -> Record:
        self.clock += 1
        return Record(
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


def front(step: image_steps.Pull) -> ImageFacts:
    """The proxy's image."""
    tag = f"{step.repository}:{step.digest}"
    return ImageFacts(id="sha256:front", digests=(), tags=(tag,), labels={}, size=1, created=0.0)


def with_server(host: HostFacts, slot: str, **changes: object) -> HostFacts:
    """The host with one of its proxy's servers changed."""
    servers = dict(host.proxy.servers)
    servers[slot] = dataclasses.replace(servers[slot], **changes)
    return replace(host, proxy=replace(host.proxy, servers=servers))
