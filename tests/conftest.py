"""Before each test, what the one before it left."""

from __future__ import annotations

import signal

import pytest

from tests import harness

# A shell that starts the tests in the background has them ignore SIGINT, and so would all processes that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _anew() -> None:
    harness.did.clear()
    harness.world.clear()
