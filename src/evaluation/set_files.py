"""Reading the text files of a set: bounded, as UTF-8, with errors that name the file and say what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from asr.errors import ASRError, Code
from evaluation.clips import Speech, SpokenWord

MAX_LIST_BYTES = 64 << 20
"""Of a manifest or a list of transcripts."""

MAX_TEXT_BYTES = 1 << 20
"""Of one clip's own text file."""

T = TypeVar("T")


def bad(path: Path, what: str) -> ASRError:
    """`bad_request` about a file of the set."""
    return ASRError(Code.BAD_REQUEST, f"{str(path)!r} {what}")


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """The file's text.

    Raises:
        ASRError: `bad_request` where it cannot be read, is not UTF-8, or is longer than `max_bytes`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise bad(path, f"cannot be read: {error.strerror}.") from None
    if len(data) > max_bytes:
        raise bad(path, f"is longer than {max_bytes >> 20} MiB: it cannot be what it is taken for.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise bad(path, f"is not UTF-8 (byte {error.start}). Save it as UTF-8.") from None


def read_json(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> Any:
    """The file's JSON document.

    Raises:
        ASRError: as `read_text`, and where it is no JSON.
    """
    try:
        return json.loads(read_text(path, max_bytes))
    except json.JSONDecodeError as error:
        raise bad(path, f"is no JSON: {error.msg} (line {error.lineno}, column {error.colno}).") from None
    except (RecursionError, ValueError) as error:
        raise bad(path, f"is no JSON that can be read: {error}.") from None


def field(path: Path, what: str, entry: dict[str, Any], name: str, kind: type[T], default: T | None = None) -> T:
    """A field of the right kind; `default` where it is missing.

    Raises:
        ASRError: `bad_request` where it is of another kind, or missing without a default.
    """
    if name not in entry and default is not None:
        return default
    value = entry.get(name)
    if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, int) and value < 0):
        wanted = {str: "a text", int: "a whole number, 0 or more", list: "a list"}.get(kind, kind.__name__)
        raise bad(path, f'has no usable "{name}" for {what}: it must be {wanted}.')
    return value


def words_of(path: Path, what: str, entry: dict[str, Any]) -> tuple[SpokenWord, ...]:
    """The field `words`: [["hello", 100, 420], …], in order."""
    return tuple(_rows(path, what, entry, "words", '["word", start ms, end ms] in order', _word))


def speech_of(path: Path, what: str, entry: dict[str, Any]) -> tuple[Speech, ...]:
    """The field `speech`: [[100, 2300], …], in order."""
    return tuple(_rows(path, what, entry, "speech", "[start ms, end ms] in order", _stretch))


def _word(row: Any) -> SpokenWord:
    text, start_ms, end_ms = row
    if not isinstance(text, str):
        raise TypeError
    return SpokenWord(text, *_place(start_ms, end_ms))


def _stretch(row: Any) -> Speech:
    start_ms, end_ms = row
    return Speech(*_place(start_ms, end_ms))


def _place(start_ms: Any, end_ms: Any) -> tuple[int, int]:
    if not (isinstance(start_ms, int) and isinstance(end_ms, int) and 0 <= start_ms <= end_ms):
        raise ValueError
    return start_ms, end_ms


def _rows(path: Path, what: str, entry: dict[str, Any], name: str, shape: str, read: Callable[[Any], T]) -> list[T]:
    rows: list[T] = []
    for index, row in enumerate(field(path, what, entry, name, list, [])):
        try:
            rows.append(read(row))
        except (TypeError, ValueError):
            found = json.dumps(row, ensure_ascii=False)[:60]
            raise bad(path, f'has a bad "{name}" for {what}: entry {index} is {found}, not {shape}.') from None
    return rows
