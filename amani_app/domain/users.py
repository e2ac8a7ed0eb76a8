"""Users and their roles."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime


class Role(enum.Enum):
    """The permissions of a user beyond their own escrows.

    Client and freelancer are parties of an escrow, not roles.
    """

    MEMBER = "member"
    ARBITER = "arbiter"
    ADMIN = "admin"


@dataclass(frozen=True)
class User:
    """A user account; `email` is in lower case and unique."""

    id: str
    email: str
    name: str
    role: Role
    password_hash: str
    created_at: datetime
    token_version: int = 1
    """Incremented by each change of the password, which revokes older tokens."""
