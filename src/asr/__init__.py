"""Speech in, words out: the client library of riva-gateway.

*Clients* (`RivaASRClient`, and `SyncRivaASRClient` for scripts) take audio or files and give *events* (`Partial`,
`Final` with `Word`s, `SpeechStarted`, `SpeechEnded`, `Gap`, `Status`) or a `Transcript`. Wishes are keywords, some of
them with a record of their own (`Phrase`, `Endpointing`, `Diarization`); `EndUtterance` among the audio ends an
utterance. `connect` opens a `Session` with a gateway that survives the loss of its connection. Every failure is an
`ASRError` with a `Code`.

Beneath them, for those who build on it: `asr.engine` is the boundary that every recognizer stands behind,
`asr.engines` the recognizers, `asr.wire` the JSON of events, `asr.captions` subtitles, `asr.settings`
the environment keys. Each name is imported when it is first used: `import asr` alone is light.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asr.client import RivaASRClient
    from asr.engine import EndUtterance, Model
    from asr.errors import ASRError, Code
    from asr.events import Final, Gap, Partial, SpeechEnded, SpeechStarted, State, Status, Word
    from asr.options import Diarization, Endpointing, Phrase
    from asr.session.opening import connect
    from asr.session.session import Session
    from asr.sync import SyncRivaASRClient
    from asr.transcript import Transcript

    __version__: str

__all__ = [
    "ASRError",
    "Code",
    "Diarization",
    "EndUtterance",
    "Endpointing",
    "Final",
    "Gap",
    "Model",
    "Partial",
    "Phrase",
    "RivaASRClient",
    "Session",
    "SpeechEnded",
    "SpeechStarted",
    "State",
    "Status",
    "SyncRivaASRClient",
    "Transcript",
    "Word",
    "__version__",
    "connect",
]

_HOMES = {
    "asr.client": ("RivaASRClient",),
    "asr.engine": ("EndUtterance", "Model"),
    "asr.errors": ("ASRError", "Code"),
    "asr.events": ("Final", "Gap", "Partial", "SpeechEnded", "SpeechStarted", "State", "Status", "Word"),
    "asr.options": ("Diarization", "Endpointing", "Phrase"),
    "asr.session.opening": ("connect",),
    "asr.session.session": ("Session",),
    "asr.sync": ("SyncRivaASRClient",),
    "asr.transcript": ("Transcript",),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = metadata.version("riva-gateway")
    else:
        home = next((module for module, names in _HOMES.items() if name in names), None)
        if home is None:
            raise AttributeError(f"module 'asr' has no attribute {name!r}")
        value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
