"""Secrets: their sources, their delivery to hosts, and their redaction in output."""

from deploy.secrets.delivery import (
    current_generation,
    deliver,
    generations,
    prune,
    volume_name,
)
from deploy.secrets.secret import Secret, Secrets, redact
from deploy.secrets.sources import load_secrets

__all__ = [
    "Secret",
    "Secrets",
    "current_generation",
    "deliver",
    "generations",
    "load_secrets",
    "prune",
    "redact",
    "volume_name",
]
