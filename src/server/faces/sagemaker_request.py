"""Reading a SageMaker invocation: what is asked, and which way it goes.

Pure. There are two ways to a NIM: its HTTP API, which takes small recordings and gives back their text, and the
gateway's own recognizer (a NIM's gRPC), which takes everything and gives word times and speakers. A caller may force
one by the path, which only works inside the container, or by the custom attributes, the one header that SageMaker
passes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from asr.errors import ASRError, Code, quoted
from asr.options import Diarization, Options

ATTRIBUTES_HEADER = "X-Amzn-SageMaker-Custom-Attributes"
PATH = "/invocations"
MAX_HTTP_BYTES = 5_000_000
"""Larger recordings do not go through a NIM's HTTP API unless that is forced."""
DEFAULT_MAX_SPEAKERS = 10

_HTTP_HEADS = (b"RIFF", b"fLaC", b"OggS")
_YES = frozenset({"true", "1", "yes", "on"})
_NO = frozenset({"", "false", "0", "no", "off", "none", "null"})
_KNOWN = frozenset({"file", "filename", "language_code", "language", "model", "speaker_diarization", "max_speakers"})
_ITEM = re.compile(r"[;,\s]+")


class Way(StrEnum):
    """How a recording is to be recognized."""

    AUTO = "auto"
    HTTP = "http"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Where a recording goes.

    Attributes:
        way: `http` or `grpc`.
        may_turn: when `http` fails, `grpc` is to be tried.
        why_not: in one word, why `http` was asked for and is not taken; "" where it is, or was not asked for.
        note: what the caller should know of that, or "".
    """

    way: Way
    may_turn: bool = False
    why_not: str = ""
    note: str = ""


def read_attributes(header: str) -> dict[str, str]:
    """The custom attributes as names and values; what is not one of the known forms is left out.

    The CLI recipe repeats the header's name inside its value. Items are parted by `;`, `,` or blanks.

    >>> read_attributes("X-Amzn-SageMaker-Custom-Attributes=/invocations/grpc")
    {'transport': 'grpc'}
    >>> read_attributes("transport=http; language_code=en-US"), read_attributes("/invocations/http")
    ({'transport': 'http', 'language_code': 'en-US'}, {'transport': 'http'})
    """
    prefix = f"{ATTRIBUTES_HEADER}=".lower()
    found: dict[str, str] = {}
    for item in _ITEM.split(header.strip().strip("\"'")):
        if item.lower().startswith(prefix):
            item = item[len(prefix) :]
        item = item.strip("\"'")
        if item.startswith("/"):
            if item.rstrip("/") == PATH:
                found["transport"] = Way.AUTO.value
            elif item.startswith(f"{PATH}/"):
                found["transport"] = item.removeprefix(f"{PATH}/").rstrip("/")
            continue
        name, sign, value = item.partition("=")
        if sign and name:
            found[name.lower()] = value
    return found


def forced_way(forced: Way, attributes: Mapping[str, str]) -> Way:
    """The way that the path or, where it leaves it open, the attributes ask for.

    Raises:
        ASRError: `bad_request` for a way that there is not.
    """
    asked = attributes.get("transport", "").lower()
    if forced is not Way.AUTO or not asked:
        return forced
    try:
        return Way(asked)
    except ValueError:
        text = f"There is no route {quoted(asked)}. Routes are http, grpc and auto."
        raise ASRError(Code.BAD_REQUEST, text, param=ATTRIBUTES_HEADER) from None


def choose(
    way: Way, *, size_bytes: int, head: bytes, diarization: bool, has_nim: bool, refuse_unsupported: bool = False
) -> Chosen:
    """Where a recording of `size_bytes` that begins with `head` goes.

    Raises:
        ASRError: `unsupported`, with `refuse_unsupported`, when the forced way cannot do what is asked.
    """
    match way:
        case Way.GRPC:
            return Chosen(Way.GRPC)
        case Way.HTTP if not has_nim:
            text = "No NIM with an HTTP API is set up here (NIM_HOST)"
            if refuse_unsupported:
                raise ASRError(Code.UNSUPPORTED, f"{text}. Leave the route away, or ask for grpc.", param="transport")
            return Chosen(Way.GRPC, why_not="not-configured", note=f"{text}; the recognizer was asked instead.")
        case Way.HTTP if diarization:
            text = "The HTTP route does not tell speakers apart"
            if refuse_unsupported:
                raise ASRError(Code.UNSUPPORTED, f"{text}. Leave the route away, or ask for grpc.", param="transport")
            return Chosen(Way.HTTP, note=f"{text}; speaker_diarization was left out. Ask for the grpc route.")
        case Way.HTTP:
            return Chosen(Way.HTTP)
    simple = has_nim and not diarization and size_bytes <= MAX_HTTP_BYTES and head.startswith(_HTTP_HEADS)
    return Chosen(Way.HTTP, may_turn=True) if simple else Chosen(Way.GRPC)


def read_options(field: Callable[[str], str], *, refuse_unsupported: bool = False) -> Options:
    """The options that the fields ask for; `field` gives a field's value, "" for none.

    Raises:
        ASRError: `bad_request` for a value that cannot be understood.
    """
    diarization = None
    if _flag(field("speaker_diarization"), "speaker_diarization"):
        diarization = Diarization(_count(field("max_speakers"), "max_speakers") or DEFAULT_MAX_SPEAKERS)
    return Options(
        language=field("language_code") or field("language"),
        model=field("model"),
        partials=False,
        words=True,
        diarization=diarization,
        fail_on_unsupported=refuse_unsupported,
    )


def left_out(names: Iterable[str]) -> tuple[str, ...]:
    """The note on fields that mean nothing here, if there are any.

    >>> left_out(["language_code", "punctuate"]), left_out(["model"])
    (("These fields mean nothing here and were left out: 'punctuate'.",), ())
    """
    strangers = ", ".join(quoted(name) for name in [name for name in names if name not in _KNOWN][:5])
    return (f"These fields mean nothing here and were left out: {strangers}.",) if strangers else ()


def read_members(content: Mapping[str, Any]) -> dict[str, str]:
    """The members of a JSON invocation as a form's fields would be; what is no single value is left out.

    >>> read_members({"speaker_diarization": True, "max_speakers": 4, "x": None})
    {'speaker_diarization': 'true', 'max_speakers': '4', 'x': ''}
    """
    return {name: _text(value) for name, value in content.items()}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).strip() if isinstance(value, str | int | float) else ""


def _flag(value: str, name: str) -> bool:
    folded = value.strip().lower()
    if folded in _YES or folded in _NO:
        return folded in _YES
    raise ASRError(Code.BAD_REQUEST, f"{name} is {quoted(value)}; it must be true or false.", param=name)


def _count(value: str, name: str) -> int | None:
    if not value.strip():
        return None
    try:
        return int(value)
    except ValueError:
        text = f"{name} is {quoted(value)}; it must be a whole number."
        raise ASRError(Code.BAD_REQUEST, text, param=name) from None
