"""Secrets: their sources, their delivery to hosts, and their redaction in output."""

from deploy.secrets.delivery import (
    deliver,
    find_generation,
    list_generations,
    prune,
    volume_name,
)
from deploy.secrets.secret import Secret, Secrets, redact
from deploy.secrets.sources import load_secrets

__all__ = [
    "Secret",
    "Secrets",
    "deliver",
    "find_generation",
    "list_generations",
    "load_secrets",
    "prune",
    "redact",
    "volume_name",
]
