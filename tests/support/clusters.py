"""Facts about a database's machine, without problems unless a test changes them."""

from __future__ import annotations

from typing import Any

from deploy.pitr.configuration import archive_command
from deploy.pitr.facts import Archiving, BaseBackup, Cluster, ClusterFacts, Repository, Setting

NAME = "trial"


def cluster(name: str = "main", port: int = 5432, **changes: Any) -> Cluster:
    values: dict[str, Any] = {
        "version": "17",
        "name": name,
        "port": port,
        "running": True,
        "data": f"/var/lib/postgresql/17/{name}",
        "config": f"/etc/postgresql/17/{name}",
        "socket": "/var/run/postgresql",
        "log": f"/var/log/postgresql/postgresql-17-{name}.log",
    }
    return Cluster(**values | changes)


def archiving(**changes: Any) -> Archiving:
    """The archiving of a server; a change may also name a setting."""
    settings = {
        "archive_mode": "on",
        "archive_command": archive_command(NAME),
        "archive_library": "",
        "archive_timeout": "60",
        "wal_level": "replica",
    }
    settings |= {name: changes.pop(name) for name in list(changes) if name in settings}
    values: dict[str, Any] = {
        "settings": {name: Setting(value, "/etc/x.conf") for name, value in settings.items()},
        "now": 1000.0,
        "recovery": False,
        "archived": 7,
        "last": "000000010000000000000007",
        "last_at": 991.0,
        "failed": 0,
        "failed_last": "",
        "failed_at": 0.0,
        "written": 990.0,
        "databases": ("amani",),
    }
    return Archiving(**values | changes)


def base(label: str = "500F", stopped: float = 500.0, **changes: Any) -> BaseBackup:
    values: dict[str, Any] = {
        "label": label,
        "kind": "full",
        "started": stopped - 10,
        "stopped": stopped,
        "size": 31_000_000,
        "stored": 4_000_000,
    }
    return BaseBackup(**values | changes)


def facts(**changes: Any) -> ClusterFacts:
    values: dict[str, Any] = {
        "tool": "2.55.1",
        "clusters": (cluster(),),
        "port": 5432,
        "now": 1000.0,
        "archiving": archiving(),
        "repository": Repository(stanza=True, bases=(base(),), wal="000000010000000000000007"),
    }
    return ClusterFacts(**values | changes)
