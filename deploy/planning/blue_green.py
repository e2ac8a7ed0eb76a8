"""Blue-green: the release boots in the idle slot of every host and gets all traffic at once.

Pure: (environment, release, facts) → plan. The facts can express every state that a killed run
leaves behind, so planning from the facts is also the repair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from deploy.execute.plan import Plan, Stage, Step, make_stage
from deploy.planning.retention import find_prunable, find_unneeded_secrets
from deploy.planning.schema_changes import plan_changes, plan_precaution
from deploy.planning.strategy import DEFAULTS
from deploy.state import containers
from deploy.state.facts import SLOTS, full_share, other
from deploy.steps.container import Boot, Retire, Verify, VerifyWorker
from deploy.steps.image import DeliverSecrets, Prune, Pull
from deploy.steps.journal import RecordRun
from deploy.steps.proxy import Drain, EnsureProxy, RecordLive, Shift
from deploy.steps.smoke import Smoke

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.planning.schema_changes import Options
    from deploy.state.facts import Facts, HostFacts, Role, Slot
    from deploy.state.journal import Record
    from deploy.state.release import Release


class BlueGreen:
    """Boot the release in the idle slot of every host, then move all traffic to it at once."""

    name = "blue-green"

    def plan(
        self,
        environment: Environment,
        release: Release,
        facts: Facts,
        *,
        kind: Literal["deploy", "rollback"] = "deploy",
        options: Options = DEFAULTS,
    ) -> Plan:
        hosts = [_HostPlan(environment, release, found) for found in facts.hosts.values()]
        reasons = [reason for host in hosts for reason in host.reasons]
        idle = all(host.converged for host in hosts)
        schema = plan_changes(environment, release, facts, kind, options, idle=idle)
        reasons += schema.reasons
        backup = schema.backup or plan_precaution(environment, facts, kind, idle=idle)
        # The previous release needs the columns that a contract removes, even without traffic.
        standby = environment.retention.standby == "running" and not schema.after
        fetching = [*(host.fetch() for host in hosts), *(host.make_room() for host in hosts)]
        stages = [
            make_stage("fetch", fetching),
            make_stage("prepare", [host.prepare() for host in hosts]),
            make_stage("backup", [list(backup)]),
            make_stage("migrate", [list(schema.before)]),
            *_batches(environment, hosts, standby),
            make_stage("workers", [host.workers() for host in hosts]),
        ]
        recorded = all(_recorded(host.facts, release) for host in hosts)
        needs_smoke = not recorded or any(made.needs_smoke for made in stages if made)
        if needs_smoke:
            stages.append(make_stage("smoke", [[host.smoke()] for host in hosts if host.web]))
        stages.append(make_stage("retire", [host.retire(standby) for host in hosts], "report"))
        # Only the new release runs now, so the contract can remove what older releases need.
        stages.append(make_stage("contract", [list(schema.after)], "report"))
        if needs_smoke:
            stages.append(
                make_stage("record", [[RecordRun(host.name)] for host in hosts], "report")
            )
        stages.append(make_stage("prune", [host.prune() for host in hosts], "report"))
        return Plan(
            kind,
            environment.name,
            str(release.version),
            release.image.digest,
            tuple(each for each in stages if each),
            tuple(reasons),
        )


def _recorded(facts: HostFacts, release: Release) -> bool:
    records = [record for record in facts.records if record.live]
    return bool(records) and _matches(records[-1], release)


def _matches(record: Record, release: Release) -> bool:
    return record.digest == release.image.digest and record.version == str(release.version)


def _batches(environment: Environment, hosts: list[_HostPlan], standby: bool) -> list[Stage | None]:
    by_name = {host.name: host for host in hosts if host.web}
    configs = [config for config in environment.hosts if config.name in by_name]
    batches = environment.batches(configs)
    return [
        make_stage(
            "swap" if len(batches) == 1 else f"swap {number} of {len(batches)}",
            [by_name[config.name].swap(standby) for config in batch],
        )
        for number, batch in enumerate(batches, 1)
    ]


@dataclass
class _RolePlan:
    """A role's slots on a host: the live one, and the one that the release boots in."""

    live: Slot | None
    target: Slot
    converged: bool


class _HostPlan:
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
        """Whether the wanted release already serves on this host."""
        return all(role.converged for role in (self.web, self.worker) if role)

    def _wanted(self, role: Role, slot: Slot) -> bool:
        """Whether the slot's container runs and equals the wanted one."""
        standing = self.facts.container(role, slot)
        return standing is not None and standing.running and standing.config == self._config(role)

    def _config(self, role: Role) -> str:
        if self.facts.secrets == "":
            return "unknown: its secrets are not on the host yet"
        generation = self.facts.secrets or ""
        spec = containers.make_slot_container(
            self.environment, role, "blue", self.release, generation
        )
        return spec.labels[containers.CONFIG]

    def _plan_web(self) -> _RolePlan:
        live = self.facts.live_slot
        if live is None:
            target = next((slot for slot in SLOTS if self._wanted("web", slot)), SLOTS[0])
            return _RolePlan(None, target, False)
        server = self.facts.proxy.servers.get(live)
        serves = self.facts.proxy.running and server is not None and server.up
        both = len(self.facts.proxy.ready_slots) == 2
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
            # If the previous worker runs too, a killed run may not have verified this one.
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
        """Start or change the proxy, if it differs from its settings."""
        if self.web is None or self.facts.proxy_settled:
            return []
        return [EnsureProxy(self.name, self.web.live, fresh=not self.facts.proxy.present)]

    def fetch(self) -> list[Step]:
        """Get the images and secrets that the host does not hold yet."""
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
        """Retire a standby of another release from the slot that the release boots in.

        It may still serve requests, so this runs beside the pull.
        """
        if self.web is None or self.web.converged or self.web.live == self.web.target:
            return []
        slot = self.web.target
        if not self._is_standby(slot) or self._wanted("web", slot):
            return []
        last: list[Step] = [Drain(self.name, slot)] if self._drains(slot) else []
        return [*last, Retire(self.name, "web", slot)]

    def swap(self, standby: bool) -> list[Step]:
        """Boot in the idle slot and shift the traffic, or complete the swap of a killed run.

        With `standby` the old slot keeps running, so its last requests need no drain.
        """
        if self.web is None:
            return []
        place = self.web
        old = other(place.target)
        steps: list[Step] = []
        if place.converged:
            recorded = self.facts.proxy.recorded_weights
            if self.facts.proxy.running and recorded != full_share(place.target):
                steps.append(RecordLive(self.name, place.target))
        elif place.live == place.target:  # a run was killed in the middle of the shift
            steps.append(Shift(self.name, place.target, old))
        else:
            steps += self._boot(place.target)
            steps.append(Shift(self.name, place.target, place.live))
        if self._drains(old) and not (standby and self._may_roll_back_to(old)):
            steps.append(Drain(self.name, old))
        return steps

    def _boot(self, slot: Slot) -> list[Step]:
        """Boot and verify the release in a slot without traffic, or verify it as the standby."""
        server = self.facts.proxy.servers.get(slot)
        if self._wanted("web", slot) and self._is_standby(slot):
            if server is not None and server.up and server.state == "drain":
                return [Verify(self.name, slot, standby=True)]
        return [Boot(self.name, "web", slot), Verify(self.name, slot)]

    def _is_standby(self, slot: Slot) -> bool:
        """Whether a slot's container can be the standby: it runs, and was live before."""
        standing = self.facts.container("web", slot)
        return standing is not None and standing.running and self.facts.was_live(standing)

    def _may_roll_back_to(self, slot: Slot) -> bool:
        """Whether it is the standby of another release, and not of this one with old settings."""
        standing = self.facts.container("web", slot)
        another = standing is not None and standing.digest != self.release.image.digest
        return another and self._is_standby(slot)

    def _occupied(self, slot: Slot) -> bool:
        standing = self.facts.container("web", slot)
        return standing is not None and standing.state in ("running", "restarting", "paused")

    def _drains(self, slot: Slot) -> bool:
        """Whether the slot may still serve requests."""
        server = self.facts.proxy.servers.get(slot)
        return self._occupied(slot) and (server is None or server.state != "maint")

    def workers(self) -> list[Step]:
        """Boot the worker in its idle slot; the old one runs until the release is verified."""
        if self.worker is None or self.worker.converged:
            return []
        slot = self.worker.target
        return [Boot(self.name, "worker", slot), VerifyWorker(self.name, slot)]

    def smoke(self) -> Step:
        return Smoke(self.name, str(self.release.version))

    def retire(self, standby: bool) -> list[Step]:
        """Retire the previous release, web first. A `standby` keeps its web container running."""
        steps: list[Step] = []
        if self.web is not None:
            old_slot = other(self.web.target)
            server = self.facts.proxy.servers.get(old_slot)
            out = server is None or server.state == "maint"
            if not (standby and self._may_roll_back_to(old_slot)) and (
                self._occupied(old_slot) or not out
            ):
                steps.append(Retire(self.name, "web", old_slot))
        if self.worker is not None:
            old = self.facts.container("worker", other(self.worker.target))
            if old is not None and old.state in ("running", "restarting", "paused"):
                steps.append(Retire(self.name, "worker", other(self.worker.target)))
        return steps

    def prune(self) -> list[Step]:
        """Remove what exceeds the retention, and what a killed run left behind."""
        images, leftovers = find_prunable(self.environment, self.facts, self.release.image.digest)
        moves = self.swap(standby=True) + self.workers()
        booted = {(step.role, step.slot) for step in moves if isinstance(step, Boot)}
        replaced = [
            found
            for found in self.facts.containers
            if found.id in leftovers or (found.role, found.slot) in booted
        ]
        generations = find_unneeded_secrets(self.facts, replaced)
        if not (images or leftovers or generations):
            return []
        return [Prune(self.name, images, leftovers, generations)]
