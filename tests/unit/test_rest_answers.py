"""The documented shapes of the transcription REST, to the letter."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import orjson

from asr.events import Final, Gap, GapCause, Word
from asr.transcript import Transcript
from server.faces import rest_answers as answers
from server.jobs.model import JobView, Status

NOW = datetime(2026, 2, 4, 19, 30, 0, 987_654, UTC)
SAID = Transcript(
    text="Full transcription text here.",
    finals=(
        Final(0, 1, "Full transcription", 0, 3_500, words=(Word("Full", 0, 1_234, confidence=0.98761, speaker="1"),)),
        Final(1, 1, "", 3_500, 4_000),
        Final(2, 1, "text here.", 4_000, 5_001),
    ),
    duration_ms=6_000,
    warnings=("2 channels were mixed down to one.",),
    gaps=(Gap(5_001, 6_000, GapCause.UPSTREAM_LOST),),
)
ID = "550e8400-e29b-41d4-a716-446655440000"
PLAIN = answers.Shape()
JOB = JobView(ID, Status.PENDING, "audio.mp3", NOW)


def test_the_transcription() -> None:
    whole = replace(SAID, gaps=())
    assert answers.transcription(whole, PLAIN, filename="audio.mp3", now=NOW) == {
        "text": "Full transcription text here.",
        "segments": [
            {"start": 0.0, "end": 3.5, "text": "Full transcription"},
            {"start": 4.0, "end": 5.001, "text": "text here."},
        ],
        "filename": "audio.mp3",
        "timestamp": "2026-02-04T19:30:00",
    }


def test_a_text_with_lost_audio_does_not_look_complete() -> None:
    lost = ["The audio from 5.001 s to 6 s could not be recognized."]
    assert answers.transcription(SAID, PLAIN, filename="", now=NOW)["warnings"] == lost
    done = replace(JOB, status=Status.COMPLETED, transcript=SAID)
    assert answers.status(done)["result"]["warnings"] == lost


def test_times_come_from_any_zone() -> None:
    there = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert answers.moment(there) == "2026-02-04T19:30:00"


def test_without_timestamps_there_are_no_segments() -> None:
    assert answers.transcription(SAID, answers.Shape(timestamps=False), filename="", now=NOW)["segments"] == []


def test_words_where_they_are_asked_for() -> None:
    first, second = answers.transcription(SAID, answers.Shape(words=True), filename="", now=NOW)["segments"]
    assert first["words"] == [{"word": "Full", "start": 0.0, "end": 1.234, "confidence": 0.9876, "speaker": "1"}]
    assert second["words"] == []


def test_channels_where_there_are_several() -> None:
    split = replace(SAID, finals=(SAID.finals[0], replace(SAID.finals[2], channel=1)))
    assert [s["channel"] for s in answers.transcription(split, PLAIN, filename="", now=NOW)["segments"]] == [0, 1]


def test_every_format() -> None:
    def written(result_format: answers.ResultFormat) -> answers.Body:
        return answers.body_of(SAID, answers.Shape(format=result_format), filename="a.wav", now=NOW)

    assert orjson.loads(written("json").content) == answers.transcription(SAID, PLAIN, filename="a.wav", now=NOW)
    assert written("text") == answers.Body(b"Full transcription text here.\n", "text/plain; charset=utf-8")
    assert written("srt").content.startswith(b"1\n00:00:00,000 --> ")
    assert written("vtt").content.startswith(b"WEBVTT")
    assert written("vtt").media_type == "text/vtt; charset=utf-8"


def test_what_is_missing_is_said() -> None:
    assert answers.notes_of(SAID) == (
        "2 channels were mixed down to one.",
        "The audio from 5.001 s to 6 s could not be recognized.",
    )


def test_an_accepted_job() -> None:
    assert answers.accepted(JOB) == {
        "job_id": ID,
        "status": "pending",
        "message": "Transcription job started for audio.mp3",
    }
    again = answers.accepted(replace(JOB, status=Status.COMPLETED))
    assert again["status"] == "completed"
    assert "already" in again["message"]


def test_the_status_has_the_documented_fields_first() -> None:
    body = answers.status(replace(JOB, status=Status.PROCESSING, progress_percent=42, audio_ms=1_500))
    assert list(body)[:7] == ["job_id", "status", "filename", "created_at", "completed_at", "error", "result"]
    assert body["completed_at"] is body["error"] is body["result"] is None
    assert (body["progress_percent"], body["audio_seconds"], body["audio_total_seconds"]) == (42, 1.5, None)


def test_a_completed_and_a_failed_job() -> None:
    done = replace(JOB, status=Status.COMPLETED, completed_at=NOW + timedelta(seconds=9), transcript=SAID)
    body = answers.status(done)
    assert body["completed_at"] == "2026-02-04T19:30:09"
    assert body["result"] == answers.transcription(SAID, PLAIN, filename="audio.mp3", now=NOW + timedelta(seconds=9))
    failed = answers.status(replace(JOB, status=Status.FAILED, error="Not audio.", error_code="bad_audio"))
    assert (failed["error"], failed["error_code"]) == ("Not audio.", "bad_audio")


def test_a_page_of_jobs() -> None:
    jobs = [replace(JOB, id=str(n), transcript=SAID) for n in range(3)]
    page = answers.listed(jobs, 2)
    assert [job["job_id"] for job in page["jobs"]] == ["0", "1"]
    assert page["next"] == "1"
    assert all(job["result"] is None for job in page["jobs"])
    assert answers.listed(jobs, 3)["next"] is None
    assert answers.listed([], 3) == {"jobs": [], "next": None}


def test_a_cancelled_job() -> None:
    assert answers.cancelled(replace(JOB, status=Status.CANCELLED)) == {
        "message": f"Job {ID} cancelled",
        "status": "cancelled",
    }


def test_a_job_keeps_the_shape_of_its_result_to_itself() -> None:
    shape = answers.Shape(timestamps=False, words=True, format="vtt")
    labels = {"customer": "42", **shape.label()}
    assert answers.shape_of(labels) == shape
    body = answers.status(replace(JOB, status=Status.COMPLETED, transcript=SAID, labels=labels))
    assert body["labels"] == {"customer": "42"}
    assert body["result"]["segments"] == []
    assert answers.shape_of({}) == PLAIN
