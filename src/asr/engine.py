"""The boundary: one verb that every recognizer answers to and every face asks.

Audio goes in as an async iterator of 16 kHz mono PCM16 little-endian bytes (chunks of any size,
also odd ones: an engine must not assume that a chunk ends on a sample); events come out as an async
iterator. Pulling gives backpressure: an engine reads audio only as fast as it can use it. Closing
the iterator (`aclose`) ends the stream at once; the end of the audio ends it cleanly, after the
last final. Failures are raised as `ASRError`.

Wrappers (retries, failover, recording) are engines around engines.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol
from typing import Final as Const

from asr.errors import ASRError, Code, quoted
from asr.events import Event
from asr.options import Endpointing, Options

SAMPLE_RATE_HZ: Const = 16_000
BYTES_PER_MS: Const = SAMPLE_RATE_HZ * 2 // 1000
MAX_NAMED: Const = 8
"""So many of a caller's own names are repeated in a message."""

_WINDOWS = ("start_ms", "start_threshold", "stop_threshold", "eager_threshold")


@dataclass(frozen=True, slots=True)
class EndUtterance:
    """In the audio: end the utterance here, and answer with `Flushed` when its results are out."""


AudioInput = bytes | EndUtterance
"""What an engine's audio iterator yields."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that an engine serves.

    Attributes:
        name: exactly as it must be asked for.
        languages: BCP-47 names it recognizes; `multi` where it finds out by itself.
        streaming: it can transcribe while audio arrives.
        offline: it can transcribe whole recordings.
        end_utterance: whether it honours `EndUtterance`; None: as the engine's features say.
        parameters: what the upstream says of it besides.
    """

    name: str
    languages: tuple[str, ...]
    streaming: bool = True
    offline: bool = True
    end_utterance: bool | None = None
    parameters: MappingProxyType[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Features:
    """What an engine can do. A wrapper computes its own from those it wraps."""

    partials: bool = True
    words: bool = True
    punctuation: bool = False
    verbatim: bool = False
    profanity_filter: bool = False
    diarization: bool = False
    phrases: bool = False
    alternatives: bool = False
    endpointing: bool = False
    """`Endpointing.manual` and `silence_ms`."""
    eager_end: bool = False
    """`Endpointing.eager_ms`."""
    endpointing_windows: bool = False
    """The other fields of `Endpointing`: the window of a beginning, and the thresholds."""
    upstream_options: bool = False
    """There is a Riva behind it that `Options.upstream_options` are meant for."""
    end_utterance: bool = True
    """`EndUtterance` is honoured in mid-stream; without it the stream must end and begin anew."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether streams can be served now, and in one sentence why not; `engine`: who recognizes behind a gateway."""

    ready: bool
    detail: str = ""
    engine: str = ""


class Engine(Protocol):
    """A recognizer, or a wrapper around one."""

    @property
    def name(self) -> str:
        """`local`, `riva`, `mock` …"""
        ...

    @property
    def features(self) -> Features:
        """What it can do."""
        ...

    async def models(self) -> Sequence[Model]:
        """The models it serves now. Raises `ASRError` (unavailable, timeout) when it cannot tell."""
        ...

    async def ready(self) -> Readiness:
        """Whether streams can be served. Never raises; answers within a few seconds."""
        ...

    def refusal(self) -> ASRError | None:
        """Why a further stream would be refused right now, or None. Asks nobody: it is for the door, and quick."""
        ...

    def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        """Recognize `audio`. `options` have been through `agree`."""
        ...

    async def aclose(self) -> None:
        """Let go of connections, processes and memory. Streams still open fail with `unavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a request and an engine came to: the effective options, what the model can do, what was left out."""

    options: Options
    model: Model
    features: Features
    warnings: tuple[str, ...] = ()


def agree(options: Options, models: Sequence[Model], features: Features) -> Agreement:
    """Match what is asked with what the engine has.

    Returns options whose `model` and `language` are filled in, with unsupported wishes taken out and a
    warning for each.

    Raises:
        ASRError: `not_found` for an unknown model or language (the message names those there are),
            `unsupported` for a wish the engine cannot grant when `fail_on_unsupported` is set,
            `unavailable` when the engine serves no model at all.
    """
    model = _pick_model(options, models)
    language = match_language(options.language, model.languages)
    assert language is not None, "the model was picked for its language"
    if not model.streaming:
        features = replace(features, partials=False)
    if model.end_utterance is not None:
        features = replace(features, end_utterance=model.end_utterance)
    agreed, warnings = _drop_unsupported(options, features)
    return Agreement(replace(agreed, model=model.name, language=language), model, features, warnings)


def endpoints_of(engine: Engine) -> list[dict[str, Any]]:
    """How each recognizer behind an engine does, for people; empty where there is none to be told apart."""
    told = getattr(engine, "endpoints", None)
    return list(told()) if callable(told) else []


def counts_of(engine: Engine) -> dict[str, int]:
    """What an engine has been through since the start (`asr.resilience.resilient.Figures`); empty where none counts."""
    told = getattr(engine, "counts", None)
    return dict(told()) if callable(told) else {}


def match_language(wanted: str, available: Sequence[str]) -> str | None:
    """The name that `wanted` goes by in a model that knows `available`, or None.

    "" takes the first; case does not matter; a bare `en` takes the first `en-…`; a model that knows `multi` takes any
    language. It is told a whole name such as `en-US`, and left to find a bare `en` out: Riva's servers refuse that.
    """
    if not wanted:
        return available[0] if available else ""
    folded = wanted.replace("_", "-").lower()
    for name in available:
        if name.lower() == folded:
            return name
    if "-" not in folded:
        for name in available:
            if name.lower().split("-")[0] == folded:
                return name
    for name in available:
        if name.lower() in ("multi", "auto"):
            return wanted if "-" in folded else name
    return None


def _pick_model(options: Options, models: Sequence[Model]) -> Model:
    if not models:
        raise ASRError(
            Code.UNAVAILABLE,
            "The recognizer serves no model at the moment. Try again when it has finished loading.",
            retry_after_ms=1_000,
        )
    if options.model:
        named = [m for m in models if m.name == options.model]
        if not named:
            names = ", ".join(sorted({m.name for m in models}))
            raise ASRError(
                Code.NOT_FOUND,
                f"There is no model {quoted(options.model)}. Models served here: {names}.",
                param="model",
            )
        models = named
    for model in models:
        if match_language(options.language, model.languages) is not None:
            return model
    languages = ", ".join(sorted({name for m in models for name in m.languages}))
    raise ASRError(
        Code.NOT_FOUND,
        f"The recognizer does not know the language {quoted(options.language)}. Languages it has: {languages}.",
        param="language",
    )


def _drop_unsupported(options: Options, features: Features) -> tuple[Options, tuple[str, ...]]:
    unsupported: list[tuple[str, str]] = []
    if options.punctuate and not features.punctuation:
        unsupported.append(("punctuate", "punctuation"))
        options = replace(options, punctuate=None)
    if options.verbatim is False and not features.verbatim:
        unsupported.append(("verbatim", "written form (inverse text normalization)"))
        options = replace(options, verbatim=None)
    if options.profanity_filter and not features.profanity_filter:
        unsupported.append(("profanity_filter", "the profanity filter"))
        options = replace(options, profanity_filter=False)
    if options.diarization is not None and not features.diarization:
        unsupported.append(("diarization", "diarization"))
        options = replace(options, diarization=None)
    if options.phrases and not features.phrases:
        unsupported.append(("phrases", "boosted phrases"))
        options = replace(options, phrases=())
    if options.max_alternatives > 1 and not features.alternatives:
        unsupported.append(("max_alternatives", "several alternatives"))
        options = replace(options, max_alternatives=1)
    if options.endpointing is not None:
        endpointing, said = _drop_endpointing(options.endpointing, features)
        unsupported += said
        options = replace(options, endpointing=endpointing)
    if options.upstream_options and not features.upstream_options:
        names = ", ".join(quoted(name) for name in sorted(options.upstream_options)[:MAX_NAMED])
        unsupported.append(("upstream_options", f"options of Riva's own ({names})"))
        options = replace(options, upstream_options={})
    if unsupported and options.fail_on_unsupported:
        raise ASRError(
            Code.UNSUPPORTED,
            "This recognizer does not support " + ", ".join(text for _, text in unsupported) + ".",
            param=unsupported[0][0],
        )
    # Wanted by everyone who does not say otherwise: their lack is told, and refuses nobody.
    if options.partials and not features.partials:
        unsupported.append(("partials", "partial results"))
        options = replace(options, partials=False)
    if options.words and not features.words:
        unsupported.append(("words", "words with times"))
        options = replace(options, words=False)
    return options, tuple(f"This recognizer does not support {text}; it was left out." for _, text in unsupported)


def _drop_endpointing(wanted: Endpointing, features: Features) -> tuple[Endpointing | None, list[tuple[str, str]]]:
    if not features.endpointing:
        return None, [("endpointing", "endpointing settings")]
    unsupported: list[tuple[str, str]] = []
    if wanted.eager_ms is not None and not features.eager_end:
        unsupported.append(("endpointing.eager_ms", "an early guess of an utterance's end (eager_ms)"))
        wanted = replace(wanted, eager_ms=None, eager_threshold=None)
    if not features.endpointing_windows:
        for name in _WINDOWS:
            if getattr(wanted, name) is not None:
                unsupported.append((f"endpointing.{name}", f"the endpointing setting {name}"))
                wanted = replace(wanted, **{name: None})  # type: ignore[arg-type]  # each of them may be None
    return (wanted if wanted != Endpointing() else None), unsupported
