"""What a client may say in `asr.v1`: checked by pydantic, turned into the domain's words. And what it is told of its
connection, which has no number of its own."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from asr import wire
from asr.audio import AudioFormat, Encoding, Stereo
from asr.errors import ASRError, Code
from asr.options import Diarization, Endpointing, Options, Phrase
from server.refusals import refusal

M = TypeVar("M", bound=BaseModel)

MAX_NAMED = 20
"""So many unknown fields are named, and the rest counted."""
MAX_NAME = 100


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class _Audio(_Part):
    encoding: str = "pcm_s16le"
    sample_rate_hz: int | None = None
    channels: int = 1
    stereo: Stereo | None = None


class _Phrase(_Part):
    text: str
    boost: float = 0.5


class _Diarization(_Part):
    max_speakers: int | None = None


class _Endpointing(_Part):
    mode: Literal["auto", "manual"] = "auto"
    silence_ms: int | None = None
    eager_ms: int | None = None


class Start(_Part):
    """The first message. Every field has a default: `{"type": "start"}` is enough.

    `pace` tells live speech from a recording; a recording is read as fast as it can be recognized.
    `resume_window_ms`: how long the session waits for a lost client; None: as long as the server lets it.
    """

    type: Literal["start"]
    audio: _Audio = _Audio()
    language: str = ""
    model: str = ""
    interim: bool = True
    words: bool = True
    punctuate: bool | None = None
    verbatim: bool | None = None
    profanity_filter: bool = False
    diarization: _Diarization | None = None
    phrases: list[_Phrase] = Field(default_factory=list)
    endpointing: _Endpointing | None = None
    on_unsupported: Literal["warn", "fail"] = "warn"
    pace: Literal["live", "file"] = "live"
    resume_window_ms: int | None = Field(default=None, ge=0)
    metadata: dict[str, Any] = Field(default_factory=dict)
    upstream_options: dict[str, str] = Field(default_factory=dict)

    def format(self) -> AudioFormat:
        """The audio that will follow. Containers tell their own rate and channels.

        Raises:
            ASRError: `bad_request`, for an encoding or rate that does not exist.
        """
        try:
            encoding = Encoding(self.audio.encoding)
        except ValueError:
            names = ", ".join(e.value for e in Encoding)
            raise ASRError(
                Code.BAD_REQUEST,
                f"There is no audio encoding {self.audio.encoding!r}. Encodings: {names}.",
                param="audio.encoding",
            ) from None
        rate = self.audio.sample_rate_hz
        return AudioFormat(encoding, 16_000 if encoding.is_raw and rate is None else rate, self.audio.channels)

    def stereo(self, of_server: Stereo) -> Stereo:
        """What becomes of several channels, where the server's own choice is `of_server`.

        A server that refuses them does so for everybody. One that splits them does it where the client says that
        there are several, for a recognizer starts before the first header comes.
        """
        if of_server == "refuse":
            return "refuse"
        if self.audio.stereo is not None:
            return self.audio.stereo
        return "split" if of_server == "split" and self.audio.channels > 1 else "mix"

    def options(self) -> Options:
        """The wishes, for the engine."""
        end = self.endpointing
        return Options(
            language=self.language,
            model=self.model,
            partials=self.interim,
            words=self.words,
            punctuate=self.punctuate,
            verbatim=self.verbatim,
            profanity_filter=self.profanity_filter,
            diarization=None if self.diarization is None else Diarization(self.diarization.max_speakers),
            phrases=tuple(Phrase(p.text, p.boost) for p in self.phrases),
            endpointing=None if end is None else Endpointing(end.mode == "manual", end.silence_ms, end.eager_ms),
            upstream_options=self.upstream_options,
            fail_on_unsupported=self.on_unsupported == "fail",
        )

    def unknown(self) -> list[str]:
        """Fields that this version does not know; they are ignored, and said to be."""
        parts: list[tuple[str, _Part | None]] = [
            ("", self),
            ("audio.", self.audio),
            ("endpointing.", self.endpointing),
            ("diarization.", self.diarization),
        ]
        return [prefix + name for prefix, part in parts if part is not None for name in part.model_extra or {}]


class Resume(_Part):
    """The first message on a connection that means to go on with a session."""

    type: Literal["resume"]
    session_id: str
    resume_token: str = Field(repr=False)
    last_seq: int = Field(ge=0)
    sent_bytes: int = Field(default=0, ge=0)


class _Configure(_Part):
    type: Literal["configure"]
    id: str | None = None
    interim: bool | None = None


class _Seen(_Part):
    type: Literal["ack"]
    seq: int = Field(ge=0)


def read_start(message: dict[str, Any]) -> Start:
    """Check a `start` message.

    Raises:
        ASRError: `bad_request`, naming the field and what is wrong with it.
    """
    return _read(Start, message)


def read_resume(message: str) -> Resume | None:
    """A `resume` message, or None for any other text.

    Raises:
        ASRError: `bad_request`, as `read_start` does.
    """
    if '"resume"' not in message:
        return None
    try:
        content = orjson.loads(message)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(content, dict) or content.get("type") != "resume":
        return None
    return _read(Resume, content)


def read_configure(message: dict[str, Any]) -> tuple[bool | None, list[str]]:
    """What a `configure` message says of partials, and the names of the fields that cannot change.

    Raises:
        ASRError: `bad_request`, as `read_start` does.
    """
    wish = _read(_Configure, message)
    return wish.interim, [name[:MAX_NAME] for name in wish.model_extra or {}][:MAX_NAMED]


def read_seen(message: dict[str, Any]) -> int:
    """The number up to which an `ack` says that the client has seen everything.

    Raises:
        ASRError: `bad_request`, as `read_start` does.
    """
    return _read(_Seen, message).seq


def _read(model: type[M], message: dict[str, Any]) -> M:
    try:
        return model.model_validate(message)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ASRError(Code.BAD_REQUEST, f"{message['type']}: {field}: {first['msg']}.", param=field) from None


def unheard(error: ASRError, last_seq: int) -> tuple[str, int, str]:
    """What a client is told that asks for a session which it cannot have: a message, a close code and its reason."""
    text = numbered(wire.encode_error(error, fatal=True), max(last_seq, 1))
    return text, refusal(error.code).close_code, error.code.value


def numbered(message: dict[str, Any], seq: int) -> str:
    """A message about the connection: it repeats the last number of the session, and takes none of its own."""
    return orjson.dumps({**message, "seq": seq}).decode()


def parse(message: str) -> dict[str, Any]:
    """A text message as an object with a `type`.

    Raises:
        ASRError: `bad_request`.
    """
    try:
        content = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise ASRError(Code.BAD_REQUEST, f"A text message must be JSON: {error}. Send audio as binary.") from None
    if not isinstance(content, dict) or not isinstance(content.get("type"), str):
        raise ASRError(Code.BAD_REQUEST, 'A message must be a JSON object with a "type".', param="type")
    return content


def id_of(content: dict[str, Any]) -> str | None:
    """The client's own id, echoed in the answer."""
    ref = content.get("id")
    if ref is None or (isinstance(ref, str) and len(ref) <= 256):
        return ref
    raise ASRError(Code.BAD_REQUEST, "An id must be a string of at most 256 characters.", param="id")
