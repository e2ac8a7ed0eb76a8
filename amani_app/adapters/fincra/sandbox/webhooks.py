"""Delivery of the sandbox's notices, with simulated faults."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_type_hints
from dataclasses import dataclass, field

from amani_app.adapters.fincra.notices import sign

Mode = Literal["send", "hold", "lose"]


@dataclass
class Switches:
    webhooks: Mode = "send"
    """Send notices at once, hold them until `deliver`, or lose them."""
    copies: int = 1
    """How many times each notice is sent."""
    delay: float = 0.0
    """Seconds until a notice is sent."""
    forge: bool = False
    """Sign notices with another key."""
    payouts: Literal["waiting", "successful", "failed"] = "waiting"
    """The outcome of a payout as soon as it is accepted."""
    payout_fee: float = 0.0
    """The fee of a payout beside its amount, in major units."""
    accounts: Literal["pending", "active", "declined"] = "active"
    """The state of a requested virtual account."""
    answers: Literal["good", "away", "limit", "lost"] = "good"
    """503 without an effect, 429, or 500 after the effect."""

    def turn(self, changes: Mapping[str, Any]) -> None:
        """Set those named in `changes`. Raises `ValueError` for one that is none."""
        hints = get_type_hints(Switches)
        for name, value in changes.items():
            if name not in hints:
                raise ValueError(f"{name!r} is none of the switches {', '.join(hints)}")
            choices = get_args(hints[name])
            kinds = (int, float) if hints[name] is float else hints[name]
            if value not in choices if choices else not isinstance(value, kinds):
                raise ValueError(f"{name}: {value!r} is none of {choices or hints[name].__name__}")
            setattr(self, name, value)


def read_switches(arguments: Iterable[str]) -> Switches:
    """The switches of `NAME=VALUE` arguments. Raises `ValueError`."""
    hints, found = get_type_hints(Switches), Switches()
    for argument in arguments:
        name, _, value = argument.partition("=")
        kind = hints.get(name, str)
        if kind is bool and value not in ("true", "false"):
            raise ValueError(f"{name}: {value!r} is neither true nor false")
        given = value == "true" if kind is bool else kind(value) if kind in (int, float) else value
        found.turn({name: given})
    return found


@dataclass
class Webhooks:
    """Sends notices to `url`, signed with `secret`; keeps those that are held."""

    url: str
    secret: str
    switches: Switches
    held: list[bytes] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    """The status of the response to each notice; 0 if there was none."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def notify(self, event: str, data: Mapping[str, Any]) -> None:
        raw = json.dumps({"event": event, "data": data}, ensure_ascii=False).encode()
        mode = self.switches.webhooks
        if mode == "hold":
            with self._lock:
                self.held.append(raw)
        elif mode == "send" and self.url:
            copies, delay = self.switches.copies, self.switches.delay
            threading.Thread(target=self._send_late, args=(raw, copies, delay), daemon=True).start()

    def deliver(self, backwards: bool = False) -> list[int]:
        """Send the held notices, in order or backwards; returns the statuses of the responses."""
        with self._lock:
            notices, self.held = self.held, []
        ordered = reversed(notices) if backwards else notices
        return [self._send(raw) for raw in ordered for _ in range(self.switches.copies)]

    def _send_late(self, raw: bytes, copies: int, delay: float) -> None:
        time.sleep(delay)
        for _ in range(copies):
            self._send(raw)

    def _send(self, raw: bytes) -> int:
        import requests

        key = "another key altogether" if self.switches.forge else self.secret
        headers = {"content-type": "application/json", "signature": sign(key, raw)}
        try:
            status = requests.post(self.url, data=raw, headers=headers, timeout=10).status_code
        except requests.RequestException:
            status = 0
        with self._lock:
            self.sent.append(status)
        return status
