"""`flask amani seed` on PostgreSQL."""

from __future__ import annotations

import pytest

from tests.support.contracts.seeding import *  # noqa: F401,F403

pytestmark = pytest.mark.postgres
