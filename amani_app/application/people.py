"""Sign up, sign in, change the password."""

from __future__ import annotations

from dataclasses import replace

from amani_app.application.acting import Actor, Surroundings
from amani_app.domain.errors import DomainError
from amani_app.domain.users import Role, User
from amani_app.ports.identity import Identity, InvalidToken
from amani_app.ports.store import Store, UnitOfWork

SHORTEST_PASSWORD = 10


class BadCredentials(DomainError):
    """Address and password do not belong together; which of them is wrong is not told."""

    code = "bad-credentials"


class PeopleUseCases:
    """Hashing takes long on purpose, so it happens outside the units of work."""

    def __init__(self, around: Surroundings, store: Store, identity: Identity) -> None:
        self._around = around
        self._store = store
        self._identity = identity
        self._nobody = ""

    def sign_up(
        self, actor: Actor, email: str, name: str, password: str, role: Role = Role.MEMBER
    ) -> User:
        """A new person. Raises ``EmailTaken``."""
        user = User(
            id=self._around.new_id(),
            email=email.lower(),
            name=name,
            role=role,
            password_hash=self._identity.hash(password),
            created_at=self._around.now(),
        )

        def work(unit: UnitOfWork) -> None:
            unit.users.add(user)
            self._around.record(
                unit, replace(actor, user=user.id), "user.signed-up", user.id, "", role.value
            )

        self._store.run(work)
        return user

    def sign_in(self, email: str, password: str) -> User:
        """The person. Raises ``BadCredentials``; takes as long for an unknown address."""
        user = self._store.read(lambda work: work.users.by_email(email.lower()))
        if user is None:
            self._nobody = self._nobody or self._identity.hash("the password of nobody")
        hashed = user.password_hash if user else self._nobody
        if not self._identity.matches(password, hashed) or user is None:
            raise BadCredentials("the address and the password do not belong together")
        return user

    def change_password(self, actor: Actor, current: str, new: str) -> User:
        """The person, whose older tokens are void from now on. Raises ``BadCredentials``."""
        user = self._store.read(lambda work: work.users.get(actor.user))
        if not self._identity.matches(current, user.password_hash):
            raise BadCredentials("the current password is another one")
        hashed = self._identity.hash(new)

        def work(unit: UnitOfWork) -> User:
            found = unit.users.get(actor.user)
            changed = replace(found, password_hash=hashed, token_version=found.token_version + 1)
            unit.users.save(changed)
            self._around.record(unit, actor, "user.password-changed", actor.user, "", "")
            return changed

        return self._store.run(work)

    def who_is(self, token: str) -> User:
        """The person that *token* was given to. Raises ``InvalidToken``."""
        claims = self._identity.verify(token)
        try:
            user = self._store.read(lambda work: work.users.get(claims.user))
        except KeyError:
            raise InvalidToken from None
        if user.token_version != claims.token_version:
            raise InvalidToken
        return user
