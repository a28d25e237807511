"""How fast and how steadily the words of a clip came: a pure function of the clip and its recording.

A latency begins when the audio in question was sent, whole: the chunk that holds the instant had been handed over. So
it holds no more of the sender's chunking than the recognizer had to wait for, and none of the sender's lateness. NVIDIA
measures its published figures alike, from the last chunk sent to the answer, in real time; but over all answers,
while here each figure says of which word or stretch of speech it speaks.

Latencies are told as they are. One may be below zero: a recognizer may write a word before its end was heard. What
came before speech had begun is no answer to it, though, and is left out.

Where a set does not know when its words are spoken, the recognizer's own times of them stand in, as good as they are:
such figures of two recognizers differ by what their times differ, too. Without either there is no latency.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache

from evaluation.clips import Clip, Speech
from evaluation.normalizer import normalize
from evaluation.partials import Tokenize, Tokens, Utterance, first_shown, stability, utterances
from evaluation.recording import Heard, Recording
from evaluation.results import Timings
from evaluation.scoring import score

COVER_MS = 300
"""How much earlier than the speech a final's audio may end and still cover it: recognizers put the end of a last word
where its sound fades into the noise, sets where the sound file falls silent."""
_MARKS = re.compile(r"[^\w\s']")


@dataclass(frozen=True, slots=True)
class _Word:
    """A word of the reference that a final has, too."""

    end_ms: int
    start_ms: int
    final: Heard
    partial: Heard | None


def measure(clip: Clip, recording: Recording) -> Timings:
    """All figures of one clip; without latencies where it was not streamed in real time, or where nobody speaks."""
    spoken = utterances(recording.heard)
    tokens = lru_cache(maxsize=None)(_tokens)
    counts = [stability(one, _written) for one in spoken]
    partial_words, revised_words = sum(shown for shown, _ in counts), sum(revised for _, revised in counts)
    if not recording.realtime or not tokens(clip.text):
        return Timings(partial_words=partial_words, revised_words=revised_words)
    finals = [one.final for one in spoken if one.final is not None and one.final.text.strip()]
    words = list(_words(clip, [one for one in spoken if one.final is not None and one.final.text.strip()], tokens))
    begin_ms, first_word_ms = _beginning(clip, finals)
    texts = _since(recording, begin_ms, [one for one in recording.heard if one.text.strip()])
    return Timings(
        first_partial_ms=_first(recording, first_word_ms, [one for one in texts if one.kind == "partial"]),
        first_text_ms=_first(recording, begin_ms, texts),
        # A word that no partial had is first shown by its final; left out, it would flatter those without partials.
        word_partial_ms=_latencies(recording, [(word.end_ms, word.partial or word.final) for word in words]),
        word_final_ms=_latencies(recording, [(word.end_ms, word.final) for word in words]),
        final_ms=_latencies(recording, _ends(clip, recording, finals, words)),
        partial_gap_ms=tuple(
            later.at_ms - earlier.at_ms
            for one in spoken
            for earlier, later in zip(one.partials, one.partials[1:], strict=False)
        ),
        partial_words=partial_words,
        revised_words=revised_words,
    )


def _tokens(text: str) -> Tokens:
    return tuple(normalize(text).split())


def _written(text: str) -> Tokens:
    """Words as they are shown: "twenty" that becomes "20" was changed, "Twenty," was not."""
    return tuple(_MARKS.sub(" ", text.lower()).split())


def _latencies(recording: Recording, pairs: Sequence[tuple[int, Heard | None]]) -> tuple[float, ...]:
    told = [(recording.sent_when(ms), heard) for ms, heard in pairs]
    return tuple(heard.at_ms - sent for sent, heard in told if sent is not None and heard is not None)


def _first(recording: Recording, instant_ms: int | None, heard: Sequence[Heard]) -> float | None:
    if instant_ms is None or not heard:
        return None
    return next(iter(_latencies(recording, [(instant_ms, heard[0])])), None)


def _since(recording: Recording, instant_ms: int | None, heard: Sequence[Heard]) -> list[Heard]:
    sent = None if instant_ms is None else recording.sent_when(instant_ms)
    return [one for one in heard if sent is None or one.at_ms >= sent]


def _beginning(clip: Clip, finals: Sequence[Heard]) -> tuple[int | None, int | None]:
    """When speech begins, and when its first word ends: as the set says, else as the recognizer does."""
    own = next((one.words[0] for one in finals if one.words), None)
    begin_ms = first_word_ms = None
    if own is not None:
        _, begin_ms, first_word_ms = own
    if clip.words:
        begin_ms, first_word_ms = clip.words[0].start_ms, clip.words[0].end_ms
    if clip.speech:
        begin_ms = clip.speech[0].start_ms
    return begin_ms, first_word_ms


def _words(clip: Clip, spoken: Sequence[Utterance], tokens: Tokenize) -> Iterator[_Word]:
    """The words that were recognized, with their places in the audio, finals and first partials."""
    texts = [one.final.text.strip() if one.final is not None else "" for one in spoken]
    scored = score(clip.text, " ".join(texts))
    written = [(word.text, word.start_ms, word.end_ms) for word in clip.words]
    reference = _places(written, scored.reference_words, tokens)
    heard = list(_heard(spoken, texts, tokens))
    came = _drawn_from([token for token, _, _, _ in heard], scored.hypothesis_words)
    for at, of in scored.pairs:
        if at is None or of is None or scored.reference_words[at] != scored.hypothesis_words[of] or not came[of]:
            continue
        _, final, partial, place = heard[came[of][-1]]
        place = reference[at] or place
        if place is not None:
            yield _Word(start_ms=place[0], end_ms=place[1], final=final, partial=partial)


def _heard(
    spoken: Sequence[Utterance], texts: Sequence[str], tokens: Tokenize
) -> Iterator[tuple[str, Heard, Heard | None, tuple[int, int] | None]]:
    """Each word of the finals, with its final, its first partial, and the recognizer's own place of it."""
    for one, text in zip(spoken, texts, strict=True):
        if one.final is not None:
            shown = first_shown(one, tokens(text), tokens)
            places = _places(one.final.words, tokens(text), tokens)
            for token, partial, place in zip(tokens(text), shown, places, strict=True):
                yield token, one.final, partial, place


def _places(
    words: Sequence[tuple[str, int, int]], normalized: Sequence[str], tokens: Tokenize
) -> list[tuple[int, int] | None]:
    """Where the words of a normalized text are spoken, from those of the text as it was written."""
    single = [(token, start, end) for text, start, end in words for token in tokens(text)]
    drawn = _drawn_from([token for token, _, _ in single], normalized)
    return [(single[of[0]][1], single[of[-1]][2]) if of else None for of in drawn]


def _drawn_from(single: Sequence[str], joined: Sequence[str]) -> list[range]:
    """For each word of a text that was normalized as a whole, those that it came from, normalized one by one.

    Both are the same but where rules reach over several words, as "twenty five" may become "25".
    """
    if list(single) == list(joined):
        return [range(at, at + 1) for at in range(len(joined))]
    found = [range(0)] * len(joined)
    for kind, of, of_end, at, at_end in SequenceMatcher(None, single, joined, autojunk=False).get_opcodes():
        for place in range(at, at_end):
            found[place] = range(of + place - at, of + place - at + 1) if kind == "equal" else range(of, of_end)
    return found


def _ends(
    clip: Clip, recording: Recording, finals: Sequence[Heard], words: Sequence[_Word]
) -> list[tuple[int, Heard | None]]:
    """Ends of speech, each with the final that covers it."""
    stretches = clip.speech
    if not stretches and clip.words:
        stretches = (Speech(clip.words[0].start_ms, clip.words[-1].end_ms),)
    if not stretches:
        return [(one.words[-1][2], one) for one in finals if one.words]
    ends: list[tuple[int, Heard | None]] = []
    for stretch, following in zip(stretches, [*stretches[1:], None], strict=True):
        mine = _since(recording, stretch.start_ms, finals)
        if any(_span(one) for one in finals):
            final = _with_its_words(recording, stretch, words, _covering(stretch, mine))
        else:
            final = _last_word_of(stretch, words) or _before(recording, following, mine)
        ends.append((stretch.end_ms, final))
    return ends


def _span(final: Heard) -> tuple[int, int] | None:
    """The audio of a final: from its first word, where words have times; None where it tells no time at all."""
    if final.words and final.words[-1][2] > 0:
        return final.words[0][1], max(final.words[-1][2], final.end_ms)
    return (final.start_ms, final.end_ms) if final.end_ms > final.start_ms else None


def _covering(stretch: Speech, finals: Sequence[Heard]) -> Heard | None:
    """The first final that begins before the end of the speech and reaches it; else the last one that lies in it.

    Where it reaches only nearly, and the next one has words that begin before the end, that one ends the speech.
    """
    spans = [(one, span) for one in finals if (span := _span(one)) is not None and span[0] < stretch.end_ms]
    for at, (final, (_, end_ms)) in enumerate(spans):
        if end_ms >= stretch.end_ms:
            return final
        goes_on = any(later.words and begin_ms >= end_ms for later, (begin_ms, _) in spans[at + 1 :])
        if end_ms >= stretch.end_ms - COVER_MS and not goes_on:
            return final
    inside = [final for final, (_, end_ms) in spans if end_ms > stretch.start_ms]
    return inside[-1] if inside else None


def _with_its_words(recording: Recording, stretch: Speech, words: Sequence[_Word], final: Heard | None) -> Heard | None:
    """The final that covers the speech by its times, unless those cannot be true.

    Where it came before the end of the speech was sent, and the last word of the speech came with a later one, or where
    no final has times that fit, the recognizer's times drift: then the final with that word is meant.
    """
    last, sent = _last_word_of(stretch, words), recording.sent_when(stretch.end_ms)
    if last is None or final is None:
        return final or last
    return last if sent is not None and final.at_ms < sent and last.at_ms > final.at_ms else final


def _last_word_of(stretch: Speech, words: Sequence[_Word]) -> Heard | None:
    """The final of the last word of the speech that was recognized."""
    inside = [word for word in words if word.end_ms > stretch.start_ms and word.start_ms < stretch.end_ms]
    return inside[-1].final if inside else None


def _before(recording: Recording, following: Speech | None, finals: Sequence[Heard]) -> Heard | None:
    """The last final that came before the next stretch had begun."""
    limit = None if following is None else recording.sent_when(following.start_ms)
    timely = [one for one in finals if limit is None or one.at_ms < limit]
    return timely[-1] if timely else None
