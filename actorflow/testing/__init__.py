"""What tests of durable code, and of stores, are built from. What is not here is imported from its module."""

from __future__ import annotations

from actorflow.testing.harness import Harness as Harness
from actorflow.testing.journals import Journal as Journal
from actorflow.testing.journals import assert_replays as assert_replays
