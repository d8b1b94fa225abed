"""A key can be printed, addressed and indexed; every bound is checked when it is set."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow.errors import BadKey
from actorflow.policies.limits import Limits, checked_key
from actorflow.records import KEY_BYTES_MAX


@pytest.mark.parametrize("key", ["a", "order-7", "a/b c", "Zürich", "注文", "👍🏽", "a\u00a0b", "=cmd()", "x" * 512, "é" * 256])
def test_a_key_is_any_printable_text_of_up_to_512_bytes(key: str) -> None:
    assert checked_key(key) == key


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("", "empty"),
        ("x" * 513, "513 bytes"),
        ("é" * 257, "514 bytes"),
        ("a\nb", "control"),
        ("a\0", "control"),
        ("\x1b[31m", "control"),
        ("a\x7f", "control"),
        ("a\x85b", "control"),
        ("a\u2028b", "control"),
        ("\ud800", "surrogate"),
        ("x" * 600 + "\udfff", "surrogate"),
        (7, "a int, not a str"),
        (None, "not a str"),
        (b"x", "not a str"),
        pytest.param(10**5_000, "not a str", id="too long to be printed"),
    ],
)
def test_another_key_is_refused_and_says_why(key: Any, why: str) -> None:
    """S21."""

    with pytest.raises(BadKey, match=why) as caught:
        checked_key(key)

    assert caught.value.key == key
    assert len(str(caught.value)) < 400
    str(caught.value).encode()


def test_a_space_is_no_control_character_whatever_stands_beside_it() -> None:
    assert checked_key("a b\u00ad") == "a b\u00ad"


@given(st.text(max_size=600))
def test_a_key_that_is_taken_fits_and_has_no_control_character(key: str) -> None:
    """S21."""

    try:
        checked_key(key)
    except BadKey:
        return

    assert 1 <= len(key.encode()) <= KEY_BYTES_MAX
    assert not any(char < " " or char == "\x7f" for char in key)


@pytest.mark.parametrize("name", [attribute.name for attribute in attrs.fields(Limits)])
def test_no_bound_is_negative(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: -1})


def test_every_bound_has_a_default() -> None:
    assert Limits().payload_bytes_max == 1 << 20
