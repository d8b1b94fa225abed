"""What a turn sends is kept in order until the turn ends, and is bounded."""

from __future__ import annotations

import pytest

from actorflow.errors import MailboxFull, TooManyCalls
from actorflow.kernel import outbox
from actorflow.kernel.outbox import CancelTimer, Effect, Outbox, Post, SetTimer, Stash
from actorflow.records import Address

ANN, BOB = Address("Account", "ann"), Address("Account", "bob")


def post(to: Address) -> Post:
    return Post(to, "note", b"null")


def test_effects_keep_their_order_and_each_receiver_is_asked_for_room_beside_what_it_already_gets() -> None:
    asked: list[tuple[str, int]] = []
    box = Outbox(lambda to, beside: asked.append((to.key, beside)))

    effects: list[Effect] = [
        post(ANN),
        SetTimer("later", "note", b"null", 1.0),
        post(BOB),
        post(ANN),
        CancelTimer("later"),
        post(ANN),
    ]
    for effect in effects:
        box.add(effect)

    assert box.effects == effects
    assert asked == [("ann", 0), ("bob", 0), ("ann", 1), ("ann", 2)]


def test_a_message_for_which_there_is_no_room_is_not_sent_and_not_counted() -> None:
    full = [True]

    def room(to: Address, beside: int) -> None:
        if full[0]:
            raise MailboxFull(to, 1)
        assert beside == 0

    box = Outbox(room)
    with pytest.raises(MailboxFull):
        box.add(post(ANN))
    full[0] = False
    box.add(post(ANN))

    assert box.effects == [post(ANN)]


def test_one_turn_does_so_much_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "EFFECTS_MAX", 3)
    box = Outbox(lambda _, __: None)
    for _ in range(3):
        box.add(post(ANN))

    with pytest.raises(TooManyCalls):
        box.add(post(ANN))
    assert len(box.effects) == 3


def test_it_knows_its_own_message_and_whether_that_was_stashed() -> None:
    message = object()
    box = Outbox(lambda _, __: None, 7, message)

    assert box.handles(message) is True
    assert box.handles(object()) is False
    box.add(Stash(8))
    assert box.stashed() is False
    box.add(Stash(7))
    assert box.stashed() is True
