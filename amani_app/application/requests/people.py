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
"""The hash of a user of another identity provider; no password matches it."""


class BadCredentials(DomainError):
    """The address or the password is wrong; the message does not distinguish them."""

    code = "bad-credentials"


class AccountsElsewhere(DomainError):
    """Another identity provider keeps the accounts and passwords."""

    code = "accounts-elsewhere"


class SecondFactorNeeded(DomainError):
    """A withdrawal requires a sign-in with a second factor."""

    code = "second-factor-needed"


class PeopleUseCases:
    """Sign-up, sign-in and authorization. Slow password hashing is outside the units of work.

    Without `accounts` another identity provider keeps them: users are created at their first
    request, and password operations raise `AccountsElsewhere`.
    """

    def __init__(
        self, context: Context, store: Store, identity: Identity, accounts: Accounts | None
    ) -> None:
        self._context = context
        self._store = store
        self._identity = identity
        self._kept_here = accounts
        self._decoy_hash = ""

    def sign_up(
        self, actor: Actor, email: str, name: str, password: str, role: Role = Role.MEMBER
    ) -> User:
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
        """The user. Raises `BadCredentials`, after the same time for an unknown address."""
        user = self._store.read(lambda unit: unit.users.by_email(email.lower()))
        if user is None:
            self._decoy_hash = self._decoy_hash or self._accounts.hash(
                "a password that no user has"
            )
        hashed = user.password_hash if user else self._decoy_hash
        if not self._accounts.matches(password, hashed) or user is None:
            raise BadCredentials("the email address or the password is wrong")
        return user

    def change_password(self, actor: Actor, current: str, new: str) -> User:
        """Change the password and revoke older tokens. Raises `BadCredentials`."""
        user = self._store.read(lambda unit: unit.users.get(actor.user))
        if not self._accounts.matches(current, user.password_hash):
            raise BadCredentials("the current password is wrong")
        hashed = self._accounts.hash(new)

        def change(unit: UnitOfWork) -> User:
            found = unit.users.get(actor.user)
            changed = replace(found, password_hash=hashed, token_version=found.token_version + 1)
            unit.users.save(changed)
            self._context.record(unit, actor, "user.password-changed", actor.user, "", "")
            return changed

        return self._store.run(change)

    def session(self, user: User) -> tuple[str, int]:
        """A token for `user`, and the seconds until it expires."""
        return self._accounts.issue(user), self._accounts.lifetime

    @property
    def _accounts(self) -> Accounts:
        if self._kept_here is None:
            raise AccountsElsewhere("another identity provider keeps the accounts; sign in there")
        return self._kept_here

    def recognize(self, token: str, second_factor: bool = False) -> Claims:
        """Authenticate: the claims of `token`. `admit` then authorizes the user.

        Creates the user of another identity provider at the first request. Raises
        `InvalidToken`, `IdentityUnavailable`, and `SecondFactorNeeded` if `second_factor` is
        required.
        """
        claims = self._identity.verify(token)
        if second_factor and not claims.second_factor:
            raise SecondFactorNeeded("a withdrawal requires a sign-in with a second factor")
        if claims.token_version is None:
            self._welcome(claims)
        return claims

    def admit(self, unit: UnitOfWork, claims: Claims) -> Role:
        """The current role of the user. Raises `InvalidToken` if the token was revoked.

        Call it in the unit of work of the request: it then costs no transaction of its own, and a
        revocation that was committed before takes effect.
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
        """Create or update the user from the claims of the other identity provider."""
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
            # Two first requests at once, or an address of another user.
            found = self._store.read(lambda unit: unit.users.by_email(claims.email))
            if found is None or found.id != claims.user:
                raise InvalidToken from None
