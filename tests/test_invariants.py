"""Each invariant of a store's rows finds a violation that was planted into sound rows, and says what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio
import pytest
from attrs import evolve

from actorflow import Abort, Actor, Message, Retry, Run, Transient, Workflow, gather, handler, step
from actorflow.records import Consume, Entry, Envelope, Event, Loaded
from actorflow.stores.memory import MemoryStore
from actorflow.testing.invariants import Rows, lost, replays, rows_of, violations
from actorflow.testing.samples import Held, a_message, a_run
from tests.harness import runtime, virtual


class Add(Message[int]):
    n: int


class Later(Message[None]): ...


@step
async def undo(n: int) -> None: ...


@step(undo=undo)
async def book(n: int) -> int:
    return n


@step(retry=Retry(attempts=4, first="1s"))
async def shaky(n: int) -> int:
    from actorflow import current_step

    if current_step().attempt < 3:
        raise Transient("not yet")
    return n


class Trip(Workflow[int]):
    fail: bool

    async def run(self) -> int:
        total = await shaky(1)
        total += sum(await gather(book(1), book(2)))
        total += await book(3)
        await Account.at("ann").tell(Add(7))
        if self.fail:
            raise Abort("no")
        return total


@step
async def broken() -> None:
    raise ValueError("broken")


class Closed(Workflow[str]):
    async def run(self) -> str:
        try:
            await gather(book(1), broken(), self.sleep("1h"))
        except ValueError as error:
            return str(error)
        return "not reached"


class Waiting(Workflow[None]):
    async def run(self) -> None:
        await Run(Waiting, "other").tell(Add(7))
        await Run(Waiting, "other").tell(Add(8))
        await self.sleep("1d")


class Account(Actor):
    total: int = 0

    @handler
    async def add(self, m: Add) -> int:
        self.total += m.n
        self.after("1d", Later(), name="later")
        return self.total

    @handler
    async def later(self, m: Later) -> None: ...


ACTORS = (Trip, Closed, Waiting, Account)
rows: dict[str, Rows] = {}


@pytest.fixture(autouse=True, scope="module")
def _sound() -> None:
    """Rows as they should be."""
    store = MemoryStore()

    async def scenario() -> None:
        async with runtime(*ACTORS, store=store) as opened:
            for key in ("other", "w"):
                await opened.start(Waiting(), key=key)
            for fail in (True, False):
                await opened.start(Trip(fail), key="failed" if fail else "done")
            await opened.start(Closed(), key="c")
            await opened.at(Account, "ann").ask(Add(1), key="first")
            await anyio.sleep(100)
            rows.update({str(each): each for each in await rows_of(opened._running().store)})

    virtual("asyncio", scenario)


def found(planted: Rows) -> str:
    """What is wrong when those rows are in the place of the sound ones."""
    return "; ".join(violations([*(each for name, each in rows.items() if name != str(planted)), planted], ACTORS))


Change = Callable[[list[Event]], Sequence[Event]]


def past(name: str, change: Change) -> Rows:
    """Those rows with another past; what replay sees of it is changed likewise."""
    each = rows[name]
    after = list(change(list(each.past)))
    seen = {event.seq for event in each.loaded.entries}
    return evolve(each, past=after, loaded=evolve(each.loaded, entries=[event for event in after if event.seq in seen]))


def changed(name: str, mailbox: Sequence[Envelope] | None = None, **values: Any) -> Rows:
    """Those rows with another row of the run, or other mail."""
    each = rows[name]
    run = evolve(each.run, **values)
    loaded: Loaded = evolve(each.loaded, run=run, mailbox=each.loaded.mailbox if mailbox is None else mailbox)
    return evolve(each, run=run, loaded=loaded)


def nth(events: Sequence[Event], kind: str, n: int = 0) -> int:
    return [at for at, event in enumerate(events) if event.entry.kind == kind][n]


def entry(events: list[Event], at: int, **values: Any) -> list[Event]:
    """The same, with that entry changed."""
    events[at] = Event(events[at].seq, events[at].entry._replace(**values))
    return events


def swapped(events: list[Event], one: int, other: int) -> list[Event]:
    """The same, with two entries in each other's place."""
    first, second = events[one], events[other]
    events[one], events[other] = Event(first.seq, second.entry), Event(second.seq, first.entry)
    return events


def test_sound_rows_are_sound() -> None:
    assert violations(list(rows.values()), ACTORS) == []
    assert replays(list(rows.values()), ACTORS) == []
    assert {name: each.run.status for name, each in rows.items()} == {
        "Waiting/other": "waiting",
        "Waiting/w": "waiting",
        "Trip/failed": "failed",
        "Trip/done": "completed",
        "Closed/c": "completed",
        "Account/ann": "waiting",
    }


def test_a_message_that_was_acknowledged_and_is_gone_is_found() -> None:
    """I1: waiting, done and dead ones are there."""

    async def scenario() -> None:
        store = MemoryStore()
        held = Held(store, await store.open(now=0.0))
        mail = [a_message(n, 1, key=key) for n, key in enumerate(("waits", "done"), 1)]
        await held.commit([a_run(1), *mail])
        await held.commit([Consume(2, b"1")])

        assert await lost(store, [(1, "waits"), (1, "done")]) == []
        assert await lost(store, [(1, "waits"), (1, "never stored"), (2, "done")]) == [
            "message 'never stored' to run 1 is gone",
            "message 'done' to run 2 is gone",
        ]

    anyio.run(scenario)


def test_a_message_that_was_handled_and_waits_is_found() -> None:
    """I2: and one that was handled twice."""
    ann = rows["Account/ann"]
    handled = next(event for event in ann.past if event.entry.kind == "handled" and event.entry.ref == "first")
    waits = a_message(99, ann.run.id, key="first")

    assert "message 'first' was handled, and waits" in found(changed("Account/ann", [*ann.loaded.mailbox, waits]))
    twice = [*ann.past, Event(ann.past[-1].seq + 1, handled.entry)]
    assert "message 'first' was handled 2 times" in found(evolve(ann, past=twice))


def test_entries_out_of_order_or_of_another_run_are_found() -> None:
    """I3."""
    assert "in no order" in found(past("Trip/done", lambda events: [events[1], events[0], *events[2:]]))
    assert "in no order" in found(past("Trip/done", lambda events: [events[0], *events]))
    assert "are of another run" in found(past("Trip/done", lambda events: entry(events, 1, run=99)))
    done = rows["Trip/done"]
    unknown = evolve(done.loaded, entries=[*done.loaded.entries, Event(10_000, done.loaded.entries[0].entry)])
    assert "replay would see [10000]" in found(evolve(done, loaded=unknown))


def test_a_result_that_replay_does_not_give_is_found() -> None:
    """I4: what is kept of a run is what its entries lead to."""

    def other(name: str, **values: Any) -> str:
        return replays([changed(name, **values)], ACTORS)[0]

    fewer = past("Trip/done", lambda events: [event for event in events if event.entry.name != "shaky"])
    worse = past("Trip/done", lambda events: entry(events, nth(events, "step"), outcome=b"99"))

    assert "replay gives b'7', live gave b'99'" in other("Trip/done", outcome=b"99")
    assert "replay fails with 'Abort: no', live failed with" in other(
        "Trip/failed", outcome=(rows["Trip/failed"].run.outcome or b"").replace(b'"no"', b'"yes"')
    )
    assert "Divergence" in replays([fewer], ACTORS)[0]
    assert "replay gives b'105'" in replays([worse], ACTORS)[0]


def test_two_outcomes_of_one_call_are_found() -> None:
    """I5."""
    again = rows["Trip/done"].past[nth(rows["Trip/done"].past, "step")].entry

    planted = past("Trip/done", lambda events: [*events[:-1], Event(events[-2].seq, again), events[-1]])

    assert "has 2 outcomes" in found(planted)


def test_attempts_out_of_order_are_found() -> None:
    """I6: a gap between tries, and an outcome of an attempt that had failed."""
    assert "try 3 of :shaky#0 follows try 1" in found(
        past("Trip/done", lambda events: entry(events, nth(events, "try", 1), attempt=3))
    )
    assert "has an outcome of attempt 2, after try 2 had failed" in found(
        past("Trip/done", lambda events: entry(events, nth(events, "step"), attempt=2))
    )


def test_a_message_from_nowhere_is_found() -> None:
    """I7: its sender is a run whose journal does not know it, or knows it with another body or receiver."""
    other = rows["Waiting/other"]
    first = next(message for message in other.loaded.mailbox if message.sender == "Waiting/w")

    for odd in (first._replace(body=b'{"n":9}'), first._replace(sender="Trip/done")):
        assert "whose journal knows nothing of it" in found(changed("Waiting/other", [odd]))
    forgotten = past("Waiting/w", lambda events: [event for event in events if event.entry.kind != "tell"])
    assert "says that it is from Waiting/w" in found(forgotten)


def test_a_timer_nobody_looks_at_is_found() -> None:
    """I9: of a run, and of an actor."""
    due = rows["Waiting/w"].run.wake_at
    assert due is not None

    assert f"it waits for {due} and would wake at None" in found(changed("Waiting/w", wake_at=None))
    assert f"would wake at {due + 1}" in found(changed("Waiting/w", wake_at=due + 1))
    assert "and it would wake at None" in found(changed("Account/ann", wake_at=None))


def test_an_end_that_is_none_is_found() -> None:
    """I10: it is the last entry, the only one, with an outcome and nothing behind it."""
    done = rows["Trip/done"]
    end = done.past[-1].entry
    more = Event(done.past[-1].seq + 1, end._replace(kind="step", name="more"))

    assert "says completed" in found(changed("Trip/done", status="waiting"))
    assert "it is failed, and its log says ['completed']" in found(changed("Trip/done", status="failed"))
    assert "its log says []" in found(past("Trip/done", lambda events: events[:-1]))
    assert "was recorded after it ended" in found(evolve(done, past=[*done.past, more]))
    assert "it has ended and would wake at 5.0" in found(changed("Trip/done", wake_at=5.0))
    assert "1 pending messages" in found(changed("Trip/done", [a_message(1, done.run.id)]))
    assert "without an outcome" in found(changed("Trip/done", outcome=None))


def test_undos_out_of_order_are_found() -> None:
    """I11: of what had not happened, twice, or the first one first."""
    undos = [event.entry for event in rows["Trip/failed"].past if event.entry.kind == "undo"]
    assert len(undos) == 3

    def second_first(events: list[Event]) -> list[Event]:
        return swapped(events, nth(events, "undo", 0), nth(events, "undo", 1))

    def of_nothing(events: list[Event]) -> list[Event]:
        return entry(events, nth(events, "undo"), branch=f"~undo/{events[0].seq}")

    def twice(events: list[Event]) -> list[Event]:
        first = events[nth(events, "undo", 0)].entry
        return entry(events, nth(events, "undo", 1), **{name: getattr(first, name) for name in ("branch", "name", "n")})

    assert "which came before it" in found(past("Trip/failed", second_first))
    assert "which had not happened" in found(past("Trip/failed", of_nothing))
    assert "has 2 outcomes" in found(past("Trip/failed", twice))


def test_what_is_recorded_after_its_scope_was_closed_is_found() -> None:
    def step_last(events: list[Event]) -> list[Event]:
        return swapped(events, nth(events, "step"), nth(events, "gather"))

    assert "comes after its scope was closed" in found(past("Closed/c", step_last))


def test_a_run_that_nothing_wakes_is_found() -> None:
    """I15: at work without being due, or an actor with mail that would not look at it."""
    assert "it is running and nothing would wake it" in found(changed("Waiting/w", status="running", wake_at=None))
    assert "it is undoing and nothing would wake it" in found(changed("Waiting/w", status="undoing", wake_at=None))
    mail = [a_message(99, rows["Account/ann"].run.id, type="paid")]
    assert "paid waits since" in found(changed("Account/ann", mail))


def test_a_second_turn_of_an_actor_is_found() -> None:
    ann = rows["Account/ann"]
    turn: Entry = ann.past[0].entry._replace(kind="turn", name="add", round=ann.run.round)
    events = [Event(1_000, turn), Event(1_001, turn)]

    planted = evolve(ann, past=[*ann.past, *events], loaded=evolve(ann.loaded, entries=events))

    assert "2 turns are open" in found(planted)
