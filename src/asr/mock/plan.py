"""The plan of a scripted recognizer: everything that the `mock` engine and the stand-in server do.

A plan is data: no clock and no chance. The script is driven by the amount of audio received, so the same
bytes give the same results, whatever the pace and however they are cut up.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from asr.errors import ASRError, Code
from asr.mock.reading import read_record
from asr.mock.sections import (
    HOUR_MS,
    Delay,
    Fault,
    HttpSection,
    RealtimeSection,
    ServerSection,
    Shape,
    Utterance,
    check_range,
)

FRAME_MS = 20
"""The grain in which audio is judged loud or silent; a server chunk is a whole number of these."""

MAX_PLAN_BYTES = 1_000_000

_DEMO = tuple(
    Utterance(words=tuple(text.split()))
    for text in (
        "Good morning, you are listening to a scripted recognizer.",
        "It says the same words every time, so nothing here depends on luck.",
        "Stop talking for a moment, and this line becomes final.",
        "When you are ready, point the gateway at a real server.",
    )
)


@dataclass(frozen=True, slots=True)
class MockPlan:
    """What is said, when, in which shape, and what goes wrong.

    Attributes:
        utterances: what is said, in order.
        loop: begin again after the last utterance; otherwise there is only silence after it.
        hears: `speech` = words come only while the audio is loud, so silence gives nothing and real
            pauses end utterances; `clock` = words come with the audio clock, whatever the audio holds.
        chunk_ms: the server's own chunk: one response for each; a multiple of 20.
        silence_ms: the silence that ends an utterance, where a request does not say.
        loud_dbfs: how loud 20 ms of audio must be to count as speech, in dB of full scale.
        shape, delay, faults, server, http, realtime: see `asr.mock.sections`.
    """

    utterances: tuple[Utterance, ...] = _DEMO
    loop: bool = True
    hears: Literal["speech", "clock"] = "speech"
    chunk_ms: int = 160
    silence_ms: int = 480
    loud_dbfs: float = -45.0
    shape: Shape = field(default_factory=Shape)
    delay: Delay = field(default_factory=Delay)
    faults: tuple[Fault, ...] = ()
    server: ServerSection = field(default_factory=ServerSection)
    http: HttpSection = field(default_factory=HttpSection)
    realtime: RealtimeSection = field(default_factory=RealtimeSection)

    def __post_init__(self) -> None:
        check_range("chunk_ms", self.chunk_ms, FRAME_MS, 5000)
        if self.chunk_ms % FRAME_MS:
            raise ASRError(
                Code.BAD_REQUEST,
                f"chunk_ms is {self.chunk_ms}; it must be a multiple of {FRAME_MS}.",
                param="chunk_ms",
            )
        check_range("silence_ms", self.silence_ms, FRAME_MS, HOUR_MS)
        check_range("loud_dbfs", self.loud_dbfs, -96.0, 0.0)


DEFAULT_PLAN = MockPlan()


def load_plan(source: str | Path | Mapping[str, Any]) -> MockPlan:
    """The plan that a mapping, or a file in TOML (`.toml`) or JSON (any other name), describes.

    Raises:
        ASRError: `not_found` when there is no such file, `too_large` over 1 MB, `bad_request` for what is
            not JSON or TOML, and for an unknown key, a wrong type or a number out of range.
    """
    if isinstance(source, Mapping):
        return read_record(MockPlan, source)
    path = Path(source)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_PLAN_BYTES + 1)
    except OSError as error:
        raise ASRError(
            Code.NOT_FOUND, f"The mock plan {str(path)!r} cannot be read: {error.strerror or error}.", param="plan"
        ) from error
    if len(raw) > MAX_PLAN_BYTES:
        raise ASRError(Code.TOO_LARGE, f"The mock plan {str(path)!r} is over 1 MB; make it smaller.", param="plan")
    try:
        text = raw.decode("utf-8")
        content: Any = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except ValueError as error:
        kind = "TOML" if path.suffix.lower() == ".toml" else "JSON"
        raise ASRError(
            Code.BAD_REQUEST, f"The mock plan {str(path)!r} is not {kind}: {error}.", param="plan"
        ) from error
    return read_record(MockPlan, content)
