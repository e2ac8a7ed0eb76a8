"""Call each operation of a service's own OpenAPI document, with the same requests each time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

from deploy.errors import DeployError
from workshop.bench.local_service import API, PASSWORD
from workshop.pipeline.compat.compat_environment import RunningRelease
from workshop.pipeline.compat.money_flow import move_money

EXAMPLES = 3
"""The number of requests for each operation."""
DOCUMENT = f"{API}/openapi.json"
_PERSON = {"email": "carol@example.org", "name": "carol", "password": PASSWORD}


@dataclass
class Answers:
    """Statuses by operation, in the order of the requests, and undocumented answers."""

    statuses: dict[str, list[object]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def differences(self, now: Answers) -> list[str]:
        """A line for each operation with other statuses now."""
        return [
            f"{operation}: answered {_counted(before)}, "
            f"now {_counted(now.statuses.get(operation, []))}"
            for operation, before in self.statuses.items()
            if before != now.statuses.get(operation)
        ]


def ask_all(service: RunningRelease) -> Answers:
    """Call each operation of the document that a service serves, as a new user.

    The values follow from the document alone: two services of one release on equal databases give
    the same answers.
    """
    import schemathesis

    found = Answers()
    try:
        headers = _sign_up(service)
        found.statuses |= move_money(service, headers)
    except requests.RequestException as error:
        raise DeployError(f"deposit and withdrawal: no answer: {error}") from None
    document: Any = schemathesis.openapi.from_url(f"{service.url}{DOCUMENT}")
    for number, each in enumerate(document.get_all_operations()):
        _ask(each.ok(), number, headers, found)
    found.wrong = list(dict.fromkeys(found.wrong))
    return found


def _ask(operation: Any, number: int, headers: Mapping[str, str], found: Answers) -> None:
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from schemathesis import GenerationMode
    from schemathesis.specs.openapi import checks

    wanted = [
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]
    statuses = found.statuses.setdefault(operation.label, [])

    @seed(number)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def ask(case: Any) -> None:
        try:
            answer = case.call(headers=headers)
        except requests.RequestException as error:
            raise DeployError(f"{operation.label}: no answer: {error}") from None
        statuses.append(answer.status_code)
        try:
            case.validate_response(answer, headers=headers, checks=wanted)
        except Exception as error:  # of many types; reported by its first line
            said = next((line for line in str(error).splitlines() if line.strip()), "")
            found.wrong.append(f"{operation.label}: {answer.status_code}: {said.strip()}")

    ask()


def _sign_up(service: RunningRelease) -> Mapping[str, str]:
    answer = requests.post(f"{service.url}{API}/auth/signup", json=_PERSON, timeout=30)
    if answer.status_code != 201:
        raise DeployError(f"POST /auth/signup answered {answer.status_code}: {answer.text[:500]}")
    return {"Authorization": f"Bearer {answer.json()['token']}"}


def _counted(statuses: list[object]) -> str:
    counts = {status: statuses.count(status) for status in sorted(set(statuses), key=str)}
    return ", ".join(f"{status} ({count})" for status, count in counts.items()) or "nothing"
