"""What every `Store` must do with messages: the part of `StoreContract` that is about mailboxes, keys and dead letters."""

from __future__ import annotations

import pytest

from actorflow.records import Bury, Consume, Duplicate, Envelope, Expire, Revive, SetDead
from actorflow.testing.samples import Held, a_message, a_run


@pytest.mark.anyio
class MessageContract:
    """Needs the fixtures of `StoreContract`, which has these tests too."""

    async def test_a_used_message_key_shows_the_message_it_was_used_for(self, held: Held) -> None:
        await held.commit([a_run(), a_run(2)])
        await held.commit([a_message(1, key="k")])
        await held.commit([Consume(1, b'"yes"')])

        answers = await held.commit([a_message(2, key="k", body=b"2")], [a_message(3, 2, key="k")])

        assert answers == [Duplicate(a_message(1, key="k", state="done", answer=b'"yes"')), None]
        assert (await held.loaded()).mailbox == []

    async def test_a_consumed_message_is_kept_only_if_somebody_may_ask_again(self, held: Held) -> None:
        await held.commit([a_run(), a_message(1), a_message(2, key="k"), a_message(3, reply_to=1), a_message(4)])

        await held.commit([Consume(1, None), Consume(2, b"1"), Consume(3, None), Consume(2, None), Consume(77, b"")])
        await held.commit([Consume(2, None)])

        assert (await held.loaded()).mailbox == [a_message(4)]
        assert await held.store.message(1, "k") == a_message(2, key="k", state="done", answer=b"1")

    async def test_messages_of_an_ended_run_are_dead_letters_but_for_the_systems(self, held: Held) -> None:
        await held.commit([a_run(), a_run(2), a_message(1), a_message(2, type="~cancel"), a_message(3, 2)])

        await held.commit([Bury(1), a_message(4)])

        assert await held.store.dead_letters() == [a_message(1, state="dead"), a_message(4, state="dead")]
        assert await held.store.dead_letters(run=2) == []
        assert (await held.loaded()).mailbox == []
        assert (await held.loaded(2)).mailbox == [a_message(3, 2)]

    async def test_a_message_is_read_as_it_was_written(self, held: Held) -> None:
        whole = a_message(key="k", due_at=2.0, reply_to=2, answer=b"1", expires_at=3.5)
        await held.commit([a_run(), whole])

        assert (await held.loaded()).mailbox == [whole]
        assert await held.store.message(1, "k") == whole

    async def test_a_message_that_was_given_up_is_a_dead_letter_with_its_answer(self, held: Held) -> None:
        await held.commit([a_run(), a_message(1, key="k"), a_message(2), a_message(3, type="~t"), a_message(4)])

        await held.commit([SetDead(1, b"!1"), SetDead(2, None), SetDead(3, None), SetDead(77, b"")])

        dead = [a_message(1, key="k", state="dead", answer=b"!1"), a_message(2, state="dead")]
        assert await held.store.dead_letters() == [*dead, a_message(3, type="~t", state="dead")]
        assert await held.store.message(1, "k") == dead[0]
        assert (await held.loaded()).mailbox == [a_message(4)]
        assert isinstance((await held.commit([a_message(5, key="k")]))[0], Duplicate)

    async def test_only_a_pending_message_can_be_given_up(self, held: Held) -> None:
        await held.commit([a_run(), a_message(1, key="k"), a_message(2, key="l"), a_message(3, key="m", answer=b"0")])
        await held.commit([Consume(1, b"1"), SetDead(2, b"!1")])

        await held.commit([SetDead(1, b"!2"), SetDead(2, b"!2"), SetDead(3, None)])

        assert await held.store.message(1, "k") == a_message(1, key="k", state="done", answer=b"1")
        assert await held.store.message(1, "l") == a_message(2, key="l", state="dead", answer=b"!1")
        assert await held.store.message(1, "m") == a_message(3, key="m", state="dead", answer=b"0")

    async def test_a_revived_dead_letter_is_pending_without_its_answer(self, held: Held) -> None:
        await held.commit([a_run(), a_message(1, key="k"), a_message(2, key="l"), a_message(3, answer=b"0")])
        await held.commit([SetDead(1, b"!1"), Consume(2, b"1")])

        await held.commit([Revive(1, 90), Revive(2, 90), Revive(3, 90), Revive(77, 90)])

        assert await held.store.dead_letters() == []
        assert (await held.loaded()).mailbox == [a_message(3, answer=b"0"), a_message(1, key="k")]
        assert await held.store.message(1, "l") == a_message(2, key="l", state="done", answer=b"1")

    async def test_a_revived_dead_letter_stands_in_line_by_its_new_number_and_expires_no_more(self, held: Held) -> None:
        letter = a_message(1, state="dead", expires_at=9.0)
        await held.commit([a_run(), letter, a_message(2, expires_at=9.0), a_message(3), a_message(5)])

        await held.commit([Revive(1, 4), Revive(2, 6)])

        pending = letter._replace(state="pending", expires_at=None)
        assert (await held.loaded()).mailbox == [a_message(2, expires_at=9.0), a_message(3), pending, a_message(5)]

    @pytest.mark.parametrize("first", ["pending", "dead", "done"])
    @pytest.mark.parametrize(
        "writes",
        [
            (SetDead(1, b"!1"), Revive(1, 90)),
            (SetDead(1, b"!1"), Revive(1, 90), SetDead(1, None)),
            (Revive(1, 90), SetDead(1, None)),
            (Revive(1, 90), SetDead(1, b"!1"), SetDead(1, b"!2")),
            (SetDead(1, None), SetDead(1, b"!1")),
            (SetDead(1, b"!1"), Consume(1, None)),
            (SetDead(1, b"!1"), Revive(1, 90), Consume(1, None)),
            (Revive(1, 90), Consume(1, None), SetDead(1, b"!1"), Revive(1, 90)),
            (Consume(1, b"1"), SetDead(1, b"!1"), Consume(1, None)),
        ],
    )
    @pytest.mark.parametrize("key", ["k", None])
    async def test_fates_of_one_message_in_one_batch_are_as_in_many(
        self, held: Held, writes: tuple[SetDead | Revive | Consume, ...], first: str, key: str | None
    ) -> None:
        message = a_message(1, key=key, state=first, answer=b"0")
        await held.commit([a_run(1), a_run(2), message, message._replace(id=2, run=2)])

        await held.commit(*([write] for write in writes))
        for write in writes:
            await held.commit([write._replace(id=2)])

        async def found(run: int) -> list[Envelope | None]:
            pending, dead = (await held.loaded(run)).mailbox, await held.store.dead_letters(run=run)
            seen = [*pending, *dead, await held.store.message(run, "k")]
            return [message and message._replace(id=1, run=1) for message in seen]

        assert await found(1) == await found(2)

    async def test_a_burial_comes_after_what_was_revived(self, held: Held) -> None:
        await held.commit([a_run(), a_message(1, state="dead", answer=b"!1"), a_message(2)])

        await held.commit([Bury(1), Revive(1, 90), SetDead(2, b"!2")])

        assert await held.store.dead_letters() == [a_message(1, state="dead"), a_message(2, state="dead", answer=b"!2")]

    async def test_old_messages_that_are_done_expire_with_their_keys(self, held: Held) -> None:
        messages = [
            a_message(1, key="done"),
            a_message(2, key="late", sent_at=5.0),
            a_message(3, key="pending"),
            a_message(4, key="dead"),
            a_message(5, 2, key="other"),
        ]
        await held.commit([a_run(), a_run(2), *messages])
        await held.commit([Consume(1, b"1"), Consume(2, b"1"), SetDead(4, None), Consume(5, b"1")])

        await held.commit([Expire(1, 5.0), Expire(1, 2.0)])

        assert await held.store.message(1, "done") is None
        assert await held.store.message(1, "late") == messages[1]._replace(state="done", answer=b"1")
        assert (await held.loaded()).mailbox == [messages[2]]
        assert await held.store.dead_letters() == [messages[3]._replace(state="dead")]
        assert await held.store.message(2, "other") is not None
        assert await held.commit([a_message(6, key="done")]) == [None]

    async def test_what_is_consumed_before_an_expiry_goes_and_what_is_consumed_after_it_stays(self, held: Held) -> None:
        await held.commit([a_run(), *(a_message(n, key=f"k{n}") for n in (1, 2, 3))])

        await held.commit([Consume(1, b"1"), Expire(1, 9.0), Consume(2, b"2")], [Consume(1, b"late"), SetDead(3, None)])

        assert await held.store.message(1, "k1") is None
        assert await held.store.message(1, "k2") == a_message(2, key="k2", state="done", answer=b"2")
        assert await held.store.dead_letters() == [a_message(3, key="k3", state="dead")]

    async def test_dead_letters_are_read_in_pages(self, held: Held) -> None:
        await held.commit([a_run(), a_run(2), *(a_message(n, 1 + n % 2, state="dead") for n in range(1, 8))])
        first = await held.store.dead_letters(limit=4)

        rest = await held.store.dead_letters(after=first[-1].id)

        assert [message.id for message in (*first, *rest)] == list(range(1, 8))
        assert [message.id for message in await held.store.dead_letters(run=2, after=1, limit=2)] == [3, 5]
