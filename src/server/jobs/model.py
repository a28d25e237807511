"""What a job is: its states and the moves between them, what others may see of it, and its options as JSON.

Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from asr.errors import ASRError, Code
from asr.options import Diarization, Endpointing, Options, Phrase
from asr.transcript import Transcript

if TYPE_CHECKING:
    from asr.audio import Stereo

Json = dict[str, Any]

MAX_LABELS = 32
MAX_LABEL_CHARS = 256
MAX_KEY_CHARS = 256
MAX_URL_CHARS = 2_048
PAGE = 50
MAX_PAGE = 500
_DATABASES = ("postgresql", "postgres", "postgresql+psycopg")


class Status(StrEnum):
    """Where a job is. The values are spelled on the wire and never change."""

    PENDING = "pending"
    """It waits for its turn."""
    PROCESSING = "processing"
    """It is being recognized, or waits for a recognizer that is away."""
    COMPLETED = "completed"
    """Its transcript is there."""
    FAILED = "failed"
    """It cannot be done; its error says why."""
    CANCELLED = "cancelled"
    """Its caller did not want it any more."""


MOVES: Mapping[Status, frozenset[Status]] = MappingProxyType(
    {
        # A job is handed back (processing → pending) by a gateway that goes down in good order.
        Status.PENDING: frozenset({Status.PROCESSING, Status.CANCELLED}),
        Status.PROCESSING: frozenset({Status.PENDING, Status.COMPLETED, Status.FAILED, Status.CANCELLED}),
        Status.COMPLETED: frozenset(),
        Status.FAILED: frozenset(),
        Status.CANCELLED: frozenset(),
    }
)
"""What may follow on what; the store moves a job by no other way."""

OVER = frozenset(status for status, following in MOVES.items() if not following)
"""States that a job never leaves."""


def may_become(after: Status) -> frozenset[Status]:
    """The states from which a job may come to `after`. A job that runs may be taken over by another gateway.

    >>> sorted(may_become(Status.CANCELLED))
    [<Status.PENDING: 'pending'>, <Status.PROCESSING: 'processing'>]
    """
    return frozenset(status for status, following in MOVES.items() if after in following)


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as others see it.

    Attributes:
        id: given by the gateway.
        status: where it is.
        filename: as the caller named the recording, or "".
        created_at, started_at, completed_at: in UTC; `completed_at` is when it was over, in whatever way.
        error: for people, where it failed; else "".
        error_code: the kind of failure (`asr.errors.Code`), or "".
        progress_percent: 0 to 100; 100 only where it is completed.
        audio_ms: how much of the recording is recognized.
        audio_total_ms: how long the recording is; 0 while that is not known.
        transcript: only where it is completed, and only from `Jobs.get`.
        owner: who sent it (`server.principal`).
        labels: the caller's own words about it.
    """

    id: str
    status: Status
    filename: str
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    error: str = ""
    error_code: str = ""
    progress_percent: int = 0
    audio_ms: int = 0
    audio_total_ms: int = 0
    transcript: Transcript | None = None
    owner: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in OVER


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that is to be added. `idempotency` is the caller's key, or ""."""

    id: str
    owner: str
    spool: str
    file: str
    filename: str
    options: Options
    labels: Mapping[str, str]
    parts: int
    warnings: tuple[str, ...] = ()
    webhook_url: str = ""
    idempotency: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class WorkRules:
    """How jobs are done.

    Attributes:
        max_audio_ms: the longest recording.
        stereo: what becomes of several channels.
        webhook_secret: signs webhooks.
        webhook_attempts, webhook_timeout_ms: for each job, and for each attempt.
        webhook_private: whether webhooks may go to addresses that are not public.
        webhook_first_ms: the pause after the first attempt that fails; each further one is twice as long.
        retry_for_ms: so long a job waits for a recognizer that is away, before it fails.
    """

    max_audio_ms: int = 86_400_000
    stereo: Stereo = "mix"
    webhook_secret: str = field(default="", repr=False)
    webhook_attempts: int = 8
    webhook_timeout_ms: int = 10_000
    webhook_private: bool = False
    webhook_first_ms: int = 5_000
    retry_for_ms: int = 900_000


def percent(status: Status, audio_ms: int, audio_total_ms: int) -> int:
    """How far a job is; 100 is kept for those that are completed.

    >>> percent(Status.PROCESSING, 1000, 1000), percent(Status.COMPLETED, 0, 0), percent(Status.PENDING, 0, 0)
    (99, 100, 0)
    """
    if status is Status.COMPLETED:
        return 100
    if audio_total_ms <= 0:
        return 0
    return max(0, min(99, audio_ms * 100 // audio_total_ms))


def moment(unix_ms: int | None) -> datetime | None:
    """A time of the store as a `datetime` in UTC."""
    return None if unix_ms is None else datetime.fromtimestamp(unix_ms / 1000, UTC)


def options_to_json(options: Options) -> Json:
    """Options as a JSON object; `options_from_json` reads it."""
    found: Json = {one.name: getattr(options, one.name) for one in fields(options)}
    found["diarization"] = None if options.diarization is None else asdict(options.diarization)
    found["endpointing"] = None if options.endpointing is None else asdict(options.endpointing)
    found["phrases"] = [asdict(phrase) for phrase in options.phrases]
    found["upstream_options"] = dict(options.upstream_options)
    return found


def wishes_of(options: Options, webhook_url: str) -> str:
    """What a request asks for, as one text: a key that comes again must come with the same.

    It is compared with what earlier versions have stored. So a field that `Options` gains is left out here while it
    has its default, and always where it is the request's own, as its ids are.
    """
    found = options_to_json(replace(options, request_id=""))
    del found["traceparent"]
    return json.dumps([found, webhook_url], sort_keys=True)


def options_from_json(message: Mapping[str, Any]) -> Options:
    """The options that a JSON object spells; keys of a later version are ignored.

    Raises:
        ASRError: `internal` where they cannot be read.
    """
    known = {one.name for one in fields(Options)}
    given = {key: value for key, value in message.items() if key in known}
    try:
        if given.get("diarization") is not None:
            given["diarization"] = Diarization(**given["diarization"])
        if given.get("endpointing") is not None:
            given["endpointing"] = Endpointing(**given["endpointing"])
        given["phrases"] = tuple(Phrase(**phrase) for phrase in given.get("phrases", ()))
        given["upstream_options"] = MappingProxyType(dict(given.get("upstream_options", {})))
        return Options(**given)
    except (TypeError, ValueError, ASRError) as error:
        raise ASRError(
            Code.INTERNAL, "The job's options were stored by another version of the gateway. Send the job again."
        ) from error


def checked_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels within their bounds.

    Raises:
        ASRError: `bad_request`.
    """
    if len(labels) > MAX_LABELS:
        raise ASRError(
            Code.BAD_REQUEST, f"{len(labels)} labels are more than the {MAX_LABELS} allowed.", param="labels"
        )
    for name, value in labels.items():
        if not name or len(name) > MAX_LABEL_CHARS or len(value) > MAX_LABEL_CHARS:
            what = f"A label has a name and at most {MAX_LABEL_CHARS} characters in each of name and value."
            raise ASRError(Code.BAD_REQUEST, what, param="labels")
    return dict(labels)


def retry_delay_ms(attempt: int, *, first_ms: int, most_ms: int) -> int:
    """How long to wait after the failed `attempt` (from 1): twice as long each time, up to a bound.

    >>> [retry_delay_ms(n, first_ms=1000, most_ms=5000) for n in (1, 2, 3, 4)]
    [1000, 2000, 4000, 5000]
    """
    return min(most_ms, first_ms << min(attempt - 1, 30))


def no_such_job() -> ASRError:
    """What is said of a job that is not there, or is another's."""
    return ASRError(
        Code.NOT_FOUND, "There is no such job. Results are kept for a limited time after a job is over.", param="job_id"
    )


def check_database_url(text: str) -> None:
    """Whether a gateway can use it.

    Raises:
        ASRError: `bad_request`, without the text: it holds a password.
    """
    try:
        parts = urlsplit(text)
        good = parts.port != 0 and parts.scheme in _DATABASES and bool(parts.path.strip("/"))
    except ValueError:
        good = False
    if not good:
        what = "JOBS_DATABASE_URL is not a PostgreSQL URL with a database. Write postgresql://user:password@host/name."
        raise ASRError(Code.BAD_REQUEST, what, param="JOBS_DATABASE_URL")
