"""What a gateway says of its streams in three places, and what its clients lived through: all of it has to agree.

Counted are streams that were let in, how each of them ended, who was refused and how, connections that came back, and
the words of the streams that ended well.
"""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from asr.errors import Code
from chaos.clients import now
from server.refusals import refusal

PREFIX = "riva_gateway_"
TIMEOUT_S = 15.0


@dataclass(slots=True)
class Books:
    """Counts; what a place does not tell of stays empty.

    Attributes:
        admitted: streams by face.
        closed: by face and outcome.
        refused: by door and HTTP status.
        resumes: connections that came back.
        words: in the finals of streams that ended well, by face.
    """

    admitted: Counter[str] = field(default_factory=Counter)
    closed: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[tuple[str, int]] = field(default_factory=Counter)
    resumes: int = 0
    words: Counter[str] = field(default_factory=Counter)

    def unlike(self, other: Books, what: str, *parts: str) -> list[str]:
        """Where `other` says something else in one of these parts, in words."""
        found = []
        for part in parts:
            mine, theirs = getattr(self, part), getattr(other, part)
            if isinstance(mine, Counter):
                keys = sorted((key for key in mine.keys() | theirs.keys() if mine[key] != theirs[key]), key=str)
                found += [f"{what}: {part} {key}: clients {mine[key]}, told {theirs[key]}" for key in keys]
            elif mine != theirs:
                found.append(f"{what}: {part}: clients {mine}, told {theirs}")
        return found


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def fetch(port: int, path: str, **headers: str) -> str:
    """The body of a page, whatever its status."""
    return (await ask(port, path, **headers))[1]


async def ask(port: int, path: str, **headers: str) -> tuple[int, str]:
    """Status and body of a page; 0 where nobody answers."""

    def get() -> tuple[int, str]:
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()
        except OSError:
            return 0, ""

    return await asyncio.to_thread(get)


async def scrape(port: int, **headers: str) -> Samples:
    """`/metrics`, by name without the prefix, and labels."""
    found = text_string_to_metric_families(await fetch(port, "/metrics", **headers))
    samples = (sample for family in found for sample in family.samples)
    return {(one.name.removeprefix(PREFIX), frozenset(one.labels.items())): one.value for one in samples}


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of all series of that name which have these labels."""
    wanted = labels.items()
    return sum(value for (found, has), value in samples.items() if found == name and wanted <= set(has))


async def status(port: int) -> dict[str, Any]:
    """`/status.json`."""
    found: dict[str, Any] = json.loads(await fetch(port, "/status.json"))
    return found


async def until(what: str, true: Callable[[], Awaitable[bool]], within_s: float = TIMEOUT_S) -> float:
    """Look until it is so; the seconds that it took. Raises `TimeoutError`."""
    begun = now()
    while not await true():
        if now() > begun + within_s:
            raise TimeoutError(f"{what}: not within {within_s:g} s")
        await asyncio.sleep(0.05)
    return now() - begun


async def until_over(port: int, *, within_s: float = TIMEOUT_S) -> Samples:
    """`/metrics` when no stream is open any more, or after so long."""
    due = now() + within_s
    while total(samples := await scrape(port), "streams_active") and now() < due:
        await asyncio.sleep(0.2)
    return samples


def of_metrics(samples: Samples) -> Books:
    """What `/metrics` says."""
    books = Books(resumes=int(total(samples, "session_resumes_total")))
    for (name, labels), value in samples.items():
        has = dict(labels)
        count = int(value) if name.endswith("_total") else 0
        if not count:
            continue
        if name == "streams_admitted_total":
            books.admitted[has["face"]] += count
        elif name == "streams_closed_total":
            books.closed[has["face"], has["outcome"]] += count
        elif name == "streams_refused_total":
            books.refused[has["face"], _status(has["code"])] += count
        elif name == "words_total":
            books.words[has["face"]] += count
    return books


def of_records(folder: Path) -> Books:
    """What the files of records say."""
    books = Books()
    for row in rows(folder):
        if row["status"] == "refused":
            books.refused[row["face"], _status(row["code"])] += row["count"]
            continue
        _add_stream(books, row, row["status"])
    return books


def rows(folder: Path) -> list[dict[str, Any]]:
    """All records of a folder. A line that a full disk cut off is passed over, as `riva-gateway report` does."""
    return [row for row in map(_row, _lines(folder)) if row is not None]


def torn(folder: Path) -> int:
    """Lines that were cut off."""
    return sum(_row(line) is None for line in _lines(folder))


def _lines(folder: Path) -> list[str]:
    files = sorted(folder.glob("streams-*.jsonl"))
    return [line for path in files for line in path.read_text("utf-8").splitlines() if line]


def _row(line: str) -> dict[str, Any] | None:
    try:
        row: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return row


def of_log(log: str) -> Books:
    """What the lines of streams in a log say."""
    books = Books()
    for line in lines_of(log):
        if line["event"] == "stream opened":
            books.admitted[line["face"]] += 1
        elif line["event"] == "stream closed":
            _add_stream(books, line, line["outcome"])
    return books


def lines_of(log: str) -> Iterable[dict[str, Any]]:
    """A log in JSON; raises `ValueError` for a line that is none."""
    return (json.loads(line) for line in log.splitlines() if line)


def _add_stream(books: Books, row: Mapping[str, Any], outcome: str) -> None:
    books.closed[row["face"], outcome] += 1
    books.resumes += row["resumes"]
    if outcome == "ok":
        books.words[row["face"]] += row["words"]


def _status(code: str) -> int:
    return refusal(Code(code)).http_status
