"""Results of `golden` as files: read with words for what is wrong, written where a flag names a place."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from asr.errors import ASRError
from evaluation.results import GoldenRun
from server.commands.exits import Exit, Stop

MAX_RESULT_BYTES = 256 * 1024 * 1024
"""A hundred thousand clips; no result of this command is larger."""


def read_run(path: Path) -> GoldenRun:
    """A stored result.

    Raises:
        Stop: it cannot be read, or is none; the line names the file.
    """
    try:
        if path.stat().st_size > MAX_RESULT_BYTES:
            raise Stop(f"{path} is over 256 MiB; no result of `riva-gateway golden` is.", Exit.BAD_INPUT)
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise Stop(f"{path} cannot be read: {error.strerror}.", Exit.BAD_INPUT) from None
    except (ValueError, RecursionError):
        raise Stop(
            f"{path} is not JSON. A result is what `riva-gateway golden --json FILE` wrote.", Exit.BAD_INPUT
        ) from None
    try:
        return GoldenRun.from_json(document)
    except ASRError as error:
        raise Stop(f"{path}: {error.message}", Exit.BAD_INPUT) from None


def check_places(*places: tuple[str, Path | None]) -> None:
    """Judge where results are to go before anything is measured.

    Args:
        *places: pairs of a flag and its value.

    Raises:
        Stop: one cannot be written, or two are the same.
    """
    seen: dict[Path, str] = {}
    for flag, path in places:
        if path is None:
            continue
        if path.is_dir():
            raise Stop(f"{flag} {path} is a folder; name a file.", Exit.CONFIGURATION)
        if path in seen:
            raise Stop(f"{seen[path]} and {flag} name the same file, {path}.", Exit.CONFIGURATION)
        seen[path] = flag
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Stop(f"{flag} {path} cannot be written: {error.strerror}.", Exit.CONFIGURATION) from None
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise Stop(f"{flag} {path} cannot be written: it is not yours to write.", Exit.CONFIGURATION)


def write_text(path: Path, text: str) -> None:
    """Write it, and say so on stderr.

    Raises:
        Stop: it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Stop(f"{path} cannot be written: {error.strerror}.", Exit.FAILED) from error
    typer.echo(f"wrote {path}", err=True)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """`write_text` of a document.

    Raises:
        Stop: it cannot be written.
    """
    write_text(path, json.dumps(_rounded(document), ensure_ascii=False, indent=1) + "\n")


def _rounded(value: Any) -> Any:
    """Floats with as many digits as mean anything: rates are fractions, times milliseconds."""
    match value:
        case float():
            return round(value, 4)
        case Mapping():
            return {key: _rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [_rounded(item) for item in value]
        case _:
            return value
