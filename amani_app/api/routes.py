"""The operations of the API, and what answers each."""

from __future__ import annotations

import typing as t

from flask import request

from amani_app.api import models as m
from amani_app.api.operations import Call, Handler, Operation
from amani_app.api.problems import ProblemDetails, RequestRefused
from amani_app.application.common.acting import NotFound
from amani_app.application.requests.escrows import EscrowProposal
from amani_app.container import Provider
from amani_app.domain.escrow import Escrow, Party, EscrowState
from amani_app.domain.ledger import Account
from amani_app.domain.payments import Destination
from amani_app.domain.users import Role, User
from amani_app.ports.payments import ForgedNotice, AccountHolder, ProviderUnavailable
from amani_app.ports.schema import DatabaseUnavailable

ARBITERS = frozenset({Role.ARBITER})
ADMINS = frozenset({Role.ADMIN})
OPERATIONS: list[tuple[Operation, Handler]] = []


def operation(
    method: str, path: str, answer: type[t.Any], **rest: t.Any
) -> t.Callable[[Handler], Handler]:
    """Register the decorated handler; its docstring is the summary."""

    def register(handler: Handler) -> Handler:
        summary = (handler.__doc__ or "").strip().partition("\n")[0]
        made = Operation(method, path, handler.__name__, summary, answer, **rest)
        OPERATIONS.append((made, handler))
        return handler

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
    """Sign up, and be signed in."""
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
    """Sign in."""
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
    """Change the password; every older token is void."""
    changed = call.parts.people.change_password(call.actor, call.body.current, call.body.new)
    return _session(call, changed)


@operation("GET", "/auth/me", m.UserOut)
def who_am_i(call: Call) -> m.UserOut:
    """Whose token this is."""
    return m.UserOut.of(call.unit.users.get(call.actor.user))


@operation("GET", "/wallets", m.WalletList)
def list_wallets(call: Call) -> m.WalletList:
    """One's own wallets, one for each currency."""
    found = call.unit.ledger.wallets(call.actor.user)
    return m.WalletList(items=[m.WalletOut.of(account, balance) for account, balance in found])


def _wallet(call: Call) -> Account:
    for account, _ in call.unit.ledger.wallets(call.actor.user):
        if account.id == call.path["wallet"]:
            return account
    raise NotFound("no such wallet")


@operation("GET", "/wallets/{wallet}", m.WalletOut)
def read_wallet(call: Call) -> m.WalletOut:
    """One of one's wallets."""
    account = _wallet(call)
    return m.WalletOut.of(account, call.unit.ledger.balance(account))


@operation("GET", "/wallets/{wallet}/entries", m.EntryPage, paged=True)
def list_entries(call: Call) -> m.EntryPage:
    """What went in and out of a wallet, newest first."""
    before = int(call.cursor) if call.cursor else None
    lines = call.unit.ledger.lines(_wallet(call), before, call.limit + 1)
    page = lines[: call.limit]
    last = page[-1].id if len(lines) > call.limit else None
    return m.EntryPage(items=list(map(m.EntryOut.of, page)), next_cursor=call.next_cursor(last))


@operation("POST", "/escrows", m.EscrowOut, body=m.NewEscrow, status=201)
def create_escrow(call: Call) -> m.EscrowOut:
    """Propose an agreement to a freelancer."""
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


@operation(
    "GET",
    "/escrows",
    m.EscrowPage,
    paged=True,
    filters={
        "state": tuple(state.value for state in EscrowState),
        "party": (Party.CLIENT.value, Party.FREELANCER.value),
    },
)
def list_escrows(call: Call) -> m.EscrowPage:
    """The agreements that one is party to, newest first."""
    state, party = call.filters.get("state"), call.filters.get("party")
    found = call.unit.escrows.of(
        call.actor.user,
        call.cursor,
        call.limit + 1,
        EscrowState(state) if state else None,
        Party(party) if party else None,
    )
    page = found[: call.limit]
    last = page[-1].id if len(found) > call.limit else None
    return m.EscrowPage(items=list(map(m.EscrowOut.of, page)), next_cursor=call.next_cursor(last))


@operation("GET", "/escrows/{escrow}", m.EscrowOut)
def read_escrow(call: Call) -> m.EscrowOut:
    """An agreement that one is party to."""
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


_agreement("accept", "Agree, as the freelancer.", money=False)
_agreement("fund", "Put the whole price into holds, as the client.", money=True)
_agreement("cancel", "End it: alone before the funding, afterwards both must.", money=True)
_milestone("submit", "Deliver, as the freelancer.", money=False)
_milestone("approve", "Be content, as the client: the freelancer is paid.", money=True)
_milestone("reject", "Ask for changes, as the client.", money=False)
_milestone("dispute", "Call the arbiter.", money=False)


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
    """Rule on a disputed milestone, as an arbiter."""
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
        return made  # The deposit stands; the worker asks for its link.


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
    """Bring money in: the answer has the link where it is paid."""
    asked = m.read_amount(call.body.amount, call.body.currency)
    return m.DepositOut.of(call.parts.deposits.request(call.unit, call.actor, asked))


@operation("GET", "/deposits", m.DepositPage, paged=True)
def list_deposits(call: Call) -> m.DepositPage:
    """One's own deposits, newest first."""
    found = call.unit.deposits.of(call.actor.user, call.cursor, call.limit + 1)
    page = found[: call.limit]
    last = page[-1].id if len(found) > call.limit else None
    return m.DepositPage(items=list(map(m.DepositOut.of, page)), next_cursor=call.next_cursor(last))


@operation("GET", "/deposits/{deposit}", m.DepositOut)
def read_deposit(call: Call) -> m.DepositOut:
    """One of one's deposits."""
    return m.DepositOut.of(call.parts.deposits.read(call.unit, call.actor, call.path["deposit"]))


def _issue(call: Call, made: m.VirtualAccountOut) -> m.VirtualAccountOut:
    asked: m.NewVirtualAccount = call.body
    try:
        email = call.parts.store.read(lambda unit: unit.users.get(call.actor.user)).email
        holder = AccountHolder(asked.first_name, asked.last_name, email, asked.bvn)
        issued = _provider(call).inflows.issue(made.id, holder, call.actor)
        return m.VirtualAccountOut.of(issued)
    except (ProviderUnavailable, DatabaseUnavailable):
        return made  # The worker asks what became of it.


@operation(
    "POST",
    "/virtual-accounts",
    m.VirtualAccountOut,
    body=m.NewVirtualAccount,
    status=201,
    # A BVN can be guessed at, like a password, and each guess costs a question to the bank.
    quota="sign-in",
    private=True,
    prepare=_provider,
    complete=_issue,
)
def create_virtual_account(call: Call) -> m.VirtualAccountOut:
    """Ask for a bank account number of one's own, to bring money in by bank transfer."""
    request_ = call.parts.virtual_accounts.request
    return m.VirtualAccountOut.of(request_(call.unit, call.actor, call.body.currency))


@operation("GET", "/virtual-accounts", m.VirtualAccountPage, paged=True)
def list_virtual_accounts(call: Call) -> m.VirtualAccountPage:
    """One's own virtual accounts, newest first."""
    found = call.unit.virtual_accounts.of(call.actor.user, call.cursor, call.limit + 1)
    page = found[: call.limit]
    last = page[-1].id if len(found) > call.limit else None
    items = list(map(m.VirtualAccountOut.of, page))
    return m.VirtualAccountPage(items=items, next_cursor=call.next_cursor(last))


@operation("GET", "/virtual-accounts/{account}", m.VirtualAccountOut)
def read_virtual_account(call: Call) -> m.VirtualAccountOut:
    """One of one's virtual accounts."""
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
    """Take money out, to a bank account that its bank knows; it is reserved at once."""
    amount = m.read_amount(call.body.amount, call.body.currency)
    reserve = call.parts.withdrawals.request
    return m.WithdrawalOut.of(reserve(call.unit, call.actor, amount, call.prepared))


@operation("GET", "/withdrawals", m.WithdrawalPage, paged=True)
def list_withdrawals(call: Call) -> m.WithdrawalPage:
    """One's own withdrawals, newest first."""
    found = call.unit.withdrawals.of(call.actor.user, call.cursor, call.limit + 1)
    page = found[: call.limit]
    last = page[-1].id if len(found) > call.limit else None
    items = list(map(m.WithdrawalOut.of, page))
    return m.WithdrawalPage(items=items, next_cursor=call.next_cursor(last))


@operation("GET", "/withdrawals/{withdrawal}", m.WithdrawalOut)
def read_withdrawal(call: Call) -> m.WithdrawalOut:
    """One of one's withdrawals."""
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
        words = "The signature is not the provider's."
        raise RequestRefused(ProblemDetails(401, "forged-notice", words)) from None
    except ValueError as error:
        raise RequestRefused(ProblemDetails(422, "invalid-request", str(error))) from None
    return m.NoticeReceived()


@operation("GET", "/admin/reconciliation", m.ReconciliationOut, roles=ADMINS)
def reconcile(call: Call) -> m.ReconciliationOut:
    """Compute every balance again from the entries, and compare."""
    found = call.unit.ledger.differences()
    return m.ReconciliationOut(consistent=not found, differences=found)


@operation("GET", "/admin/audit", m.AuditPage, roles=ADMINS, paged=True)
def read_audit_log(call: Call) -> m.AuditPage:
    """Who did what to what, newest first."""
    lines = call.unit.audited(call.cursor, call.limit + 1)
    page = lines[: call.limit]
    last = page[-1].id if len(lines) > call.limit else None
    return m.AuditPage(items=list(map(m.AuditLineOut.of, page)), next_cursor=call.next_cursor(last))
