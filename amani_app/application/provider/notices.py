"""Notices of the provider: stored once, then processed by a query of the provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from amani_app.application.common.acting import Context
from amani_app.application.provider.checkouts import Checkouts
from amani_app.application.provider.inflows import Inflows
from amani_app.application.provider.payouts import Payouts
from amani_app.application.common.queues import LEASE, Going, always, drain, wait
from amani_app.ports.payments import ProviderNotice, NoticeKind, Payments, ProviderUnavailable
from amani_app.ports.store import Store

GIVE_UP_AFTER = 10
"""Number of attempts, over about 15 minutes. A later copy of the notice starts again."""


class Notices:
    """Stores and processes notices; also a job of the worker.

    A notice triggers a query and never moves money by itself, so a replayed one is harmless.
    """

    name = "work-off-notices"

    def __init__(
        self,
        context: Context,
        store: Store,
        payments: Payments,
        checkouts: Checkouts,
        payouts: Payouts,
        inflows: Inflows,
    ) -> None:
        self._context = context
        self._store = store
        self._payments = payments
        self._ask: Mapping[NoticeKind, Callable[[str], bool]] = {
            NoticeKind.COLLECTION: checkouts.check,
            NoticeKind.PAYOUT: payouts.check,
            NoticeKind.INFLOW: inflows.check,
            NoticeKind.ACCOUNT: inflows.check_account,
        }

    def receive(self, raw: bytes, headers: Mapping[str, str]) -> bool:
        """Verify and store a notice; false for a copy.

        Raises `ForgedNotice`, and `ValueError` if a signed body is not a notice.
        """
        notice = self._payments.read_notice(raw, headers)
        now = self._context.now()
        return self._store.run(lambda unit: unit.inbox.add(notice, raw, now))

    def __call__(self, going: Going = always) -> int:
        return drain(self._claim, self._do, going)

    def _claim(self) -> tuple[str, ProviderNotice, int] | None:
        now = self._context.now()
        return self._store.run(lambda unit: unit.inbox.claim(now, now + LEASE))

    def _do(self, claimed: tuple[str, ProviderNotice, int]) -> None:
        id, notice, attempts = claimed
        ask = self._ask.get(notice.kind)
        if ask is None:
            self._store.run(lambda unit: unit.inbox.finish(id, "ignored"))
            return
        try:
            last, unreachable = ask(notice.reference), False
        except ProviderUnavailable:
            last, unreachable = False, True
        if last:
            self._store.run(lambda unit: unit.inbox.finish(id, "done"))
        elif attempts < GIVE_UP_AFTER or unreachable:
            due = self._context.now() + wait(attempts)
            self._store.run(lambda unit: unit.inbox.put_off(id, due))
        else:
            self._store.run(lambda unit: unit.inbox.finish(id, "given-up"))
