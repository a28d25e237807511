"""Several attempts told as one stream."""

from __future__ import annotations

from asr.events import (
    Final,
    FinalReason,
    Flushed,
    Gap,
    GapCause,
    Partial,
    Progress,
    SpeechEnded,
    SpeechStarted,
    Word,
)
from asr.resilience.story import Story


def partial(n: int, revision: int, text: str, start_ms: int, end_ms: int, *words: Word) -> Partial:
    return Partial(n, revision, text, start_ms, end_ms, words=words)


def final(n: int, text: str, start_ms: int, end_ms: int, *words: Word) -> Final:
    return Final(n, 9, text, start_ms, end_ms, words=words)


def test_the_first_attempt_is_told_as_it_is() -> None:
    story = Story(words=True)
    events = [partial(0, 1, "a", 0, 100), final(0, "a b", 0, 200), Progress(300)]
    assert [story.tell(event) for event in events] == events
    assert (story.settled_ms, story.processed_ms, story.resting) == (200, 300, True)


def test_a_second_attempt_goes_on_with_clock_numbers_and_revisions() -> None:
    story = Story(words=True)
    story.tell(final(0, "a", 0, 1_000))
    story.tell(partial(1, 1, "b", 1_000, 1_400))
    story.tell(partial(1, 2, "b c", 1_000, 1_800))
    story.attempt(1_000)
    assert story.tell(partial(0, 1, "b", 0, 400)) is None, "it has been told better"
    assert story.tell(partial(0, 2, "b c", 0, 800)) is None, "and as well"
    assert story.tell(partial(0, 3, "b c", 0, 850)) == partial(1, 5, "b c", 1_000, 1_850)
    told = story.tell(final(0, "b c", 0, 900, Word("b", 0, 400), Word("c", 400, 900)))
    assert told == Final(1, 11, "b c", 1_000, 1_900, words=(Word("b", 1_000, 1_400), Word("c", 1_400, 1_900)))
    assert story.tell(partial(1, 1, "d", 900, 950)) == partial(2, 1, "d", 1_900, 1_950)


def test_progress_and_speech_never_go_back() -> None:
    story = Story(words=True)
    story.tell(SpeechStarted(100))
    story.tell(Progress(800))
    story.attempt(500)
    assert story.tell(SpeechStarted(0)) is None
    assert story.tell(Progress(300)) is None
    assert story.tell(Progress(301)) == Progress(801)
    assert story.tell(SpeechEnded(400)) == SpeechEnded(900)
    assert story.tell(Flushed(400)) == Flushed(900)


def test_words_are_kept_from_a_caller_who_did_not_ask() -> None:
    story = Story(words=False)
    told = story.tell(final(0, "a", 0, 100, Word("a", 0, 100)))
    assert isinstance(told, Final)
    assert told.words == ()
    assert told.end_ms == 100


def test_giving_up_makes_finals_of_guesses_and_a_gap_of_the_rest() -> None:
    story = Story(words=True)
    story.tell(final(0, "a", 0, 500))
    story.tell(partial(1, 3, "b c", 500, 900, Word("b", 500, 600), Word("c", 600, 800)))
    events = story.give_up(1_000, 500, FinalReason.TIMEOUT, GapCause.UPSTREAM_LOST)
    assert events == [
        Final(
            1, 4, "b c", 500, 800, (Word("b", 500, 600), Word("c", 600, 800)), reason=FinalReason.TIMEOUT
        ),
        Gap(800, 1_000, GapCause.UPSTREAM_LOST),
    ]  # fmt: skip
    assert story.give_up(1_000, 500, FinalReason.TIMEOUT, GapCause.UPSTREAM_LOST) == []


def test_giving_up_in_a_pause_leaves_the_pause_alone() -> None:
    story = Story(words=True)
    story.tell(final(0, "a", 0, 500))
    assert story.give_up(9_000, 6_000, FinalReason.FAILOVER, GapCause.UPSTREAM_LOST) == [
        Gap(6_000, 9_000, GapCause.UPSTREAM_LOST)
    ]


def test_words_that_left_the_memory_are_kept_as_a_final_and_the_rest_is_a_gap() -> None:
    story = Story(words=True)
    story.tell(partial(0, 1, "a b c", 0, 900, Word("a", 0, 300), Word("b", 300, 600), Word("c", 600, 900)))
    assert story.overrun(700) == [
        Final(0, 2, "a b", 0, 600, (Word("a", 0, 300), Word("b", 300, 600)), reason=FinalReason.FAILOVER),
        Gap(600, 700, GapCause.BUFFER_OVERRUN),
    ]
    story.attempt(700)
    assert story.tell(partial(0, 1, "c", 0, 200)) == partial(1, 1, "c", 700, 900)


def test_a_memory_that_lost_a_guess_without_words_is_a_gap() -> None:
    story = Story(words=True)
    story.tell(partial(0, 3, "a b", 0, 900))
    assert story.overrun(700) == [Gap(0, 700, GapCause.BUFFER_OVERRUN)]
    story.attempt(700)
    again = story.tell(partial(0, 1, "b", 0, 300))
    assert again == partial(0, 4, "b", 700, 1_000), "the revisions of an utterance only grow"


def test_a_guess_that_the_next_recognizer_does_not_share_is_kept_at_the_end() -> None:
    story = Story(words=True)
    story.tell(partial(0, 2, "a b", 0, 900))
    story.attempt(0)
    assert story.end() == [Final(0, 3, "a b", 0, 900, reason=FinalReason.FAILOVER)]
    assert story.end() == []


def test_a_channel_that_is_silent_holds_nothing_back() -> None:
    story = Story(words=True)
    story.tell(Final(0, 1, "hm", 0, 500, channel=1))
    for n in range(5):
        story.tell(final(n, "a", n * 10_000, n * 10_000 + 9_000))
    assert story.settled_ms == 49_000
    story.attempt(49_000)


def test_what_another_channel_makes_heard_again_is_told_once() -> None:
    story = Story(words=True)
    story.tell(Final(0, 1, "b", 0, 1_000, channel=1))
    story.tell(final(0, "a", 0, 5_000))
    assert story.settled_ms == 1_000
    story.attempt(1_000)
    assert story.tell(final(0, "a", 0, 4_000)) is None
    told = story.tell(final(1, "c", 4_000, 6_000))
    assert isinstance(told, Final)
    assert (told.utterance, told.start_ms, told.end_ms) == (1, 5_000, 7_000)
