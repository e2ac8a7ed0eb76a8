"""Who acts, and the trace that every action leaves."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from datetime import datetime

from amani_app.domain.errors import DomainError
from amani_app.domain.users import Role
from amani_app.ports.store import AuditLine, OutboxEvent, UnitOfWork


class NotFound(DomainError):
    """There is no such thing, or it is not yours: the two are not told apart."""

    code = "not-found"


class Forbidden(DomainError):
    """The role does not allow it."""

    code = "forbidden"


@dataclass(frozen=True)
class Actor:
    """Who asks, in which role, and from where."""

    user: str
    role: Role = Role.MEMBER
    request_id: str = ""
    remote_addr: str = ""


CLOCK = Actor("clock")
"""The worker, acting because time has passed."""


@dataclass(frozen=True)
class Context:
    """What every use case needs beside the store: the time, and new ids."""

    now: t.Callable[[], datetime]
    new_id: t.Callable[[], str]

    def record(
        self,
        unit: UnitOfWork,
        actor: Actor,
        topic: str,
        subject: str,
        before: str,
        after: str,
        **payload: t.Any,
    ) -> None:
        """Write the audit line and the outbox event of one action into *unit*."""
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
