"""What goes in and out over HTTP. Unknown fields are refused; amounts are never floats."""

from __future__ import annotations

import typing as t
from datetime import date, datetime

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from amani_app.domain.escrow import MOST_MILESTONES, Escrow, Milestone, EscrowState, MilestoneState
from amani_app.domain.ledger import Account, Balance
from amani_app.domain.money import EXPONENTS, LARGEST, Money
from amani_app.domain.payments import (
    AccountState,
    Deposit,
    DepositState,
    VirtualAccount,
    Withdrawal,
    WithdrawalState,
)
from amani_app.domain.users import Role, User
from amani_app.ports.store import AuditLine, LedgerLine

# No control characters: PostgreSQL holds no NUL, and no name needs a line feed.
PLAIN = r"^[^\x00-\x1f\x7f]*$"
Name = t.Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=PLAIN),
    Field(examples=["Ada Obi"]),
]
Title = t.Annotated[Name, Field(examples=["A web shop"])]
Email = t.Annotated[
    str,
    StringConstraints(max_length=254, pattern=r"^[\w.+-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$"),
    Field(examples=["ada@example.org"]),
]
Password = t.Annotated[
    str,
    StringConstraints(min_length=10, max_length=200),
    Field(examples=["correct horse battery"]),
]
Currency = t.Literal["NGN", "GHS", "KES", "ZAR", "USD", "EUR", "GBP", "UGX", "XOF"]
Amount = t.Annotated[
    t.Annotated[str, StringConstraints(pattern=r"^[0-9]{1,16}(\.[0-9]{1,4})?$")]
    | t.Annotated[int, Field(ge=1, le=LARGEST)],
    Field(
        examples=["1500.50"],
        description='A string in major units (`"1500.50"`) or an integer of minor units',
    ),
]


class RequestModel(BaseModel):
    """A request's body."""

    # Built at the first use, not at the boot.
    model_config = ConfigDict(
        extra="forbid", strict=True, hide_input_in_errors=True, defer_build=True
    )


class SignUp(RequestModel):
    """A new person."""

    email: Email
    name: Name
    password: Password


class SignIn(RequestModel):
    """An address and its password."""

    email: t.Annotated[str, StringConstraints(max_length=254), Field(examples=["ada@example.org"])]
    password: t.Annotated[
        str, StringConstraints(max_length=200), Field(examples=["correct horse battery"])
    ]


class NewPassword(RequestModel):
    """The password of now, and the one from now on."""

    current: t.Annotated[str, StringConstraints(max_length=200)]
    new: Password


class NewMilestone(RequestModel):
    """A piece of work and its price."""

    title: Title
    amount: Amount
    # JSON has no dates: this one is read from its string.
    due: t.Annotated[date | None, Field(strict=False)] = None


class NewEscrow(RequestModel):
    """What a client proposes to a freelancer."""

    title: Title
    freelancer_email: t.Annotated[Email, Field(examples=["ben@example.org"])]
    currency: Currency
    silence_days: t.Annotated[int, Field(ge=1, le=60)] = 7
    milestones: t.Annotated[list[NewMilestone], Field(min_length=1, max_length=MOST_MILESTONES)]


class Ruling(RequestModel):
    """The client's part in basis points; the rest goes to the freelancer."""

    to_client_basis_points: t.Annotated[int, Field(ge=0, le=10_000)]


class NewDeposit(RequestModel):
    """Money that one wants to bring in."""

    amount: Amount
    currency: Currency


class NewVirtualAccount(RequestModel):
    """Whose account number it is to be. The bank verification number is handed on, never kept."""

    currency: t.Literal["NGN"]
    first_name: t.Annotated[Name, Field(examples=["Ada"])]
    last_name: t.Annotated[Name, Field(examples=["Obi"])]
    bvn: t.Annotated[
        str,
        StringConstraints(pattern=r"^[0-9]{11}$"),
        Field(repr=False, examples=["22212345678"]),
    ]


class NewWithdrawal(RequestModel):
    """Money that one wants to have in a bank account."""

    amount: Amount
    currency: Currency
    bank_code: t.Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]{3,11}$")]
    account_number: t.Annotated[str, StringConstraints(pattern=r"^[0-9]{6,20}$")]


class NoticeBody(BaseModel):
    """What the payment provider notifies; ``signature`` is over the bytes of all of it."""

    model_config = ConfigDict(extra="allow", defer_build=True)

    event: str
    data: dict[str, t.Any]


class EmptyBody(RequestModel):
    """Nothing is to be said."""


class ResponseModel(BaseModel):
    """A response's body."""

    model_config = ConfigDict(frozen=True, defer_build=True)


class MoneyOut(ResponseModel):
    """An amount, in both spellings."""

    currency: str
    minor: int
    amount: str

    @classmethod
    def of(cls, money: Money) -> MoneyOut:
        """Of *money*."""
        return cls(currency=money.currency, minor=money.minor, amount=money.major)


class UserOut(ResponseModel):
    """A person, without what is only theirs to know."""

    id: str
    email: str
    name: str
    role: Role

    @classmethod
    def of(cls, user: User) -> UserOut:
        """Of *user*."""
        return cls(id=user.id, email=user.email, name=user.name, role=user.role)


class SessionOut(ResponseModel):
    """A bearer token and whose it is."""

    token: str
    token_type: t.Literal["Bearer"] = "Bearer"  # nosec B105
    expires_in: int
    user: UserOut


class WalletOut(ResponseModel):
    """What one person has in one currency."""

    id: str
    currency: str
    posted: MoneyOut
    reserved: MoneyOut
    available: MoneyOut

    @classmethod
    def of(cls, account: Account, balance: Balance) -> WalletOut:
        """Of *account*."""
        return cls(
            id=account.id,
            currency=account.currency,
            posted=MoneyOut.of(balance.posted),
            reserved=MoneyOut.of(balance.reserved),
            available=MoneyOut.of(balance.available),
        )


class WalletList(ResponseModel):
    """All of a person's wallets."""

    items: list[WalletOut]


class EntryOut(ResponseModel):
    """A line of a wallet."""

    id: int
    reason: str
    reference: str
    amount: MoneyOut
    balance_after: MoneyOut
    at: datetime

    @classmethod
    def of(cls, line: LedgerLine) -> EntryOut:
        """Of *line*."""
        return cls(
            id=line.id,
            reason=line.reason,
            reference=line.reference,
            amount=MoneyOut.of(line.amount),
            balance_after=MoneyOut.of(line.balance_after),
            at=line.at,
        )


class EntryPage(ResponseModel):
    """A page of lines; without ``next_cursor`` it is the last one."""

    items: list[EntryOut]
    next_cursor: str | None = None


class MilestoneOut(ResponseModel):
    """A milestone; ``dispute_id`` is there while it is disputed."""

    id: str
    title: str
    amount: MoneyOut
    due: date | None
    state: MilestoneState
    submitted_at: datetime | None
    dispute_id: str | None

    @classmethod
    def of(cls, milestone: Milestone, escrow: str) -> MilestoneOut:
        """Of *milestone*."""
        disputed = milestone.state is MilestoneState.DISPUTED
        return cls(
            id=milestone.id,
            title=milestone.title,
            amount=MoneyOut.of(milestone.amount),
            due=milestone.due,
            state=milestone.state,
            submitted_at=milestone.submitted_at,
            dispute_id=f"{escrow}.{milestone.id}" if disputed else None,
        )


class EscrowOut(ResponseModel):
    """An agreement; ``version`` is what ``If-Match`` must name to change it."""

    id: str
    title: str
    client_id: str
    freelancer_id: str
    amount: MoneyOut
    fee_basis_points: int
    silence_days: int
    state: EscrowState
    cancel_asked_by: str | None
    version: int
    milestones: list[MilestoneOut]

    @classmethod
    def of(cls, escrow: Escrow) -> EscrowOut:
        """Of *escrow*."""
        return cls(
            id=escrow.id,
            title=escrow.title,
            client_id=escrow.client,
            freelancer_id=escrow.freelancer,
            amount=MoneyOut.of(escrow.amount),
            fee_basis_points=escrow.fee.basis_points,
            silence_days=escrow.silence.days,
            state=escrow.state,
            cancel_asked_by=escrow.cancel_asked_by.value if escrow.cancel_asked_by else None,
            version=escrow.version,
            milestones=[MilestoneOut.of(m, escrow.id) for m in escrow.milestones],
        )


class EscrowPage(ResponseModel):
    """A page of agreements; without ``next_cursor`` it is the last one."""

    items: list[EscrowOut]
    next_cursor: str | None = None


class DepositOut(ResponseModel):
    """Money on its way in; ``checkout_url`` is where it is paid, once the provider has opened it.

    ``received`` is what came in: what is over the amount, or all of it when it is less, waits for
    a person to look at.
    """

    id: str
    state: DepositState
    amount: MoneyOut
    received: MoneyOut | None
    checkout_url: str | None
    created_at: datetime

    @classmethod
    def of(cls, deposit: Deposit) -> DepositOut:
        """Of *deposit*."""
        return cls(
            id=deposit.id,
            state=deposit.state,
            amount=MoneyOut.of(deposit.asked),
            received=MoneyOut.of(deposit.received) if deposit.received else None,
            checkout_url=deposit.link or None,
            created_at=deposit.created_at,
        )


class DepositPage(ResponseModel):
    """A page of deposits; without ``next_cursor`` it is the last one."""

    items: list[DepositOut]
    next_cursor: str | None = None


class VirtualAccountOut(ResponseModel):
    """A bank account number of one's own: what is paid into it while ``active`` is one's own."""

    id: str
    state: AccountState
    currency: str
    bank_name: str | None
    account_number: str | None
    account_name: str | None
    failure: str | None
    created_at: datetime

    @classmethod
    def of(cls, account: VirtualAccount) -> VirtualAccountOut:
        """Of *account*."""
        return cls(
            id=account.id,
            state=account.state,
            currency=account.currency,
            bank_name=account.bank_name or None,
            account_number=account.account_number or None,
            account_name=account.account_name or None,
            failure=account.failure or None,
            created_at=account.created_at,
        )


class VirtualAccountPage(ResponseModel):
    """A page of virtual accounts; without ``next_cursor`` it is the last one."""

    items: list[VirtualAccountOut]
    next_cursor: str | None = None


class WithdrawalOut(ResponseModel):
    """Money on its way out; reserved in the wallet until it is paid or failed."""

    id: str
    state: WithdrawalState
    amount: MoneyOut
    bank_code: str
    account_number: str
    account_name: str
    failure: str | None
    created_at: datetime

    @classmethod
    def of(cls, withdrawal: Withdrawal) -> WithdrawalOut:
        """Of *withdrawal*; of the account's number the last four digits."""
        return cls(
            id=withdrawal.id,
            state=withdrawal.state,
            amount=MoneyOut.of(withdrawal.amount),
            bank_code=withdrawal.to.bank_code,
            account_number=withdrawal.to.masked,
            account_name=withdrawal.to.account_name,
            failure=withdrawal.failure or None,
            created_at=withdrawal.created_at,
        )


class WithdrawalPage(ResponseModel):
    """A page of withdrawals; without ``next_cursor`` it is the last one."""

    items: list[WithdrawalOut]
    next_cursor: str | None = None


class NoticeReceived(ResponseModel):
    """The notice is kept, and will be worked off."""

    received: t.Literal[True] = True


class AuditLineOut(ResponseModel):
    """Who did what to what, and from where."""

    id: str
    at: datetime
    actor: str
    action: str
    subject: str
    before: str
    after: str
    request_id: str
    remote_addr: str

    @classmethod
    def of(cls, line: AuditLine) -> AuditLineOut:
        """Of *line*."""
        return cls(**vars(line))


class AuditPage(ResponseModel):
    """A page of the audit log; without ``next_cursor`` it is the last one."""

    items: list[AuditLineOut]
    next_cursor: str | None = None


class ReconciliationOut(ResponseModel):
    """What is wrong with the books: nothing, ever."""

    consistent: bool
    differences: list[str]


def read_amount(amount: str | int, currency: str) -> Money:
    """The money that a request names. Raises ``MoneyError``."""
    return Money(amount, currency) if isinstance(amount, int) else Money.parse(amount, currency)


if set(t.get_args(Currency)) != set(EXPONENTS):
    raise RuntimeError("the API and the domain know different currencies")
