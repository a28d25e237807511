"""What the documents of measurements have in common: a schema that is named, and floats without idle digits."""

from __future__ import annotations

from typing import Any

from asr.errors import ASRError, Code


def check_schema(document: Any, schema: str, command: str) -> None:
    """Judge whether this is a result of that command.

    Raises:
        ASRError: `bad_request`, when it is not.
    """
    if not isinstance(document, dict) or document.get("schema") != schema:
        found = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise ASRError(
            Code.BAD_REQUEST, f"This is no result of `riva-gateway {command}`: its schema is {found!r}, not {schema!r}."
        )


def rounded(value: Any, digits: int) -> Any:
    """The value with all its floats rounded to so many digits after the point; tuples become lists."""
    match value:
        case float():
            return round(value, digits)
        case dict():
            return {key: rounded(item, digits) for key, item in value.items()}
        case list() | tuple():
            return [rounded(item, digits) for item in value]
        case _:
            return value
