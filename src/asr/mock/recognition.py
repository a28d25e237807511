"""What Riva checks before it recognizes, and the unary call: pure, with the names of gRPC's status codes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from asr.mock.messages import pick_model, recognize_response, request_of, unavailable_model
from asr.mock.plan import MockPlan
from asr.mock.responses import RawResult, Request
from asr.mock.script import ScriptedRecognizer
from asr.mock.sections import START_FLAG_TEXT, Fault
from asr.mock.sniff import DEFAULT_RATE_HZ, BadAudioError, Encoding, Sniffer

ENCODINGS: dict[int, Encoding] = {0: "", 1: "pcm", 2: "flac", 3: "mulaw", 4: "opus", 20: "alaw"}
"""Riva's AudioEncoding numbers."""

_STATUS: dict[str, tuple[str, str]] = {
    "unavailable": ("UNAVAILABLE", "Socket closed"),
    "internal": ("INTERNAL", "Received RST_STREAM with error code 2"),
    "exhausted": ("RESOURCE_EXHAUSTED", "Bandwidth exhausted or memory limit exceeded"),
    "deadline": ("DEADLINE_EXCEEDED", "Deadline Exceeded"),
    "unauthenticated": ("UNAUTHENTICATED", "The credentials have expired."),
    "start_flag": ("INVALID_ARGUMENT", START_FLAG_TEXT),
    "model": (
        "INVALID_ARGUMENT",
        unavailable_model(language="en", rate_hz=DEFAULT_RATE_HZ, kind="online", cut=True),
    ),
    # The streams that hang end so when their bound is over.
    "hang": ("DEADLINE_EXCEEDED", "The stand-in hung as its plan says."),
    "half_open": ("DEADLINE_EXCEEDED", "The stand-in never answered, as its plan says."),
    "stop_reading": ("DEADLINE_EXCEEDED", "The stand-in stopped reading, as its plan says."),
}

HANGS = ("hang", "half_open", "stop_reading")


class Refusal(Exception):
    """A call ends with this status, given by its name (`UNAVAILABLE`)."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def invalid(message: str) -> Refusal:
    """INVALID_ARGUMENT with this text."""
    return Refusal("INVALID_ARGUMENT", message)


def fault_status(fault: Fault) -> Refusal | None:
    """The status in which a fault ends; None where that is OK."""
    if fault.kind == "end":
        return None
    status, message = _STATUS[fault.kind]
    return Refusal(status, fault.message or message)


def check_config(plan: MockPlan, config: Any, kind: str) -> Sniffer:
    """Refuse what no model serves; otherwise a reader for the audio that `config` announces.

    Raises:
        Refusal: as Riva refuses.
    """
    model = pick_model(plan.server.models, name=config.model, language=config.language_code, kind=kind)
    if model is None:
        raise invalid(
            unavailable_model(
                language=config.language_code,
                rate_hz=config.sample_rate_hertz or DEFAULT_RATE_HZ,
                kind=kind,
                cut=plan.server.cut_language,
            )
        )
    try:
        return Sniffer(
            ENCODINGS.get(config.encoding, ""),
            max(0, config.sample_rate_hertz),
            config.audio_channel_count,
        )
    except BadAudioError as error:
        raise invalid(str(error)) from error


def hear_all(plan: MockPlan, sniffer: Sniffer, audio: bytes, request: Request) -> list[RawResult]:
    """The results of a whole recording, partials left out.

    Raises:
        Refusal: for audio that Riva does not take, and where a fault of the plan falls.
    """
    try:
        pcm = sniffer.feed(audio) + sniffer.finish()
    except BadAudioError as error:
        raise invalid(str(error)) from error
    if not pcm:
        raise invalid("Error: no audio in the request")
    script = ScriptedRecognizer(plan, _at_rate(request, sniffer.rate_hz))
    results = [r for response in script.feed(pcm) + script.finish() for r in response.results if r.is_final]
    refusal = fault_status(script.fault) if script.fault is not None else None
    if refusal is not None:
        raise refusal
    return results


def recognize(plan: MockPlan, request: Any) -> Any:
    """The `RecognizeResponse` to a `RecognizeRequest`. Raises `Refusal`."""
    sniffer = check_config(plan, request.config, "offline")
    asked = request_of(request.config, rate_hz=DEFAULT_RATE_HZ)
    return recognize_response(hear_all(plan, sniffer, request.audio, asked), request.id.value)


def _at_rate(request: Request, rate_hz: int) -> Request:
    return replace(request, rate_hz=rate_hz or DEFAULT_RATE_HZ, interim_results=False)
