"""The codec: values to bytes and back, exactly or not at all.

Whatever crosses a border of a durable program (an argument, a result, a message, a field) is written as JSON that a person
can read, and read back by the *annotation* of the place where it stands: nothing in the bytes says what to import or call.
A value that would not come back as it was is refused when it is written, with the path to it and the remedy; the live
value and the replayed one are then the same by construction.

    >>> from attrs import frozen
    >>> @frozen
    ... class Item:
    ...     name: str
    ...     price: int
    >>> items = coder(list[Item])
    >>> items.encode([Item("tea", 3)], "result of step pack")
    b'[{"name":"tea","price":3}]'
    >>> items.decode(b'[{"name":"tea","price":3}]', "result of step pack")
    [Item(name='tea', price=3)]
    >>> items.encode([Item("tea", "3")], "result of step pack")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    actorflow.errors.NotEncodable: result of step pack[0].price (str) cannot be stored: the annotation says int; ...

Inside, a *shape* is how the values of one type are written and read; `forms` takes type forms apart, `scalars`,
`containers`, `classes` and `unions` make shapes, `shapes` chooses among them, `coder` is the door.
"""

from __future__ import annotations

from actorflow.codec.coder import PAYLOAD_BYTES_MAX, Coder, RecordCoder, check_size, coder
from actorflow.codec.shape import DEPTH_MAX, Loose

__all__ = ["DEPTH_MAX", "PAYLOAD_BYTES_MAX", "Coder", "Loose", "RecordCoder", "check_size", "coder"]
