"""Authentication and authorisation in the use cases, without HTTP or a database."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from amani_app.adapters.memory.identity import MemoryAccounts
from amani_app.adapters.memory.store import MemoryStore
from amani_app.application.common.acting import Actor, Context, Forbidden, NotFound
from amani_app.application.requests.deposits import DepositUseCases
from amani_app.application.requests.escrows import EscrowProposal, EscrowUseCases
from amani_app.application.requests.people import AccountsElsewhere, BadCredentials, PeopleUseCases
from amani_app.application.worker.jobs import ExpireSilence
from amani_app.domain.errors import InvalidEscrow
from amani_app.domain.escrow import Escrow, FeePolicy, MilestoneState
from amani_app.domain.money import Money
from amani_app.domain.users import Role, User
from amani_app.ports.identity import Claims, InvalidToken
from amani_app.ports.store import UnitOfWork
from tests.support.contracts.store import NOW
from tests.support.people import PASSWORD


class Issuer:
    """An issuer whose tokens stand for the claims that they were made from."""

    def __init__(self) -> None:
        self.tokens: dict[str, Claims] = {}

    def issue(self, **claims: object) -> str:
        token = f"token-{len(self.tokens)}"
        self.tokens[token] = Claims(**claims)  # type: ignore[arg-type]
        return token

    def verify(self, token: str) -> Claims:
        if token not in self.tokens:
            raise InvalidToken
        return self.tokens[token]


class World:
    """Use cases in memory."""

    def __init__(self) -> None:
        self.now = NOW
        numbers = itertools.count(1)
        self.context = Context(lambda: self.now, lambda: f"{next(numbers):06}")
        self.store = MemoryStore(lambda: self.now)
        self.accounts, self.issuer = MemoryAccounts(), Issuer()
        self.people = PeopleUseCases(self.context, self.store, self.accounts, self.accounts)
        self.guests = PeopleUseCases(self.context, self.store, self.issuer, None)
        self.escrows = EscrowUseCases(self.context, FeePolicy(500))

    def person(self, name: str, role: Role = Role.MEMBER) -> User:
        return self.people.sign_up(Actor("test"), f"{name}@example.org", name, PASSWORD, role)

    def who_is(self, people: PeopleUseCases, token: str) -> User:
        """The user of `token`, whose role equals the admitted role."""

        def change(unit: UnitOfWork) -> User:
            role = people.admit(unit, claims)
            user = unit.users.get(claims.user)
            assert user.role is role
            return user

        claims = people.recognize(token)
        return self.store.look(change)

    def actions(self) -> list[str]:
        return [line.action for line in self.store.state.lines]

    def submitted(self, client: User, freelancer: User) -> Escrow:
        """An escrow between the two with one submitted milestone."""
        money = Money(100, "NGN")
        plan = EscrowProposal("A shop", freelancer.email, "NGN", 7, (("All of it", money, None),))
        deposits = DepositUseCases(self.context)
        ada, ben = Actor(client.id), Actor(freelancer.id)
        run = self.store.run
        run(lambda unit: deposits.collected(unit, ada, client.id, "d1", money, money))
        made = run(lambda unit: self.escrows.create(unit, ada, plan))
        run(lambda unit: self.escrows.accept(unit, ben, made.id))
        run(lambda unit: self.escrows.fund(unit, ada, made.id))
        milestone = made.milestones[0].id
        return run(lambda unit: self.escrows.submit(unit, ben, made.id, milestone))


@pytest.fixture
def world() -> World:
    return World()


class TestPasswords:
    def test_sign_in_requires_correct_password(self, world: World) -> None:
        ada = world.person("ada")
        assert world.people.sign_in("ADA@example.org", PASSWORD) == ada
        for email, password in (("ada@example.org", "wrong"), ("eve@example.org", PASSWORD)):
            with pytest.raises(BadCredentials):
                world.people.sign_in(email, password)

    def test_password_change_requires_old_password_and_ends_sessions(self, world: World) -> None:
        ada = world.person("ada")
        token, lifetime = world.people.session(ada)
        assert (world.who_is(world.people, token), lifetime) == (ada, 3600)
        with pytest.raises(BadCredentials):
            world.people.change_password(Actor(ada.id), "wrong", "another password")
        assert world.who_is(world.people, token) == ada
        changed = world.people.change_password(Actor(ada.id), PASSWORD, "another password")
        with pytest.raises(InvalidToken):
            world.who_is(world.people, token)
        assert world.who_is(world.people, world.people.session(changed)[0]) == changed

    def test_token_of_unknown_user_is_rejected(self, world: World) -> None:
        elsewhere = World().person("ada")
        with pytest.raises(InvalidToken):
            world.who_is(world.people, world.accounts.issue(elsewhere))


class TestAccountsElsewhere:
    def test_first_request_creates_the_user(self, world: World) -> None:
        token = world.issuer.issue(user="s-1", email="ada@example.org", name="Ada")
        first, again = world.who_is(world.guests, token), world.who_is(world.guests, token)
        assert first == again == world.store.read(lambda unit: unit.users.get("s-1"))
        assert world.actions() == ["user.signed-up"]

    def test_changed_claims_update_the_user(self, world: World) -> None:
        claims = {"user": "s-1", "email": "ada@example.org", "name": "Ada"}
        first = world.who_is(world.guests, world.issuer.issue(**claims))
        world.now += timedelta(days=1)
        changed = world.who_is(world.guests, world.issuer.issue(**{**claims, "role": Role.ARBITER}))
        assert (changed.role, changed.created_at) == (Role.ARBITER, first.created_at)
        assert world.actions() == ["user.signed-up", "user.changed"]

    def test_email_of_another_user_is_rejected(self, world: World) -> None:
        ada = world.person("ada")
        token = world.issuer.issue(user="s-1", email=ada.email, name="Ada")
        with pytest.raises(InvalidToken):
            world.who_is(world.guests, token)

    def test_concurrent_first_requests_create_one_user(self, world: World) -> None:
        token = world.issuer.issue(user="s-1", email="ada@example.org", name="Ada")
        run = world.store.run

        def meanwhile(change: object) -> object:
            world.store.run = run  # type: ignore[method-assign]
            world.who_is(world.guests, token)
            return run(change)  # type: ignore[arg-type]

        world.store.run = meanwhile  # type: ignore[assignment,method-assign]
        assert world.who_is(world.guests, token).id == "s-1"
        assert world.actions() == ["user.signed-up"]

    def test_external_identity_stores_no_password(self, world: World) -> None:
        user = world.who_is(
            world.guests, world.issuer.issue(user="s-1", email="a@b.example", name="A")
        )
        for call in (
            lambda: world.guests.sign_up(Actor("test"), "b@b.example", "B", PASSWORD),
            lambda: world.guests.sign_in(user.email, PASSWORD),
            lambda: world.guests.change_password(Actor(user.id), "", PASSWORD),
            lambda: world.guests.session(user),
        ):
            with pytest.raises(AccountsElsewhere):
                call()


class TestAgreements:
    def test_escrow_with_unknown_freelancer_is_rejected(self, world: World) -> None:
        ada = world.person("ada")
        plan = EscrowProposal(
            "A shop", "eve@example.org", "NGN", 7, (("x", Money(1, "NGN"), None),)
        )
        with pytest.raises(InvalidEscrow):
            world.store.run(lambda unit: world.escrows.create(unit, Actor(ada.id), plan))

    def test_only_an_uninvolved_arbiter_may_resolve(self, world: World) -> None:
        ada, ben = world.person("ada", Role.ARBITER), world.person("ben")
        escrow = world.submitted(ada, ben)
        milestone = escrow.milestones[0].id
        for actor, refusal in (
            (Actor(ada.id, Role.ARBITER), Forbidden),
            (Actor(ben.id, Role.MEMBER), Forbidden),
            (Actor("eve", Role.MEMBER), NotFound),
        ):
            with pytest.raises(refusal):
                world.store.run(
                    lambda unit, actor=actor: world.escrows.resolve(
                        unit, actor, escrow.id, milestone, 0
                    )
                )

    def test_silence_interrupted_before_expiry_releases_nothing(self, world: World) -> None:
        ada, ben = world.person("ada"), world.person("ben")
        escrow = world.submitted(ada, ben)
        milestone = escrow.milestones[0].id
        world.now += timedelta(days=8)

        def going() -> bool:
            # The client opens a dispute between the query and the release.
            world.store.run(
                lambda unit: world.escrows.dispute(unit, Actor(ada.id), escrow.id, milestone)
            )
            return True

        job = ExpireSilence(world.store, world.escrows, lambda: world.now)
        assert job(going) == 0
        found = world.store.read(lambda unit: unit.escrows.get(escrow.id))
        assert found.milestones[0].state is MilestoneState.DISPUTED
