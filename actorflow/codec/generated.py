"""Code that cattrs makes for one class with named fields, both ways: no loop over the fields is left in it.

Imported when the first such class is written or read: a service whose payloads are all scalars, or a program that only looks
at a store, starts without cattrs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from cattrs.preconf.orjson import make_converter

from actorflow.codec.shape import Decode, Encode, Shape

_CONVERTER = make_converter(detailed_validation=False, forbid_extra_keys=True)
"""Only makes code: every field brings its own hooks."""


def generated(form: Any, fields: Mapping[str, Shape]) -> tuple[Encode, Decode]:
    """How instances of that class are written and read.

    Raises:
        Exception: The class is not for it: a field called `converter`, a name that cannot be resolved, a free type variable.
    """
    hooks: Any = {name: override(unstruct_hook=shape.encode, struct_hook=shape.decode) for name, shape in fields.items()}
    return (
        make_dict_unstructure_fn(form, _CONVERTER, _cattrs_use_linecache=False, **hooks),
        make_dict_structure_fn(form, _CONVERTER, _cattrs_use_linecache=False, **hooks),
    )
