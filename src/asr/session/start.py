"""The `start` message that asks a gateway for what `Options` wish."""

from __future__ import annotations

from typing import Any, Literal

from asr.engine import SAMPLE_RATE_HZ
from asr.options import Options

Pace = Literal["live", "file"]


def start_message(options: Options, pace: Pace, resume_window_ms: int | None = None) -> dict[str, Any]:
    """The message.

    Args:
        options: the wishes; readings beyond the best one cannot be asked for.
        pace: `live` for speech as it is spoken, `file` for a recording.
        resume_window_ms: how long the gateway is to keep the session for a client that is gone, 0 for not at all;
            None leaves it to the gateway.
    """
    message: dict[str, Any] = {
        "type": "start",
        "audio": {"encoding": "pcm_s16le", "sample_rate_hz": SAMPLE_RATE_HZ, "channels": 1},
        "language": options.language,
        "model": options.model,
        "interim": options.partials,
        "words": options.words,
        "punctuate": options.punctuate,
        "verbatim": options.verbatim,
        "profanity_filter": options.profanity_filter,
        "on_unsupported": "fail" if options.fail_on_unsupported else "warn",
        "pace": pace,
    }
    if resume_window_ms is not None:
        message["resume_window_ms"] = resume_window_ms
    if options.diarization is not None:
        message["diarization"] = {"max_speakers": options.diarization.max_speakers}
    if options.phrases:
        message["phrases"] = [{"text": phrase.text, "boost": phrase.boost} for phrase in options.phrases]
    if options.endpointing is not None:
        message["endpointing"] = {
            "mode": "manual" if options.endpointing.manual else "auto",
            "silence_ms": options.endpointing.silence_ms,
            "eager_ms": options.endpointing.eager_ms,
        }
    if options.upstream_options:
        message["upstream_options"] = dict(options.upstream_options)
    if options.request_id:
        message["metadata"] = {"request_id": options.request_id}
    return message
