"""A client of a NIM's HTTP API: a file in, its text out.

A NIM recognizes streams over gRPC (`asr.engines.riva`); its HTTP API only takes whole files and gives back their text
without times. NIMs spell failures in two ways, FastAPI's `{"detail": …}` and OpenAI's `{"error": {"message": …}}`;
both become an `ASRError` here.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from asr.engine import Readiness
from asr.errors import ASRError, Code
from asr.riva_codec.quote import scrub

MAX_ANSWER_BYTES = 4 << 20
READY_TIMEOUT_MS = 2_000

_TOO_LONG = ("too long", "too large", "entity too")
_NO_MODEL = ("bad model", "unavailable model", "model not found", "no such model")


@dataclass(frozen=True, slots=True)
class NimText:
    """What a NIM heard.

    Attributes:
        text: all of it, as one.
        model: the name that it was asked by; "" where the NIM chose.
    """

    text: str
    model: str


class NimHttp:
    """One NIM's HTTP API. Each call has a connection of its own: nothing is kept, and nothing needs to be closed.

    Args:
        host, port: where the NIM listens, without TLS.
        connect_timeout_ms: until a connection is up.
        timeout_ms: for a whole transcription.
    """

    def __init__(
        self, host: str, port: int = 9000, *, connect_timeout_ms: int = 2_000, timeout_ms: int = 3_600_000
    ) -> None:
        bare = host.strip("[]")
        self._url = f"http://{f'[{bare}]' if ':' in bare else bare}:{port}"
        self._timeout_s = timeout_ms / 1000
        self._connect_s = connect_timeout_ms / 1000
        # Never used, and much cheaper to make than one that knows every authority.
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    async def ready(self) -> Readiness:
        """Whether the NIM says that it is ready. Never raises; answers within `READY_TIMEOUT_MS`."""
        try:
            async with asyncio.timeout(READY_TIMEOUT_MS / 1000):
                status, body = await self._exchange("GET", "/v1/health/ready")
        except TimeoutError:
            return Readiness(False, "The NIM's HTTP API does not answer.")
        except ASRError as error:
            return Readiness(False, error.message)
        if is_ready(status, body):
            return Readiness(True)
        return Readiness(False, "The NIM's HTTP API says that it is not ready.")

    async def transcribe(
        self, file: Path, *, filename: str = "audio", content_type: str = "", language: str = "", model: str = ""
    ) -> NimText:
        """The text of a recording. The file is read and sent piece by piece.

        Many NIMs answer `bad model` to names that they serve: such a request is made again without the name, when
        there is a language to go by.

        Args:
            file: WAV, FLAC or Ogg Opus.
            filename: the name that the NIM is told.
            content_type: the media type that it is told; "": by the name.
            language: BCP-47, or "" for none; a NIM needs it or a model.
            model: a name of the NIM's, or "" for its choice.

        Raises:
            ASRError: `too_large`, `not_found` (no such model), `bad_audio`, `bad_request`, `unsupported` (this NIM has
                no such call), `overloaded`, `unavailable`, `timeout`.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    return NimText(await self._ask(file, filename, content_type, language, model), model)
                except ASRError as error:
                    if error.code is not Code.NOT_FOUND or not model or not language:
                        raise
                    return NimText(await self._ask(file, filename, content_type, language, ""), "")
        except TimeoutError:
            raise _late() from None

    async def _ask(self, path: Path, filename: str, content_type: str, language: str, model: str) -> str:
        fields = {"response_format": "json"}
        if language:
            fields["language"] = language
        if model:
            fields["model"] = model
        with path.open("rb") as file:
            part = (filename, file, content_type) if content_type else (filename, file)
            status, body = await self._exchange("POST", "/v1/audio/transcriptions", data=fields, files={"file": part})
        return read_answer(status, body)

    async def _exchange(self, method: str, path: str, **body: Any) -> tuple[int, bytes]:
        timeout = httpx2.Timeout(self._timeout_s, connect=self._connect_s)
        # No proxy: its own localhost is not ours.
        client = httpx2.AsyncClient(base_url=self._url, verify=self._tls, trust_env=False, timeout=timeout)
        try:
            async with client, client.stream(method, path, **body) as answer:
                said = bytearray()
                async for piece in answer.aiter_bytes():
                    said += piece
                    if len(said) > MAX_ANSWER_BYTES:
                        raise ASRError(Code.INTERNAL, "The NIM's answer is over 4 MiB; it is not read.")
                return answer.status_code, bytes(said)
        except (httpx2.ConnectTimeout, httpx2.ConnectError) as error:
            raise ASRError(Code.UNAVAILABLE, "The NIM's HTTP API cannot be reached.", retry_after_ms=1_000) from error
        except httpx2.TimeoutException as error:
            raise _late() from error
        except httpx2.RequestError as error:
            raise ASRError(Code.UNAVAILABLE, "The connection to the NIM's HTTP API broke.") from error


def is_ready(status: int, body: bytes) -> bool:
    """Whether an answer of `/v1/health/ready` says yes, in any of its three shapes.

    >>> [is_ready(200, b) for b in (b'{"status": "ready"}', b'{"ready": true}', b'{"status": "not_ready"}')]
    [True, True, False]
    """
    content = _content(body)
    if status != 200 or not isinstance(content, dict):
        return False
    return content.get("ready") is True or content.get("status") == "ready"


def read_answer(status: int, body: bytes) -> str:
    """The text of an answer to a transcription.

    Raises:
        ASRError: what the NIM refused, or why its answer is none.
    """
    if status != 200:
        raise _refused(status, reason(body))
    content = _content(body)
    text = content.get("text") if isinstance(content, dict) else None
    if not isinstance(text, str):
        raise ASRError(Code.INTERNAL, "The NIM's HTTP API answered without a text.")
    return text.strip()


def reason(body: bytes) -> str:
    """What a NIM says in either shape of its failures; "" for anything else.

    >>> reason(b'{"detail": "bad model"}'), reason(b'{"error": {"message": "file: Field required", "code": 400}}')
    ('bad model', 'file: Field required')
    """
    content = _content(body)
    if not isinstance(content, dict):
        return body[:200].decode("utf-8", "replace") if body[:1] not in (b"<", b"{", b"[") else ""
    error = content.get("error")
    said = error.get("message") if isinstance(error, dict) else error or content.get("detail")
    if isinstance(said, list):  # FastAPI's list of what is wrong with a form
        said = "; ".join(str(row.get("msg", "")) for row in said if isinstance(row, dict))
    return said if isinstance(said, str) else ""


def _refused(status: int, said: str) -> ASRError:
    folded = said.lower()
    quote = scrub(said)
    told = f' It said: "{quote}".' if quote else ""
    if status == 413 or (status == 400 and any(words in folded for words in _TOO_LONG)):
        return ASRError(Code.TOO_LARGE, f"The recording is too large for the NIM's HTTP API.{told}", param="file")
    if status in (400, 404, 422) and any(words in folded for words in _NO_MODEL):
        text = f"The NIM's HTTP API has no model for this request.{told}"
        return ASRError(Code.NOT_FOUND, text, param="model")
    match status:
        case 400 | 415 | 422:
            code = Code.BAD_AUDIO if "audio" in folded or status == 415 else Code.BAD_REQUEST
            return ASRError(code, f"The NIM's HTTP API refused the request.{told}")
        case 404 | 405 | 501:
            return ASRError(Code.UNSUPPORTED, "This NIM does not transcribe files over HTTP.")
        case 408 | 504:
            return _late()
        case 429:
            return ASRError(Code.OVERLOADED, f"The NIM's HTTP API is full.{told}", retry_after_ms=1_000)
        case 503:
            return ASRError(Code.UNAVAILABLE, f"The NIM's HTTP API is not ready.{told}", retry_after_ms=1_000)
        case _:
            return ASRError(Code.UNAVAILABLE, f"The NIM's HTTP API failed with status {status}.{told}")


def _late() -> ASRError:
    return ASRError(Code.TIMEOUT, "The NIM's HTTP API did not answer in time.")


def _content(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
