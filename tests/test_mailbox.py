"""A mailbox keeps the order of acceptance, shows nothing before its moment, and counts places that are promised."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from actorflow.kernel.mailbox import Mailbox, depth
from actorflow.records import EVERY, TIMER, Envelope


def envelope(id: int, type: str = "note", *, due_at: float | None = None) -> Envelope:
    return Envelope(id, 1, type, None, b"null", "", 0.0, due_at, None)


def of_type(type: str) -> Callable[[Envelope], bool]:
    return lambda envelope: envelope.type == type


def anything(_: Envelope) -> bool:
    return True


def test_the_message_that_is_first_in_line_is_taken_first() -> None:
    mailbox = Mailbox([envelope(2), envelope(1), envelope(3)])  # 1 was a dead letter, sent again when 2 was there.
    mailbox.put(envelope(4))

    assert [e.id for e in mailbox.waiting.values()] == [2, 1, 3, 4]
    assert mailbox.oldest(anything, now=0.0) == envelope(2)


def test_a_dead_letter_that_is_sent_again_comes_last_although_it_was_loaded_before() -> None:
    mailbox = Mailbox([envelope(1), envelope(2)])
    mailbox.remove(envelope(1))
    mailbox.put(envelope(1))
    assert [e.id for e in mailbox.waiting.values()] == [2]

    mailbox.again(envelope(1))

    assert [e.id for e in mailbox.waiting.values()] == [2, 1]


def test_a_message_that_is_not_wanted_stays_where_it_is() -> None:
    mailbox = Mailbox([envelope(1, "note"), envelope(2, "call"), envelope(3, "call")])

    assert mailbox.oldest(of_type("call"), now=0.0) == envelope(2, "call")
    assert mailbox.oldest(of_type("letter"), now=0.0) is None
    assert len(mailbox) == 3


def test_looking_takes_nothing_and_removing_takes_one() -> None:
    mailbox = Mailbox([envelope(1), envelope(2)])

    assert mailbox.oldest(anything, now=0.0) == mailbox.oldest(anything, now=0.0)
    mailbox.remove(envelope(1))
    mailbox.remove(envelope(1))

    assert mailbox.oldest(anything, now=0.0) == envelope(2)


def test_a_message_is_not_there_before_its_moment() -> None:
    mailbox = Mailbox([envelope(1, due_at=10.0), envelope(2)])

    assert mailbox.oldest(anything, now=9.9) == envelope(2)
    assert mailbox.oldest(anything, now=10.0) == envelope(1, due_at=10.0)


def test_the_next_moment_is_the_earliest_that_has_not_come() -> None:
    mailbox = Mailbox([envelope(1, due_at=30.0), envelope(2, due_at=10.0), envelope(3, due_at=20.0), envelope(4)])

    assert [mailbox.next_due(now=now) for now in (0.0, 10.0, 20.0, 30.0)] == [10.0, 20.0, 30.0, None]


def test_the_depth_counts_messages_of_users_and_promised_places() -> None:
    mailbox = Mailbox([envelope(1), envelope(2, "~child"), envelope(3, due_at=99.0)])
    mailbox.reserved = 2

    assert mailbox.depth == 4
    assert len(mailbox) == 3


def test_messages_of_the_system_and_of_its_own_timers_are_not_bound() -> None:
    own = [envelope(n)._replace(sender=sender) for n, sender in enumerate((f"{TIMER}later", f"{EVERY}1.0/tick"), 1)]
    system = [envelope(3, "~child"), envelope(4, "~watch")]
    mailbox = Mailbox([*own, envelope(5)])
    for each in system:
        mailbox.put(each)

    assert depth([*own, *system, envelope(5), envelope(6)]) == 2
    assert mailbox.depth == 1
    for each in (*own, *system):
        mailbox.remove(each)
    assert (mailbox.depth, len(mailbox)) == (1, 1)


def test_ends_and_replies_go_ahead_of_all_others_and_no_other_message_of_the_system_does() -> None:
    mailbox = Mailbox([envelope(1), envelope(2, "~watch"), envelope(3, "~reply"), envelope(4, "~child", due_at=9.0)])

    assert mailbox.oldest_ahead(now=0.0) == envelope(3, "~reply")
    mailbox.remove(envelope(3, "~reply"))
    assert mailbox.oldest_ahead(now=0.0) is None
    assert mailbox.oldest_ahead(now=9.0) == envelope(4, "~child", due_at=9.0)


def test_who_waits_for_a_place_is_told_once_when_one_becomes_free() -> None:
    told: list[str] = []
    mailbox = Mailbox()
    mailbox.put(envelope(1))
    mailbox.put(envelope(2))
    mailbox.freed = (lambda: told.append("a"), lambda: told.append("b"))

    mailbox.remove(envelope(1))
    mailbox.remove(envelope(2))

    assert told == ["a", "b"]


def test_the_oldest_that_was_to_be_dropped_and_stays_is_the_oldest_again() -> None:
    mailbox = Mailbox([envelope(1), envelope(2)])
    mailbox.remove(envelope(1))

    mailbox.keep(envelope(1))

    assert list(mailbox.waiting) == [1, 2]


def test_an_empty_mailbox_is_as_deep_as_its_promises() -> None:
    mailbox = Mailbox()
    mailbox.reserved = 3

    assert mailbox.depth == 3
    assert mailbox.oldest(anything, now=0.0) is None
    assert mailbox.next_due(now=0.0) is None


@given(st.lists(st.tuples(st.sampled_from("ab"), st.none() | st.floats(0, 10)), max_size=20), st.floats(0, 10))
def test_taking_all_that_is_wanted_gives_it_in_order_and_leaves_the_rest(
    messages: list[tuple[str, float | None]], now: float
) -> None:
    envelopes = [envelope(n, type, due_at=due_at) for n, (type, due_at) in enumerate(messages)]
    mailbox = Mailbox(envelopes)

    taken = []
    while (found := mailbox.oldest(of_type("a"), now=now)) is not None:
        mailbox.remove(found)
        taken.append(found)

    assert taken == [e for e in envelopes if e.type == "a" and (e.due_at is None or e.due_at <= now)]
    assert list(mailbox.waiting.values()) == [e for e in envelopes if e not in taken]


def test_a_message_of_the_system_is_found_by_its_type_and_sender_and_only_while_it_waits() -> None:
    sent = {n: envelope(n, "~child")._replace(sender=f"Leaf/{n % 2}") for n in range(1, 5)}
    mailbox = Mailbox([sent[1], sent[2]])
    mailbox.put(sent[3])
    mailbox.put(sent[4]._replace(due_at=9.0))

    assert mailbox.oldest_notice(("~child", "Leaf/1"), anything, now=0.0) == sent[1]
    mailbox.remove(sent[1])
    assert mailbox.oldest_notice(("~child", "Leaf/1"), anything, now=0.0) == sent[3]
    mailbox.remove(sent[3])
    mailbox.remove(sent[3])
    assert mailbox.oldest_notice(("~child", "Leaf/1"), anything, now=0.0) is None
    assert mailbox.oldest_notice(("~reply", "Leaf/0"), anything, now=0.0) is None
    mailbox.remove(sent[2])
    assert mailbox.oldest_notice(("~child", "Leaf/0"), anything, now=8.9) is None
    assert list(mailbox.notices) == [("~child", "Leaf/0")]


def test_there_is_mail_if_a_message_waits_that_is_not_the_systems() -> None:
    mailbox = Mailbox([envelope(1, "~child")])
    assert not mailbox.has_mail

    mailbox.put(envelope(2)._replace(sender=f"{TIMER}later"))
    assert mailbox.has_mail
    mailbox.remove(envelope(1, "~child"))
    assert mailbox.has_mail
    mailbox.remove(envelope(2)._replace(sender=f"{TIMER}later"))
    assert not mailbox.has_mail
