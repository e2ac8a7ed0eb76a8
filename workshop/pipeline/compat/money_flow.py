"""A deposit and a withdrawal through a release's worker and the payment provider's sandbox."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import requests

from workshop.bench.local_service import API
from workshop.pipeline.compat.compat_environment import RunningRelease

PATIENCE = 30.0
"""Seconds until a worker must have processed a deposit or withdrawal."""
_FUNDS = {"amount": 1000, "currency": "NGN"}
_AMOUNT = {"amount": "250.00", "currency": "NGN"}
_BANK = {"bank_code": "044", "account_number": "0123456789"}
_ENDS = ("paid", "failed", "credited", "suspended")


def move_money(service: RunningRelease, headers: Mapping[str, str]) -> dict[str, list[object]]:
    """Request a deposit, pay it, and withdraw it; returns statuses and final states by step.

    An operation that the release does not offer ends with the status of its request.
    """
    found: dict[str, list[object]] = {}
    if not service.provider:
        return found
    found["fund the provider"] = [_post(f"{service.provider}/sandbox/fund", _FUNDS).status_code]
    for path, body in (("/deposits", _AMOUNT), ("/withdrawals", {**_AMOUNT, **_BANK})):
        answer = _post(f"{service.url}{API}{path}", body, **headers, **{"Idempotency-Key": path})
        found[f"request to {path}"] = [answer.status_code]
        if answer.ok:
            place = f"{service.url}{API}{path}/{answer.json()['id']}"
            found[f"final state of {path}"] = [_end(service, place, headers)]
    return found


def _end(service: RunningRelease, place: str, headers: Mapping[str, str]) -> str:
    """The state of a deposit or withdrawal after the worker has processed it."""
    deadline, paid = time.monotonic() + PATIENCE, False
    while True:
        found: dict[str, Any] = requests.get(place, headers=dict(headers), timeout=10).json()
        if found.get("state") in _ENDS or time.monotonic() > deadline:
            return str(found.get("state"))
        if (page := found.get("checkout_url")) and not paid:
            reference = page.rstrip("/").rpartition("/")[2]
            _post(f"{service.provider}/sandbox/pay", {"reference": reference})
            paid = True
        time.sleep(0.2)


def _post(url: str, body: Mapping[str, object], **headers: str) -> requests.Response:
    return requests.post(url, json=body, headers=headers, timeout=30)
