"""Before each test, what the one before it left."""

from __future__ import annotations

import pytest

from tests import harness


@pytest.fixture(autouse=True)
def _anew() -> None:
    harness.did.clear()
    harness.world.clear()
