"""Who uses Amani."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime


class Role(enum.Enum):
    """What a person may do beyond their own escrows; client and freelancer are parts, not roles."""

    MEMBER = "member"
    ARBITER = "arbiter"
    ADMIN = "admin"


@dataclass(frozen=True)
class User:
    """A person with an account; ``email`` is kept in lower case and belongs to one person."""

    id: str
    email: str
    name: str
    role: Role
    password_hash: str
    created_at: datetime
    token_version: int = 1
    """Grows with each change of the password: tokens from before it are void."""
