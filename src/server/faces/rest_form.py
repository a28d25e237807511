"""What a client of the transcription REST asks for: its fields as `Asked`. Pure.

The documented fields are `model`, `language` and `include_timestamps`; the others are wishes that every face of the
gateway knows. They mean the same in a form, in a JSON object and in a query.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import orjson

from asr.audio import Stereo
from asr.errors import ASRError, Code, quoted
from asr.options import Diarization, Endpointing, Options, Phrase
from server.languages import code_of

ResultFormat = Literal["json", "text", "srt", "vtt"]
FORMATS: tuple[ResultFormat, ...] = get_args(ResultFormat)
STEREO: tuple[Stereo, ...] = get_args(Stereo)

_KNOWN = frozenset(
    {"file", "audio", "filename", "model", "language", "include_timestamps", "words", "format", "punctuate", "verbatim"}
    | {"profanity_filter", "diarization", "max_speakers", "phrases", "silence_ms", "stereo"}
)
_OF_JOBS = frozenset({"webhook_url", "labels", "idempotency_key"})
_NOT_OF_JOBS = frozenset({"stereo"})
_YES = frozenset({"true", "1", "yes", "on"})
_NO = frozenset({"false", "0", "no", "off"})
_MAX_BOOST = 1.0
_MAX_VALUES = 2_000


@dataclass(frozen=True, slots=True)
class Asked:
    """What one request asks for.

    Attributes:
        options: for the recognizer.
        timestamps: whether the answer has segments.
        words: whether segments have their words.
        format: how the answer is written.
        stereo: what becomes of several channels; None: as the gateway is set.
        webhook_url: for jobs: who is told when it is over, or "".
        labels: for jobs: the client's own words about it.
        idempotency_key: for jobs: requests with the same one are the same job; "" for none.
        notes: what was left out.
    """

    options: Options
    timestamps: bool = True
    words: bool = False
    format: ResultFormat = "json"
    stereo: Stereo | None = None
    webhook_url: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    idempotency_key: str = ""
    notes: tuple[str, ...] = ()


def read_asked(values: Iterable[tuple[str, str]], *, job: bool = False, refuse: bool = False) -> Asked:
    """Read fields, in the order they came.

    Args:
        values: names and values, without the file.
        job: whether it is asked of a job, which has fields of its own.
        refuse: whether what the recognizer cannot do is an error.

    Raises:
        ASRError: `bad_request` for a value that has no meaning.
    """
    fields = _Fields(values)
    timestamps = fields.flag("include_timestamps", True)
    result_format = read_format(fields.last("format"))
    diarization = _diarization(fields)
    words = bool(fields.flag("words", False))
    options = Options(
        language=code_of(fields.last("language")),
        model=fields.last("model"),
        partials=False,
        words=bool(timestamps) or words or result_format in ("srt", "vtt"),
        punctuate=fields.flag("punctuate", None),
        verbatim=fields.flag("verbatim", None),
        profanity_filter=bool(fields.flag("profanity_filter", False)),
        diarization=diarization,
        phrases=_phrases(fields.all("phrases")),
        endpointing=_endpointing(fields.last("silence_ms")),
        fail_on_unsupported=refuse,
    )
    strangers = fields.strangers((_KNOWN | _OF_JOBS) - _NOT_OF_JOBS if job else _KNOWN)
    return Asked(
        options=options,
        timestamps=bool(timestamps),
        words=words or diarization is not None,
        format=result_format,
        stereo=_stereo(fields.last("stereo")),
        webhook_url=fields.last("webhook_url") if job else "",
        labels=_labels(fields.last("labels")) if job else (),
        idempotency_key=fields.last("idempotency_key") if job else "",
        notes=(f"These fields mean nothing here and were left out: {strangers}.",) if strangers else (),
    )


def read_format(asked: str) -> ResultFormat:
    """The format of a result.

    Raises:
        ASRError: `bad_request` for one that there is not.
    """
    for known in FORMATS:
        if known == (asked.lower() or "json"):
            return known
    raise _bad("format", f"There is no format {quoted(asked)}. Formats: {', '.join(FORMATS)}.")


def read_json_fields(content: dict[str, Any]) -> list[tuple[str, str]]:
    """The fields of a JSON object as a form would have them; a list is a field that comes several times.

    Raises:
        ASRError: `bad_request` for values that are too many, or nested too deep.
    """
    found: list[tuple[str, str]] = []
    for name, value in content.items():
        if name == "audio" or value is None:
            continue
        several = value if isinstance(value, list) else [value]
        if len(found) + len(several) > _MAX_VALUES:
            raise _bad(name, f"The JSON has more than {_MAX_VALUES} values.")
        try:
            found += [(name, one if isinstance(one, str) else json.dumps(one)) for one in several]
        except RecursionError as error:
            raise _bad(name, f"{quoted(name)} is nested too deep.") from error
    return found


class _Fields:
    def __init__(self, values: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in values:
            self._values.setdefault(name.strip().removesuffix("[]"), []).append(value.strip())

    def last(self, name: str) -> str:
        return self._values.get(name, [""])[-1]

    def all(self, name: str) -> list[str]:
        return [value for value in self._values.get(name, ()) if value]

    def flag(self, name: str, default: bool | None) -> bool | None:
        value = self.last(name).lower()
        if not value:
            return default
        if value in _YES or value in _NO:
            return value in _YES
        raise _bad(name, f"{name} is {quoted(self.last(name))}; it must be true or false.")

    def number(self, name: str) -> int | None:
        value = self.last(name)
        if not value:
            return None
        try:
            return int(value)
        except ValueError:
            raise _bad(name, f"{name} is {quoted(value)}; it must be a whole number.") from None

    def strangers(self, known: frozenset[str]) -> str:
        return ", ".join(quoted(name) for name in [name for name in self._values if name not in known][:5])


def _bad(param: str, message: str) -> ASRError:
    return ASRError(Code.BAD_REQUEST, message, param=param)


def _diarization(fields: _Fields) -> Diarization | None:
    most = fields.number("max_speakers")
    return Diarization(most) if fields.flag("diarization", most is not None) else None


def _phrases(given: Sequence[str]) -> tuple[Phrase, ...]:
    """Each field is a phrase, a JSON list of phrases, or a JSON object `{"text", "boost"}`."""
    found: list[Phrase] = []
    for value in given:
        parsed = _parsed(value) if value[0] in "[{" else value
        found += [_phrase(one) for one in (parsed if isinstance(parsed, list) else [parsed])]
    return tuple(found)


def _phrase(one: object) -> Phrase:
    if isinstance(one, str):
        return Phrase(one)
    if isinstance(one, dict) and isinstance(one.get("text"), str):
        boost = one.get("boost", 0.5)
        if isinstance(boost, int | float) and 0 <= boost <= _MAX_BOOST:
            return Phrase(one["text"], float(boost))
    raise _bad("phrases", 'A phrase is a text, or {"text": "Parakeet", "boost": 0.5} with a boost of 0 to 1.')


def _parsed(value: str) -> object:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def _endpointing(silence_ms: str) -> Endpointing | None:
    if not silence_ms:
        return None
    try:
        return Endpointing(silence_ms=int(silence_ms))
    except ValueError:
        raise _bad("silence_ms", f"silence_ms is {quoted(silence_ms)}; it must be 1 to 60000.") from None


def _stereo(asked: str) -> Stereo | None:
    if not asked:
        return None
    for known in STEREO:
        if known == asked.lower():
            return known
    raise _bad("stereo", f"stereo is {quoted(asked)}; it must be one of {', '.join(STEREO)}.")


def _labels(text: str) -> tuple[tuple[str, str], ...]:
    if not text:
        return ()
    parsed = _parsed(text)
    if not isinstance(parsed, dict) or not all(isinstance(value, str) for value in parsed.values()):
        raise _bad("labels", 'labels must be a JSON object of texts, such as {"customer": "42"}.')
    if any(name.startswith("riva-gateway.") for name in parsed):
        raise _bad("labels", "Labels that begin with 'riva-gateway.' are the gateway's own.")
    return tuple(parsed.items())
