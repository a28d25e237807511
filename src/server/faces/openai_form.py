"""What a client of `POST /v1/audio/transcriptions` asks for: its form as `Wanted`. Pure.

Nothing that is asked for is passed over in silence: what cannot be done becomes a note, or an error where the gateway
is set to refuse; what has a wrong form is an error either way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from asr.errors import ASRError, Code, quoted
from asr.options import Diarization, Endpointing, Options, Phrase
from server.languages import code_of
from server.prompts import phrases_of

ResponseFormat = Literal["json", "text", "srt", "vtt", "verbose_json", "diarized_json"]
FORMATS: tuple[ResponseFormat, ...] = get_args(ResponseFormat)
GRANULARITIES = ("word", "segment")

_KNOWN = {
    "file",
    "model",
    "language",
    "languages",
    "prompt",
    "keywords",
    "response_format",
    "temperature",
    "timestamp_granularities",
    "stream",
    "include",
    "chunking_strategy",
    "known_speaker_names",
    "known_speaker_references",
}
_TRUE = {"true", "1", "yes", "on"}
_FALSE = {"false", "0", "no", "off", ""}
_VAD = "chunking_strategy"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one request asks for.

    Attributes:
        options: for the recognizer.
        response_format: how the answer is written.
        stream: whether it comes as server-sent events.
        granularities: which times `verbose_json` shows.
        temperature: as asked; no recognizer here has one, but the answer repeats it.
        notes: what was left out or understood in another way.
    """

    options: Options
    response_format: ResponseFormat = "json"
    stream: bool = False
    granularities: tuple[str, ...] = ("segment",)
    temperature: float = 0.0
    notes: tuple[str, ...] = ()


def read_wanted(values: Sequence[tuple[str, str]], *, refuse: bool = False, request_id: str = "") -> Wanted:
    """Read a form's fields, in the order they came; brackets at the end of a name (`include[]`) are no part of it.

    Args:
        values: names and values, without the file.
        refuse: whether what cannot be done is an error.
        request_id: the client's own id of the request, or "".

    Raises:
        ASRError: `bad_request` for a wrong value, `unsupported` for what cannot be done where that is refused.
    """
    fields = _Fields(values, refuse=refuse)
    response_format = _format(fields.last("response_format"))
    stream = _boolean("stream", fields.last("stream"))
    granularities = _granularities(fields, response_format)
    if stream and response_format not in ("json", "text", "diarized_json"):
        fields.cannot(
            "response_format", f"A stream carries text alone: response_format {response_format} was left out of it."
        )
    _leave_out(fields)
    words = not stream and (response_format in ("srt", "vtt") or "word" in granularities)
    options = Options(
        language=_language(fields),
        model=fields.last("model"),
        partials=stream and response_format != "diarized_json",
        words=words or response_format == "diarized_json",
        diarization=Diarization() if response_format == "diarized_json" else None,
        phrases=_phrases(fields),
        endpointing=_endpointing(fields),
        request_id=request_id,
        fail_on_unsupported=refuse,
    )
    temperature = _temperature(fields)
    return Wanted(options, response_format, stream, granularities, temperature, tuple(fields.notes))


class _Fields:
    """The fields by name, and what there is to say about them."""

    def __init__(self, values: Iterable[tuple[str, str]], *, refuse: bool) -> None:
        self.notes: list[str] = []
        self._refuse = refuse
        self._values: dict[str, list[str]] = {}
        for key, value in values:
            self._values.setdefault(key.strip().removesuffix("[]"), []).append(value.strip())

    def last(self, name: str) -> str:
        return self._values.get(name, [""])[-1]

    def all(self, name: str) -> list[str]:
        return [value for value in self._values.get(name, ()) if value]

    def within(self, name: str) -> dict[str, str]:
        """What came as `name[key]`."""
        start = f"{name}["
        return {
            key[len(start) : -1]: values[-1]
            for key, values in self._values.items()
            if key.startswith(start) and key.endswith("]")
        }

    @property
    def strangers(self) -> list[str]:
        return [key for key in self._values if key.partition("[")[0] not in _KNOWN]

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def cannot(self, param: str, sentence: str) -> None:
        """By policy: a note, or the end."""
        if self._refuse:
            raise ASRError(Code.UNSUPPORTED, sentence, param=param)
        self.note(sentence)


def _bad(param: str, message: str) -> ASRError:
    return ASRError(Code.BAD_REQUEST, message, param=param)


def _format(asked: str) -> ResponseFormat:
    for known in FORMATS:
        if known == (asked.lower() or "json"):
            return known
    there = ", ".join(FORMATS)
    raise _bad("response_format", f"There is no response_format {quoted(asked)}. Formats: {there}.")


def _boolean(name: str, asked: str) -> bool:
    if asked.lower() in _TRUE:
        return True
    if asked.lower() in _FALSE:
        return False
    raise _bad(name, f"{name} is {quoted(asked)}; it must be true or false.")


def _granularities(fields: _Fields, response_format: ResponseFormat) -> tuple[str, ...]:
    asked = [part.lower() for value in fields.all("timestamp_granularities") for part in _list(value)]
    for value in asked:
        if value not in GRANULARITIES:
            raise _bad(
                "timestamp_granularities", f"timestamp_granularities has {quoted(value)}; there are word and segment."
            )
    if asked and response_format != "verbose_json":
        fields.cannot(
            "timestamp_granularities",
            f"timestamp_granularities needs response_format verbose_json; with {response_format} it was left out.",
        )
        return ("segment",)
    return tuple(dict.fromkeys(asked)) or ("segment",)


def _list(value: str) -> list[str]:
    """A field's value, or the parts of one that is a JSON list or several with commas."""
    if value.startswith("["):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            return [value]
        return [str(item) for item in parsed] if isinstance(parsed, list) else [value]
    return [part.strip() for part in value.split(",") if part.strip()]


def _language(fields: _Fields) -> str:
    asked = fields.last("language")
    several = [part for value in fields.all("languages") for part in _list(value)]
    if asked or not several:
        return code_of(asked)
    if len(several) > 1:
        fields.cannot("languages", f"One language can be recognized at a time: {quoted(several[0])} was taken.")
    return code_of(several[0])


def _phrases(fields: _Fields) -> tuple[Phrase, ...]:
    prompt = fields.last("prompt")
    phrases = phrases_of(prompt, fields.all("keywords"))
    if prompt and not phrases:
        fields.note("The prompt names no word that could be favoured; it was left out.")
    return tuple(Phrase(phrase) for phrase in phrases)


def _temperature(fields: _Fields) -> float:
    asked = fields.last("temperature")
    if not asked:
        return 0.0
    try:
        value = float(asked)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise _bad("temperature", f"temperature is {quoted(asked)}; it must be a number from 0 to 1.")
    if value:
        fields.note("This recognizer has no temperature; it was left out.")
    return value


def _endpointing(fields: _Fields) -> Endpointing | None:
    settings = _chunking(fields)
    kind = settings.get("type", "auto")
    if kind == "auto":
        return None
    if kind != "server_vad":
        raise _bad(_VAD, f"{_VAD} is {quoted(str(kind))}; it must be auto or an object of type server_vad.")
    ignored = [key for key in ("threshold", "prefix_padding_ms") if key in settings]
    if ignored:
        fields.cannot(_VAD, f"{_VAD}: {' and '.join(ignored)} cannot be set here; left out.")
    if "silence_duration_ms" not in settings:
        return None
    try:
        silence_ms = round(float(settings["silence_duration_ms"]))
    except (TypeError, ValueError, OverflowError):
        silence_ms = 0
    if not 1 <= silence_ms <= 60_000:
        raise _bad(_VAD, f"{_VAD}: silence_duration_ms must be a number of milliseconds from 1 to 60000.")
    return Endpointing(silence_ms=silence_ms)


def _chunking(fields: _Fields) -> dict[str, Any]:
    apart = fields.within(_VAD)
    if apart:
        return dict(apart)
    asked = fields.last(_VAD)
    if not asked.startswith("{"):
        return {"type": asked or "auto"}
    try:
        parsed = json.loads(asked)
    except (ValueError, RecursionError) as error:
        raise _bad(_VAD, f"{_VAD} is no JSON object.") from error
    return parsed if isinstance(parsed, dict) else {"type": "auto"}


def _leave_out(fields: _Fields) -> None:
    if fields.all("include"):
        fields.cannot("include", "This recognizer gives no log probabilities of tokens; include was left out.")
    if fields.all("known_speaker_names") or fields.all("known_speaker_references"):
        fields.cannot(
            "known_speaker_names",
            "Speakers are told apart, not recognized: known_speaker_names and known_speaker_references were left out.",
        )
    strangers = fields.strangers
    if strangers:
        names = ", ".join(quoted(name) for name in strangers[:5])
        fields.note(f"These fields mean nothing here and were left out: {names}.")
