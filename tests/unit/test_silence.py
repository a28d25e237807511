"""What a silence gate lets through, and the clock behind it: properties over any chunks and any cuts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from asr.events import (
    Alternative,
    Final,
    Flushed,
    Gap,
    GapCause,
    Partial,
    Progress,
    SpeechEnded,
    SpeechStarted,
    State,
    Status,
    Word,
)
from asr.silence import FRAME_BYTES, FRAME_MS, MAX_CUTS, CutClock, SilenceFilter, on_callers_clock

LOUD, MURMUR, QUIET = b"\x40\x1f", b"\x64\x00", b"\x00\x00"
AFTER_MS, PAD_MS = 320, 96


def voice(frame: bytes) -> float:
    """Speech is what is loud."""
    return 0.9 if LOUD in frame else 0.02


def make() -> SilenceFilter:
    return SilenceFilter(voice, after_ms=AFTER_MS, pad_ms=PAD_MS)


def frames(kind: bytes, count: int) -> bytes:
    return kind * (FRAME_BYTES // 2) * count


def through(sound: SilenceFilter, pcm: bytes, step: int) -> bytes:
    out = b"".join(sound.feed(pcm[at : at + step]) for at in range(0, len(pcm), step))
    return out + sound.flush()


def test_speech_and_short_pauses_go_through_untouched_and_at_once() -> None:
    sound = make()
    pcm = frames(QUIET, 9) + frames(LOUD, 5) + frames(MURMUR, 9) + frames(LOUD, 2)
    for at in range(0, len(pcm), 333):
        piece = pcm[at : at + 333]
        assert sound.feed(piece) == piece
    assert sound.flush() == b""
    assert sound.kept_bytes == sound.heard_bytes == len(pcm)
    assert sound.clock.end_ms(500) == sound.clock.start_ms(500) == 500


def test_a_long_silence_is_held_back_and_its_end_goes_first() -> None:
    sound = make()
    silence = frames(MURMUR, 100)
    kept = sound.feed(frames(LOUD, 10) + silence)
    assert kept == frames(LOUD, 10) + frames(MURMUR, 10)
    dropped_ms = 75 * FRAME_MS  # of 90 frames that could be, whole blocks of 15; at least 3 wait
    assert dropped_ms % 480 == 0
    assert sound.withheld_ms == dropped_ms
    assert sound.dropped_until_ms == 20 * FRAME_MS + dropped_ms
    assert sound.feed(frames(LOUD, 1)) == frames(MURMUR, 15) + frames(LOUD, 1)
    assert sound.withheld_ms == 0
    place = 20 * FRAME_MS
    assert sound.clock.end_ms(place) == place
    assert sound.clock.start_ms(place) == place + dropped_ms
    assert sound.clock.start_ms(place - 1) == place - 1


def test_a_recognizer_in_the_middle_of_an_utterance_is_given_its_silence() -> None:
    sound = make()
    sound.utterance_open = True
    pcm = frames(LOUD, 2) + frames(MURMUR, 100)
    assert sound.feed(pcm) == pcm
    sound.utterance_open = False
    assert sound.feed(frames(MURMUR, 10)) == frames(MURMUR, 1)
    # It says late that it has begun one.
    sound.utterance_open = True
    assert sound.feed(frames(MURMUR, 2)) == frames(MURMUR, 11)


def test_what_waits_goes_on_at_an_end_but_for_half_a_sample() -> None:
    sound = make()
    sound.feed(frames(MURMUR, 30))
    kept = sound.kept_bytes
    sound.feed(frames(MURMUR, 2) + MURMUR + b"\x64")
    rest = sound.flush()
    assert rest == frames(MURMUR, 7) + MURMUR
    assert sound.kept_bytes == kept + len(rest)
    # The other half comes: samples stay whole whatever is dropped after it.
    assert sound.feed(b"\x00" + frames(MURMUR, 30)) == b""
    assert sound.feed(frames(LOUD, 2)).startswith(MURMUR * 3)
    assert sound.clock.dropped_bytes % 2 == 0


def test_silence_is_not_looked_at() -> None:
    asked: list[bytes] = []

    def listening(frame: bytes) -> float:
        asked.append(frame)
        return 0.0

    sound = SilenceFilter(listening, after_ms=AFTER_MS, pad_ms=PAD_MS)
    sound.feed(frames(QUIET, 50) + frames(b"\xf1\xff", 2) + frames(MURMUR, 1))
    assert asked == [frames(b"\xb8\x0b", 1)]  # what is soft is made louder for it


@given(
    st.lists(st.tuples(st.sampled_from([LOUD, MURMUR, QUIET]), st.integers(1, 40)), max_size=12),
    st.integers(1, 5000),
)
@settings(max_examples=25, deadline=None)
def test_however_it_is_cut_up_the_same_goes_through_with_every_loud_sample(
    parts: list[tuple[bytes, int]], step: int
) -> None:
    pcm = b"".join(kind * 97 * count for kind, count in parts)
    whole, cut_up = make(), make()
    kept = through(whole, pcm, len(pcm) + 1)
    assert through(cut_up, pcm, step) == kept
    assert len(kept) + whole.clock.dropped_bytes == len(pcm) == whole.heard_bytes
    assert len(kept) == whole.kept_bytes
    assert kept.count(LOUD) >= pcm.count(LOUD)
    assert [whole.clock.start_ms(ms) for ms in range(0, 3000, 7)] == [
        cut_up.clock.start_ms(ms) for ms in range(0, 3000, 7)
    ]


@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(2, 3_000_000)), max_size=30))
@settings(max_examples=40, deadline=None)
def test_the_clock_never_goes_back_and_an_end_never_lies_behind_the_beginning_after_it(
    steps: list[tuple[int, int]],
) -> None:
    clock, place = CutClock(), 0
    for ahead, size in steps:
        place += ahead
        clock.cut(place, size)
    times = range(0, place // 32 + 2000, max(1, place // 32 // 200))
    starts, ends = [clock.start_ms(t) for t in times], [clock.end_ms(t) for t in times]
    assert starts == sorted(starts)
    assert ends == sorted(ends)
    assert all(t <= end <= start for t, end, start in zip(times, ends, starts, strict=True))
    last = place // 32 + 1
    assert clock.start_ms(last) == clock.end_ms(last) == last + clock.dropped_bytes // 32


def test_a_clock_forgets_its_oldest_cuts_and_stays_right_behind_them() -> None:
    clock = CutClock()
    for number in range(MAX_CUTS + 50):
        clock.cut(number * 3200, 320)
    total_ms = (MAX_CUTS + 50) * 10
    assert clock.dropped_bytes == total_ms * 32
    assert clock.end_ms(1_000_000) == 1_000_000 + total_ms


def test_every_event_is_put_on_the_callers_clock() -> None:
    clock = CutClock()
    clock.cut(1000 * 32, 5000 * 32)
    words = (Word("a", 900, 1000), Word("b", 1000, 1100))
    moved = (Word("a", 900, 1000), Word("b", 6000, 6100))
    pairs = (
        (Partial(0, 1, "a b", 900, 1100, words=words), Partial(0, 1, "a b", 900, 6100, words=moved)),
        (
            Final(0, 1, "a b", 1000, 1100, words, (Alternative("a", words),)),
            Final(0, 1, "a b", 6000, 6100, moved, (Alternative("a", moved),)),
        ),
        (Final(0, 1, "", 1000, 1000), Final(0, 1, "", 6000, 6000)),
        (SpeechStarted(1000), SpeechStarted(6000)),
        (SpeechEnded(1000), SpeechEnded(1000)),
        (Progress(1001), Progress(6001)),
        (Flushed(900), Flushed(900)),
        (Gap(1000, 1500, GapCause.UPSTREAM_LOST), Gap(6000, 6500, GapCause.UPSTREAM_LOST)),
        (Status(State.DEGRADED, 1200), Status(State.DEGRADED, 6200)),
    )
    for event, placed in pairs:
        assert on_callers_clock(event, clock) == placed
