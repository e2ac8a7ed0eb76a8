"""Seed data of the API benchmark: one escrow created through the API, and many copies of it.

Copies are inserted by SQL, with triggers off: a million entries through the API would take an hour.
A copy has all columns of its model except the ids, so a new column needs no change here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.errors import DeployError
from workshop.bench.api_client import ApiClient, ApiRequest, ApiUser
from workshop.bench.local_service import LocalService
from workshop.bench.postgres import PostgresServer

PRICE = 200_000
FIRST = 1_000_001
"""Numbers of copies have seven digits, which no other value of a statement has."""
KEYS = 1_000
"""Enough idempotency keys for PostgreSQL to use their index."""


@dataclass
class SeedData:
    """A client, a freelancer, their escrow and its copies."""

    postgres: PostgresServer
    api: ApiClient
    client: ApiUser
    freelancer: ApiUser
    escrow: str
    milestone: str
    _next: int = FIRST
    _wallets: int = 0

    @classmethod
    def made(cls, postgres: PostgresServer, service: LocalService, api: ApiClient) -> SeedData:
        """Create an escrow with a delivered milestone. Raises `DeployError` if a request fails."""
        client, freelancer = api.sign_up("client@example.org"), api.sign_up("free@example.org")
        for number, person in enumerate((client, freelancer)):
            words = ("amani", "deposit", person.email, "10000.00", "--reference", f"bench-{number}")
            service.must(*words)
        asked = {
            "title": "Work",
            "freelancer_email": freelancer.email,
            "currency": "NGN",
            "milestones": [{"title": "All of it", "amount": PRICE}],
        }
        made = _done(api, ApiRequest(client, "/escrows", asked))
        path, milestone = f"/escrows/{made['id']}", made["milestones"][0]["id"]
        _done(api, ApiRequest(freelancer, f"{path}/accept", version=1))
        _done(api, ApiRequest(client, f"{path}/fund", version=2))
        _done(api, ApiRequest(freelancer, f"{path}/milestones/{milestone}/submit", version=3))
        return cls(postgres, api, client, freelancer, made["id"], milestone)

    @property
    def people(self) -> set[str]:
        """The ids of the users that no copy changes."""
        return {self.client.id, self.freelancer.id}

    def submitted(self, kind: str, number: int) -> range:
        """Insert `number` copies and return their numbers; with kind `spread` each has its own
        freelancer."""
        found = range(self._next, self._next + number)
        self._next = found.stop
        hold = f"hold:{self.milestone}:NGN"
        escrow = {"id": "'bench-e-' || n"}
        statements = [
            _copies("milestones", self.milestone, found, {
                "id": "'bench-m-' || n", "escrow_id": "'bench-e-' || n"}),
            _copies("accounts", hold, found, {
                "id": "'hold:bench-m-' || n || ':NGN'", "owner": "'bench-m-' || n"}),
        ]  # fmt: skip
        if kind == "spread":
            escrow["freelancer_id"] = "'bench-f-' || n"
            wallet = f"wallet:{self.freelancer.id}:NGN"
            statements += [
                _copies("users", self.freelancer.id, found, {
                    "id": "'bench-f-' || n", "email": "'bench-f-' || n || '@example.org'"}),
                _copies("accounts", wallet, found, {
                    "id": "'wallet:bench-f-' || n || ':NGN'", "owner": "'bench-f-' || n"}),
            ]  # fmt: skip
        self._put([*statements, _copies("escrows", self.escrow, found, escrow)])
        return found

    def released(self, first: int, last: int) -> None:
        """Raise `DeployError` unless all these copies are paid, each with three entries."""
        query = f"""SELECT count(DISTINCT t.id) AS paid, count(*) AS entries
            FROM generate_series({first}, {last}) n
            JOIN milestones m ON m.id = 'bench-m-' || n AND m.state = 'released'
            JOIN transfers t ON t.reference = m.id AND t.reason = 'released'
            JOIN entries e ON e.transfer_id = t.id
            JOIN idempotency_keys k ON k.key = 'bench-k-' || n"""  # nosec B608 - whole numbers
        found = self.postgres.rows(query)[0]
        number = last - first + 1
        if found != {"paid": number, "entries": 3 * number}:
            raise DeployError(f"of {number} releases the database holds {found}")

    def wallet(self, entries: int) -> ApiUser:
        """Create a user whose wallet has `entries` entries, the first with idempotency keys."""
        self._wallets += 1
        person = self.api.sign_up(f"wallet{self._wallets}@example.org")
        wallet, name = f"wallet:{person.id}:NGN", f"w{self._wallets}-"
        found = range(1, entries + 1)
        model = "(SELECT min(id) FROM transfers WHERE reason = 'deposit')"
        account = f"wallet:{self.client.id}:NGN"
        line = f"(SELECT min(id) FROM entries WHERE account_id = '{account}')"  # nosec B608
        key = "(SELECT min(key) FROM idempotency_keys)"
        statements = [
            _copies("idempotency_keys", key, range(1, min(entries, KEYS) + 1), {
                "caller": f"'{person.id}'", "key": f"'{name}' || n"}, by="key"),
            _copies("accounts", account, range(1), {
                "id": f"'{wallet}'", "owner": f"'{person.id}'", "version": str(entries)}),
            _copies("transfers", model, found, {
                "id": f"'{name}' || n", "reference": f"'{name}' || n"}),
            _copies("entries", line, found, {
                "id": "nextval('entries_id_seq')", "transfer_id": f"'{name}' || n",
                "account_id": f"'{wallet}'", "version": "n"}),
        ]  # fmt: skip
        self._put(statements)
        return person

    def _put(self, statements: list[str]) -> None:
        self.postgres.execute(
            "\n".join(["SET LOCAL session_replication_role = replica;", *statements])
        )
        self.postgres.tidy()


def _copies(
    table: str, model: str, numbers: range, changes: Mapping[str, str], by: str = "id"
) -> str:
    """SQL that copies the row with `model` in `by` for each `n` of `numbers`, with `changes`."""
    wanted = model if model.startswith("(") else f"'{model}'"
    pairs = ", ".join(f"'{column}', {value}" for column, value in changes.items())
    return f"""INSERT INTO {table} SELECT copy.* FROM {table} model,
        generate_series({numbers.start}, {numbers.stop - 1}) n,
        LATERAL jsonb_populate_record(model, jsonb_build_object({pairs})) copy
        WHERE model.{by} = {wanted};"""  # nosec B608 - constants and numbers


def _done(api: ApiClient, request: ApiRequest) -> dict[str, Any]:
    answer = api.post(request)
    if not answer.acknowledged:
        raise DeployError(f"{request.path} answered {answer.status}: {answer.body}")
    body: dict[str, Any] = answer.body
    return body
