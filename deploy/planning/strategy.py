"""The interface of a strategy: how a release becomes live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from deploy.planning.schema_changes import Options

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.execute.plan import Plan
    from deploy.state.facts import Facts
    from deploy.state.release import Release

DEFAULTS = Options()


class Strategy(Protocol):
    """A way to make a release live on all hosts. Pure: facts in, plan out, no I/O."""

    @property
    def name(self) -> str:
        """Its name in the key `strategy` of the environment file and in the journal."""

    def plan(
        self,
        environment: Environment,
        release: Release,
        facts: Facts,
        *,
        kind: Literal["deploy", "rollback"] = "deploy",
        options: Options = DEFAULTS,
    ) -> Plan:
        """The plan that makes `release` live on every host of `facts`.

        It is empty if the release is already live and verified, and it starts from any state that
        a killed run can leave behind. A rollback never migrates, and downgrades the schema only
        if `options` allow it. Raises `GateRefused` if the schema forbids the release.
        """
