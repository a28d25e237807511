"""Which dialect a SageMaker two-way stream speaks, found out from its path, its query and its first message.

Pure. The path is a second mount of dialects that have paths of their own: the native protocol, realtime events, and
plain audio with options in the query (`server.faces.sagemaker_pcm`). SageMaker sends a client's messages on as binary
frames unless the client says that they are text, so a binary message that is one of these dialects' JSON is read as
text; and it may tell the path and the query that the client asked for in headers instead of in the address.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs

import orjson

from asr.errors import ASRError
from server.refusals import refusal

PATH = "/invocations-bidirectional-stream"
PATH_HEADER = "X-Amzn-SageMaker-Model-Invocation-Path"
QUERY_HEADER = "X-Amzn-SageMaker-Model-Query-String"

_PLAIN_TYPES = frozenset({"KeepAlive", "Finalize", "CloseStream"})
_PLAIN_KEYS = frozenset({"encoding", "sample_rate", "interim_results"})
_REALTIME_TYPES = ("transcription_session.", "session.", "input_audio_buffer.", "conversation.")
_PATHS = {"v1/realtime": "realtime", "realtime": "realtime", "v1/stream": "native", "v1/listen": "plain", "ws": "plain"}


class Dialect(StrEnum):
    """What is spoken on a stream."""

    NATIVE = "native"
    REALTIME = "realtime"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Target:
    """What the client asked for.

    Attributes:
        path: below the mount, without slashes around it; "" for the mount itself.
        query: the last value of each name.
        queries: all values of each name.
    """

    path: str
    queries: Mapping[str, list[str]]

    @property
    def query(self) -> dict[str, str]:
        """One value for each name: the last."""
        return {name: values[-1] for name, values in self.queries.items()}


def read_target(address: str, header: Callable[[str], str]) -> Target:
    """What a handshake asks for: what headers say goes before the address.

    Args:
        address: path and query of the request line.
        header: gives a header's value, "" for none.

    >>> read_target("/invocations-bidirectional-stream/v1/listen?model=m", lambda name: "").path
    'v1/listen'
    """
    path, _, query = address.partition("?")
    below = header(PATH_HEADER) or path.removeprefix(PATH)
    asked = header(QUERY_HEADER).lstrip("?") or query
    return Target(below.strip("/").lower(), parse_qs(asked, keep_blank_values=True))


def by_target(target: Target) -> Dialect | None:
    """The dialect that the path or the query names; None where the first message must tell."""
    named = _PATHS.get(target.path)
    if named is not None:
        return Dialect(named)
    if "intent" in target.queries:
        return Dialect.REALTIME
    if "session" in target.queries:
        return Dialect.NATIVE
    return Dialect.PLAIN if _PLAIN_KEYS & target.queries.keys() else None


def by_first(message: str | bytes) -> Dialect:
    """The dialect that a first message belongs to: audio, or text that `as_text` has found."""
    content = _json(message) if isinstance(message, str) else None
    if content is None:
        return Dialect.PLAIN
    kind = content["type"]
    if kind in _PLAIN_TYPES:
        return Dialect.PLAIN
    return Dialect.REALTIME if kind.startswith(_REALTIME_TYPES) else Dialect.NATIVE


def as_text(message: bytes) -> str | None:
    """A binary message as the JSON message that it is, or None: then it is audio."""
    return message.decode() if message[:1] == b"{" and _json(message) is not None else None


def for_realtime(message: str) -> str:
    """A message as the realtime dialect has it: clients on SageMaker end a session with one that it does not know."""
    content = _json(message) if "session.end" in message[:200] else None
    if content is None or content["type"] != "session.end":
        return message
    return '{"type":"input_audio_buffer.done"}'


def error_text(error: ASRError) -> str:
    """A failure as SageMaker knows it: its clients get it as an exception."""
    content = {"ErrorCode": error.code.value, "Message": error.message}
    return orjson.dumps({"ModelStreamError": content}).decode()


def close_code(error: ASRError) -> int:
    """The close code after `error_text`."""
    return refusal(error.code).close_code


def _json(message: str | bytes) -> dict[str, Any] | None:
    try:
        content: Any = orjson.loads(message)
    except orjson.JSONDecodeError:
        return None
    return content if isinstance(content, dict) and isinstance(content.get("type"), str) else None
