"""Pools: some actors of one class that share the work, each key always the same one.

What has one key is handled in order, by one actor after the other; what has different keys is handled at the same time, up
to the size of the pool. Which actor a key belongs to depends on the key and the size only, in any process and for ever.

    >>> from actorflow import Actor
    >>> class Resizer(Actor): ...
    >>> pool = Pool(Resizer, size=16)
    >>> pool.at("photo-7"), pool.slot("photo-7") == pool.slot("photo-7")
    (Address(Resizer/5 of 16), True)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from attrs import field, frozen

from actorflow.actor import Actor
from actorflow.address import Address
from actorflow.errors import BadDefinition
from actorflow.policies.limits import checked_key
from actorflow.value import Value

if TYPE_CHECKING:
    A_co = TypeVar("A_co", bound=Actor, covariant=True)
else:
    A_co = TypeVar("A_co", covariant=True)

SIZE_MAX = 10_000
"""Actors of one pool. More of them at work than there are cores, connections or places at the other end gain nothing."""


@frozen
class Pool(Value, Generic[A_co]):
    """So many actors of a class, and which of them a key belongs to: `pool.at(key)` in a handler or run, elsewhere
    `runtime.at(pool, key)`.

    The actors are virtual: none is made before it is needed. Two pools of one class and size are the same. One of another
    size has other actors: what waits for the old ones is still handled, but a key's state does not move to the new ones.

    Args:
        actor: The class.
        size: How many.

    Raises:
        BadDefinition: It cannot be a pool.
    """

    actor: type[A_co]
    size: int = field(kw_only=True)

    def __attrs_post_init__(self) -> None:
        actor: Any = self.actor  # Not everybody checks types.
        if not (isinstance(actor, type) and issubclass(actor, Actor)) or hasattr(actor, "run"):
            raise BadDefinition(f"Pool({actor!r:.80}): it takes a class derived from Actor that handles messages.")
        if type(self.size) is not int or not 1 <= self.size <= SIZE_MAX:
            raise BadDefinition(
                f"Pool({self.actor.__qualname__}): size is {self.size!r:.80}. Write a whole number, 1 to {SIZE_MAX:,}."
            )

    def slot(self, key: str) -> str:
        """The key of the actor that *key* belongs to."""
        from hashlib import blake2b  # noqa: PLC0415  (it loads OpenSSL, and most services have no pool)

        digest = blake2b(checked_key(key).encode(), digest_size=8).digest()
        return f"{int.from_bytes(digest) % self.size} of {self.size}"

    def at(self, key: str) -> Address[A_co]:
        """The actor that *key* belongs to, from inside a turn."""
        return Address(self.actor, self.slot(key))
