"""Which realtime dialect a client speaks, told from its handshake alone, before any message.

What clients of each really send, and what decides, in this order:

1. `?dialect=nim`, `openai` or `openai-beta`: the client's (or its operator's) own word.
2. `OpenAI-Beta: realtime=v1`, or the subprotocol `openai-beta.realtime-v1`: OpenAI's beta.
3. The subprotocol `realtime-token.<secret>`: a NIM's client, with the secret of its minted session.
4. `Authorization: Bearer …`, or the subprotocol `openai-insecure-api-key.<key>`: OpenAI's of today.
5. Nothing of that: a NIM's client.

`intent` may be missing: clients that name a `?model=` leave it out, and only transcription is served. Any other intent
is refused, as a NIM does. A client of OpenAI's that is after a conversation shows itself by what it asks for
(`session.type` realtime): that is for the conversation's core to refuse, in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from asr.errors import ASRError, Code, quoted

SUBPROTOCOL = "realtime"
"""What a client gets back that offers it."""
NIM_TOKEN = "realtime-token."  # noqa: S105 - how NVIDIA's client offers its secret
OPENAI_KEY = "openai-insecure-api-key."
OPENAI_BETA = "openai-beta.realtime-v1"
INTENT = "transcription"

POLICY_VIOLATION = 1008
"""RFC 6455's close code for a client that may not come in; a NIM closes so on an unknown intent."""


class Dialect(StrEnum):
    """The values are spelled in `?dialect=` and never change."""

    NIM = "nim"
    OPENAI = "openai"
    OPENAI_BETA = "openai-beta"


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a client showed when it connected.

    Attributes:
        dialect: what it speaks.
        token: the secret of a NIM's minted session that it offers, or "".
        key: the Bearer credential, or that of a browser's subprotocol, or "".
        model: what `?model=` names, or "".
        refusal: why it cannot be served, or None.
    """

    dialect: Dialect
    token: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    model: str = ""
    refusal: ASRError | None = None


def read_handshake(headers: Iterable[tuple[str, str]], query: Mapping[str, str]) -> Handshake:
    """Read a WebSocket handshake.

    Args:
        headers: names, in any case, with their values.
        query: the fields of the query.

    >>> read_handshake([], {"intent": "transcription"}).dialect
    <Dialect.NIM: 'nim'>
    >>> read_handshake([("authorization", "Bearer k")], {}).dialect
    <Dialect.OPENAI: 'openai'>
    """
    bearer, offered, beta = "", list[str](), False
    for name, value in headers:
        match name.lower():
            case "authorization":
                scheme, _, credential = value.strip().partition(" ")
                bearer = credential.strip() if scheme.lower() == "bearer" else bearer
            case "sec-websocket-protocol":
                offered += [part.strip() for part in value.split(",")]
            case "openai-beta":
                beta = beta or "realtime=v1" in value.replace(" ", "").lower()
    token = next((name.removeprefix(NIM_TOKEN) for name in offered if name.startswith(NIM_TOKEN)), "")
    browser_key = next((name.removeprefix(OPENAI_KEY) for name in offered if name.startswith(OPENAI_KEY)), "")
    key = bearer or browser_key
    if beta or OPENAI_BETA in offered:
        dialect = Dialect.OPENAI_BETA
    elif key and not token:
        dialect = Dialect.OPENAI
    else:
        dialect = Dialect.NIM
    asked, refusal = query.get("dialect", ""), None
    if asked in set(Dialect):
        dialect = Dialect(asked)
    elif asked:
        names = ", ".join(Dialect)
        refusal = _bad(f"There is no realtime dialect {quoted(asked)}. Dialects: {names}.", "dialect")
    intent = query.get("intent", "")
    if refusal is None and intent not in ("", INTENT):
        refusal = _bad(f"The intent {quoted(intent)} is not served here, only {INTENT!r}.", "intent")
    return Handshake(dialect, token, key, query.get("model", ""), refusal)


def _bad(text: str, param: str) -> ASRError:
    return ASRError(Code.BAD_REQUEST, text, param=param)
