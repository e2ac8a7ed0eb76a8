"""An environment's deploys and certificates in Prometheus' text format. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy.journal import Record
    from deploy.probe import Answer


def render(name: str, newest_first: Sequence[Record], answers: Mapping[str, Answer]) -> str:
    """The text; `answers` are those of the public route through each web host."""
    return "\n".join((*_deploys(name, newest_first), *_routes(name, answers))) + "\n"


def _deploys(name: str, newest_first: Sequence[Record]) -> Iterator[str]:
    yield "# HELP amani_deploy_failed Whether the newest deploy or rollback left another live."
    yield "# TYPE amani_deploy_failed gauge"
    for record in newest_first[:1]:
        yield f'amani_deploy_failed{{environment="{name}"}} {int(not record.live)}'
    yield "# HELP amani_release_timestamp_seconds Since when the live release is live."
    yield "# TYPE amani_release_timestamp_seconds gauge"
    for record in [each for each in newest_first if each.live][:1]:
        labels = f'environment="{name}",version="{record.version}"'
        yield f"amani_release_timestamp_seconds{{{labels}}} {record.finished:.0f}"


def _routes(name: str, answers: Mapping[str, Answer]) -> Iterator[str]:
    yield "# HELP amani_route_up Whether the public route answers through a host."
    yield "# TYPE amani_route_up gauge"
    for host, answer in answers.items():
        labels = f'environment="{name}",host="{host}"'
        yield f"amani_route_up{{{labels}}} {int(answer.status == 200)}"
    yield "# HELP amani_certificate_expires_timestamp_seconds The certificate's last moment."
    yield "# TYPE amani_certificate_expires_timestamp_seconds gauge"
    for host, answer in answers.items():
        if answer.expires is not None:
            labels = f'environment="{name}",host="{host}"'
            yield f"amani_certificate_expires_timestamp_seconds{{{labels}}} {answer.expires:.0f}"
