"""Ledger invariant checks: each acknowledged request has its effect once, and nothing else has.

Compares the clients' record of requests and answers with the database, which is read by SQL and not
through the service: idempotency keys, audit log, events, transfers, balances. Balances are also
computed from the answers alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from workshop.bench.api_client import ApiRequest
from workshop.bench.postgres import PostgresServer

Stored = Mapping[str, Any]
WHOLE = 10_000
MONEY_REASONS = {"fund": "fund", "approve": "released", "resolve": "resolved"}
"""The reason of the ledger transfer that each operation makes."""


@dataclass
class OperatorDeposit:
    """A deposit that an operator records; `done` if the command succeeded."""

    person: str
    reference: str
    amount: int
    done: bool = False


@dataclass
class LedgerChecks:
    """The checks of the database after a run."""

    server: PostgresServer
    requests: list[ApiRequest]
    deposits: list[OperatorDeposit]
    database: str = "postgres"
    _stored: dict[str, Stored] = field(default_factory=dict)
    _audited: Counter[str] = field(default_factory=Counter)

    def differences(self) -> list[str]:
        """A line for each difference between the database and the clients' record."""
        rows = self._rows("SELECT key, caller, status, body FROM idempotency_keys")
        self._stored = {row["key"]: row for row in rows}
        lines = self._rows("SELECT request_id, count(*) AS n FROM audit_log GROUP BY 1")
        self._audited = Counter({row["request_id"]: row["n"] for row in lines})
        return [
            *self._answers(),
            *self._whole(),
            *self._versions(),
            *self._events(),
            *self._transfers(),
            *self._balances(),
        ]

    def applied(self, request: ApiRequest) -> bool:
        """Whether the database holds the answer to `request`."""
        return request.key in self._stored

    def body(self, request: ApiRequest) -> Any:
        """The stored answer to `request`, as JSON values. Raises `KeyError` if there is none."""
        return json.loads(self._stored[request.key]["body"])

    def _rows(self, query: str) -> list[dict[str, Any]]:
        return self.server.rows(query, self.database)

    def _done(self) -> Iterator[tuple[ApiRequest, Any]]:
        return ((each, self.body(each)) for each in self.requests if self.applied(each))

    def _answers(self) -> Iterator[str]:
        """An acknowledged answer is stored once, a refused request has none, replays are equal."""
        for request in self.requests:
            good = [answer for answer in request.answers if answer.acknowledged]
            name = f"{request.path} ({request.key})"
            if sum(not answer.replayed for answer in good) > 1:
                yield f"{name}: executed twice"
            if any(answer.status >= 500 and answer.status != 503 for answer in request.answers):
                yield f"{name}: answered {[answer.status for answer in request.answers]}"
            if good and not self.applied(request):
                yield f"{name}: acknowledged, but not stored"
            if good and self.applied(request):
                stored = self.body(request)
                if any(answer.body != stored for answer in good):
                    yield f"{name}: the answers differ"
            if request.answers and all(answer.refused for answer in request.answers):
                if self.applied(request):
                    yield f"{name}: refused, but stored"

    def _whole(self) -> Iterator[str]:
        """Each stored answer has one audit line, and belongs to a known request."""
        known = {request.key for request in self.requests}
        for request in self.requests:
            lines, applied = self._audited[request.key], self.applied(request)
            if lines != applied:
                yield f"{request.path} ({request.key}): answer stored: {applied}, audited: {lines}"
        for key in self._stored.keys() - known:
            yield f"the answer to {key} is stored, but no client sent that request"

    def _versions(self) -> Iterator[str]:
        """Each escrow has exactly the versions that are in the answers to its requests."""
        seen: dict[str, list[int]] = {}
        for _, body in self._done():
            if "milestones" in body:
                seen.setdefault(body["id"], []).append(body["version"])
        for row in self._rows("SELECT id, version FROM escrows"):
            found = sorted(seen.pop(row["id"], []))
            if not found or found != list(range(found[0], row["version"] + 1)):
                yield f"escrow {row['id']} is at version {row['version']}, answered were {found}"
        yield from (f"escrow {id} is in an answer, but not in the database" for id in seen)

    def _events(self) -> Iterator[str]:
        query = """SELECT coalesce(a.action, o.topic) AS what, a.n AS audited, o.n AS published
            FROM (SELECT action, subject, count(*) AS n FROM audit_log GROUP BY 1, 2) a
            FULL JOIN (SELECT topic, subject, count(*) AS n FROM outbox GROUP BY 1, 2) o
            ON o.topic = a.action AND o.subject = a.subject WHERE a.n IS DISTINCT FROM o.n"""
        for row in self._rows(query):
            yield f"{row['what']}: {row['audited']} audited, {row['published']} published"

    def _transfers(self) -> Iterator[str]:
        wanted = {("deposit", each.reference) for each in self.deposits if each.done}
        possible = {("deposit", each.reference) for each in self.deposits}
        funded = {
            request.path.split("/")[2] for request, _ in self._done() if "/fund" in request.path
        }
        for request, body in self._done():
            wanted |= set(_transfer(request, body, funded))
        query = "SELECT reason, reference FROM transfers WHERE kind IN ('direct', 'pending')"
        found = Counter((row["reason"], row["reference"]) for row in self._rows(query))
        yield from (
            f"{each}: acknowledged, but not in the ledger" for each in wanted - found.keys()
        )
        yield from (
            f"{each}: in the ledger, but not requested" for each in found.keys() - wanted - possible
        )
        yield from (f"{each}: {n} times in the ledger" for each, n in found.items() if n > 1)

    def _balances(self) -> Iterator[str]:
        """Each wallet has the balance that follows from the answers alone."""
        wanted: Counter[str] = Counter()
        booked = self._rows("SELECT reference FROM transfers WHERE reason = 'deposit'")
        there = {row["reference"] for row in booked}
        for deposit in self.deposits:
            if deposit.reference in there:
                wanted[deposit.person] += deposit.amount
        wanted.update(self._failed_withdrawals())
        resolved = {_subject(each) for each, _ in self._done() if each.verb == "resolve"}
        for request, body in self._done():
            for person, amount in _moved(request, body, resolved):
                wanted[person] += amount
        query = "SELECT owner, posted - reserved AS n FROM accounts WHERE kind = 'wallet'"
        found = Counter({row["owner"]: row["n"] for row in self._rows(query)})
        for person in sorted(wanted.keys() | found.keys()):
            if wanted[person] != found[person]:
                yield f"wallet of {person}: balance {found[person]}, expected {wanted[person]}"

    def _failed_withdrawals(self) -> Counter[str]:
        """The minor units that voided payouts returned, by owner."""
        query = """SELECT a.owner, sum(p.amount) AS n FROM transfers v
            JOIN transfers p ON p.id = v.pending_id JOIN accounts a ON a.id = p.account_id
            WHERE v.kind = 'void' GROUP BY 1"""
        return Counter({row["owner"]: int(row["n"]) for row in self._rows(query)})


def _transfer(request: ApiRequest, body: Any, funded: set[str]) -> Iterable[tuple[str, str]]:
    if request.path == "/withdrawals":
        return [("withdraw", body["id"])]
    if request.verb in MONEY_REASONS:
        return [(MONEY_REASONS[request.verb], _subject(request))]
    if request.verb == "cancel" and body["state"] == "cancelled" and body["id"] in funded:
        return [("cancel", body["id"])]
    return []


def _subject(request: ApiRequest) -> str:
    """The id of the milestone or escrow that `request` changes."""
    parts = request.path.split("/")
    return parts[2].partition(".")[2] if parts[1] == "disputes" else parts[-2]


def _moved(request: ApiRequest, body: Any, resolved: set[str]) -> Iterator[tuple[str, int]]:
    """The changes of wallets, as owner and minor units, that follow from an answer.

    `resolved` are the milestones that an arbiter has decided: a later cancellation refunds them not
    once more.
    """
    if request.path == "/withdrawals":
        yield request.person.id, -body["amount"]["minor"]
    elif request.verb == "fund":
        yield body["client_id"], -body["amount"]["minor"]
    elif request.verb == "cancel" and body["state"] == "cancelled":
        for milestone in body["milestones"]:
            if milestone["state"] == "refunded" and milestone["id"] not in resolved:
                yield body["client_id"], milestone["amount"]["minor"]
    elif request.verb in ("approve", "resolve"):
        part = request.body.get("to_client_basis_points", 0)
        wanted = _subject(request)
        amount = next(m["amount"]["minor"] for m in body["milestones"] if m["id"] == wanted)
        back = amount * part // WHOLE
        rest = amount - back
        yield body["client_id"], back
        yield body["freelancer_id"], rest - rest * body["fee_basis_points"] // WHOLE
