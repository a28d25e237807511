"""What a caller may ask of a recognition stream, in the domain's words.

`None` (or an empty string) always means "not said": the engine's own default holds. No field here
is spelled as any one protocol spells it; faces and codecs translate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from asr.errors import ASRError, Code

_EMPTY: Mapping[str, str] = MappingProxyType({})

MAX_PHRASES = 5000
MAX_ALTERNATIVES = 20
MAX_CHANNELS = 8
MAX_SPEAKERS = 10_000
"""Of one recording; what is larger is a mistake, and does not fit the recognizers' messages."""

# https://www.w3.org/TR/trace-context/#traceparent-header: versions after 00 may say more at the end.
_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,200})?"
)


def _bad(param: str, message: str) -> ASRError:
    return ASRError(Code.BAD_REQUEST, message, param=param)


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase that the recognizer should favour.

    Attributes:
        text: the phrase.
        boost: how strongly, 0 (not) to 1 (as much as is sensible), on one scale for all engines.
        raw_boost: the decoder's own number, for callers that speak its language; wins over `boost`.
    """

    text: str
    boost: float = 0.5
    raw_boost: float | None = None

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise _bad("phrases", "A boosted phrase is empty. Give each phrase a text.")
        if not 0.0 <= self.boost <= 1.0:
            raise _bad("phrases", f"boost {self.boost:g} of phrase {self.text!r} is outside 0..1.")


@dataclass(frozen=True, slots=True)
class Diarization:
    """Tell speakers apart. `max_speakers` None: the engine's own limit."""

    max_speakers: int | None = None

    def __post_init__(self) -> None:
        if self.max_speakers is not None and not 1 <= self.max_speakers <= MAX_SPEAKERS:
            what = f"max_speakers is {self.max_speakers}; it must be 1 or more, up to {MAX_SPEAKERS}."
            raise _bad("diarization.max_speakers", what)


@dataclass(frozen=True, slots=True)
class Endpointing:
    """When an utterance ends by itself.

    Attributes:
        manual: never by a pause: only `EndUtterance` and the end of the audio end it.
        silence_ms: the pause that ends an utterance (Riva: stop_history).
        eager_ms: a shorter pause after which the engine may guess the end (Riva: stop_history_eou).
        start_ms: the window in which speech must show to begin one (Riva: start_history).
        start_threshold, stop_threshold, eager_threshold: 0..1, the share of that window.
    """

    manual: bool = False
    silence_ms: int | None = None
    eager_ms: int | None = None
    start_ms: int | None = None
    start_threshold: float | None = None
    stop_threshold: float | None = None
    eager_threshold: float | None = None

    def __post_init__(self) -> None:
        for name in ("silence_ms", "eager_ms", "start_ms"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 60_000:
                raise _bad(f"endpointing.{name}", f"endpointing.{name} is {value}; it must be 1 to 60000 ms.")
        for name in ("start_threshold", "stop_threshold", "eager_threshold"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise _bad(f"endpointing.{name}", f"endpointing.{name} is {value:g}; it must be 0 to 1.")


@dataclass(frozen=True, slots=True)
class Options:
    """How one stream is to be recognized. Checked once, here.

    Attributes:
        language: BCP-47 (`en-US`), or "" for the model's own.
        model: a name from the engine's list, or "" for its choice.
        partials: whether partials are wanted.
        words: whether finals should carry words with times.
        punctuate: True or False asks for it or against it; None leaves it to the model.
        verbatim: True = spoken form ("twenty one"), False = written form ("21"), None = the engine's.
        profanity_filter: mask profanity.
        diarization: tell speakers apart, or None.
        phrases: what to favour.
        endpointing: when utterances end, or None for the engine's own rules.
        max_alternatives: readings per final, the best one included.
        upstream_options: passed on to Riva as `custom_configuration`, unread.
        request_id: an id of the caller's, sent upstream and echoed; "" for none.
        traceparent: the W3C trace context that the recognizer is told, or "".
        fail_on_unsupported: refuse what the engine cannot do, instead of a warning.
        recording: the audio is given as fast as it is taken, not as it is spoken: how far results lag behind it says
            nothing of the recognizer.
        channels: of the audio, interleaved; over 1, each is recognized on its own (`Event.channel` tells which).
    """

    language: str = ""
    model: str = ""
    partials: bool = True
    words: bool = True
    punctuate: bool | None = None
    verbatim: bool | None = None
    profanity_filter: bool = False
    diarization: Diarization | None = None
    phrases: tuple[Phrase, ...] = ()
    endpointing: Endpointing | None = None
    max_alternatives: int = 1
    upstream_options: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    request_id: str = ""
    traceparent: str = ""
    fail_on_unsupported: bool = False
    recording: bool = False
    channels: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise _bad("channels", f"The number of channels is {self.channels}; it must be 1 to {MAX_CHANNELS}.")
        if not 1 <= self.max_alternatives <= MAX_ALTERNATIVES:
            raise _bad("max_alternatives", f"max_alternatives is {self.max_alternatives}; it must be 1 to 20.")
        if len(self.phrases) > MAX_PHRASES:
            raise _bad("phrases", f"{len(self.phrases)} phrases are more than the {MAX_PHRASES} allowed.")
        if self.traceparent and not _is_traceparent(self.traceparent):
            what = "traceparent is not a W3C trace context: version-trace id-span id-flags, in lower-case hex."
            raise _bad("traceparent", what)


def _is_traceparent(text: str) -> bool:
    found = _TRACEPARENT.fullmatch(text)
    return found is not None and (found[1] != "00" or not found[2])
