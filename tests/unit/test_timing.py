"""What a recording says of a recognizer's speed: recordings written by hand, figures reckoned by hand.

Chunks hold 100 ms and are sent on time unless a test says otherwise: what ends at 900 ms was sent at 900 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

from evaluation.clips import Clip, Speech, SpokenWord
from evaluation.recording import Heard, Recording
from evaluation.results import NO_TIMINGS
from evaluation.timing import measure

Words = tuple[tuple[str, int, int], ...]

ABC = (("alpha", 200, 500), ("bravo", 500, 900), ("charlie", 900, 1500))
"""Spoken in most of these clips."""
LATER = (("delta", 3000, 3400), ("echo", 3400, 4000))


def clip(words: Words = ABC, *, known: bool = True, speech: Sequence[tuple[int, int]] | None = None) -> Clip:
    """One stretch of speech, unless others are told; nothing is known of places with `known` off."""
    stretches = [(words[0][1], words[-1][2])] if speech is None and words else speech or []
    return Clip(
        "a/1",
        "clean",
        " ".join(text for text, _, _ in words),
        Path("a.wav"),
        5_000,
        words=tuple(SpokenWord(*word) for word in words) if known else (),
        speech=tuple(Speech(*one) for one in stretches) if known else (),
    )


def heard(
    kind: Literal["partial", "final"],
    at_ms: float,
    text: str,
    end_ms: int = 0,
    *,
    utterance: int = 0,
    start_ms: int = 0,
    words: Words = (),
) -> Heard:
    return Heard(at_ms, kind, utterance, text, start_ms, end_ms, words)


def recording(*came: Heard, late_ms: float = 0.0, realtime: bool = True, audio_ms: int = 5_000) -> Recording:
    sent = [at + late_ms for at in range(100, audio_ms + 1, 100)]
    return Recording(100, sent, came, realtime, audio_ms, late_ms=late_ms)


PLAIN = (
    heard("partial", 620, "alpha", 500),
    heard("partial", 1_040, "Alpha bravo", 900),
    heard("final", 1_900, "Alpha, bravo charlie.", 1_500),
)


def test_a_plain_recognizer() -> None:
    timings = measure(clip(), recording(*PLAIN))
    assert timings.first_partial_ms == 620 - 500
    assert timings.first_text_ms == 620 - 200
    assert timings.word_partial_ms == (620 - 500, 1_040 - 900, 400)  # charlie came with the final alone
    assert timings.word_final_ms == (1_900 - 500, 1_900 - 900, 1_900 - 1_500)
    assert timings.final_ms == (400,)
    assert timings.partial_gap_ms == (420,)
    assert (timings.partial_words, timings.revised_words) == (2, 0)


def test_an_instant_counts_from_the_moment_its_whole_chunk_was_sent() -> None:
    words = (("alpha", 240, 510),)
    timings = measure(clip(words), recording(heard("partial", 700, "alpha"), heard("final", 900, "alpha", 510)))
    assert timings.first_partial_ms == 700 - 600
    assert timings.first_text_ms == 700 - 300
    assert timings.final_ms == (300,)


def test_the_senders_lateness_is_not_the_recognizers() -> None:
    assert measure(clip(), recording(*PLAIN, late_ms=50)).final_ms == (350,)


def test_without_real_time_there_is_stability_and_no_latency() -> None:
    timings = measure(clip(), recording(*PLAIN, realtime=False))
    assert timings.partial_words == 2
    assert (timings.first_partial_ms, timings.first_text_ms) == (None, None)
    assert timings.final_ms == timings.word_partial_ms == timings.word_final_ms == timings.partial_gap_ms == ()


def test_a_recognizer_that_guesses_ahead_is_below_zero() -> None:
    timings = measure(
        clip(), recording(heard("partial", 430, "alpha"), heard("final", 1_450, "alpha bravo charlie", 1_500))
    )
    assert timings.first_partial_ms == -70
    assert timings.first_text_ms == 230
    assert timings.word_partial_ms == (-70, 550, -50)
    assert timings.final_ms == (-50,)


def test_what_came_before_anybody_spoke_is_no_answer() -> None:
    noise = (heard("partial", 150, "the"), heard("final", 190, "the", 100))
    after = [heard(one.kind, one.at_ms, one.text, one.end_ms, utterance=1) for one in PLAIN]
    timings = measure(clip(), recording(*noise, *after))
    assert (timings.first_partial_ms, timings.first_text_ms) == (120, 420)
    assert timings.final_ms == (400,)


def test_no_partials() -> None:
    timings = measure(clip(), recording(PLAIN[-1]))
    assert timings.first_partial_ms is None
    assert timings.first_text_ms == 1_900 - 200
    assert timings.word_partial_ms == timings.word_final_ms == (1_400, 1_000, 400)  # first shown by the final
    assert timings.partial_gap_ms == ()
    assert timings.final_ms == (400,)


def test_nothing_heard() -> None:
    assert measure(clip(), recording()) == NO_TIMINGS


def test_empty_texts_are_no_text() -> None:
    timings = measure(clip(), recording(heard("partial", 300, " "), *PLAIN[:2], heard("final", 1_600, "", 1_500)))
    assert timings.first_partial_ms == 120
    assert timings.final_ms == ()
    assert (timings.partial_words, timings.revised_words) == (2, 2)  # an empty final takes all back


def test_nobody_speaks() -> None:
    timings = measure(
        clip(()), recording(heard("partial", 300, "a"), heard("final", 900, "a", words=(("a", 10, 800),)))
    )
    assert timings.first_partial_ms is None
    assert timings.first_text_ms is None
    assert timings.final_ms == timings.word_final_ms == ()
    assert timings.partial_words == 1


# Sets that do not know when their words are spoken.


def test_the_recognizers_own_times_stand_in() -> None:
    timings = measure(
        clip(known=False), recording(*PLAIN[:2], heard("final", 1_900, "alpha bravo charlie", 1_480, words=ABC))
    )
    assert timings.first_partial_ms == 620 - 500
    assert timings.first_text_ms == 620 - 200
    assert timings.word_partial_ms == (620 - 500, 1_040 - 900, 400)
    assert timings.word_final_ms == (1_400, 1_000, 400)
    assert timings.final_ms == (400,)


def test_without_any_times_there_are_no_latencies_but_cadence() -> None:
    timings = measure(clip(known=False), recording(*PLAIN))
    assert timings.first_partial_ms is None
    assert timings.first_text_ms is None
    assert timings.final_ms == timings.word_partial_ms == timings.word_final_ms == ()
    assert timings.partial_gap_ms == (420,)


def test_words_without_stretches_are_one_stretch() -> None:
    assert measure(clip(speech=()), recording(*PLAIN)).final_ms == (400,)


# Words.


def test_a_wrong_word_has_no_latency() -> None:
    timings = measure(
        clip(), recording(heard("partial", 1_040, "alpha brow"), heard("final", 1_900, "alpha brow charlie", 1_500))
    )
    assert timings.word_partial_ms == (540, 400)
    assert timings.word_final_ms == (1_400, 400)


def test_a_wrong_word_of_a_partial_has_not_shown_the_right_one() -> None:
    timings = measure(
        clip(),
        recording(heard("partial", 1_600, "alpha brow charlie"), heard("final", 1_900, "alpha bravo charlie", 1_500)),
    )
    assert timings.word_partial_ms == (1_100, 1_000, 100)


def test_speech_begins_where_the_set_says_so() -> None:
    timings = measure(clip(speech=[(300, 1_500)]), recording(*PLAIN))
    assert (timings.first_partial_ms, timings.first_text_ms) == (620 - 500, 620 - 300)


def test_a_word_counts_once_it_stands_at_its_place() -> None:
    words = (
        ("to", 100, 200),
        ("be", 200, 400),
        ("or", 400, 500),
        ("not", 500, 700),
        ("to", 700, 800),
        ("be", 800, 1_000),
    )
    timings = measure(
        clip(words),
        recording(
            heard("partial", 500, "to be"),
            heard("partial", 800, "to be or not"),
            heard("partial", 900, "two be or not to"),
            heard("final", 1_300, "to be or not to be", 1_000),
        ),
    )
    assert timings.word_partial_ms == (300, 100, 300, 100, 100, 300)


def test_a_word_that_was_missed_in_a_partial_shifts_no_other() -> None:
    timings = measure(
        clip(), recording(heard("partial", 1_600, "alpha charlie"), heard("final", 1_900, "alpha bravo charlie", 1_500))
    )
    assert timings.word_partial_ms == (
        1_100,
        1_000,
        400,
    )  # "charlie" may have been meant for "bravo": too late, not too early
    words = (*ABC, ("delta", 1_500, 1_800))
    timings = measure(
        clip(words),
        recording(
            heard("partial", 1_900, "alpha charlie delta"), heard("final", 2_100, "alpha bravo charlie delta", 1_800)
        ),
    )
    assert timings.word_partial_ms == (1_400, 1_200, 400, 100)


def test_a_word_too_much_in_a_partial_shifts_no_other() -> None:
    timings = measure(
        clip(),
        recording(heard("partial", 1_100, "oh alpha bravo"), heard("final", 1_900, "alpha bravo charlie", 1_500)),
    )
    assert timings.word_partial_ms == (600, 200, 400)


def test_numbers_are_the_same_however_they_are_written() -> None:
    words = (("room", 100, 400), ("twenty", 400, 800), ("five", 800, 1_200))
    timings = measure(clip(words), recording(heard("partial", 600, "room"), heard("final", 1_500, "Room 25.", 1_200)))
    assert timings.word_final_ms == (1_100, 700, 300)
    assert timings.final_ms == (300,)


def test_very_long_texts_are_compared_place_by_place() -> None:
    names = [f"w{chr(97 + at // 26)}{chr(97 + at % 26)}" for at in range(600)]
    spoken = tuple((name, at * 100, at * 100 + 100) for at, name in enumerate(names))
    shown = [f"x{name}" for name in names[:300]] + names[301:]  # an alignment would find the second half
    shown[100] = names[100]
    final = heard("final", 70_500, " ".join(names), 60_000)
    came = recording(heard("partial", 70_100, " ".join(shown)), final, audio_ms=71_000)
    found = measure(clip(spoken), came).word_partial_ms
    assert found[100] == 70_100 - 10_100
    assert [at for at in range(600) if found[at] != 70_500 - 100 * (at + 1)] == [100]  # all others came with the final


# Finals of several stretches of speech.

TWO = clip((*ABC, *LATER), speech=[(200, 1_500), (3_000, 4_000)])


def test_each_stretch_has_its_own_final() -> None:
    timings = measure(
        TWO,
        recording(
            heard("partial", 620, "alpha"),
            heard("final", 1_900, "alpha bravo charlie", 1_500),
            heard("partial", 3_600, "delta", utterance=1),
            heard("partial", 3_900, "delta eko", utterance=1),
            heard("final", 4_600, "delta echo", 4_000, utterance=1, start_ms=2_900),
        ),
    )
    assert timings.final_ms == (400, 600)
    assert timings.partial_gap_ms == (300,)  # not from one utterance to the next
    assert timings.word_partial_ms == (120, 1_000, 400, 200, 600)
    assert (timings.partial_words, timings.revised_words) == (3, 1)


def test_one_final_for_all_is_late_for_the_first_stretch() -> None:
    whole = heard("final", 4_600, "alpha bravo charlie delta echo", 4_000)
    assert measure(TWO, recording(whole)).final_ms == (3_100, 600)


def test_finals_that_repeat_all_before_them() -> None:
    spoken = (*ABC[:2], ("charlie", 900, 1_450))
    first = heard("final", 1_900, "alpha bravo charlie", 1_450, words=spoken)
    second = heard("final", 4_500, "alpha bravo charlie delta echo", 4_000, utterance=1, words=(*ABC, *LATER))
    assert measure(TWO, recording(first, second)).final_ms == (400, 500)


def test_a_stretch_that_was_not_heard_has_none() -> None:
    second = heard("final", 4_500, "delta echo", 4_000, start_ms=1_500, words=LATER)
    assert measure(TWO, recording(second)).final_ms == (500,)


@pytest.mark.parametrize(("end_ms", "latency"), [(1_500, 400), (1_200, 400), (4_900, 400)])
def test_a_final_may_end_a_little_before_the_speech(end_ms: int, latency: int) -> None:
    assert measure(clip(), recording(heard("final", 1_900, "alpha bravo charlie", end_ms))).final_ms == (latency,)


def test_a_final_that_nearly_reaches_the_end_is_not_kept_waiting_by_noise() -> None:
    final = heard("final", 1_900, "alpha bravo charlie", 1_300)
    noise = heard("final", 3_000, "uh", 2_900, utterance=1, start_ms=1_300)
    assert measure(clip(), recording(final, noise)).final_ms == (400,)
    longer = clip((*ABC[:2], ("charlie", 900, 1_650)))  # 350 ms are too much: what came later ended it
    assert measure(longer, recording(final, noise)).final_ms == (1_300,)


def test_a_final_in_the_middle_of_speech_does_not_end_it() -> None:
    middle = heard("final", 1_150, "alpha bravo", 1_100)
    assert measure(
        clip(), recording(middle, heard("final", 1_900, "charlie", 1_500, utterance=1, start_ms=1_100))
    ).final_ms == (400,)
    assert measure(clip(), recording(middle)).final_ms == (-350,)  # no other came: the rest was not heard


def test_a_final_that_nearly_reaches_the_end_waits_for_the_words_left() -> None:
    early = heard("final", 1_600, "alpha bravo", 1_300, words=ABC[:2])
    rest = heard("final", 1_900, "charlie", 1_500, utterance=1, words=(("charlie", 1_350, 1_500),))
    assert measure(clip(), recording(early, rest)).final_ms == (400,)


def test_times_that_run_ahead_make_no_final_early() -> None:
    # The first final says that it reaches the end of speech, which had not been sent when it came.
    timings = measure(
        clip(),
        recording(
            heard("final", 1_000, "alpha bravo", 1_600),
            heard("final", 1_900, "charlie", 1_700, utterance=1, start_ms=1_600),
        ),
    )
    assert timings.final_ms == (400,)
    assert measure(clip(), recording(heard("final", 1_400, "alpha bravo charlie", 1_500))).final_ms == (-100,)


def test_times_that_lie_behind_the_speech_leave_no_final_out() -> None:
    assert measure(clip(), recording(heard("final", 1_900, "alpha bravo charlie", 1_990, start_ms=1_600))).final_ms == (
        400,
    )


def test_without_times_the_final_with_the_last_word_counts() -> None:
    timings = measure(
        TWO,
        recording(
            heard("final", 2_200, "alpha bravo charlie"),
            heard("final", 2_500, "uh", utterance=1),
            heard("final", 4_600, "delta echo", utterance=2),
        ),
    )
    assert timings.final_ms == (700, 600)


def test_without_times_and_words_the_last_final_before_the_next_stretch_counts() -> None:
    timings = measure(
        TWO,
        recording(
            heard("final", 1_800, "xx"),
            heard("final", 2_200, "yy", utterance=1),
            heard("final", 4_600, "zz", utterance=2),
        ),
    )
    assert timings.final_ms == (700, 600)
    assert timings.word_final_ms == ()


# Stability.


@pytest.mark.parametrize(
    ("partials", "final", "shown", "revised"),
    [
        (["thank", "thank you", "thank you for"], "thank you for", 3, 0),
        (["thank", "tank", "thank"], "thank", 3, 2),
        (["please wait to", "please wait to mow", "please wait a moment"], "please wait a moment", 6, 2),
        (["one two three", "one"], "one", 3, 2),
        (["Hello", "hello,", "Hello!"], "HELLO.", 1, 0),
        (["room twenty", "room twenty five"], "room 25", 3, 2),
        (["a b"], None, 2, 0),
        ([], "a b", 0, 0),
    ],
)
def test_stability(partials: list[str], final: str | None, shown: int, revised: int) -> None:
    came = [heard("partial", 1_000 + at, text) for at, text in enumerate(partials)]
    if final is not None:
        came.append(heard("final", 2_000, final, 1_500))
    timings = measure(clip(), recording(*came))
    assert (timings.partial_words, timings.revised_words) == (shown, revised)


def test_partials_after_their_final_are_strays() -> None:
    stray = heard("partial", 2_000, "alpha brother charlie")
    assert measure(clip(), recording(*PLAIN, stray)) == measure(clip(), recording(*PLAIN))


def test_a_recognizer_that_does_not_count_its_utterances() -> None:
    timings = measure(
        TWO,
        recording(
            heard("partial", 620, "alpha"),
            heard("final", 1_900, "alpha bravo charlie", 1_500),
            heard("partial", 3_600, "delta"),
            heard("final", 4_600, "delta echo", 4_000, start_ms=2_900),
        ),
    )
    assert timings.final_ms == (400, 600)
    assert timings.word_partial_ms == (120, 1_000, 400, 200, 600)
    assert (timings.partial_words, timings.revised_words) == (2, 0)
    assert timings.partial_gap_ms == ()


def test_two_utterances_that_overlap() -> None:
    timings = measure(
        TWO,
        recording(
            heard("partial", 1_600, "alpha bravo charlie"),
            heard("partial", 3_500, "delta", utterance=1),
            heard("final", 3_700, "alpha bravo charlie", 1_500),
            heard("final", 4_400, "delta echo", 4_000, utterance=1, start_ms=3_000),
        ),
    )
    assert timings.final_ms == (2_200, 400)
    assert timings.word_partial_ms == (1_100, 700, 100, 100, 400)


def test_audio_that_was_never_sent_has_no_latency() -> None:
    cut = recording(heard("final", 1_500, "alpha bravo charlie", 1_500), audio_ms=1_000)
    timings = measure(clip(), cut)
    assert timings.final_ms == ()
    assert timings.word_final_ms == (1_000, 600)
