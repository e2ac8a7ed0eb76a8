"""User journeys: random operations of concurrent users on shared escrows and wallets."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from workshop.bench.api_client import ApiAnswer, ApiClient, ApiRequest, ApiUser

OPEN = 24
"""Open escrows at a time: few enough that users collide."""
UNIT = 4_000
"""Minor units that each price is a multiple of, so that fees and halves are whole numbers."""
TRIES = 6
PAUSE = 0.3
"""The longest random delay in seconds until an unanswered request is sent again."""

Escrow = dict[str, Any]
Move = tuple[ApiUser, str, dict[str, Any]]
"""The user who sends it, the end of its path, and its body."""


@dataclass
class SharedState:
    """The users, their open escrows, and the record of all requests with an effect."""

    members: list[ApiUser]
    arbiter: ApiUser
    requests: list[ApiRequest] = field(default_factory=list)
    reads: list[ApiAnswer] = field(default_factory=list)
    races: dict[str, int] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)
    _open: dict[str, ApiUser] = field(default_factory=dict)
    """The open escrows by id, each with its client."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, request: ApiRequest) -> ApiRequest:
        """Record `request` for the ledger checks; returns it."""
        with self._lock:
            self.requests.append(request)
        return request

    def parties(self, escrow: Escrow) -> tuple[ApiUser, ApiUser]:
        """The client and the freelancer of `escrow`, in this order."""
        known = {person.id: person for person in self.members}
        return known[escrow["client_id"]], known[escrow["freelancer_id"]]

    def saw(self, escrow: Escrow) -> None:
        """Keep an escrow in the pool until it is completed or cancelled."""
        with self._lock:
            if escrow["state"] in ("completed", "cancelled"):
                self._open.pop(escrow["id"], None)
            else:
                self._open[escrow["id"]] = self.parties(escrow)[0]

    def pick(self, choice: random.Random) -> tuple[str, ApiUser] | None:
        """A random open escrow and its client; None at random while fewer than `OPEN` exist."""
        with self._lock:
            wanted = choice.randrange(OPEN)
            found = list(self._open.items())
        return found[wanted] if wanted < len(found) else None

    def raced(self, kind: str) -> None:
        """Count a race of this kind."""
        with self._lock:
            self.races[kind] = self.races.get(kind, 0) + 1


class UserJourney:
    """One user: performs random operations until the end."""

    def __init__(
        self, shared: SharedState, api: ApiClient, pool: ThreadPoolExecutor, seed: int
    ) -> None:
        self._shared = shared
        self._api = api
        self._pool = pool
        self._choice = random.Random(seed)  # nosec B311 - a load, no secret

    def run(self, until: float) -> None:
        """Perform operations until `until` (monotonic clock), or until the run is over."""
        acts: list[Callable[[], None]] = [
            self._advance, self._approve_twice, self._fund_against_withdraw,
            self._approve_against_dispute, self._repeat, self._look,
        ]  # fmt: skip
        weights = [50, 12, 12, 12, 6, 8]
        while time.monotonic() < until and not self._shared.over.is_set():
            self._choice.choices(acts, weights)[0]()

    def _propose(self) -> None:
        client, freelancer = self._choice.sample(self._shared.members, 2)
        body = {
            "title": "Work",
            "freelancer_email": freelancer.email,
            "currency": "NGN",
            "milestones": [
                {"title": f"Part {number}", "amount": UNIT * self._choice.randint(1, 200)}
                for number in range(self._choice.randint(1, 3))
            ],
        }
        self._send(ApiRequest(client, "/escrows", body))

    def _advance(self) -> None:
        """Perform one step of an escrow, in most cases an allowed one."""
        escrow = self._found()
        if not escrow:
            return
        moves = self._moves(escrow)
        if self._choice.random() < 0.05:
            verb = self._choice.choice(("/accept", "/fund", "/cancel"))
            moves = [(self._choice.choice(self._shared.parties(escrow)), verb, {})]
        if moves:
            self._send(self._request(escrow, self._choice.choice(moves)))

    def _approve_twice(self) -> None:
        """Send the same request twice at once, and the same operation under another key."""
        found = self._submitted()
        if found:
            escrow, move = found
            first, second = self._request(escrow, move), self._request(escrow, move)
            self._race("approve twice", [first, first, second])

    def _approve_against_dispute(self) -> None:
        found = self._submitted()
        if found:
            escrow, (client, path, _) = found
            by = self._choice.choice(self._shared.parties(escrow))
            rival: Move = (by, path.replace("/approve", "/dispute"), {})
            requests = [self._request(escrow, (client, path, {})), self._request(escrow, rival)]
            self._race("approve against dispute", requests)

    def _fund_against_withdraw(self) -> None:
        """Fund and withdraw at once from the same wallet."""
        escrow = self._found()
        if not escrow or escrow["state"] != "accepted":
            return self._advance()
        client = self._shared.parties(escrow)[0]
        rivals = [self._request(escrow, (client, "/fund", {})), self._withdrawal(client)]
        self._race("fund against withdraw", rivals)

    def _withdrawal(self, person: ApiUser) -> ApiRequest:
        body = {
            "amount": UNIT * self._choice.randint(1, 100),
            "currency": "NGN",
            "bank_code": "058",
            "account_number": "0123456789",
        }
        return ApiRequest(person, "/withdrawals", body)

    def _repeat(self) -> None:
        """Send a request again that was answered earlier."""
        if self._shared.requests:
            request = self._choice.choice(self._shared.requests)
            if request.acknowledgement:
                self._api.post(request)

    def _look(self) -> None:
        person = self._choice.choice(self._shared.members)
        wallets = self._api.ask("GET", "/wallets", person.token)
        self._shared.reads.append(wallets)
        for wallet in wallets.body["items"] if wallets.acknowledged else ():
            path = f"/wallets/{wallet['id']}/entries"
            self._shared.reads.append(self._api.ask("GET", path, person.token))

    def _found(self) -> Escrow | None:
        picked = self._shared.pick(self._choice)
        if picked is None:
            self._propose()
            return None
        id, client = picked
        answer = self._api.ask("GET", f"/escrows/{id}", client.token)
        self._shared.reads.append(answer)
        if not answer.acknowledged:
            return None
        self._shared.saw(answer.body)
        return answer.body  # type: ignore[no-any-return]

    def _submitted(self) -> tuple[Escrow, Move] | None:
        """An escrow with a delivered milestone and its approval; without one, take another step."""
        escrow = self._found()
        if escrow:
            for move in self._moves(escrow):
                if move[1].endswith("/approve"):
                    return escrow, move
            self._advance()
        return None

    def _moves(self, escrow: Escrow) -> list[Move]:
        parties = client, freelancer = self._shared.parties(escrow)
        moves: list[Move] = []
        if escrow["state"] == "draft":
            moves += [(freelancer, "/accept", {})] * 9 + [(client, "/cancel", {})]
        if escrow["state"] == "accepted":
            moves += [(client, "/fund", {})] * 9 + [(freelancer, "/cancel", {})]
        for milestone in escrow["milestones"]:
            path = f"/milestones/{milestone['id']}"
            if milestone["state"] in ("funded", "changes-requested"):
                moves += [(freelancer, f"{path}/submit", {})] * 4
                moves += [(self._choice.choice(parties), "/cancel", {})]
            elif milestone["state"] == "submitted":
                moves += [(client, f"{path}/approve", {})] * 2
                moves += [(client, f"{path}/reject", {}), (freelancer, f"{path}/dispute", {})]
            elif milestone["state"] == "disputed":
                part = {"to_client_basis_points": self._choice.choice((0, 5_000, 10_000))}
                moves += [(self._shared.arbiter, f"{milestone['dispute_id']}/resolve", part)]
        return moves

    def _request(self, escrow: Escrow, move: Move) -> ApiRequest:
        person, path, body = move
        base = "/disputes/" if path.endswith("/resolve") else f"/escrows/{escrow['id']}"
        return ApiRequest(person, f"{base}{path}", body, escrow["version"])

    def _race(self, kind: str, requests: list[ApiRequest]) -> None:
        """Send all `requests` at once; one that is listed twice is sent twice."""
        self._shared.raced(kind)
        for request in {id(request): request for request in requests}.values():
            self._shared.note(request)
        running = [self._pool.submit(self._insist, request) for request in requests]
        self._see(future.result() for future in running)

    def _send(self, request: ApiRequest) -> None:
        self._see([self._insist(self._shared.note(request))])

    def _see(self, answers: Iterable[ApiAnswer]) -> None:
        for answer in answers:
            if answer.acknowledged and "milestones" in answer.body:
                self._shared.saw(answer.body)

    def _insist(self, request: ApiRequest) -> ApiAnswer:
        """Send until the answer is final, at most `TRIES` times; stops earlier at random."""
        for _ in range(TRIES):
            answer = self._api.post(request)
            if answer.acknowledged or answer.refused or self._choice.random() < 0.3:
                break
            time.sleep(self._choice.uniform(0, PAUSE))
        return answer
