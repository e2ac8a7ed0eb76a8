"""Light load on the public routes of web hosts: reads and writes."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import requests

from workshop.bench.load_generator import Profile
from workshop.bench.load_run import Load, load


class Traffic:
    """The results of the clients of each host; complete once the `with` block has ended."""

    def __init__(self) -> None:
        self._loads: dict[str, Load] = {}

    def add(self, host: str, running: Load) -> None:
        self._loads[host] = running

    @property
    def requests(self) -> dict[str, int]:
        """The number of requests to each host."""
        return {host: len(made.records.starts) for host, made in self._loads.items()}

    @property
    def failures(self) -> dict[str, dict[str, int]]:
        """The number of failed requests by host and kind; hosts without failures are left out."""
        found = {host: made.records.failures for host, made in self._loads.items()}
        return {host: kinds for host, kinds in found.items() if kinds}


@contextmanager
def traffic(addresses: dict[str, str], name: str, *, rate: float = 20.0) -> Iterator[Traffic]:
    """Send requests to every host during the block; one a second takes half a second."""
    seen = Traffic()
    with ExitStack() as stack:
        for host, address in addresses.items():
            profile = Profile(
                address=address,
                port=80,
                host=name,
                rate=rate,
                slow_path="/api/v1/ping?delay_ms=500",
                connections=8,
                fresh=0.5,
                timeout=30.0,
                seconds=1800.0,
            )
            seen.add(host, stack.enter_context(load(profile)))
        yield seen


class Writer:
    """Two users who create escrow agreements, one after the other, on the route of one host."""

    def __init__(self, address: str, name: str, pause: float) -> None:
        self.statuses: Counter[int] = Counter()
        """The number of answers by status; 0: no answer."""
        self.made: list[str] = []
        """The ids of the acknowledged agreements."""
        self._url, self._pause = f"http://{address}/api/v1", pause
        self._session = requests.Session()
        self._session.headers["Host"] = name
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Writer:
        for who in ("ben", "ada"):
            person = {"email": f"{who}@example.org", "name": who, "password": "x" * 12}
            answer = self._session.post(f"{self._url}/auth/signup", json=person, timeout=30)
            self._session.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)

    def lost(self) -> list[str]:
        """The acknowledged agreements that the service does not have."""
        self._session.close()  # a host that was cut off meanwhile has lost its connections
        urls = ((id, f"{self._url}/escrows/{id}") for id in self.made)
        return [id for id, url in urls if self._session.get(url, timeout=30).status_code != 200]

    def _write(self) -> None:
        for number in itertools.count(1):
            milestone = {"title": "all of it", "amount": 100 * number}
            proposal = {
                "title": f"shop {number}",
                "freelancer_email": "ben@example.org",
                "currency": "NGN",
                "milestones": [milestone],
            }
            try:
                answer = self._session.post(f"{self._url}/escrows", json=proposal, timeout=30)
                self.statuses[answer.status_code] += 1
                if answer.status_code == 201:
                    self.made.append(answer.json()["id"])
            except requests.RequestException:
                self.statuses[0] += 1
            if self._over.wait(self._pause):
                return
