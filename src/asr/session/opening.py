"""`asr.connect`: a session with a riva-gateway, as an async context manager."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Unpack

from asr.config import GatewayConfig
from asr.errors import ASRError, Code
from asr.options import Options
from asr.session.core import SessionCore
from asr.session.dial import Dialer
from asr.session.limits import Limits
from asr.session.session import Session
from asr.session.start import Pace, start_message
from asr.wishes import Wishes, to_options


@asynccontextmanager
async def connect(
    url: str,
    options: Options | None = None,
    *,
    token: str = "",
    ca_cert: str | Path | None = None,
    insecure: bool = False,
    enable_partials: bool | None = None,
    pace: Pace = "live",
    resume_window_ms: int | None = None,
    connect_timeout_ms: int = 10_000,
    **wishes: Unpack[Wishes],
) -> AsyncGenerator[Session]:
    """Open a session on the native protocol of a riva-gateway; it survives the loss of its connection by itself.

    A lost connection is tried for again, with growing pauses, for `resume_window_ms`. Where the gateway still has the
    session, nothing is lost or said twice. Where it is gone (a fresh process), a new session gets the audio from
    the end of the last final on; times and utterances are counted on. Audio that was needed again and is not kept
    any more (the ring holds a minute) is told as a `Gap`.

    The first connection is tried once. A gateway that cannot resume (`RESUME_WINDOW_MS=0`) makes the loss a failure.

    Args:
        url: `wss://host:8443` or `https://host:8443`; plain `ws`/`http` too.
        options: wishes as one record; the keywords are laid over it.
        token: sent as `Authorization: Bearer`; never unencrypted to another machine.
        ca_cert: a PEM file to trust, such as a gateway's self-made certificate.
        insecure: do not verify the certificate.
        enable_partials: whether `Partial` events are wanted (default: those of `options`, else True).
        pace: `live` for speech as it is spoken, `file` for a recording.
        resume_window_ms: how long a lost connection is survived; default 60 s here, and there what the gateway allows.
            0 makes the loss a failure.
        connect_timeout_ms: until the gateway has answered `start`.
        **wishes: see `Wishes`.

    Yields:
        The session; it is hung up on the way out. Words that were not waited for (`stop`, then iterate) are lost.

    Raises:
        ASRError: `bad_request`, `unavailable`, `timeout`, `overloaded` (with `retry_after_ms`), `unauthorized` …
    """
    wanted = to_options(options, enable_partials, wishes)
    if wanted.max_alternatives > 1:
        raise ASRError(
            Code.UNSUPPORTED,
            "A gateway gives the best reading only: leave out max_alternatives.",
            param="max_alternatives",
        )
    window_ms = Limits().window_ms if resume_window_ms is None else resume_window_ms
    config = GatewayConfig(
        url,
        token=token,
        ca_cert=None if ca_cert is None else Path(ca_cert),
        insecure=insecure,
        connect_timeout_ms=connect_timeout_ms,
    )
    core = SessionCore(start_message(wanted, pace, resume_window_ms), Limits(window_ms=window_ms))
    session = Session(Dialer(config), core, traceparent=wanted.traceparent)
    await session.open()
    try:
        yield session
    finally:
        await session.aclose()
