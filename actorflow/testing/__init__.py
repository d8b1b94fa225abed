"""What tests of durable code, and of stores, are built from. What is not here is imported from its module.

Pytest loads this package with the plugin, whatever it is that is tested: so these names are imported when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorflow.lazily import lazily

if TYPE_CHECKING:
    from actorflow.testing.harness import Harness as Harness
    from actorflow.testing.journals import Journal as Journal
    from actorflow.testing.journals import assert_replays as assert_replays
else:
    __getattr__, __dir__, __all__ = lazily(__name__, {"harness": "Harness", "journals": "Journal assert_replays"})
