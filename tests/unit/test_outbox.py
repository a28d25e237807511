"""The outbox: whatever is put, sent, lost, acknowledged and sent again, the client's rule holds."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.conversation import Send
from server.outbox import MAX_KEPT_CHARS, KeptMemory, Outbox


def partial(utterance: int, revision: int = 1) -> Send:
    return Send(f'{{"type":"partial","u":{utterance},"r":{revision}}}', f"u{utterance}", lossy=True)


def final(utterance: int) -> Send:
    return Send(f'{{"type":"final","u":{utterance}}}', f"u{utterance}")


def drained(outbox: Outbox, *, keep: bool = True) -> list[str]:
    texts = []
    while (text := outbox.take(keep=keep)) is not None:
        texts.append(text)
    return texts


def kinds(texts: list[str]) -> list[tuple[int, str, int]]:
    return [(m["seq"], m["type"], m["u"]) for m in map(json.loads, texts)]


def test_what_waits_gives_way_to_newer_news_of_its_topic() -> None:
    outbox = Outbox(numbered=True)
    for message in (partial(0, 1), partial(0, 2), final(0), partial(1, 1), partial(1, 2)):
        outbox.put(message)
    texts = drained(outbox)
    assert kinds(texts) == [(1, "final", 0), (2, "partial", 1)]
    assert json.loads(texts[1])["r"] == 2
    assert outbox.left_out == 3
    assert drained(outbox) == []


def test_numbers_tell_what_was_taken() -> None:
    outbox = Outbox(numbered=False)
    assert (outbox.put_number, outbox.taken_number) == (0, 0)
    for message in (final(0), partial(1, 1), partial(1, 2), final(2)):
        outbox.put(message)
    taken = []
    while outbox.take(keep=False) is not None:
        taken.append(outbox.taken_number)
    assert taken == [1, 3, 4]
    assert outbox.put_number == 4


def test_a_sent_message_is_not_taken_back() -> None:
    outbox = Outbox(numbered=True)
    outbox.put(partial(0, 1))
    assert kinds(drained(outbox)) == [(1, "partial", 0)]
    outbox.put(final(0))
    assert kinds(drained(outbox)) == [(2, "final", 0)]
    assert outbox.left_out == 0


def test_messages_without_a_topic_are_never_left_out() -> None:
    outbox = Outbox(numbered=False)
    for number in range(10):
        outbox.put(Send(str(number), lossy=True))
    assert drained(outbox) == [str(number) for number in range(10)]


def test_what_the_client_missed_comes_again_with_its_old_numbers() -> None:
    outbox = Outbox(numbered=True)
    for utterance in range(4):
        outbox.put(final(utterance))
    first = drained(outbox)
    outbox.put(final(4))
    assert outbox.has_after(2)
    outbox.rewind(2)
    assert outbox.last_seq == 2
    assert drained(outbox)[:2] == first[2:]
    assert outbox.last_seq == 5
    assert not outbox.has_after(1), "what the client had seen is still kept"
    outbox.rewind(3)
    assert kinds(drained(outbox)) == [(4, "final", 3), (5, "final", 4)]


def test_an_ack_lets_go_of_what_it_covers_and_of_no_more() -> None:
    outbox = Outbox(numbered=True)
    for utterance in range(5):
        outbox.put(final(utterance))
    drained(outbox)
    outbox.seen(3)
    outbox.seen(1)
    assert not outbox.has_after(2)
    assert outbox.has_after(3)
    outbox.rewind(3)
    outbox.seen(1000)  # of a client that says more than it can know
    assert len(drained(outbox)) == 2
    assert outbox.has_after(3)
    outbox.seen(1000)
    assert outbox.has_after(5)
    assert not outbox.has_after(4)
    assert not outbox.has_after(6)


def test_what_is_not_to_be_kept_is_not() -> None:
    outbox = Outbox(numbered=True)
    outbox.put(final(0))
    drained(outbox, keep=False)
    assert outbox.has_after(1)
    assert not outbox.has_after(0)


@pytest.mark.parametrize("bounds", [{"max_kept": 10}, {"max_kept_chars": 400}])
def test_the_oldest_of_those_sent_are_forgotten(bounds: dict[str, int]) -> None:
    outbox = Outbox(numbered=True, **bounds)  # type: ignore[arg-type]
    for utterance in range(100):
        outbox.put(final(utterance))
        drained(outbox)
    assert outbox.has_after(95)
    assert not outbox.has_after(80)


@pytest.mark.parametrize("bounds", [{"max_waiting": 10}, {"max_waiting_chars": 300}])
def test_too_much_waiting_is_noticed(bounds: dict[str, int]) -> None:
    outbox = Outbox(numbered=True, **bounds)  # type: ignore[arg-type]
    for revision in range(100):
        outbox.put(partial(0, revision))
    assert not outbox.full
    for utterance in range(14):
        outbox.put(final(utterance))
    assert outbox.full
    assert not outbox.overflowing
    for utterance in range(14):
        outbox.put(final(utterance))
    assert outbox.overflowing
    drained(outbox)
    assert not outbox.full


def test_half_a_minute_of_busy_speech_is_kept() -> None:
    outbox = Outbox(numbered=True)
    words = '"w":"' + "x" * 3_000 + '"'
    for _ in range(300):
        outbox.put(Send('{"type":"partial",' + words + "}", "u0", lossy=True))
        drained(outbox)
    assert outbox.has_after(0)
    for _ in range(MAX_KEPT_CHARS // 3_000):
        outbox.put(Send('{"type":"partial",' + words + "}", "u0", lossy=True))
        drained(outbox)
    assert not outbox.has_after(0)


def test_what_all_keep_is_bounded_and_each_has_its_share() -> None:
    memory = KeptMemory(max_chars=2_000, share_chars=400)
    outboxes = [Outbox(numbered=True, memory=memory) for _ in range(3)]
    for outbox in outboxes:
        for utterance in range(100):
            outbox.put(final(utterance))
            drained(outbox)
    assert memory.used_chars <= 2_000 + 3 * 400
    assert all(outbox.has_after(95) for outbox in outboxes), "not even the share was left"
    assert not outboxes[-1].has_after(50)
    for outbox in outboxes:
        outbox.release()
    assert memory.used_chars == 0


def test_a_released_outbox_keeps_nothing_and_still_sends() -> None:
    memory = KeptMemory()
    outbox = Outbox(numbered=True, memory=memory)
    for utterance in range(3):
        outbox.put(final(utterance))
    drained(outbox)
    outbox.rewind(1)
    outbox.put(final(3))
    outbox.release()
    assert kinds(drained(outbox)) == [(2, "final", 1), (3, "final", 2), (4, "final", 3)]
    assert memory.used_chars == 0
    outbox.release()
    assert memory.used_chars == 0


class Client:
    """Takes a message only if its number follows the last one."""

    def __init__(self) -> None:
        self.last = 0
        self.finals: list[int] = []

    def hears(self, text: str) -> None:
        message = json.loads(text)
        assert message["seq"] == self.last + 1
        self.last += 1
        if message["type"] == "final":
            self.finals.append(message["u"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(["partial", "final", "take", "arrive", "ack", "cut"]), max_size=120), st.randoms())
def test_no_interleaving_loses_or_repeats_a_final(steps: list[str], chance: random.Random) -> None:
    outbox, client = Outbox(numbered=True), Client()
    flying: list[str] = []
    utterance = 0
    for step in [*steps, "cut", *["take", "arrive"] * (2 * len(steps) + 2)]:
        match step:
            case "partial":
                outbox.put(partial(utterance))
            case "final":
                outbox.put(final(utterance))
                utterance += 1
            case "take":
                text = outbox.take(keep=True)
                if text is not None:
                    flying.append(text)
            case "arrive":
                for text in flying[: chance.randint(1, 3)]:
                    client.hears(text)
                    flying.remove(text)
            case "ack":
                outbox.seen(chance.randint(0, client.last))
            case "cut":
                flying.clear()
                assert outbox.has_after(client.last)
                outbox.rewind(client.last)
    assert client.finals == list(range(utterance))
