"""The bodies of the transcription REST and its jobs. Pure.

Times of the audio are seconds; moments are UTC in ISO 8601 to the second, without a zone: the form that the dialect's
documents show and its clients parse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from asr.captions import to_srt, to_vtt
from asr.events import Final, Word
from asr.transcript import Transcript
from server.faces.rest_form import ResultFormat, read_format
from server.jobs.model import JobView, Status

Json = dict[str, Any]

_TYPES = {
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}


SHAPE_LABEL = "riva-gateway.shape"
"""A job keeps the shape of its result among its labels; labels that begin like this are not shown."""
_HIDDEN = "riva-gateway."


@dataclass(frozen=True, slots=True)
class Shape:
    """What an answer shows.

    Attributes:
        timestamps: whether there are segments; without, their list is empty.
        words: whether segments have their words.
        format: how it is written.
    """

    timestamps: bool = True
    words: bool = False
    format: ResultFormat = "json"

    def label(self) -> dict[str, str]:
        """As a label, where it is not the usual one.

        >>> Shape().label(), shape_of(Shape(False, format="srt").label())
        ({}, Shape(timestamps=False, words=False, format='srt'))
        """
        if self == Shape():
            return {}
        return {SHAPE_LABEL: f"{'segments' if self.timestamps else ''},{'words' if self.words else ''},{self.format}"}


def shape_of(labels: Mapping[str, str]) -> Shape:
    """The shape that a job's labels keep."""
    if SHAPE_LABEL not in labels:
        return Shape()
    segments, words, written = labels[SHAPE_LABEL].split(",")
    return Shape(bool(segments), bool(words), read_format(written))


@dataclass(frozen=True, slots=True)
class Body:
    """An answer: its bytes and their media type."""

    content: bytes
    media_type: str


def transcription(transcript: Transcript, shape: Shape, *, filename: str, now: datetime) -> Json:
    """The answer of `/transcribe`, and the result of a job. `now`: when it was done.

    `warnings` is ours, and there where audio was lost: such a text must not look complete.
    """
    answer: Json = {
        "text": transcript.text,
        "segments": list(_segments(transcript, words=shape.words)) if shape.timestamps else [],
        "filename": filename,
        "timestamp": moment(now),
    }
    lost = _lost(transcript)
    return answer | {"warnings": lost} if lost else answer


def body_of(transcript: Transcript, shape: Shape, *, filename: str, now: datetime) -> Body:
    """The same in the format that is asked for."""
    match shape.format:
        case "text":
            content = f"{transcript.text}\n".encode()
        case "srt":
            content = to_srt(transcript).encode()
        case "vtt":
            content = to_vtt(transcript).encode()
        case _:
            content = orjson.dumps(transcription(transcript, shape, filename=filename, now=now))
    return Body(content, _TYPES[shape.format])


def notes_of(transcript: Transcript) -> tuple[str, ...]:
    """What a client should know of an answer beside its text: warnings, and audio that no words stand for."""
    return (*transcript.warnings, *_lost(transcript))


def accepted(job: JobView) -> Json:
    """The answer of `/transcribe/async`. A job that was there already is told as it is now."""
    if job.status is Status.PENDING:
        message = f"Transcription job started for {job.filename or 'the recording'}"
    else:
        message = f"This job is there already; it is {job.status.value}."
    return {"job_id": job.id, "status": job.status.value, "message": message}


def status(job: JobView, *, with_result: bool = True) -> Json:
    """How a job is: the documented fields, then those of this gateway."""
    done = job.transcript if with_result else None
    shape = shape_of(job.labels)
    return {
        "job_id": job.id,
        "status": job.status.value,
        "filename": job.filename,
        "created_at": moment(job.created_at),
        "completed_at": moment(job.completed_at),
        "error": job.error or None,
        "result": None if done is None else transcription(done, shape, filename=job.filename, now=over_at(job)),
        "started_at": moment(job.started_at),
        "error_code": job.error_code or None,
        "progress_percent": job.progress_percent,
        "audio_seconds": _seconds(job.audio_ms),
        "audio_total_seconds": _seconds(job.audio_total_ms) if job.audio_total_ms else None,
        "labels": {name: value for name, value in job.labels.items() if not name.startswith(_HIDDEN)},
    }


def listed(jobs: list[JobView], limit: int) -> Json:
    """A page of jobs; `next` is the `before` of the page that follows, or null."""
    more = len(jobs) > limit
    page = jobs[:limit]
    return {"jobs": [status(job, with_result=False) for job in page], "next": page[-1].id if more and page else None}


def cancelled(job: JobView) -> Json:
    """The answer of a cancel."""
    return {"message": f"Job {job.id} cancelled", "status": job.status.value}


def over_at(job: JobView) -> datetime:
    """When it was over; while it is not, when it was created."""
    return job.completed_at if job.completed_at is not None else job.created_at


def moment(when: datetime | None) -> str | None:
    """A moment as the dialect writes it.

    >>> moment(datetime(2026, 2, 4, 19, 30, 0, 250_000, UTC)), moment(None)
    ('2026-02-04T19:30:00', None)
    """
    return None if when is None else when.astimezone(UTC).replace(tzinfo=None, microsecond=0).isoformat()


def _segments(transcript: Transcript, *, words: bool) -> Iterator[Json]:
    several = any(final.channel for final in transcript.finals)
    for final in transcript.finals:
        if not final.text:
            continue
        segment: Json = {"start": _seconds(final.start_ms), "end": _seconds(final.end_ms), "text": final.text}
        if several:
            segment["channel"] = final.channel
        if words:
            segment["words"] = _words(final)
        yield segment


def _words(final: Final) -> list[Json]:
    return [_word(word) for word in final.words]


def _word(word: Word) -> Json:
    plain: Json = {"word": word.text, "start": _seconds(word.start_ms), "end": _seconds(word.end_ms)}
    if word.confidence is not None:
        plain["confidence"] = round(word.confidence, 4)
    if word.speaker is not None:
        plain["speaker"] = word.speaker
    return plain


def _lost(transcript: Transcript) -> list[str]:
    return [
        f"The audio from {_seconds(gap.start_ms):g} s to {_seconds(gap.end_ms):g} s could not be recognized."
        for gap in transcript.gaps
    ]


def _seconds(ms: int) -> float:
    return round(ms / 1000, 3)
