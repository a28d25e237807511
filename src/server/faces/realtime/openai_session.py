"""The session of OpenAI's realtime transcription: what a client may set, in both of its spellings.

`flat` is the beta's (`input_audio_format`, `input_audio_transcription`, `turn_detection` …), otherwise it is the nested
one of today (`audio.input.{format, transcription, noise_reduction, turn_detection}`). A field that an update
leaves out keeps its value; `null` puts it back. What is not granted is told in a sentence, never in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from asr.audio import AudioFormat, Encoding
from asr.errors import ASRError, Code, quoted
from asr.options import Endpointing, Options, Phrase
from server.languages import code_of
from server.prompts import phrases_of

Json = dict[str, Any]

PCM_RATE_HZ = 24_000
G711_RATE_HZ = 8_000
PREFIX_PADDING_MS = 300
"""What a client that does not say expects; it only moves `audio_start_ms`: all audio is heard anyway."""

EAGERNESS_SILENCE_MS = {"low": 1_500, "medium": 800, "auto": 800, "high": 400}
"""The pause that ends a turn under `semantic_vad`: no model here judges whether a sentence is complete."""

MAX_NAMED = 10

_TYPES = {"audio/pcm": Encoding.PCM_S16LE, "audio/pcmu": Encoding.MULAW, "audio/pcma": Encoding.ALAW}
_FLAT_TYPES = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
_FLAT_NAMES = {name: flat for flat, name in _FLAT_TYPES.items()}

_WITHOUT_TURNS = ("gpt-realtime-whisper", "gpt-live-transcribe")
"""Models that OpenAI serves without turn detection: their clients leave it out, and commit."""

_LOGPROBS = "item.input_audio_transcription.logprobs"


@dataclass(frozen=True, slots=True)
class Turns:
    """How the server finds the end of a turn.

    Attributes:
        kind: `server_vad` or `semantic_vad`.
        silence_ms: the pause that ends a turn, or None for the recognizer's own.
        prefix_padding_ms: how far before the first speech a turn is said to begin.
        said: the client's own fields, to be shown to it again.
    """

    kind: str = "server_vad"
    silence_ms: int | None = None
    prefix_padding_ms: int = PREFIX_PADDING_MS
    said: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class OpenAISession:
    """A session's settings.

    Attributes:
        type: `audio/pcm`, `audio/pcmu` or `audio/pcma`.
        rate_hz: of the client's audio.
        turns: how the server ends turns; None: only the client does.
        turns_said: whether the client said so itself.
        transcription: the client's own fields of that object.
        noise_reduction: the client's own object, or None.
        include: the client's own list.
    """

    type: str = "audio/pcm"
    rate_hz: int = PCM_RATE_HZ
    turns: Turns | None = Turns()
    turns_said: bool = False
    transcription: tuple[tuple[str, Any], ...] = ()
    noise_reduction: Mapping[str, Any] | None = None
    include: tuple[str, ...] = ()

    @property
    def format(self) -> AudioFormat:
        """How the client's audio is encoded."""
        return AudioFormat(_TYPES[self.type], self.rate_hz)

    @property
    def bytes_per_ms(self) -> float:
        """Of the client's audio."""
        return self.rate_hz * (2 if self.type == "audio/pcm" else 1) / 1000

    def options(self) -> Options:
        """What to ask of the recognizer. Raises `bad_request` for what cannot be asked."""
        said = dict(self.transcription)
        silence_ms = self.turns.silence_ms if self.turns is not None else None
        languages = said.get("languages") or []
        return Options(
            language=code_of(said.get("language") or (languages[0] if languages else "")),
            model=said.get("model") or "",
            words=False,
            phrases=tuple(Phrase(text) for text in phrases_of(said.get("prompt") or "", said.get("keywords") or [])),
            endpointing=Endpointing(silence_ms=silence_ms) if silence_ms is not None else None,
        )

    def to_json(self, session_id: str, *, flat: bool) -> Json:
        """The `session` object of the server's events."""
        turns = None if self.turns is None else {"type": self.turns.kind, **dict(self.turns.said)}
        transcription = dict(self.transcription)
        head = {"id": session_id, "object": "realtime.transcription_session"}
        include = list(self.include) or None
        if flat:
            return {
                **head,
                "input_audio_format": _FLAT_NAMES[self.type],
                "input_audio_transcription": transcription,
                "input_audio_noise_reduction": self.noise_reduction,
                "turn_detection": turns,
                "include": include,
            }
        audio_format: Json = {"type": self.type}
        if self.type == "audio/pcm":
            audio_format["rate"] = self.rate_hz
        heard = {
            "format": audio_format,
            "transcription": transcription,
            "noise_reduction": self.noise_reduction,
            "turn_detection": turns,
        }
        return {**head, "type": "transcription", "audio": {"input": heard}, "include": include}


def updated(session: OpenAISession, wanted: Any, *, flat: bool) -> tuple[OpenAISession, list[str]]:
    """The session after an update with the client's `wanted`, and a sentence for each thing that is not granted.

    Raises:
        ASRError: `bad_request` (with `param`) where a field has a value that it cannot have.
    """
    update = _Update(session, flat)
    update.read(_an_object(wanted, "session"))
    return update.session, update.warnings


class _Update:
    """One update on its way into a session."""

    def __init__(self, session: OpenAISession, flat: bool) -> None:
        self.session = session
        self.warnings: list[str] = []
        self._flat = flat
        self._unknown: list[str] = []

    def read(self, wanted: Json) -> None:
        wanted = dict(wanted)
        for echoed in ("id", "object", "expires_at", "client_secret", "modalities"):
            wanted.pop(echoed, None)
        if wanted.pop("type", "transcription") != "transcription":
            raise _bad(
                "Only transcription sessions are served here. Set session.type to transcription.", "session.type"
            )
        self._include(wanted.pop("include", None))
        if self._flat:
            self._flat_fields(wanted)
        elif "audio" in wanted:
            audio = dict(_an_object(wanted.pop("audio"), "session.audio"))
            heard = dict(_an_object(audio.pop("input", {}), "session.audio.input"))
            self._unknown_in(audio, "session.audio")
            self._input(heard)
        self._unknown_in(wanted, "session")
        self._default_turns()
        if self._unknown:
            named = ", ".join(quoted(name) for name in self._unknown[:MAX_NAMED])
            more = f" and {len(self._unknown) - MAX_NAMED} more" if len(self._unknown) > MAX_NAMED else ""
            self.warnings.append(f"Not known in a transcription session, and ignored: {named}{more}.")

    def _flat_fields(self, wanted: Json) -> None:
        fields: Json = {}
        if "input_audio_format" in wanted:
            name = _text(wanted.pop("input_audio_format"), self._at("format")) or "pcm16"
            if name not in _FLAT_TYPES:
                known = ", ".join(_FLAT_TYPES)
                raise _bad(f"There is no input_audio_format {quoted(name)}. Formats: {known}.", self._at("format"))
            fields["format"] = {"type": _FLAT_TYPES[name]}
        for ours, theirs in (
            ("transcription", "input_audio_transcription"),
            ("noise_reduction", "input_audio_noise_reduction"),
            ("turn_detection", "turn_detection"),
        ):
            if theirs in wanted:
                fields[ours] = wanted.pop(theirs)
        self._input(fields)

    def _input(self, heard: Json) -> None:
        if "format" in heard:
            self._format(heard.pop("format"))
        if "transcription" in heard:
            self._transcription(heard.pop("transcription"))
        if "noise_reduction" in heard:
            self._noise_reduction(heard.pop("noise_reduction"))
        if "turn_detection" in heard:
            self._turn_detection(heard.pop("turn_detection"))
        self._unknown_in(heard, "session.audio.input")

    def _format(self, value: Any) -> None:
        wanted = dict(_an_object({} if value is None else value, self._at("format")))
        name = _text(wanted.pop("type", None), self._at("format.type")) or "audio/pcm"
        if name not in _TYPES:
            known = ", ".join(_TYPES)
            raise _bad(f"There is no audio format {quoted(name)}. Formats: {known}.", self._at("format.type"))
        rate = wanted.pop("rate", None)
        if name != "audio/pcm":
            if rate not in (None, G711_RATE_HZ):
                said = quoted(str(rate))
                raise _bad(f"{name} has {G711_RATE_HZ} samples in a second, not {said}.", self._at("format.rate"))
            rate = G711_RATE_HZ
        elif rate is None:
            rate = PCM_RATE_HZ
        if isinstance(rate, bool) or not isinstance(rate, int) or not G711_RATE_HZ <= rate <= 48_000:
            raise _bad("format.rate must be a whole number of Hz from 8000 to 48000.", self._at("format.rate"))
        self._unknown_in(wanted, self._at("format"))
        self.session = replace(self.session, type=name, rate_hz=rate)

    def _transcription(self, value: Any) -> None:
        if value is None:
            self.session = replace(self.session, transcription=())
            self.warnings.append("A transcription session always transcribes: transcription null means its defaults.")
            return
        where = self._at("transcription")
        wanted = dict(_an_object(value, where))
        said = dict(self.session.transcription)
        for name in ("model", "language", "prompt"):
            if name in wanted:
                said[name] = _text(wanted.pop(name), f"{where}.{name}")
        for name in ("keywords", "languages"):
            if name in wanted:
                said[name] = _texts(wanted.pop(name), f"{where}.{name}")
        if "language" in said and value.get("languages"):
            said.pop("language")
        elif "languages" in said and value.get("language"):
            said.pop("languages")
        if len(said.get("languages") or []) > 1:
            self.warnings.append(f"One language is recognized at a time: {said['languages'][0]}.")
        if wanted.pop("delay", None) is not None:
            self.warnings.append("transcription.delay is not used: deltas come as soon as they are stable.")
        self._unknown_in(wanted, where)
        self.session = replace(self.session, transcription=tuple(said.items()))

    def _noise_reduction(self, value: Any) -> None:
        if value is not None:
            _an_object(value, self._at("noise_reduction"))
            self.warnings.append("Noise reduction is not applied: the recognizer hears the audio as it was sent.")
        self.session = replace(self.session, noise_reduction=value)

    def _turn_detection(self, value: Any) -> None:
        where = self._at("turn_detection")
        if value is None:
            self.session = replace(self.session, turns=None, turns_said=True)
            return
        said = dict(_an_object(value, where))
        wanted = dict(said)
        kind = _text(wanted.pop("type", None), f"{where}.type") or "server_vad"
        if kind not in ("server_vad", "semantic_vad"):
            raise _bad(f"There is no turn detection {quoted(kind)}: server_vad, semantic_vad or null.", f"{where}.type")
        silence_ms = _whole(wanted.pop("silence_duration_ms", None), f"{where}.silence_duration_ms", 1, 60_000)
        padding_ms = _whole(wanted.pop("prefix_padding_ms", None), f"{where}.prefix_padding_ms", 0, 60_000)
        eagerness = wanted.pop("eagerness", None)
        if kind == "semantic_vad":
            eagerness = _text(eagerness, f"{where}.eagerness") or "auto"
            if eagerness not in EAGERNESS_SILENCE_MS:
                known = ", ".join(EAGERNESS_SILENCE_MS)
                raise _bad(f"There is no eagerness {quoted(eagerness)}: {known}.", f"{where}.eagerness")
            silence_ms = EAGERNESS_SILENCE_MS[eagerness]
            self.warnings.append(f"semantic_vad is served as a pause of {silence_ms} ms: no model judges the sentence.")
        if wanted.pop("threshold", None) is not None:
            self.warnings.append("turn_detection.threshold is not used: the recognizer decides what speech is.")
        if wanted.pop("idle_timeout_ms", None) is not None:
            self.warnings.append("turn_detection.idle_timeout_ms is not used: nobody is prompted here.")
        for name in ("create_response", "interrupt_response"):
            if wanted.pop(name, None):
                self.warnings.append(f"turn_detection.{name} has no effect: a transcription session has no responses.")
        self._unknown_in(wanted, where)
        turns = Turns(
            kind,
            silence_ms,
            PREFIX_PADDING_MS if padding_ms is None else padding_ms,
            tuple((name, said[name]) for name in said if name != "type" and name not in wanted),
        )
        self.session = replace(self.session, turns=turns, turns_said=True)

    def _default_turns(self) -> None:
        if not self.session.turns_said:
            model = dict(self.session.transcription).get("model") or ""
            turns = None if model.startswith(_WITHOUT_TURNS) else Turns()
            self.session = replace(self.session, turns=turns)

    def _include(self, value: Any) -> None:
        if value is None:
            return
        include = _texts(value, "session.include")
        if _LOGPROBS in include:
            self.warnings.append("Log probabilities are not given: the recognizer has none for each token.")
        self._unknown += [f"session.include {name}" for name in include if name != _LOGPROBS]
        self.session = replace(self.session, include=tuple(name for name in include if name == _LOGPROBS))

    def _unknown_in(self, left: Json, where: str) -> None:
        self._unknown += [f"{where}.{name}" for name in left]

    def _at(self, name: str) -> str:
        head, dot, rest = name.partition(".")
        if not self._flat:
            return f"session.audio.input.{name}"
        return f"session.{head if head == 'turn_detection' else f'input_audio_{head}'}{dot}{rest}"


def _bad(message: str, param: str) -> ASRError:
    return ASRError(Code.BAD_REQUEST, message, param=param)


def _an_object(value: Any, param: str) -> Json:
    if not isinstance(value, dict):
        raise _bad(f"{param} must be an object.", param)
    return value


def _text(value: Any, param: str) -> str:
    if value is not None and not isinstance(value, str):
        raise _bad(f"{param} must be a text.", param)
    return value or ""


def _texts(value: Any, param: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _bad(f"{param} must be a list of texts.", param)
    return value


def _whole(value: Any, param: str, least: int, most: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _bad(f"{param} must be a whole number from {least} to {most}.", param)
    return value
