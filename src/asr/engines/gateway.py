"""The engine that is another riva-gateway: streams over `asr.v1`, models and readiness over HTTP.

A stream is a session of `asr.session`, so the loss of its connection is survived. Audio goes out at the pace at
which the far side reads it. Every wait has a bound: connecting, the answer to `start`, the silence of the far side,
and the time without any progress, once the audio has ended and while the far side takes no more of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Sequence

from asr.config import GatewayConfig
from asr.engine import AudioInput, EndUtterance, Features, Model, Readiness
from asr.engines.gateway_http import fetch_models, fetch_readiness
from asr.errors import ASRError, Code
from asr.events import Event
from asr.options import Options
from asr.session.core import SessionCore
from asr.session.dial import Dialer
from asr.session.limits import Limits
from asr.session.session import Session
from asr.session.start import start_message

LET_GO_S = 5.0
"""How long the caller's audio may take to end once nobody wants it any more."""


class GatewayEngine:
    """Another riva-gateway, as an engine."""

    name = "gateway"
    features = Features(
        punctuation=True,
        verbatim=True,
        profanity_filter=True,
        diarization=True,
        phrases=True,
        endpointing=True,
        eager_end=True,
        upstream_options=True,
    )
    """What the protocol can ask for; the far gateway warns of what its own recognizer cannot do."""

    def __init__(self, config: GatewayConfig) -> None:
        """Nothing is connected yet.

        Raises:
            ASRError: `bad_request`, for an address, token or certificate file that cannot be used.
        """
        self._config = config
        self._dialer = Dialer(config)
        self._open: set[Session] = set()
        self._closed = False

    def refusal(self) -> ASRError | None:
        """See `Engine`: the far gateway decides for itself."""
        return None

    async def models(self) -> Sequence[Model]:
        """See `Engine`."""
        return await fetch_models(self._config, self._dialer.address, self._dialer.tls)

    async def ready(self) -> Readiness:
        """See `Engine`."""
        return await fetch_readiness(self._config, self._dialer.address, self._dialer.tls)

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        """See `Engine`. Partials, times and utterance numbers are the far gateway's own."""
        self._check_open()
        limits = Limits(window_ms=self._config.resume_window_ms, progress_timeout_ms=self._config.answer_timeout_ms)
        core = SessionCore(start_message(options, "file"), limits)
        session = Session(self._dialer, core, all_events=True, patient=True, traceparent=options.traceparent)
        await session.open()
        self._open.add(session)
        feeder = asyncio.create_task(_feed(audio, session))
        try:
            self._check_open()
            async for event in session:
                yield event
        finally:
            feeder.cancel()
            self._open.discard(session)
            try:
                await session.aclose()
            finally:
                await asyncio.wait([feeder], timeout=LET_GO_S)

    async def aclose(self) -> None:
        """See `Engine`."""
        self._closed = True
        closed = ASRError(Code.UNAVAILABLE, "The engine is closed.")
        await asyncio.gather(*(session.aclose(closed) for session in self._open), return_exceptions=True)

    def _check_open(self) -> None:
        if self._closed:
            raise ASRError(Code.UNAVAILABLE, "The engine is closed.")


async def _feed(audio: AsyncIterable[AudioInput], session: Session) -> None:
    """Give the caller's audio to the session; what goes wrong in it ends the session, which tells the caller."""
    try:
        async for item in audio:
            if isinstance(item, EndUtterance):
                session.end_utterance()
            else:
                await session.send(item)
        await session.stop()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Not this task was cancelled, but something that the caller's audio waited for.
        await session.aclose(ASRError(Code.INTERNAL, "The audio was cancelled in mid-stream."))
    except Exception as error:
        await session.aclose(error)
