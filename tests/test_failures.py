"""What is caught live is caught on replay, by the same `except`; nothing that an exception does breaks its record."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from typing import Any, Self

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from actorflow.errors import Abort, RunEnded, StepFailed, Undecodable
from actorflow.failures import (
    CAUSES_MAX,
    MESSAGE_BYTES_MAX,
    copy_failure,
    decode_failure,
    describe_failure,
    encode_failure,
    traceback_of,
)
from actorflow.records import Address

made: list[str] = []


class OutOfStock(Abort):
    def __init__(self, sku: str, *, left: int) -> None:
        made.append(sku)
        self.sku, self.left = sku, left
        super().__init__(f"{sku} is sold out")


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__("slotted")
        self.code = code


class Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Holding(Exception):
    def __init__(self, held: object) -> None:
        super().__init__("holding")
        self.held = held


class Picky(Exception):
    def __new__(cls, *args: object) -> Self:
        if not args:
            raise TypeError("needs an argument")
        return super().__new__(cls, *args)

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.args = ()


class Outer:
    class Inner(Exception):
        pass


def replayed(error: BaseException) -> Exception:
    payload, live = copy_failure(error)
    again = decode_failure(payload)
    assert (type(again), str(again), again.args, again.__dict__) == (type(live), str(live), live.args, live.__dict__)
    return again


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_a_typed_exception_comes_back_with_its_attributes_and_without_its_init_being_run() -> None:
    """E7."""

    error = OutOfStock("tea", left=2)
    made.clear()

    again = replayed(error)

    assert isinstance(again, OutOfStock)
    assert (again.sku, again.left, str(again)) == ("tea", 2, "tea is sold out")
    assert made == []


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad", 1, None, 2.5, b"x", Decimal("1.0"), ("a", ["b"], {"c": 1})),
        KeyError("missing"),
        FileNotFoundError(2, "No such file", "a.txt"),
        ConnectionResetError(104, "reset"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        ImportError("no", name="x", path="y"),
        SyntaxError("bad", ("a.py", 1, 2, "x =")),
        StopIteration(5),
        TimeoutError(),
        Outer.Inner("nested"),
        Slotted(7),
        StepFailed("Type", "text"),
        RunEnded(Address("Checkout", "o1"), "failed"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_exceptions_come_back_equal(error: Exception) -> None:
    again = replayed(error)

    assert type(again) is type(error)
    assert (again.args, again.__dict__, str(again)) == (error.args, error.__dict__, str(error))
    for name in ("start", "reason", "filename", "errno", "name", "path", "lineno", "value", "code"):
        assert getattr(again, name, None) == getattr(error, name, None)


def test_a_note_stays() -> None:
    error = ValueError("x")
    error.add_note("while counting")

    assert replayed(error).__notes__ == ["while counting"]


def local() -> Exception:
    class Local(Exception):
        pass

    return Local("here")


def json_error() -> Exception:
    try:
        json.loads("{")
    except ValueError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    "error",
    [
        local(),
        Holding(object()),
        Holding(float("nan")),
        Holding("x" * 100_000),
        Picky("a"),
        ExceptionGroup("many", [ValueError("a"), ExceptionGroup("more", [KeyError("b")])]),
        KeyboardInterrupt(),
        SystemExit(3),
        GeneratorExit(),
        ValueError(10**5000),
        ValueError("\ud800"),
        ValueError(float("inf")),
    ],
    ids=lambda e: type(e).__name__,
)
def test_what_cannot_be_rebuilt_is_a_step_failed_live_too(error: BaseException) -> None:
    """E7."""

    payload, live = copy_failure(raised(error))

    assert type(live) is type(decode_failure(payload)) is StepFailed
    assert type(error).__qualname__ in str(live)


def test_errors_with_an_init_of_their_own_are_rebuilt() -> None:
    """E7."""

    again = replayed(json_error())

    assert isinstance(again, json.JSONDecodeError)
    assert again.pos == 1


def test_a_str_that_raises_is_told_in_the_message() -> None:
    payload = encode_failure(Mute("x"))

    assert describe_failure(payload) == "Mute: (no text: its __str__ raised SystemExit)"


def test_an_attribute_that_contains_itself_is_no_trouble() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    error = Holding(cycle)
    error.held = error

    assert type(replayed(error)) is StepFailed
    assert type(replayed(Holding(cycle))) is StepFailed


def test_causes_are_kept_as_a_chain_of_text() -> None:
    try:
        try:
            raise KeyError("o1")
        except KeyError as error:
            raise ValueError("no order") from error
    except ValueError as error:
        again = replayed(error)

    assert isinstance(again, ValueError)
    assert isinstance(again.__cause__, StepFailed)
    assert (again.__cause__.type, again.__cause__.message) == ("KeyError", "'o1'")
    assert again.__cause__.__cause__ is None


def test_a_context_counts_unless_it_is_suppressed() -> None:
    shown, hidden = ValueError("a"), ValueError("b")
    shown.__context__ = KeyError("x")
    hidden.__context__ = KeyError("x")
    hidden.__suppress_context__ = True

    assert replayed(shown).__cause__ is not None
    assert replayed(hidden).__cause__ is None


def test_a_circle_of_causes_is_cut_and_a_long_chain_is_bounded() -> None:
    """E7."""

    one, two = ValueError("1"), ValueError("2")
    one.__cause__, two.__cause__ = two, one
    last = ValueError("end")
    for n in range(50):
        below, last = last, ValueError(n)
        last.__cause__ = below

    def length(error: BaseException | None) -> int:
        return 0 if error is None else 1 + length(error.__cause__)

    assert length(replayed(one)) == 2
    assert length(replayed(last)) == 1 + CAUSES_MAX


def test_a_replayed_failure_is_recorded_again_the_same() -> None:
    first = copy_failure(raised(OutOfStock("tea", left=1)))[1]

    assert describe_failure(encode_failure(first)) == "OutOfStock: tea is sold out"
    assert type(copy_failure(first)[1]) is OutOfStock


def test_long_messages_and_tracebacks_are_bounded() -> None:
    def deeper(n: int) -> None:
        if n == 0:
            raise ValueError("é" * 1_000_000)
        deeper(n - 1)

    with pytest.raises(ValueError, match="é") as caught:
        deeper(200)
    payload = encode_failure(caught.value)

    assert len(payload) < MESSAGE_BYTES_MAX * 3 + 20_000
    assert 0 < traceback_of(payload).count("deeper(n - 1)") <= 20
    assert type(decode_failure(payload)) is StepFailed


def test_the_traceback_shows_lines_and_no_values() -> None:
    password = "hunter" + "2"
    try:
        raise ValueError(len(password))
    except ValueError as error:
        payload = encode_failure(error)

    assert "raise ValueError(len(password))" in traceback_of(payload)
    assert b"hunter2" not in payload


def tampered(**changes: Any) -> bytes:
    return json.dumps({**json.loads(encode_failure(ValueError("x"))), **changes}).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"module": "os", "qualname": "system"},
        {"module": "builtins", "qualname": "exec"},
        {"module": "builtins", "qualname": "SystemExit"},
        {"module": "builtins", "qualname": "object"},
        {"module": "no_such_module", "qualname": "Error"},
        {"module": "os", "qualname": "error"},
        {"module": "../x", "qualname": "Error"},
        {"module": "tests", "qualname": "__class__.__bases__"},
        {"args": "5"},
        {"args": "nonsense"},
        {"state": '{"$type":"dict","value":{"__class__":1}}'},
    ],
)
def test_only_exceptions_found_where_they_say_are_rebuilt(changes: dict[str, str]) -> None:
    """S7."""

    assert type(decode_failure(tampered(**changes))) is StepFailed


def test_a_class_that_is_gone_is_told_by_its_text() -> None:
    payload = encode_failure(OutOfStock("tea", left=0))
    module = sys.modules[__name__]
    cls = module.__dict__.pop("OutOfStock")
    try:
        again = decode_failure(payload)
    finally:
        module.__dict__["OutOfStock"] = cls

    assert isinstance(again, StepFailed)
    assert (again.type, again.message) == (f"{__name__}.OutOfStock", "tea is sold out")


def test_bytes_that_are_no_failure_are_undecodable() -> None:
    for payload in (b"", b"null", b"\x80\x04K\x05.", b'{"module":1}'):
        with pytest.raises(Undecodable):
            decode_failure(payload)


def test_a_description_is_one_line() -> None:
    assert describe_failure(encode_failure(ValueError("a\nb\n  c"))) == "ValueError: a b c"
    assert describe_failure(encode_failure(TimeoutError())) == "TimeoutError"


@frozen
class Part:
    n: int


loose = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(Part, st.integers()),
    lambda x: st.lists(x, max_size=3) | st.tuples(x, x) | st.dictionaries(st.text() | st.integers(), x, max_size=3),
)


@given(st.lists(loose, max_size=4), loose)
def test_no_exception_breaks_its_record_and_live_is_as_replay(args: list[Any], held: Any) -> None:
    """E7."""

    error = Holding(held)
    error.args = tuple(args)

    payload, live = copy_failure(error)
    again = decode_failure(payload)

    assert (type(again), str(again)) == (type(live), str(live))
    if type(live) is Holding:
        assert (live.args, live.held) == (error.args, error.held)
