"""The document that a run of a set is kept in: JSON, one object per clip, and nothing that could be computed from it.

Schema `riva-gateway.golden/1`. Pooled figures are `evaluation.summary`'s, made from this document each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from typing import Any, TypeVar, get_args

from asr.errors import ASRError, Code, quoted
from evaluation.documents import check_schema, rounded
from evaluation.recording import Outcome

SCHEMA = "riva-gateway.golden/1"

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Edit operations of an alignment of reference and hypothesis, in words or in characters."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference(self) -> int:
        """Length of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float | None:
        """Errors per unit of the reference (WER, CER); None where the reference is empty."""
        return self.errors / self.reference if self.reference else None

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


@dataclass(frozen=True, slots=True)
class Timings:
    """How fast the words of one clip came. Milliseconds; empty or None where it could not be told.

    Attributes:
        first_partial_ms: from the end of the first spoken word (its audio sent) to the first partial with text.
        first_text_ms: from the beginning of speech (its audio sent) to the first text, partial or final.
        word_partial_ms: for each word, from its end (sent) to the first partial that has it, or to its final where none
            has.
        word_final_ms: for each word, from its end (sent) to the final that has it.
        final_ms: for each stretch of speech, from its end (sent) to the final that covers it.
        partial_gap_ms: between successive partials of one utterance.
        partial_words: words shown in partials at their place for the first time, in all.
        revised_words: those of them that a later partial or the final changed or took back.
    """

    first_partial_ms: float | None = None
    first_text_ms: float | None = None
    word_partial_ms: tuple[float, ...] = ()
    word_final_ms: tuple[float, ...] = ()
    final_ms: tuple[float, ...] = ()
    partial_gap_ms: tuple[float, ...] = ()
    partial_words: int = 0
    revised_words: int = 0


NO_TIMINGS = Timings()

BUSY = 1.2
"""Programs for each core, from which on they wait for each other."""

_MAX_MS = 1e12
_MAX_COUNT = 10**12
"""More than any clip has: sums stay finite."""


@dataclass(frozen=True, slots=True)
class PartErrors:
    """What became of one of the clips that a long one was joined of.

    Attributes:
        id: the part's own.
        reference: its text.
        words, chars: its share of the errors of the whole, as the whole was aligned.
    """

    id: str
    reference: str
    words: ErrorCounts
    chars: ErrorCounts


@dataclass(frozen=True, slots=True)
class ClipResult:
    """What became of one clip.

    Attributes:
        id, condition: the clip's.
        reference: its text as it is written in the set.
        hypothesis: the finals' texts, joined by blanks.
        audio_ms: the clip's length.
        words, chars: errors after normalizing both texts.
        timings: see there; without latencies where the clip was not streamed in real time.
        partials, finals: how many came; `finals` counts those with text.
        realtime: whether it was streamed at the pace of speech.
        elapsed_ms: from the first chunk to the end of the stream.
        late_ms: the sender's own lateness, at worst.
        outcome, detail: how the stream ended.
        gaps_ms: audio that no final covers, as told by the stream.
        ready_ms: from asking for the stream to its being ready, where that is told.
        attempts: how often it was streamed: more than once where the recognizer was full at first.
        sent_ms: audio that was streamed in all, the silence after the clip included; 0 where it is not known.
        parts: where the clip was joined of others and its stream ended well, their errors in order; else empty.
    """

    id: str
    condition: str
    reference: str
    hypothesis: str
    audio_ms: int
    words: ErrorCounts
    chars: ErrorCounts
    timings: Timings = NO_TIMINGS
    partials: int = 0
    finals: int = 0
    realtime: bool = False
    elapsed_ms: float = 0.0
    late_ms: float = 0.0
    outcome: Outcome = "ok"
    detail: str = ""
    gaps_ms: int = 0
    ready_ms: float | None = None
    attempts: int = 1
    sent_ms: int = 0
    parts: tuple[PartErrors, ...] = ()


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What was measured, how, when and on what.

    Attributes:
        target: who was asked, for people (`embedded recognizer`, `https://localhost:8443`).
        engine, model: as the recognizer names itself and its model.
        set_name, set_fingerprint: the set's.
        chunk_ms: audio per chunk.
        tail_ms: silence streamed after each clip, in which the final may come.
        concurrency: clips in work at a time.
        normalizer: name and version of the rules that both texts went through.
        started_at: ISO 8601, UTC.
        machine: cores and Python of the machine that streamed, and after a semicolon how busy it was.
        version: of riva-gateway.
        labels: the caller's own.
        cores: of that machine; 0 where it is not known.
        load_average: programs that worked or waited for a core, in its busiest minute; None where it is not known.
    """

    target: str
    engine: str
    model: str
    set_name: str
    set_fingerprint: str
    chunk_ms: int
    tail_ms: int
    concurrency: int
    normalizer: str
    started_at: str
    machine: str
    version: str
    labels: Mapping[str, str]
    cores: int = 0
    load_average: float | None = None

    @property
    def busy(self) -> bool:
        """Whether the machine had so much to do that latencies are partly its own."""
        return bool(self.cores) and self.load_average is not None and self.load_average > BUSY * self.cores


@dataclass(frozen=True, slots=True)
class GoldenRun:
    """One run of one set on one recognizer."""

    info: RunInfo
    clips: tuple[ClipResult, ...]

    def to_json(self) -> Json:
        """The document; floats are rounded to a tenth of a millisecond."""
        document = {"schema": SCHEMA, "info": asdict(self.info), "clips": [asdict(clip) for clip in self.clips]}
        made: Json = rounded(document, 1)
        return made

    @classmethod
    def from_json(cls, document: Any) -> GoldenRun:
        """Read it back. Keys that are not known are left alone, so that a later version may say more.

        Raises:
            ASRError: `bad_request`, when it is no such document.
        """
        check_schema(document, SCHEMA, "golden")
        try:
            run = cls(_read(RunInfo, document, "info"), tuple(_items(ClipResult, document, "clips")))
        except ValueError as error:
            raise ASRError(Code.BAD_REQUEST, f"The result of `riva-gateway golden` is damaged: {error}.") from None
        seen: set[str] = set()
        for clip in run.clips:
            if clip.id in seen:
                raise ASRError(
                    Code.BAD_REQUEST,
                    f"The result of `riva-gateway golden` is damaged: the clip {quoted(clip.id)} is there twice.",
                )
            seen.add(clip.id)
        return run


def _items(kind: type[T], document: Json, name: str, where: str = "") -> Iterator[T]:
    listed, where = document.get(name), where or name
    if not isinstance(listed, list):
        raise ValueError(f"{where} is no list")
    for at in range(len(listed)):
        yield _read(kind, listed, at, f"{where}[{at}]")


def _read(kind: type[T], holder: Any, key: str | int, where: str = "") -> T:
    """A dataclass from its object, each value of its field's type."""
    where = where or str(key)
    document = holder.get(key) if isinstance(holder, dict) else holder[key]
    if not isinstance(document, dict):
        raise ValueError(f"{where} is no object")
    assert is_dataclass(kind)
    values: Json = {}
    for field in fields(kind):
        place = f"{where}.{field.name}"
        if field.name not in document:
            if field.default is MISSING:
                raise ValueError(f"{place} is missing")
        elif field.type == "tuple[PartErrors, ...]":
            values[field.name] = tuple(_items(PartErrors, document, field.name, place))
        elif field.type in _OBJECTS:
            values[field.name] = _read(_OBJECTS[str(field.type)], document, field.name, place)
        else:
            values[field.name] = _value(str(field.type), document[field.name], place)
    made: T = kind(**values)
    return made


def _value(kind: str, value: Any, where: str) -> Any:
    """The value, when it is of the type that the annotation tells. Infinite times and NaN are none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match kind:
        case "str":
            # JSON can write half a character, which no file can hold.
            good = isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)
        case "bool":
            good = isinstance(value, bool)
        case "int":
            good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT
        case "float":
            good = number and abs(value) <= _MAX_MS
        case "float | None":
            good = value is None or (number and abs(value) <= _MAX_MS)
        case "tuple[float, ...]":
            good = isinstance(value, list) and all(
                isinstance(each, int | float) and not isinstance(each, bool) and abs(each) <= _MAX_MS for each in value
            )
            value = tuple(value) if good else value
        case "Mapping[str, str]":
            good = isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
        case _:
            good = kind == "Outcome" and value in get_args(Outcome)
    if not good:
        shown = type(value).__name__ if isinstance(value, list | dict) else ascii(value).strip("'")[:60]
        raise ValueError(f"{where} is {quoted(shown)}, which is no {_CALLED.get(kind, kind)}")
    return value


_OBJECTS: dict[Any, type[Any]] = {"ErrorCounts": ErrorCounts, "Timings": Timings}
_CALLED = {
    "str": "text",
    "bool": "true or false",
    "int": "whole number from 0 on, or far too large a one",
    "float": "number",
    "float | None": "number",
    "tuple[float, ...]": "list of numbers",
    "Mapping[str, str]": "object of texts",
    "Outcome": "way in which a stream ends",
}
