"""Actors, and the audit line and event of every action."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from dataclasses import dataclass
from datetime import datetime

from amani_app.domain.errors import DomainError
from amani_app.domain.users import Role
from amani_app.ports.store import AuditLine, OutboxEvent, UnitOfWork


class NotFound(DomainError):
    """It does not exist, or the actor may not see it; the two are not distinguished."""

    code = "not-found"


class Forbidden(DomainError):
    """The role does not allow it."""

    code = "forbidden"


@dataclass(frozen=True)
class Actor:
    """The user who acts, their role, and the request that it happens in."""

    user: str
    role: Role = Role.MEMBER
    request_id: str = ""
    remote_addr: str = ""


CLOCK = Actor("clock")
"""The worker, which acts when a time is due."""


@dataclass(frozen=True)
class Context:
    """The clock and the source of ids, which every use case needs."""

    now: Callable[[], datetime]
    new_id: Callable[[], str]

    def record(
        self,
        unit: UnitOfWork,
        actor: Actor,
        topic: str,
        subject: str,
        before: str,
        after: str,
        **payload: Any,
    ) -> None:
        """Write the audit line and the outbox event of one action into `unit`."""
        now = self.now()
        unit.audit(
            AuditLine(
                id=self.new_id(),
                at=now,
                actor=actor.user,
                action=topic,
                subject=subject,
                before=before,
                after=after,
                request_id=actor.request_id,
                remote_addr=actor.remote_addr,
            )
        )
        unit.publish(OutboxEvent(self.new_id(), topic, subject, payload, now))
