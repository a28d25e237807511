"""The sections of a mock plan: what is said, in which shapes, how late, what breaks, and what is served.

Every field is a key of the plan file under the same name; the ranges are checked here, so that a
plan built in Python and one read from a file obey the same rules. Times are milliseconds; `_ms` of
the script counts *audio received*, `_ms` of `Delay` and the idle limits count real time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

from asr.errors import ASRError, Code

FaultKind = Literal[
    "unavailable",
    "internal",
    "exhausted",
    "deadline",
    "unauthenticated",
    "start_flag",
    "model",
    "end",
    "hang",
    "half_open",
    "stop_reading",
]

HOUR_MS = 3_600_000
START_FLAG_TEXT = (
    "Error: in ensemble 'mock', inference request for sequence 1 to model 'mock' must specify the START flag on "
    "the first request of the sequence"
)


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise `bad_request` naming the key when `value` is outside `low`..`high`."""
    if not low <= value <= high:
        raise ASRError(Code.BAD_REQUEST, f"{name} is {value:g}; it must be {low:g} to {high:g}.", param=name)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One thing that the script says. In a file, a bare string stands for its words.

    Attributes:
        words: the words in order; in a file also one string. Empty: a noise of one `word_ms`,
            which gives a final with an empty transcript.
        word_ms: how long each word lasts.
        pause_ms: the silence after the last word, before the next utterance begins. Where it is
            shorter than the silence that ends an utterance, both become one.
        speaker: who says it, counted from 0; sent where diarization is asked for.
        language: BCP-47; sent with the final and each of its words.
        alternatives: further readings, best first; sent as far as a request asks for them.
        final: `text`; `empty` = the final's transcript is empty although partials had words;
            `no_alternatives` = the final holds no alternative at all.
    """

    words: tuple[str, ...] = ()
    word_ms: int = 280
    pause_ms: int = 900
    speaker: int = 0
    language: str = "en-US"
    alternatives: tuple[str, ...] = ()
    final: Literal["text", "empty", "no_alternatives"] = "text"

    def __post_init__(self) -> None:
        check_range("word_ms", self.word_ms, 1, HOUR_MS)
        check_range("pause_ms", self.pause_ms, 0, HOUR_MS)
        check_range("speaker", self.speaker, 0, 100)


@dataclass(frozen=True, slots=True)
class Shape:
    """In which of Riva's many shapes the results come.

    Attributes:
        partials: `whole` = one result; `split` = a stable head and an unstable tail as two results
            of one response; `rewrite` = the newest word is first misheard, then corrected;
            `shrink` = a long hypothesis loses its head; `none` = finals only.
        repeat_partials: send the partial with every server chunk, also where it has not changed.
        partial_words: words with times on partials too, where words are asked for.
        stability: of ordinary partials, 0 to 1.
        eager_eou_ms: after this silence a non-final result with stability 1.0 precedes the final
            (two-pass end of utterance); 0 = only where a request asks for it.
        final_space: where a final's transcript carries its blank.
        hold_final: keep each final back until the next utterance has a partial, so that one response
            holds both (or until the end).
        never_final: only growing interims, and no final at the end either.
        pipeline_states: results of their own with voice activity only: never, when
            `get_vad_probabilities` asks for them, or always.
        confidence: of finals, on Riva's scale (about a log probability); 0 = not set.
        word_confidence: of words, likewise.
        speaker_base: the `speaker_tag` of speaker 0: 0 or 1.
        channel_tag: of every result.
    """

    partials: Literal["whole", "split", "rewrite", "shrink", "none"] = "whole"
    repeat_partials: bool = False
    partial_words: bool = False
    stability: float = 0.1
    eager_eou_ms: int = 0
    final_space: Literal["trailing", "leading", "none"] = "trailing"
    hold_final: bool = False
    never_final: bool = False
    pipeline_states: Literal["never", "asked", "always"] = "asked"
    confidence: float = -0.35
    word_confidence: float = -0.2
    speaker_base: int = 1
    channel_tag: int = 1

    def __post_init__(self) -> None:
        check_range("stability", self.stability, 0.0, 0.99)
        check_range("eager_eou_ms", self.eager_eou_ms, 0, HOUR_MS)
        check_range("confidence", self.confidence, -1000.0, 1000.0)
        check_range("word_confidence", self.word_confidence, -1000.0, 1000.0)
        check_range("speaker_base", self.speaker_base, 0, 1)
        check_range("channel_tag", self.channel_tag, 0, 8)


@dataclass(frozen=True, slots=True)
class Delay:
    """Real time: the only part of a plan that waits.

    Attributes:
        first_response_ms: before the first response of a stream.
        response_ms: before every response that holds a result.
        hang_ms: the bound of `hang`, `half_open` and `stop_reading`: after it a stream that still
            hangs fails (over gRPC DEADLINE_EXCEEDED, in process `timeout`).
    """

    first_response_ms: int = 0
    response_ms: int = 0
    hang_ms: int = 60_000

    def __post_init__(self) -> None:
        for name in ("first_response_ms", "response_ms", "hang_ms"):
            check_range(name, getattr(self, name), 0, HOUR_MS)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that breaks, at a point of the audio, in some streams or in all.

    Attributes:
        kind: `unavailable`, `internal`, `exhausted`, `deadline`, `unauthenticated`, `start_flag` and
            `model` end the stream with that status; `end` ends it with OK but without its last
            finals; `hang` reads on and never answers again; `half_open` never answers at all;
            `stop_reading` neither reads nor answers.
        at_ms: when this much audio has been heard.
        at_chunk: when this many server chunks have been answered; the earlier of both holds where
            both are given. With neither, the fault comes at the start of the stream.
        streams: which streams, counted from 1 over the life of the server or engine; none = all.
        message: the status text, instead of the usual one.
    """

    kind: FaultKind
    at_ms: int = 0
    at_chunk: int = 0
    streams: tuple[int, ...] = ()
    message: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise ASRError(
                Code.BAD_REQUEST, f"kind is {self.kind!r}; it must be one of {get_args(FaultKind)}.", param="kind"
            )
        check_range("at_ms", self.at_ms, 0, 24 * HOUR_MS)
        check_range("at_chunk", self.at_chunk, 0, 1e9)
        if self.kind == "half_open" and (self.at_ms or self.at_chunk):
            raise ASRError(
                Code.BAD_REQUEST, "half_open begins with the stream; use hang for a later point.", param="kind"
            )
        for number in self.streams:
            check_range("streams", number, 1, 1e9)


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model that the stand-in lists and serves.

    Attributes:
        name: as a request must name it.
        type: `online` = streaming, `offline` = whole recordings.
        language_code: one name, a comma list, or `multi`.
        sample_rate_hz: listed as `sample_rate`.
    """

    name: str = "mock-en-US-asr-streaming"
    type: Literal["online", "offline"] = "online"
    language_code: str = "en-US"
    sample_rate_hz: int = 16_000


@dataclass(frozen=True, slots=True)
class ServerSection:
    """How the stand-in's gRPC server behaves beside the script.

    Attributes:
        models: what `GetRivaSpeechRecognitionConfig` lists; may be empty. A request whose language,
            model or kind (online, offline) has no row is refused as Riva refuses it.
        required_metadata: keys that every call must carry, with the value wanted ("" = any);
            otherwise UNAUTHENTICATED.
        idle_limit_ms: after this much real time without audio the next chunk fails with the
            START-flag text; 0 = never.
        max_message_bytes: a larger message fails with RESOURCE_EXHAUSTED.
        force_eou: whether field 3, `runtime_config`, is understood; otherwise it is ignored in silence.
        send_empty: send the responses without results too, as Riva does.
        serving: what the health service says at first.
        cut_language: the "unavailable model" text names `en` where `en-US` was asked for.
    """

    models: tuple[ModelRow, ...] = (ModelRow(), ModelRow(name="mock-en-US-asr-offline", type="offline"))
    required_metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    idle_limit_ms: int = 60_000
    max_message_bytes: int = 4 * 1024 * 1024
    force_eou: bool = True
    send_empty: bool = True
    serving: bool = True
    cut_language: bool = True

    def __post_init__(self) -> None:
        check_range("idle_limit_ms", self.idle_limit_ms, 0, HOUR_MS)
        check_range("max_message_bytes", self.max_message_bytes, 1024, 1 << 30)


@dataclass(frozen=True, slots=True)
class HttpSection:
    """How the stand-in's HTTP API behaves.

    Attributes:
        not_ready_answers: how many `/v1/health/ready` answers are 503 before the first 200.
        ready_body: which of the three bodies a ready server gives: `object` =
            `{"object","message","status"}`, `status` = `{"status":"ready"}`, `ready` = `{"ready":true}`.
        bad_model: answer `400 bad model` to every request that names a model.
        error_shape: `detail` = `{"detail": text}`; `openai` = `{"error": {message, type, code}}`.
        models_route: whether `/v1/models` exists.
        max_file_bytes: a longer body is `audio too long`.
        usage: add `usage` (seconds) to answers.
    """

    not_ready_answers: int = 0
    ready_body: Literal["object", "status", "ready"] = "object"
    bad_model: bool = False
    error_shape: Literal["detail", "openai"] = "detail"
    models_route: bool = True
    max_file_bytes: int = 25_000_000
    usage: bool = True

    def __post_init__(self) -> None:
        check_range("not_ready_answers", self.not_ready_answers, 0, 1e6)
        check_range("max_file_bytes", self.max_file_bytes, 1, 1 << 30)


@dataclass(frozen=True, slots=True)
class RealtimeSection:
    """How the stand-in's realtime WebSocket behaves.

    Attributes:
        deltas: each `delta` holds the whole hypothesis (`cumulative`) or only what is new (`incremental`).
        duplicate_completed: send every `completed` twice, but for the last.
        last_completed: the last `completed` holds the `full` text of the session or only its `tail`.
        failed_utterance: this utterance, counted from 1, ends in `failed`; 0 = none.
        error_utterance: before this utterance's `completed` an `error` event is sent; 0 = none.
        idle_close_ms: the socket is closed after this much real time without a message.
        mint_api_key: the POST wants this key, hands out a secret, and the socket wants the secret;
            "" = open.
    """

    deltas: Literal["cumulative", "incremental"] = "cumulative"
    duplicate_completed: bool = False
    last_completed: Literal["full", "tail"] = "full"
    failed_utterance: int = 0
    error_utterance: int = 0
    idle_close_ms: int = 90_000
    mint_api_key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        check_range("failed_utterance", self.failed_utterance, 0, 1e9)
        check_range("error_utterance", self.error_utterance, 0, 1e9)
        check_range("idle_close_ms", self.idle_close_ms, 10, HOUR_MS)
