"""Users of the API, as clients of an application."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from amani_app.application.common.acting import Actor
from amani_app.container import Container, build_provider
from amani_app.domain.money import Money
from amani_app.domain.payments import Destination
from amani_app.domain.users import Role
from amani_app.ports.payments import Payments
from amani_app.ports.store import UnitOfWork

PASSWORD = "correct horse battery"
API = "/api/v1"
UNLIMITED = {"limit_read": 0, "limit_write": 0, "limit_sign_in": 0, "limit_pay_out": 0}
"""Settings without rate limits."""


def cheapen_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the cheapest parameters of the hash algorithm, for tests that are not about hashing."""
    import argon2

    cheap = {"time_cost": 1, "memory_cost": 8, "parallelism": 1}
    hasher = argon2.PasswordHasher
    monkeypatch.setattr(argon2, "PasswordHasher", lambda: hasher(**cheap))


class Person:
    """A signed-in caller."""

    def __init__(self, client: FlaskClient, session: dict[str, Any]) -> None:
        self._client = client
        self.id = session["user"]["id"]
        self.email = session["user"]["email"]
        self.token = session["token"]
        self._keys = 0

    def call(self, method: str, path: str, **rest: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self.token}", **rest.pop("headers", {})}
        return self._client.open(f"{API}{path}", method=method, headers=headers, **rest)

    def get(self, path: str, **rest: Any) -> TestResponse:
        return self.call("GET", path, **rest)

    def act(self, path: str, version: int, key: str = "", body: Any = None) -> TestResponse:
        self._keys += 1
        headers = {
            "Idempotency-Key": key or f"key-{self.id}-{self._keys}",
            "If-Match": f'"{version}"',
        }
        return self.call("POST", path, headers=headers, json=body or {})


class World:
    """An application and its users."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.client = app.test_client()
        self.parts: Container = app.extensions["amani"]
        self._deposits = 0

    def connect(self, payments: Payments) -> None:
        """Use `payments` as the payment provider."""
        parts = self.parts
        provider = build_provider(
            "fincra",
            parts.context,
            parts.store,
            payments,
            parts.deposits,
            parts.virtual_accounts,
            parts.withdrawals,
        )
        self.parts = self.app.extensions["amani"] = replace(parts, provider=provider)

    def person(self, name: str, role: Role = Role.MEMBER) -> Person:
        email = f"{name}@example.org"
        self.parts.people.sign_up(Actor("test"), email, name, PASSWORD, role)
        found = self.client.post(f"{API}/auth/login", json={"email": email, "password": PASSWORD})
        assert found.status_code == 200, found.text
        return Person(self.client, found.json)

    def deposit(self, person: Person, minor: int) -> None:
        self._deposits += 1
        money = Money(minor, "NGN")
        self.parts.store.run(
            lambda unit: self.parts.deposits.collected(
                unit, Actor("test"), person.id, f"d{self._deposits}", money, money
            )
        )

    def payments_of(self, person: Person) -> dict[str, str]:
        """The ids of a pending deposit, virtual account and withdrawal of `person`."""
        self.deposit(person, 100)
        actor, to = Actor(person.id), Destination("044", "0123456789", "A shop")

        def change(unit: UnitOfWork) -> dict[str, str]:
            deposit = self.parts.deposits.request(unit, actor, Money(100, "NGN"))
            account = self.parts.virtual_accounts.request(unit, actor, "NGN")
            withdrawal = self.parts.withdrawals.request(unit, actor, Money(100, "NGN"), to)
            return {
                "deposit": deposit.id,
                "account": account.id,
                "withdrawal": withdrawal.id,
            }

        return self.parts.store.run(change)

    def available(self, person: Person) -> int:
        items = person.get("/wallets").json["items"]
        return items[0]["available"]["minor"] if items else 0

    def proposal(self, freelancer: Person, *amounts: Any) -> dict[str, Any]:
        return {
            "title": "A shop",
            "freelancer_email": freelancer.email,
            "currency": "NGN",
            "milestones": [
                {"title": f"Part {i}", "amount": amount} for i, amount in enumerate(amounts, 1)
            ],
        }
