"""Request and response bodies. Unknown fields are refused; amounts are never floats."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar, get_args
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
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=PLAIN),
    Field(examples=["Ada Obi"]),
]
Title = Annotated[Name, Field(examples=["A web shop"])]
Email = Annotated[
    str,
    StringConstraints(max_length=254, pattern=r"^[\w.+-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$"),
    Field(examples=["ada@example.org"]),
]
Password = Annotated[
    str,
    StringConstraints(min_length=10, max_length=200),
    Field(examples=["correct horse battery"]),
]
Currency = Literal["NGN", "GHS", "KES", "ZAR", "USD", "EUR", "GBP", "UGX", "XOF"]
Amount = Annotated[
    Annotated[str, StringConstraints(pattern=r"^[0-9]{1,16}(\.[0-9]{1,4})?$")]
    | Annotated[int, Field(ge=1, le=LARGEST)],
    Field(
        examples=["1500.50"],
        description='A string in major units (`"1500.50"`) or an integer in minor units',
    ),
]


class RequestModel(BaseModel):
    """The base of all request bodies: unknown fields and wrong types are refused."""

    # Built at the first use, not at the boot.
    model_config = ConfigDict(
        extra="forbid", strict=True, hide_input_in_errors=True, defer_build=True
    )


class SignUp(RequestModel):
    """The email address, name and password of a new user."""

    email: Email
    name: Name
    password: Password


class SignIn(RequestModel):
    """An email address and its password."""

    email: Annotated[str, StringConstraints(max_length=254), Field(examples=["ada@example.org"])]
    password: Annotated[
        str, StringConstraints(max_length=200), Field(examples=["correct horse battery"])
    ]


class NewPassword(RequestModel):
    """The current and the new password."""

    current: Annotated[str, StringConstraints(max_length=200)]
    new: Password


class NewMilestone(RequestModel):
    """A milestone: its title, its price and optionally a due date."""

    title: Title
    amount: Amount
    # JSON has no date type, so strict mode would refuse the string.
    due: Annotated[date | None, Field(strict=False)] = None


class NewEscrow(RequestModel):
    """An escrow that a client proposes to a freelancer.

    `silence_days` after a submission without an answer, the milestone counts as approved.
    """

    title: Title
    freelancer_email: Annotated[Email, Field(examples=["ben@example.org"])]
    currency: Currency
    silence_days: Annotated[int, Field(ge=1, le=60)] = 7
    milestones: Annotated[list[NewMilestone], Field(min_length=1, max_length=MOST_MILESTONES)]


class Ruling(RequestModel):
    """The client's share of the hold in basis points; the freelancer gets the rest."""

    to_client_basis_points: Annotated[int, Field(ge=0, le=10_000)]


class NewDeposit(RequestModel):
    """The amount and currency that the payer is to send."""

    amount: Amount
    currency: Currency


class NewVirtualAccount(RequestModel):
    """The owner of a virtual account. The bank verification number is passed on and not stored."""

    currency: Literal["NGN"]
    first_name: Annotated[Name, Field(examples=["Ada"])]
    last_name: Annotated[Name, Field(examples=["Obi"])]
    bvn: Annotated[
        str,
        StringConstraints(pattern=r"^[0-9]{11}$"),
        Field(repr=False, examples=["22212345678"]),
    ]


class NewWithdrawal(RequestModel):
    """The amount, and the bank account that receives it."""

    amount: Amount
    currency: Currency
    bank_code: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]{3,11}$")]
    account_number: Annotated[str, StringConstraints(pattern=r"^[0-9]{6,20}$")]


class NoticeBody(BaseModel):
    """A notice of the payment provider; the signature covers the bytes of the whole body."""

    model_config = ConfigDict(extra="allow", defer_build=True)

    event: str
    data: dict[str, Any]


class EmptyBody(RequestModel):
    """No fields: the body may be `{}` or missing."""


class ResponseModel(BaseModel):
    """The base of all response bodies, which are immutable."""

    model_config = ConfigDict(frozen=True, defer_build=True)


Item = TypeVar("Item")


class Page(ResponseModel, Generic[Item]):
    """Part of a list, newest first; `next_cursor` is null on the last page."""

    items: list[Item]
    next_cursor: str | None = None


class MoneyOut(ResponseModel):
    """An amount in minor units (`minor`) and in major units (`amount`)."""

    currency: str
    minor: int
    amount: str

    @classmethod
    def of(cls, money: Money) -> MoneyOut:
        return cls(currency=money.currency, minor=money.minor, amount=money.major)


class UserOut(ResponseModel):
    """A user; `email` is in lower case."""

    id: str
    email: str
    name: str
    role: Role

    @classmethod
    def of(cls, user: User) -> UserOut:
        return cls(id=user.id, email=user.email, name=user.name, role=user.role)


class SessionOut(ResponseModel):
    """A bearer token, the seconds until it expires, and its user."""

    token: str
    token_type: Literal["Bearer"] = "Bearer"  # nosec B105
    expires_in: int
    user: UserOut


class WalletOut(ResponseModel):
    """The balances of a user in one currency: `available` is `posted` less `reserved`."""

    id: str
    currency: str
    posted: MoneyOut
    reserved: MoneyOut
    available: MoneyOut

    @classmethod
    def of(cls, account: Account, balance: Balance) -> WalletOut:
        return cls(
            id=account.id,
            currency=account.currency,
            posted=MoneyOut.of(balance.posted),
            reserved=MoneyOut.of(balance.reserved),
            available=MoneyOut.of(balance.available),
        )


class WalletList(ResponseModel):
    """The wallets of the caller, ordered by currency."""

    items: list[WalletOut]


class EntryOut(ResponseModel):
    """One entry of a wallet; a negative amount leaves it."""

    id: int
    reason: str
    reference: str
    amount: MoneyOut
    balance_after: MoneyOut
    at: datetime

    @classmethod
    def of(cls, line: LedgerLine) -> EntryOut:
        return cls(
            id=line.id,
            reason=line.reason,
            reference=line.reference,
            amount=MoneyOut.of(line.amount),
            balance_after=MoneyOut.of(line.balance_after),
            at=line.at,
        )


class EntryPage(Page[EntryOut]):
    """Entries of one wallet, newest first, with the next cursor."""


class MilestoneOut(ResponseModel):
    """A milestone; `dispute_id` is set while it is disputed."""

    id: str
    title: str
    amount: MoneyOut
    due: date | None
    state: MilestoneState
    submitted_at: datetime | None
    dispute_id: str | None

    @classmethod
    def of(cls, milestone: Milestone, escrow: str) -> MilestoneOut:
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
    """An escrow; a change must send its `version` in `If-Match`."""

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


class EscrowPage(Page[EscrowOut]):
    """Escrows of the caller, newest first, with the next cursor."""


class DepositOut(ResponseModel):
    """A deposit; `checkout_url` is the payment link, once the provider has opened it.

    `received` is what arrived. An overpayment, or all of an underpayment, is held in suspense until
    an operator attributes it.
    """

    id: str
    state: DepositState
    amount: MoneyOut
    received: MoneyOut | None
    checkout_url: str | None
    created_at: datetime

    @classmethod
    def of(cls, deposit: Deposit) -> DepositOut:
        return cls(
            id=deposit.id,
            state=deposit.state,
            amount=MoneyOut.of(deposit.asked),
            received=MoneyOut.of(deposit.received) if deposit.received else None,
            checkout_url=deposit.link or None,
            created_at=deposit.created_at,
        )


class DepositPage(Page[DepositOut]):
    """Deposits of the caller, newest first, with the next cursor."""


class VirtualAccountOut(ResponseModel):
    """A virtual account. Transfers into it are credited to its owner while it is `active`."""

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


class VirtualAccountPage(Page[VirtualAccountOut]):
    """Virtual accounts of the caller, newest first, with the next cursor."""


class WithdrawalOut(ResponseModel):
    """A withdrawal; its amount is reserved in the wallet until it is paid or failed."""

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
        """From `withdrawal`; shows only the last four digits of the account number."""
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


class WithdrawalPage(Page[WithdrawalOut]):
    """Withdrawals of the caller, newest first, with the next cursor."""


class NoticeReceived(ResponseModel):
    """The notice is stored and will be processed."""

    received: Literal[True] = True


class AuditLineOut(ResponseModel):
    """One action in the audit log."""

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
        return cls(**vars(line))


class AuditPage(Page[AuditLineOut]):
    """Lines of the audit log, newest first, with the next cursor."""


class ReconciliationOut(ResponseModel):
    """Differences in the ledger; the list is empty if it is consistent."""

    consistent: bool
    differences: list[str]


def read_amount(amount: str | int, currency: str) -> Money:
    """The amount of a request. Raises `MoneyError`."""
    return Money(amount, currency) if isinstance(amount, int) else Money.parse(amount, currency)


if set(get_args(Currency)) != set(EXPONENTS):
    raise RuntimeError("the API and the domain know different currencies")
