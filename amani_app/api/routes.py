"""The operations of the API and their handlers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flask import request

from amani_app.api import models as m
from amani_app.api.operations import Call, Handler, Operation
from amani_app.api.problems import ProblemDetails, RequestRefused
from amani_app.application.common.acting import NotFound
from amani_app.application.requests.escrows import EscrowProposal
from amani_app.container import Provider
from amani_app.domain.escrow import Escrow, Party, EscrowState
from amani_app.domain.ledger import Account
from amani_app.domain.payments import Deposit, Destination, VirtualAccount, Withdrawal
from amani_app.domain.users import Role, User
from amani_app.ports.payments import ForgedNotice, AccountHolder, ProviderUnavailable
from amani_app.ports.schema import DatabaseUnavailable
from amani_app.ports.store import AuditLine, LedgerLine

ARBITERS = frozenset({Role.ARBITER})
ADMINS = frozenset({Role.ADMIN})
OPERATIONS: list[tuple[Operation, Handler]] = []


def operation(
    method: str, path: str, answer: type[Any], **rest: Any
) -> Callable[[Handler], Handler]:
    """Register the decorated handler; the first line of its docstring is the summary."""

    def register(handler: Handler) -> Handler:
        summary = (handler.__doc__ or "").strip().partition("\n")[0]
        made = Operation(method, path, handler.__name__, summary, answer, **rest)
        OPERATIONS.append((made, handler))
        return handler

    return register


def listing(
    path: str, page: type[Any], item: Callable[[Any], Any], **rest: Any
) -> Callable[[Callable[[Call, int], Sequence[Any]]], Handler]:
    """Register the decorated query as a paged GET; its docstring is the summary.

    The query gets the number of rows to read, one more than the page shows: with the extra row
    there is a next page. Each row has an `id`, which the cursor holds.
    """

    def register(query: Callable[[Call, int], Sequence[Any]]) -> Handler:
        def handler(call: Call) -> Any:
            rows = query(call, call.limit + 1)
            shown = rows[: call.limit]
            last = shown[-1].id if len(rows) > call.limit else None
            return page(items=list(map(item, shown)), next_cursor=call.next_cursor(last))

        handler.__name__, handler.__doc__ = query.__name__, query.__doc__
        return operation("GET", path, page, paged=True, **rest)(handler)

    return register


def _session(call: Call, user: User) -> m.SessionOut:
    token, lifetime = call.parts.people.session(user)
    return m.SessionOut(token=token, expires_in=lifetime, user=m.UserOut.of(user))


@operation(
    "POST",
    "/auth/signup",
    m.SessionOut,
    body=m.SignUp,
    status=201,
    roles=None,
    quota="sign-in",
    transactional=False,
    problems=(409,),
)
def sign_up(call: Call) -> m.SessionOut:
    """Create a user account and sign in."""
    asked: m.SignUp = call.body
    user = call.parts.people.sign_up(call.actor, asked.email, asked.name, asked.password)
    return _session(call, user)


@operation(
    "POST",
    "/auth/login",
    m.SessionOut,
    body=m.SignIn,
    roles=None,
    quota="sign-in",
    transactional=False,
    problems=(401, 409),
)
def sign_in(call: Call) -> m.SessionOut:
    """Sign in with an email address and a password."""
    return _session(call, call.parts.people.sign_in(call.body.email, call.body.password))


@operation(
    "POST",
    "/auth/change-password",
    m.SessionOut,
    body=m.NewPassword,
    quota="sign-in",
    transactional=False,
    problems=(409,),
)
def change_password(call: Call) -> m.SessionOut:
    """Change your password. Invalidates all older tokens."""
    changed = call.parts.people.change_password(call.actor, call.body.current, call.body.new)
    return _session(call, changed)


@operation("GET", "/auth/me", m.UserOut)
def who_am_i(call: Call) -> m.UserOut:
    """Return the signed-in user."""
    return m.UserOut.of(call.unit.users.get(call.actor.user))


@operation("GET", "/wallets", m.WalletList)
def list_wallets(call: Call) -> m.WalletList:
    """List your wallets, one for each currency."""
    found = call.unit.ledger.wallets(call.actor.user)
    return m.WalletList(items=[m.WalletOut.of(account, balance) for account, balance in found])


def _wallet(call: Call) -> Account:
    for account, _ in call.unit.ledger.wallets(call.actor.user):
        if account.id == call.path["wallet"]:
            return account
    raise NotFound("no such wallet")


@operation("GET", "/wallets/{wallet}", m.WalletOut)
def read_wallet(call: Call) -> m.WalletOut:
    """Return a wallet."""
    account = _wallet(call)
    return m.WalletOut.of(account, call.unit.ledger.balance(account))


@listing("/wallets/{wallet}/entries", m.EntryPage, m.EntryOut.of)
def list_entries(call: Call, limit: int) -> Sequence[LedgerLine]:
    """List the entries of a wallet, newest first."""
    before = int(call.cursor) if call.cursor else None
    return call.unit.ledger.lines(_wallet(call), before, limit)


@operation("POST", "/escrows", m.EscrowOut, body=m.NewEscrow, status=201)
def create_escrow(call: Call) -> m.EscrowOut:
    """Create an escrow and propose it to a freelancer (client)."""
    asked: m.NewEscrow = call.body
    plan = EscrowProposal(
        title=asked.title,
        freelancer_email=asked.freelancer_email,
        currency=asked.currency,
        silence_days=asked.silence_days,
        milestones=tuple(
            (each.title, m.read_amount(each.amount, asked.currency), each.due)
            for each in asked.milestones
        ),
    )
    return m.EscrowOut.of(call.parts.escrows.create(call.unit, call.actor, plan))


@listing(
    "/escrows",
    m.EscrowPage,
    m.EscrowOut.of,
    filters={
        "state": tuple(state.value for state in EscrowState),
        "party": (Party.CLIENT.value, Party.FREELANCER.value),
    },
)
def list_escrows(call: Call, limit: int) -> Sequence[Escrow]:
    """List the escrows that you are a party of, newest first."""
    state, party = call.filters.get("state"), call.filters.get("party")
    return call.unit.escrows.of(
        call.actor.user,
        call.cursor,
        limit,
        EscrowState(state) if state else None,
        Party(party) if party else None,
    )


@operation("GET", "/escrows/{escrow}", m.EscrowOut)
def read_escrow(call: Call) -> m.EscrowOut:
    """Return an escrow. An arbiter may read any escrow."""
    return m.EscrowOut.of(call.parts.escrows.read(call.unit, call.actor, call.path["escrow"]))


def _agreement(verb: str, summary: str, money: bool) -> None:
    def handler(call: Call) -> m.EscrowOut:
        act = getattr(call.parts.escrows, verb)
        done: Escrow = act(call.unit, call.actor, call.path["escrow"], call.version)
        return m.EscrowOut.of(done)

    handler.__name__, handler.__doc__ = f"{verb}_escrow", summary
    path = f"/escrows/{{escrow}}/{verb}"
    operation("POST", path, m.EscrowOut, body=m.EmptyBody, versioned=True, money=money)(handler)


def _milestone(verb: str, summary: str, money: bool) -> None:
    def handler(call: Call) -> m.EscrowOut:
        act = getattr(call.parts.escrows, verb)
        escrow, milestone = call.path["escrow"], call.path["milestone"]
        done: Escrow = act(call.unit, call.actor, escrow, milestone, call.version)
        return m.EscrowOut.of(done)

    handler.__name__, handler.__doc__ = f"{verb}_milestone", summary
    path = f"/escrows/{{escrow}}/milestones/{{milestone}}/{verb}"
    operation("POST", path, m.EscrowOut, body=m.EmptyBody, versioned=True, money=money)(handler)


_agreement("accept", "Accept an escrow (freelancer).", money=False)
_agreement(
    "fund", "Fund an escrow (client). Moves the whole price from the wallet into holds.", money=True
)
_agreement(
    "cancel",
    "Cancel an escrow. After funding, both parties must request it; refunds the holds.",
    money=True,
)
_milestone("submit", "Submit a milestone for approval (freelancer).", money=False)
_milestone("approve", "Approve a milestone (client). Pays the freelancer.", money=True)
_milestone("reject", "Request changes to a submitted milestone (client).", money=False)
_milestone("dispute", "Dispute a milestone. An arbiter decides.", money=False)


@operation(
    "POST",
    "/disputes/{dispute}/resolve",
    m.EscrowOut,
    body=m.Ruling,
    roles=ARBITERS,
    versioned=True,
    money=True,
)
def resolve_dispute(call: Call) -> m.EscrowOut:
    """Resolve a dispute (arbiter). Divides the hold between client and freelancer."""
    escrow, _, milestone = call.path["dispute"].partition(".")
    to_client = call.body.to_client_basis_points
    use_case = call.parts.escrows.resolve
    done = use_case(call.unit, call.actor, escrow, milestone, to_client, call.version)
    return m.EscrowOut.of(done)


def _provider(call: Call) -> Provider:
    if call.parts.provider is None:
        raise ProviderUnavailable("no payment provider is configured")
    return call.parts.provider


def _open_checkout(call: Call, made: m.DepositOut) -> m.DepositOut:
    try:
        return m.DepositOut.of(_provider(call).checkouts.open(made.id, call.actor))
    except (ProviderUnavailable, DatabaseUnavailable):
        return made  # The deposit is committed; the worker requests the link.


@operation(
    "POST",
    "/deposits",
    m.DepositOut,
    body=m.NewDeposit,
    status=201,
    money=True,
    prepare=_provider,
    complete=_open_checkout,
)
def create_deposit(call: Call) -> m.DepositOut:
    """Create a deposit. `checkout_url` in the response is the payment link."""
    asked = m.read_amount(call.body.amount, call.body.currency)
    return m.DepositOut.of(call.parts.deposits.request(call.unit, call.actor, asked))


@listing("/deposits", m.DepositPage, m.DepositOut.of)
def list_deposits(call: Call, limit: int) -> Sequence[Deposit]:
    """List your deposits in all currencies, newest first."""
    return call.unit.deposits.of(call.actor.user, call.cursor, limit)


@operation("GET", "/deposits/{deposit}", m.DepositOut)
def read_deposit(call: Call) -> m.DepositOut:
    """Return a deposit."""
    return m.DepositOut.of(call.parts.deposits.read(call.unit, call.actor, call.path["deposit"]))


def _issue(call: Call, made: m.VirtualAccountOut) -> m.VirtualAccountOut:
    asked: m.NewVirtualAccount = call.body
    try:
        email = call.parts.store.read(lambda unit: unit.users.get(call.actor.user)).email
        holder = AccountHolder(asked.first_name, asked.last_name, email, asked.bvn)
        issued = _provider(call).inflows.issue(made.id, holder, call.actor)
        return m.VirtualAccountOut.of(issued)
    except (ProviderUnavailable, DatabaseUnavailable):
        return made  # The worker queries the outcome.


@operation(
    "POST",
    "/virtual-accounts",
    m.VirtualAccountOut,
    body=m.NewVirtualAccount,
    status=201,
    # A BVN can be guessed, like a password, and each guess costs a query at the bank.
    quota="sign-in",
    private=True,
    prepare=_provider,
    complete=_issue,
)
def create_virtual_account(call: Call) -> m.VirtualAccountOut:
    """Request a virtual account, a bank account number for deposits by bank transfer."""
    request_ = call.parts.virtual_accounts.request
    return m.VirtualAccountOut.of(request_(call.unit, call.actor, call.body.currency))


@listing("/virtual-accounts", m.VirtualAccountPage, m.VirtualAccountOut.of)
def list_virtual_accounts(call: Call, limit: int) -> Sequence[VirtualAccount]:
    """List your virtual accounts, newest first."""
    return call.unit.virtual_accounts.of(call.actor.user, call.cursor, limit)


@operation("GET", "/virtual-accounts/{account}", m.VirtualAccountOut)
def read_virtual_account(call: Call) -> m.VirtualAccountOut:
    """Return a virtual account."""
    read = call.parts.virtual_accounts.read
    return m.VirtualAccountOut.of(read(call.unit, call.actor, call.path["account"]))


def _payee(call: Call) -> Destination:
    asked: m.NewWithdrawal = call.body
    resolve = _provider(call).payments.payee
    name = resolve(asked.bank_code, asked.account_number, asked.currency)
    return Destination(asked.bank_code, asked.account_number, name)


@operation(
    "POST",
    "/withdrawals",
    m.WithdrawalOut,
    body=m.NewWithdrawal,
    status=201,
    money=True,
    quota="pay-out",
    prepare=_payee,
)
def create_withdrawal(call: Call) -> m.WithdrawalOut:
    """Create a withdrawal to a bank account. Reserves the amount in the wallet."""
    amount = m.read_amount(call.body.amount, call.body.currency)
    reserve = call.parts.withdrawals.request
    return m.WithdrawalOut.of(reserve(call.unit, call.actor, amount, call.prepared))


@listing("/withdrawals", m.WithdrawalPage, m.WithdrawalOut.of)
def list_withdrawals(call: Call, limit: int) -> Sequence[Withdrawal]:
    """List your withdrawals in all currencies, newest first."""
    return call.unit.withdrawals.of(call.actor.user, call.cursor, limit)


@operation("GET", "/withdrawals/{withdrawal}", m.WithdrawalOut)
def read_withdrawal(call: Call) -> m.WithdrawalOut:
    """Return a withdrawal."""
    read = call.parts.withdrawals.read
    return m.WithdrawalOut.of(read(call.unit, call.actor, call.path["withdrawal"]))


@operation(
    "POST",
    "/webhooks/{provider}",
    m.NoticeReceived,
    body=m.NoticeBody,
    raw=True,
    roles=None,
    transactional=False,
    headers=("signature",),
    problems=(401,),
)
def receive_notice(call: Call) -> m.NoticeReceived:
    """Receive a notice of the payment provider. It triggers a query, never a movement of money."""
    name = call.path["provider"]
    if name not in call.parts.provider_names:
        raise NotFound(f"there is no payment provider {name}")
    provider = _provider(call)
    if name != provider.name:
        raise NotFound(f"{name} is not the payment provider in use")
    headers = {name.lower(): value for name, value in request.headers}
    try:
        provider.notices.receive(request.get_data(), headers)
    except ForgedNotice:
        detail = "The signature does not match the payment provider's key."
        raise RequestRefused(ProblemDetails(401, "forged-notice", detail)) from None
    except ValueError as error:
        raise RequestRefused(ProblemDetails(422, "invalid-request", str(error))) from None
    return m.NoticeReceived()


@operation("GET", "/admin/reconciliation", m.ReconciliationOut, roles=ADMINS)
def reconcile(call: Call) -> m.ReconciliationOut:
    """Recompute all balances from the entries and list the differences (administrator)."""
    found = call.unit.ledger.differences()
    return m.ReconciliationOut(consistent=not found, differences=found)


@listing("/admin/audit", m.AuditPage, m.AuditLineOut.of, roles=ADMINS)
def read_audit_log(call: Call, limit: int) -> Sequence[AuditLine]:
    """List the audit log, newest first (administrator)."""
    return call.unit.audited(call.cursor, limit)
