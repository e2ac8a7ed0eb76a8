"""Realistic data for development: users, and escrows in every state."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from datetime import timedelta
from functools import partial

from amani_app.application.common.acting import Actor, Context
from amani_app.application.requests.deposits import DepositUseCases
from amani_app.application.requests.escrows import EscrowUseCases, EscrowProposal
from amani_app.application.requests.people import PeopleUseCases
from amani_app.domain.money import Money
from amani_app.domain.users import Role, User
from amani_app.ports.store import Store, UnitOfWork

OPERATOR = Actor("operator")
CURRENCY = "NGN"
_FIRST = "Adaeze Bola Chidi Damilola Efe Funmi Gbenga Halima Ifeoma Jide Kemi Musa Ngozi Tunde"
_LAST = "Abubakar Adeyemi Bello Chukwu Danjuma Eze Ibrahim Lawal Nwosu Okafor Okoro Sani Yusuf"
_WORK = (
    ("Online shop", ("Wireframes", "Storefront", "Checkout", "Hand-over")),
    ("Logo and brand", ("Sketches", "Final artwork")),
    ("Payroll integration", ("Specification", "Integration", "Acceptance")),
    ("Product video", ("Script", "Shooting", "Editing")),
    ("Translation to Hausa and Yoruba", ("First half", "Second half")),
)
_LIVES: tuple[tuple[str, ...], ...] = (
    (),
    ("cancel",),
    ("accept",),
    ("accept", "fund"),
    ("accept", "fund", "submit"),
    ("accept", "fund", "submit", "reject", "submit"),
    ("accept", "fund", "submit", "approve"),
    ("accept", "fund", "submit", "dispute"),
    ("accept", "fund", "dispute", "resolve"),
    ("accept", "fund", "cancel", "cancel-too"),
)
"""Sequences of actions; milestone actions apply to the first milestone."""


class Seeder:
    """Creates users and escrows through the use cases."""

    def __init__(
        self,
        context: Context,
        store: Store,
        people: PeopleUseCases,
        escrows: EscrowUseCases,
        deposits: DepositUseCases,
        chance: random.Random,
    ) -> None:
        self._context = context
        self._store = store
        self._people = people
        self._escrows = escrows
        self._deposits = deposits
        self._chance = chance

    def make_people(self, number: int, password: str) -> Iterator[User]:
        """`number` users, each with `password`; the first is an arbiter."""
        for index in range(number):
            first, last = (self._chance.choice(names.split()) for names in (_FIRST, _LAST))
            email = f"{first}.{last}.{self._context.new_id()[-6:]}@amani.example".lower()
            role = Role.MEMBER if index else Role.ARBITER
            yield self._people.sign_up(OPERATOR, email, f"{first} {last}", password, role)

    def make_escrows(self, number: int, people: Sequence[User]) -> Iterator[str]:
        """`number` escrows between `people`, of whom the first is the arbiter; yields ids."""
        arbiter, members = people[0], people[1:]
        for _ in range(number):
            client, freelancer = self._chance.sample(members, 2)
            life = self._chance.choice(_LIVES)
            cast = _Participants(
                Actor(client.id), Actor(freelancer.id), Actor(arbiter.id, Role.ARBITER)
            )
            yield self._store.run(partial(self._live, cast, self._plan(freelancer), life))

    def _plan(self, freelancer: User) -> EscrowProposal:
        title, milestones = self._chance.choice(_WORK)
        today = self._context.now().date()
        return EscrowProposal(
            title,
            freelancer.email,
            CURRENCY,
            self._chance.choice((3, 7, 14)),
            tuple(
                (name, self._amount(), today + timedelta(days=14 * number))
                for number, name in enumerate(milestones, 1)
            ),
        )

    def _amount(self) -> Money:
        return Money(self._chance.randrange(20, 500) * 100_000, CURRENCY)

    def _live(
        self, cast: _Participants, plan: EscrowProposal, life: Sequence[str], unit: UnitOfWork
    ) -> str:
        escrow = self._escrows.create(unit, cast.client, plan)
        milestone = escrow.milestones[0].id
        for step in life:
            match step:
                case "accept":
                    self._escrows.accept(unit, cast.freelancer, escrow.id)
                case "fund":
                    price = sum((amount for _, amount, _ in plan.milestones), Money.zero(CURRENCY))
                    self._deposits.collected(
                        unit, OPERATOR, cast.client.user, f"seed-{escrow.id}", price, price
                    )
                    self._escrows.fund(unit, cast.client, escrow.id)
                case "cancel":
                    self._escrows.cancel(unit, cast.client, escrow.id)
                case "cancel-too":
                    self._escrows.cancel(unit, cast.freelancer, escrow.id)
                case "resolve":
                    share = self._chance.choice((0, 2_500, 5_000, 10_000))
                    self._escrows.resolve(unit, cast.arbiter, escrow.id, milestone, share)
                case _:
                    actor = cast.client if step in ("approve", "reject") else cast.freelancer
                    getattr(self._escrows, step)(unit, actor, escrow.id, milestone)
        return escrow.id


class _Participants(NamedTuple):
    client: Actor
    freelancer: Actor
    arbiter: Actor
