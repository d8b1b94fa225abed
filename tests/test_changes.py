"""What writes of a batch come to: few statements, whatever their number. That it is right is for `test_stores`."""

from __future__ import annotations

from actorflow.records import Consume, Expire, Revive, SetDead, Write
from actorflow.stores.changes import changes_of


def test_messages_given_up_revived_and_consumed_by_hundreds_of_commits_are_one_step() -> None:
    writes: list[Write] = []
    for id in range(500):
        writes += (SetDead(id, b"!1"), Revive(id, 9), SetDead(id, None), Consume(id, None), SetDead(id, b"!2"), Expire(id % 7, 1.0))
    ordered = sorted(writes, key=lambda write: type(write) is Expire)

    steps, buried = changes_of(ordered)

    assert (len(steps), buried) == (1, [])
    assert [len(part) for part in (steps[0].letters, steps[0].consumed, steps[0].expired)] == [500, 500, 7]


def test_a_consume_after_an_expiry_is_of_the_next_step() -> None:
    steps, _ = changes_of([Consume(1, None), Expire(1, 2.0), Expire(1, 1.0), SetDead(2, None), Consume(3, None)])

    assert [(dict(step.consumed), dict(step.expired)) for step in steps] == [({1: None}, {1: 2.0}), ({3: None}, {})]
