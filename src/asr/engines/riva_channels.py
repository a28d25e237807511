"""The connections to one Riva endpoint: which one a new call goes over, and when one is opened or given up.

A gRPC channel is one HTTP/2 connection here, and many servers and proxies carry about 100 calls on one. A
connection on which a call has broken off gets no new calls: gRPC would fail them without trying until its pause
between attempts is over, and would stay with an address that a name no longer leads to. A new connection is tried
at once, and resolves the name anew. Nor does one get new calls whose certificates have been renewed since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final as Const

import grpc
import grpc.aio

from asr.config import RivaConfig
from asr.engines.riva_tls import ClientTls
from asr.errors import ASRError, Code

MAX_CHANNELS: Const = 64
"""Connections to one endpoint; beyond, they carry more calls each."""
IDLE_CLOSE_MS: Const = 60_000
"""For how long a connection without calls is kept, where there is another."""
MAX_RECONNECT_BACKOFF_MS: Const = 1_000
"""The longest pause between attempts to connect: gRPC's own two minutes would outlast most outages."""


class Lease:
    """One call's use of a connection."""

    __slots__ = ("_channels", "_link")

    def __init__(self, channels: Channels, link: _Link) -> None:
        self._channels = channels
        self._link: _Link | None = link

    @property
    def channel(self) -> grpc.aio.Channel:
        """Where the call is to be made. Not after `release`."""
        assert self._link is not None, "the lease is over"
        return self._link.channel

    def release(self, *, broken: bool = False) -> None:
        """The call is over; a second time does nothing.

        Args:
            broken: the call broke off or was not answered: let no further calls use this connection.
        """
        link, self._link = self._link, None
        if link is not None:
            self._channels._release(link, broken=broken)


class Channels:
    """The connections to one endpoint. Nothing is connected before the first call."""

    def __init__(
        self,
        config: RivaConfig,
        tls: ClientTls | None,
        *,
        clock: Callable[[], float] = monotonic,
        idle_close_ms: int = IDLE_CLOSE_MS,
    ) -> None:
        """Nothing is opened yet.

        Args:
            config: the endpoint.
            tls: its certificates, or None for plaintext.
            clock: seconds, for the age of idle connections.
            idle_close_ms: see `IDLE_CLOSE_MS`.
        """
        self._config = config
        self._tls = tls
        self._options = channel_options(config)
        self._clock = clock
        self._idle_close_s = idle_close_ms / 1000
        self._links: list[_Link] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def connections(self) -> int:
        """Connections held, those that get no new calls among them."""
        return len(self._links)

    @property
    def calls(self) -> int:
        """Calls open on all of them."""
        return sum(link.calls for link in self._links)

    def lease(self) -> Lease:
        """A connection for one call.

        Raises:
            ASRError: `unavailable`, after `aclose`.
        """
        if self._closed:
            raise ASRError(Code.UNAVAILABLE, "The recognizer's connection has been closed.", retryable=False)
        if self._tls is not None and self._tls.renewed():
            # Calls that run end where they are; each of these connections is closed with its last one.
            for old in list(self._links):
                self._retire(old)
        link = self._pick()
        link.calls += 1
        return Lease(self, link)

    async def aclose(self) -> None:
        """Close them all; open calls are cancelled."""
        self._closed = True
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        for link in list(self._links):
            self._close(link)
        if self._closing:
            await asyncio.wait(set(self._closing))

    def _pick(self) -> _Link:
        while True:
            link = min((link for link in self._links if not link.retired), key=_load, default=None)
            full = len(self._links) >= MAX_CHANNELS
            if link is None and full:
                # All of them are given up and still busy: the least busy must do.
                return min(self._links, key=_load)
            if link is None or (link.calls >= self._config.streams_per_channel and not full):
                link = _Link(self._connect())
                self._links.append(link)
                return link
            if link.channel.get_state() is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                return link
            self._retire(link)

    def _connect(self) -> grpc.aio.Channel:
        if self._tls is None:
            return grpc.aio.insecure_channel(self._config.endpoint, options=self._options)
        return grpc.aio.secure_channel(self._config.endpoint, self._tls.credentials, options=self._options)

    def _release(self, link: _Link, *, broken: bool) -> None:
        link.calls -= 1
        link.idle_since = self._clock()
        if self._closed:
            return
        if broken or link.retired:
            self._retire(link)
        elif not link.calls and len(self._links) > 1:
            self._sweep_later()

    def _retire(self, link: _Link) -> None:
        link.retired = True
        if not link.calls:
            self._close(link)

    def _sweep_later(self) -> None:
        if self._sweep_timer is None:
            self._sweep_timer = asyncio.get_running_loop().call_later(self._idle_close_s, self._sweep)

    def _sweep(self) -> None:
        self._sweep_timer = None
        now = self._clock()
        idle = [link for link in self._links if not link.calls and not link.retired]
        if len(idle) == len([link for link in self._links if not link.retired]):
            idle = idle[1:]  # one is kept, to be there for the next call
        for link in idle:
            if now - link.idle_since >= self._idle_close_s:
                self._close(link)
            else:
                self._sweep_later()

    def _close(self, link: _Link) -> None:
        self._links.remove(link)
        task = asyncio.get_running_loop().create_task(link.channel.close(None))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _Link:
    """One connection, and what is known of it."""

    __slots__ = ("calls", "channel", "idle_since", "retired")

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.calls = 0
        self.retired = False
        self.idle_since = 0.0


def _load(link: _Link) -> int:
    return link.calls


def channel_options(config: RivaConfig) -> list[tuple[str, int]]:
    """gRPC's options for a connection to that endpoint."""
    options = [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_message_bytes),
        # Without it all channels of a process to one address are one connection.
        ("grpc.use_local_subchannel_pool", 1),
        # gRPC reads this as the time that one attempt to connect may take.
        ("grpc.min_reconnect_backoff_ms", config.connect_timeout_ms),
        ("grpc.initial_reconnect_backoff_ms", min(200, config.connect_timeout_ms)),
        ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_BACKOFF_MS),
    ]
    if config.keepalive_time_ms:
        options += [
            ("grpc.keepalive_time_ms", config.keepalive_time_ms),
            # The socket's own: how long sent bytes may stay unacknowledged.
            ("grpc.keepalive_timeout_ms", config.keepalive_timeout_ms),
            # How long the answer to a ping may take: a minute by default, whatever the option above says.
            ("grpc.http2.ping_timeout_ms", config.keepalive_timeout_ms),
            # Pings go on in a pause of the audio: gRPC's default ends them after two without data in between.
            # A gRPC server counts pings that come sooner than it allows (five minutes by default) with nothing
            # sent by itself in between, and answers the third with GOAWAY `too_many_pings`. Results in between
            # set its count back, and calls are only pinged for while they are open.
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.keepalive_permit_without_calls", 0),
        ]
    return options
