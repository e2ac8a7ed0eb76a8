"""Metrics of an environment in the Prometheus text format: deploys, routes, archive. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from deploy.pitr.configuration import archive_command

if TYPE_CHECKING:
    from deploy.observe.probe import Answer
    from deploy.pitr.facts import ClusterFacts
    from deploy.state.journal import Record


def render(
    name: str,
    newest_first: Sequence[Record],
    answers: Mapping[str, Answer],
    *,
    archived: bool = False,
    archive: ClusterFacts | None = None,
) -> str:
    """The metrics as text.

    `answers` are those of the public route through each web host. `archived` is whether the
    environment archives its database; `archive` holds the facts, None if the machine is
    unreachable.
    """
    lines = [*_deploys(name, newest_first), *_routes(name, answers)]
    if archived:
        lines += _archive(name, archive)
    return "\n".join(lines) + "\n"


_RELEASES = ("deploy", "rollback", "hotfix")


def _deploys(name: str, newest_first: Sequence[Record]) -> Iterator[str]:
    yield "# HELP amani_deploy_failed Whether the newest deploy or rollback did not become live."
    yield "# TYPE amani_deploy_failed gauge"
    # The journal also has the rehearsals of restores, which are no deploys.
    for record in [each for each in newest_first if each.kind in _RELEASES][:1]:
        yield f'amani_deploy_failed{{environment="{name}"}} {int(not record.live)}'
    yield "# HELP amani_release_timestamp_seconds When the live release became live."
    yield "# TYPE amani_release_timestamp_seconds gauge"
    for record in [each for each in newest_first if each.live][:1]:
        labels = f'environment="{name}",version="{record.version}"'
        yield f"amani_release_timestamp_seconds{{{labels}}} {record.finished:.0f}"


def _routes(name: str, answers: Mapping[str, Answer]) -> Iterator[str]:
    yield "# HELP amani_route_up Whether the public route through a host answers 200."
    yield "# TYPE amani_route_up gauge"
    for host, answer in answers.items():
        labels = f'environment="{name}",host="{host}"'
        yield f"amani_route_up{{{labels}}} {int(answer.status == 200)}"
    yield "# HELP amani_certificate_expires_timestamp_seconds When the certificate expires."
    yield "# TYPE amani_certificate_expires_timestamp_seconds gauge"
    for host, answer in answers.items():
        if answer.expires is not None:
            labels = f'environment="{name}",host="{host}"'
            yield f"amani_certificate_expires_timestamp_seconds{{{labels}}} {answer.expires:.0f}"


def _archive(name: str, facts: ClusterFacts | None) -> Iterator[str]:
    """Without facts only `amani_pitr_archiving 0`: an old value must not look like a new one."""
    found = facts.archiving if facts else None
    ours = found and found.on and found.value("archive_command") == archive_command(name)
    values: list[tuple[str, str, float]] = [
        ("amani_pitr_archiving", "Whether the database is known to be archived.", bool(ours))
    ]
    if found:
        values += [
            ("amani_pitr_failing", "Whether the last segment was not archived.", found.failing),
            (
                "amani_pitr_waiting_seconds",
                "How long the oldest full segment has waited to be archived.",
                found.waiting_seconds,
            ),
            (
                "amani_pitr_archived_timestamp_seconds",
                "Every commit until then is in the archive; 0: none is.",
                found.written,
            ),
        ]
    if facts and facts.repository.stanza:
        whole = [base.stopped for base in facts.repository.bases if base.sound]
        meaning = "When the newest complete base backup in the repository ended; 0: there is none."
        newest = whole[-1] if whole else 0.0
        values.append(("amani_pitr_backup_timestamp_seconds", meaning, newest))
    for metric, meaning, value in values:
        yield f"# HELP {metric} {meaning}"
        yield f"# TYPE {metric} gauge"
        yield f'{metric}{{environment="{name}"}} {value:.0f}'
