"""Recognition of one stream inside a worker: bytes in, events out, a little work at a time.

The acoustic model wants cepstra whose mean is that of the speaker and the line. Pocketsphinx's running estimate
starts from a constant and remembers earlier utterances; here each utterance is held back for its first second, its
own mean is measured on that, and only then is it decoded. Measured on synthetic speech this halves the word errors
and it makes every utterance independent of those before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pocketsphinx import Decoder

from asr.engine import BYTES_PER_MS
from asr.engines.local_gate import FRAME_BYTES, Gate, quiet_tail
from asr.engines.local_wire import Tuning
from asr.events import Event, Final, FinalReason, Flushed, Progress, SpeechEnded, SpeechStarted, Word
from asr.utterances import UtteranceCounter

_MEASURED_BYTES = 1000 * BYTES_PER_MS
_TAIL_BYTES = 200 * BYTES_PER_MS
_PROGRESS_FRAMES = 5
_FRAME_MS = 10
_VARIANT = re.compile(r"\(\d+\)$")
_FILLER = re.compile(r"^(<.*>|\[.*\]|\+\+.*\+\+)$")


class Decoders:
    """The decoders of one process: made when needed, reused, never shared by two streams at a time."""

    def __init__(self) -> None:
        self._idle: list[Any] = []
        self._meter: Any = None

    def warm(self) -> None:
        """Load the models."""
        self.give_back(self.take())
        self.mean(bytes(2 * FRAME_BYTES))

    def take(self) -> Any:
        """A decoder with no memory of earlier speech."""
        return self._idle.pop() if self._idle else Decoder(loglevel="FATAL")

    def give_back(self, decoder: Any) -> None:
        """Keep a decoder, with no utterance open, for the next stream."""
        self._idle.append(decoder)

    def mean(self, pcm: bytes) -> str:
        """The cepstral mean of some speech, as pocketsphinx spells it."""
        if self._meter is None:
            # A keyword search is the cheapest there is: this decoder exists for its feature extraction.
            self._meter = Decoder(loglevel="FATAL", lm=None, keyphrase="oh", kws_threshold=1.0)
        meter = self._meter
        meter.reinit_feat()
        meter.start_utt()
        try:
            meter.process_raw(pcm, True, True)
            return str(meter.get_cmn(False))
        finally:
            meter.end_utt()


class Recognizer:
    """One stream. `frame`, `cut` and `finish` say what comes next and answer with what was found in it."""

    def __init__(self, tuning: Tuning, decoders: Decoders) -> None:
        self._tuning = tuning
        self._decoders = decoders
        self._decoder: Any = None
        self._gate = Gate(tuning.silence_ms, tuning.manual)
        self._counter = UtteranceCounter()
        self._frame_no = 0
        self._done_bytes = 0
        self._told_ms = -1
        self._reset_utterance()

    def frame(self, frame: bytes) -> Iterator[Event]:
        """Recognize one frame of 30 ms."""
        self._done_bytes += len(frame)
        self._frame_no += 1
        speaking = self._gate.speaking
        heard = self._gate.frame(frame)
        if heard is not None:
            if not speaking:
                yield from self._open()
            self._hear(heard)
            yield from self._partial()
            if self._gate.paused:
                yield from self._close(FinalReason.ENDPOINT)
            elif self._heard_bytes >= self._tuning.max_utterance_ms * BYTES_PER_MS:
                final = self._final(FinalReason.MAX_LENGTH)
                if final is not None:
                    yield final
                self._reset_utterance()
                self._origin_ms = self._now_ms
        if self._frame_no % _PROGRESS_FRAMES == 0:
            yield from self._progress()

    def cut(self, tail: bytes) -> Iterator[Event]:
        """End the utterance here; `tail` is what there is of a frame."""
        yield from self._end(tail, FinalReason.FINALIZE)
        yield Flushed(self._now_ms)

    def finish(self, tail: bytes) -> Iterator[Event]:
        """The audio is over; `tail` is what there is of a frame."""
        yield from self._end(tail, FinalReason.STOP)

    def release(self) -> None:
        """Let go of the decoder, at any moment."""
        decoder, self._decoder = self._decoder, None
        if decoder is None:
            return
        if self._started:
            # Ending an utterance searches once more over all of it; a new decoder costs less than that would.
            return
        self._decoders.give_back(decoder)

    def _end(self, tail: bytes, reason: FinalReason) -> Iterator[Event]:
        self._done_bytes += len(tail)
        if self._gate.speaking:
            self._hear(tail)
            yield from self._close(reason, len(tail))
        else:
            heard = self._gate.late_word(tail)
            if heard is not None:
                yield from self._open()
                self._hear(heard)
                yield from self._close(reason, len(tail))
            else:
                self._gate.end(len(tail))
        yield from self._progress()

    def _open(self) -> Iterator[Event]:
        self._reset_utterance()
        self._origin_ms = self._gate.lead_ms
        yield SpeechStarted(self._gate.speech_start_ms)

    def _close(self, reason: FinalReason, extra_bytes: int = 0) -> Iterator[Event]:
        final = self._final(reason)
        yield SpeechEnded(self._gate.end(extra_bytes))
        if final is not None:
            yield final
        self._reset_utterance()
        self.release()

    def _reset_utterance(self) -> None:
        self._held = bytearray()
        self._started = False
        self._heard_bytes = 0
        self._loud_bytes = 0
        self._decoded_bytes = 0
        self._partial_bytes = 0
        self._origin_ms = 0

    def _hear(self, pcm: bytes) -> None:
        quiet = quiet_tail(pcm)
        if quiet < len(pcm):
            self._loud_bytes = self._heard_bytes + len(pcm) - quiet
        self._heard_bytes += len(pcm)
        self._held += pcm
        # Silence waits until something follows it, so that a final is made of the same samples each time.
        ready = min(len(self._held), self._loud_bytes + _TAIL_BYTES - self._decoded_bytes)
        if not self._started:
            if ready < _MEASURED_BYTES:
                return
            self._start()
        self._decode(ready // FRAME_BYTES * FRAME_BYTES)

    def _start(self) -> None:
        mean = self._decoders.mean(bytes(self._held[:_MEASURED_BYTES]))
        if self._decoder is None:
            self._decoder = self._decoders.take()
        # A new feature extractor: noise estimate and running mean of earlier speech go with the old one.
        self._decoder.reinit_feat()
        self._decoder.set_cmn(mean)
        self._decoder.start_utt()
        self._started = True

    def _decode(self, until: int) -> None:
        """Decode the head of what is held, in pieces counted from the utterance's start: they move the running mean."""
        for start in range(0, until, FRAME_BYTES):
            self._decoder.process_raw(bytes(self._held[start : min(start + FRAME_BYTES, until)]))
        del self._held[:until]
        self._decoded_bytes += until

    def _partial(self) -> Iterator[Event]:
        due = self._heard_bytes - self._partial_bytes >= self._tuning.partial_interval_ms * BYTES_PER_MS
        if not (self._tuning.partials and self._started and due):
            return
        self._partial_bytes = self._heard_bytes
        words = self._words(confident=False)
        if words:
            partial = self._counter.partial(_text(words), words[0].start_ms, words[-1].end_ms)
            if partial is not None:
                yield partial

    def _final(self, reason: FinalReason) -> Final | None:
        if reason is not FinalReason.MAX_LENGTH:
            missing = self._loud_bytes + _TAIL_BYTES - self._decoded_bytes - len(self._held)
            self._held += bytes(max(0, missing))
            del self._held[max(0, len(self._held) + min(0, missing)) :]
        if not self._started:
            self._start()
        self._decode(len(self._held))
        self._decoder.end_utt()
        words = self._words(confident=True)
        if not words and not self._counter.is_open:
            return None
        # Words that were only guessed at and are gone now: an empty final takes them back.
        start_ms, end_ms = (words[0].start_ms, words[-1].end_ms) if words else (self._origin_ms, self._now_ms)
        known = [w.confidence for w in words if w.confidence is not None]
        return self._counter.final(
            _text(words),
            max(0, start_ms),
            end_ms,
            reason=reason,
            words=words if self._tuning.words else (),
            confidence=sum(known) / len(known) if known else None,
            language=self._tuning.language,
        )

    def _words(self, *, confident: bool) -> tuple[Word, ...]:
        segments = self._decoder.seg() or ()
        return tuple(
            Word(
                text=_VARIANT.sub("", segment.word),
                start_ms=self._on_clock(segment.start_frame),
                end_ms=self._on_clock(segment.end_frame + 1),
                confidence=min(1.0, max(0.0, float(segment.prob))) if confident else None,
            )
            for segment in segments
            if not _FILLER.match(segment.word)
        )

    def _on_clock(self, frame: int) -> int:
        return min(max(0, self._origin_ms + frame * _FRAME_MS), self._now_ms)

    @property
    def _now_ms(self) -> int:
        return self._done_bytes // BYTES_PER_MS

    def _progress(self) -> Iterator[Event]:
        if self._now_ms > self._told_ms:
            self._told_ms = self._now_ms
            yield Progress(self._now_ms)


def _text(words: tuple[Word, ...]) -> str:
    return " ".join(word.text for word in words)
