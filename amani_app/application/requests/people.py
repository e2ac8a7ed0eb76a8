"""Sign up, sign in, change the password."""

from __future__ import annotations

from dataclasses import replace

from amani_app.application.common.acting import Actor, Context
from amani_app.domain.errors import DomainError
from amani_app.domain.users import Role, User
from amani_app.ports.identity import Accounts, Claims, Identity, InvalidToken
from amani_app.ports.store import EmailTaken, Store, UnitOfWork

SHORTEST_PASSWORD = 10
NO_PASSWORD = ""  # nosec B105
"""The hash of somebody whose account is kept elsewhere: no password matches it."""


class BadCredentials(DomainError):
    """Address and password do not belong together; which of them is wrong is not told."""

    code = "bad-credentials"


class AccountsElsewhere(DomainError):
    """People sign up, sign in and change their passwords at another service."""

    code = "accounts-elsewhere"


class SecondFactorNeeded(DomainError):
    """Whoever takes money out must have signed in with a second factor."""

    code = "second-factor-needed"


class PeopleUseCases:
    """Hashing takes long on purpose, so it happens outside the units of work.

    Without *accounts* the people are another service's: they are known here from their first
    request on, and what concerns passwords raises ``AccountsElsewhere``.
    """

    def __init__(
        self, context: Context, store: Store, identity: Identity, accounts: Accounts | None
    ) -> None:
        self._context = context
        self._store = store
        self._identity = identity
        self._kept_here = accounts
        self._nobody = ""

    def sign_up(
        self, actor: Actor, email: str, name: str, password: str, role: Role = Role.MEMBER
    ) -> User:
        """A new person. Raises ``EmailTaken``."""
        user = User(
            id=self._context.new_id(),
            email=email.lower(),
            name=name,
            role=role,
            password_hash=self._accounts.hash(password),
            created_at=self._context.now(),
        )

        def change(unit: UnitOfWork) -> None:
            unit.users.add(user)
            self._context.record(
                unit, replace(actor, user=user.id), "user.signed-up", user.id, "", role.value
            )

        self._store.run(change)
        return user

    def sign_in(self, email: str, password: str) -> User:
        """The person. Raises ``BadCredentials``; takes as long for an unknown address."""
        user = self._store.read(lambda unit: unit.users.by_email(email.lower()))
        if user is None:
            self._nobody = self._nobody or self._accounts.hash("the password of nobody")
        hashed = user.password_hash if user else self._nobody
        if not self._accounts.matches(password, hashed) or user is None:
            raise BadCredentials("the address and the password do not belong together")
        return user

    def change_password(self, actor: Actor, current: str, new: str) -> User:
        """The person, whose older tokens are void from now on. Raises ``BadCredentials``."""
        user = self._store.read(lambda unit: unit.users.get(actor.user))
        if not self._accounts.matches(current, user.password_hash):
            raise BadCredentials("the current password is another one")
        hashed = self._accounts.hash(new)

        def change(unit: UnitOfWork) -> User:
            found = unit.users.get(actor.user)
            changed = replace(found, password_hash=hashed, token_version=found.token_version + 1)
            unit.users.save(changed)
            self._context.record(unit, actor, "user.password-changed", actor.user, "", "")
            return changed

        return self._store.run(change)

    def session(self, user: User) -> tuple[str, int]:
        """A token for *user*, and the seconds it is good for."""
        return self._accounts.issue(user), self._accounts.lifetime

    @property
    def _accounts(self) -> Accounts:
        if self._kept_here is None:
            raise AccountsElsewhere("accounts are kept by another service; sign in there")
        return self._kept_here

    def recognize(self, token: str, second_factor: bool = False) -> Claims:
        """Whose *token* it is; whether they may come in still has to be asked by ``admit``.

        Somebody whose account another service keeps is known here from now on. Raises
        ``InvalidToken``, ``IdentityUnavailable``, and ``SecondFactorNeeded`` where a
        *second_factor* is asked for.
        """
        claims = self._identity.verify(token)
        if second_factor and not claims.second_factor:
            raise SecondFactorNeeded("sign in with a second factor to take money out")
        if claims.token_version is None:
            self._welcome(claims)
        return claims

    def admit(self, unit: UnitOfWork, claims: Claims) -> Role:
        """In which role they act. Raises ``InvalidToken`` where theirs was made void since.

        In the unit of work of what they ask for, so that it costs no transaction of its own, and
        nothing is done for somebody who was shut out before.
        """
        if claims.token_version is None:
            return claims.role
        try:
            user = unit.users.get(claims.user)
        except KeyError:
            raise InvalidToken from None
        if user.token_version != claims.token_version:
            raise InvalidToken
        return user.role

    def _welcome(self, claims: Claims) -> None:
        """Know somebody as the service that keeps their account describes them now."""
        try:
            known = self._store.look(lambda unit: unit.users.get(claims.user))
        except KeyError:
            known = None
        now = (claims.email, claims.name, claims.role)
        if known and (known.email, known.name, known.role) == now:
            return
        user = User(
            id=claims.user,
            email=claims.email,
            name=claims.name,
            role=claims.role,
            password_hash=NO_PASSWORD,
            created_at=known.created_at if known else self._context.now(),
        )

        def change(unit: UnitOfWork) -> None:
            (unit.users.save if known else unit.users.add)(user)
            self._context.record(
                unit,
                Actor(user.id, user.role),
                "user.changed" if known else "user.signed-up",
                user.id,
                known.role.value if known else "",
                user.role.value,
            )

        try:
            self._store.run(change)
        except EmailTaken:
            # Two first requests at once, or an address that is somebody else's here.
            found = self._store.read(lambda unit: unit.users.by_email(claims.email))
            if found is None or found.id != claims.user:
                raise InvalidToken from None
