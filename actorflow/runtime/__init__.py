"""The async shell: performs what the kernel asks for, and holds no policy."""

from __future__ import annotations

from actorflow.runtime.client import Client
from actorflow.runtime.draining import Drained
from actorflow.runtime.runtime import Runtime

__all__ = ["Client", "Drained", "Runtime"]
