"""Blue-green: the release boots in the idle slot of every host and takes the traffic at once.

Pure: (environment, release, facts) → plan. Every state that a killed run can leave behind is a
state of the facts, so planning from the facts is also the repair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from deploy.execute.plan import Plan, Stage, Step, stage
from deploy.planning.retention import prunable, unneeded_secrets
from deploy.planning.schema_changes import Options, changes, precaution
from deploy.state import containers
from deploy.state.facts import SLOTS, ContainerFacts, Facts, HostFacts, Role, Slot, other
from deploy.state.journal import Record
from deploy.steps.environment import EnsureProxy
from deploy.steps.environment import Record as RecordStep
from deploy.steps.environment import RecordLive, Smoke
from deploy.steps.image import DeliverSecrets, Prune, Pull
from deploy.steps.slot import Boot, Drain, Retire, Shift, Verify, VerifyWorker

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.state.release import Release

DEFAULTS = Options()


def plan(
    environment: Environment,
    release: Release,
    facts: Facts,
    *,
    kind: Literal["deploy", "rollback"] = "deploy",
    options: Options = DEFAULTS,
) -> Plan:
    """What turns the observed state into `release` live on every host of `facts`.

    A converged environment gives an empty plan. A rollback never migrates, and undoes a migration
    only where `options` say so. Raises `GateRefused` where the schema forbids it.
    """
    hosts = [_HostPlan(environment, release, found) for found in facts.hosts.values()]
    reasons = [reason for host in hosts for reason in host.reasons]
    idle = all(host.converged for host in hosts)
    schema = changes(environment, release, facts, kind, options, idle=idle)
    reasons += schema.reasons
    backup = schema.backup or precaution(environment, facts, kind, idle=idle)
    # What a contract takes away the release before needs, even where it gets no traffic.
    standby = environment.retention.standby == "running" and not schema.after
    stages = [
        stage("fetch", [*(host.fetch() for host in hosts), *(host.make_room() for host in hosts)]),
        stage("prepare", [host.prepare() for host in hosts]),
        stage("backup", [list(backup)]),
        stage("migrate", [list(schema.before)]),
        *_batches(environment, hosts, standby),
        stage("workers", [host.workers() for host in hosts]),
    ]
    moved = any(
        step.kind in ("migrate", "downgrade", "boot", "shift")
        for made in stages
        if made
        for lane in made.lanes
        for step in lane
    )
    recorded = all(_recorded(host.facts, release) for host in hosts)
    if moved or not recorded:
        stages.append(stage("smoke", [[host.smoke()] for host in hosts if host.web]))
    stages.append(stage("retire", [host.retire(standby) for host in hosts], "report"))
    # What it takes away nobody uses any more, now that nothing else runs.
    stages.append(stage("contract", [list(schema.after)], "report"))
    if moved or not recorded:
        stages.append(stage("record", [[RecordStep(host.name)] for host in hosts], "report"))
    stages.append(stage("prune", [host.prune() for host in hosts], "report"))
    return Plan(
        kind,
        environment.name,
        str(release.version),
        release.image.digest,
        tuple(each for each in stages if each),
        tuple(reasons),
    )


def live_slot(facts: HostFacts) -> Slot | None:
    """The slot that a host's traffic goes to; None where none serves.

    The running proxy says it. Where it sends traffic to both or to none (a kill in mid-shift),
    and where no proxy runs, its file decides.
    """
    ready = [slot for slot in SLOTS if slot in _ready(facts)]
    if len(ready) == 1:
        return ready[0]
    recorded = facts.proxy.recorded
    if recorded is None or recorded in ready:
        return recorded
    standing = facts.container("web", recorded)
    return recorded if standing is not None and standing.running else None


def lived(facts: HostFacts, found: ContainerFacts) -> bool:
    """Whether a container's release was live on its host, as the journal has it."""
    return any(record.live and record.digest == found.digest for record in facts.records)


def _ready(facts: HostFacts) -> set[Slot]:
    if not facts.proxy.running:
        return set()
    return {slot for slot, server in facts.proxy.servers.items() if server.state == "ready"}


def _recorded(facts: HostFacts, release: Release) -> bool:
    records = [record for record in facts.records if record.live]
    return bool(records) and _same(records[-1], release)


def _same(record: Record, release: Release) -> bool:
    return record.digest == release.image.digest and record.version == str(release.version)


def _batches(environment: Environment, hosts: list[_HostPlan], standby: bool) -> list[Stage | None]:
    by_name = {host.name: host for host in hosts if host.web}
    configs = [config for config in environment.hosts if config.name in by_name]
    batches = environment.batches(configs)
    return [
        stage(
            "swap" if len(batches) == 1 else f"swap {number} of {len(batches)}",
            [by_name[config.name].swap(standby) for config in batch],
        )
        for number, batch in enumerate(batches, 1)
    ]


@dataclass
class _RolePlan:
    """Where a role's release stands on a host: the slot it serves from, and the one it goes to."""

    live: Slot | None
    target: Slot
    converged: bool


class _HostPlan:
    """One host's part of the plan."""

    def __init__(self, environment: Environment, release: Release, facts: HostFacts) -> None:
        self.environment = environment
        self.release = release
        self.facts = facts
        self.name = facts.name
        self.web = self._plan_web() if "web" in facts.roles else None
        self.worker = self._plan_worker() if "worker" in facts.roles else None
        self.reasons = tuple(self._reasons())

    @property
    def converged(self) -> bool:
        """Whether the wanted release serves here already."""
        return all(role.converged for role in (self.web, self.worker) if role)

    def _wanted(self, role: Role, slot: Slot) -> bool:
        """Whether the slot holds a running container of exactly what is wanted."""
        standing = self.facts.container(role, slot)
        return standing is not None and standing.running and standing.config == self._config(role)

    def _config(self, role: Role) -> str:
        if self.facts.secrets == "":
            return "to be made: its secrets are not on the host yet"
        generation = self.facts.secrets or ""
        spec = containers.slot_container(self.environment, role, "blue", self.release, generation)
        return spec.labels[containers.CONFIG]

    def _plan_web(self) -> _RolePlan:
        live = live_slot(self.facts)
        if live is None:
            target = next((slot for slot in SLOTS if self._wanted("web", slot)), SLOTS[0])
            return _RolePlan(None, target, False)
        server = self.facts.proxy.servers.get(live)
        serves = self.facts.proxy.running and server is not None and server.up
        both = len(_ready(self.facts)) == 2
        if self._wanted("web", live) and (serves or not self.facts.proxy.running):
            return _RolePlan(live, live, not both)
        return _RolePlan(live, other(live), False)

    def _plan_worker(self) -> _RolePlan:
        running = [
            slot
            for slot in SLOTS
            if (standing := self.facts.container("worker", slot)) and standing.running
        ]
        wanted = [slot for slot in running if self._wanted("worker", slot)]
        if wanted:
            # Where the one before runs too, a kill came before anybody saw whether this one is
            # steady.
            return _RolePlan(wanted[0], wanted[0], len(running) == 1)
        live = running[0] if running else None
        return _RolePlan(live, other(live) if live else SLOTS[0], False)

    def _reasons(self) -> list[str]:
        reasons = []
        for role, place in (("web", self.web), ("worker", self.worker)):
            if place is None or place.converged:
                continue
            standing = self.facts.container(role, place.live) if place.live else None
            now = f"{standing.version} in {place.live}" if standing else "nothing"
            reasons.append(f"{self.name}: {role} serves {now}")
        return reasons

    def prepare(self) -> list[Step]:
        """The proxy, where it is not as it should be."""
        if self.web is None or self.facts.proxy_settled:
            return []
        return [EnsureProxy(self.name, self.web.live, fresh=not self.facts.proxy.present)]

    def fetch(self) -> list[Step]:
        """Image and secrets, where the host does not hold them yet."""
        steps: list[Step] = []
        image = self.release.image
        if not self.converged and image.registered and not self.facts.holds(image.digest):
            steps.append(Pull(self.name, image.repository, image.digest))
        proxy = self.environment.proxy.image
        if self.web and not self.facts.proxy.present and not self.facts.tagged(proxy):
            repository, _, tag = proxy.rpartition(":")
            steps.append(Pull(self.name, repository, tag))
        if self.facts.secrets == "":
            steps.append(DeliverSecrets(self.name))
        return steps

    def make_room(self) -> list[Step]:
        """End another release that stands by where the wanted one will boot, meanwhile: it may have
        requests left from when it served."""
        if self.web is None or self.web.converged or self.web.live == self.web.target:
            return []
        slot = self.web.target
        if not self._stands_by(slot) or self._wanted("web", slot):
            return []
        last: list[Step] = [Drain(self.name, slot)] if self._drains(slot) else []
        return [*last, Retire(self.name, "web", slot)]

    def swap(self, standby: bool) -> list[Step]:
        """Boot in the idle slot and take the traffic, or finish a swap that a kill cut short.

        With `standby` the old slot runs on, so nobody need wait for its last requests.
        """
        if self.web is None:
            return []
        place = self.web
        old = other(place.target)
        steps: list[Step] = []
        if place.converged:
            if self.facts.proxy.running and self.facts.proxy.recorded != place.target:
                steps.append(RecordLive(self.name, place.target))
        elif place.live == place.target:  # a kill came between the two halves of its shift
            steps.append(Shift(self.name, place.target, old))
        else:
            steps += self._boot(place.target)
            steps.append(Shift(self.name, place.target, place.live))
        if self._drains(old) and not (standby and self._may_go_back_to(old)):
            steps.append(Drain(self.name, old))
        return steps

    def _boot(self, slot: Slot) -> list[Step]:
        """The wanted release in a slot that gets no traffic, seen to be ready."""
        server = self.facts.proxy.servers.get(slot)
        if self._wanted("web", slot) and self._stands_by(slot):
            if server is not None and server.up and server.state == "drain":
                return [Verify(self.name, slot, standby=True)]
        return [Boot(self.name, "web", slot), Verify(self.name, slot)]

    def _stands_by(self, slot: Slot) -> bool:
        """Whether a slot's container could serve again: it runs, and was live before."""
        standing = self.facts.container("web", slot)
        return standing is not None and standing.running and lived(self.facts, standing)

    def _may_go_back_to(self, slot: Slot) -> bool:
        """The same, with another release: this one with earlier settings never comes back."""
        standing = self.facts.container("web", slot)
        another = standing is not None and standing.digest != self.release.image.digest
        return another and self._stands_by(slot)

    def _occupied(self, slot: Slot) -> bool:
        standing = self.facts.container("web", slot)
        return standing is not None and standing.state in ("running", "restarting", "paused")

    def _drains(self, slot: Slot) -> bool:
        """Whether requests may still be under way there."""
        server = self.facts.proxy.servers.get(slot)
        return self._occupied(slot) and (server is None or server.state != "maint")

    def workers(self) -> list[Step]:
        """The worker in its idle slot; the old one goes on until the release is verified."""
        if self.worker is None or self.worker.converged:
            return []
        slot = self.worker.target
        return [Boot(self.name, "worker", slot), VerifyWorker(self.name, slot)]

    def smoke(self) -> Step:
        """Ask through the public route."""
        return Smoke(self.name, str(self.release.version))

    def retire(self, standby: bool) -> list[Step]:
        """Stop what served before, web first; with `standby` a web container runs on."""
        steps: list[Step] = []
        if self.web is not None:
            old_slot = other(self.web.target)
            server = self.facts.proxy.servers.get(old_slot)
            out = server is None or server.state == "maint"
            if not (standby and self._may_go_back_to(old_slot)) and (
                self._occupied(old_slot) or not out
            ):
                steps.append(Retire(self.name, "web", old_slot))
        if self.worker is not None:
            old = self.facts.container("worker", other(self.worker.target))
            if old is not None and old.state in ("running", "restarting", "paused"):
                steps.append(Retire(self.name, "worker", other(self.worker.target)))
        return steps

    def prune(self) -> list[Step]:
        """What is older than the retention, and what a kill left lying."""
        images, leftovers = prunable(self.environment, self.facts, self.release.image.digest)
        moves = self.swap(standby=True) + self.workers()
        booted = {(step.role, step.slot) for step in moves if isinstance(step, Boot)}
        replaced = [
            found
            for found in self.facts.containers
            if found.id in leftovers or (found.role, found.slot) in booted
        ]
        generations = unneeded_secrets(self.facts, replaced)
        if not (images or leftovers or generations):
            return []
        return [Prune(self.name, images, leftovers, generations)]
