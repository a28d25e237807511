"""The client's end of a conversation: one client, one connection after another.

A `Line` takes the core's messages and sends them as fast as the client reads, never waiting itself: what the client
leaves no room for stays in the `Outbox`. The connection under it may be lost and replaced; while there is none the
line waits for a window of time, and then it is *over*. Everything here happens in callbacks of one loop without a
wait in between, so that a switch of connections falls between two messages and never into one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from asr.errors import Action, ASRError, Code
from server.conversation import Lasting, Send
from server.outbox import Outbox
from server.refusals import GOING_AWAY, NORMAL, refusal
from server.sockets import Socket, SocketClosed, size_of

STALL_MS = 30_000


class Line:
    """Where the messages of one conversation go.

    Args:
        lasting: the dialect, where a conversation may outlive its connection; None where it ends with it.
        stall_ms: a client that takes nothing for so long, while messages wait, is let go.
        outbox: where messages wait; by default one with the usual bounds.

    Attributes:
        socket: the present connection, or None.
        over: done when no client will ever read any more.
        on_stalled: called with `slow_reader` when the client is to be let go and its conversation cannot outlive that.
        on_lost: called with the window, in ms, each time the connection is lost and the conversation goes on.
        on_sent: called with the number of each message (see `put_number`) that is given to the connection, where
            somebody waits for one.
        sent_bytes: of all messages that were.
        resumes: how often a connection took over from another.
        expired: whether the line is over because its window was.
    """

    def __init__(self, lasting: Lasting | None, *, stall_ms: int = STALL_MS, outbox: Outbox | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._lasting = lasting
        self._stall_s = stall_ms / 1000
        self._outbox = outbox if outbox is not None else Outbox(numbered=lasting is not None)
        self._full = False  # the transport has no room
        self._pump: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: tuple[int, str] | None = None
        self.socket: Socket | None = None
        self.over: asyncio.Future[None] = self._loop.create_future()
        self.on_stalled: Callable[[ASRError], None] = lambda error: None
        self.on_lost: Callable[[int], None] = lambda window_ms: None
        self.on_sent: Callable[[int], None] | None = None
        self.sent_bytes = 0
        self.resumes = 0
        self.expired = False

    @property
    def window_ms(self) -> int:
        """How long the conversation waits for a lost client, as things are; 0: not at all."""
        return self._lasting.window_ms if self._lasting is not None else 0

    @property
    def left_out(self) -> int:
        """Partials and acks that the client was too slow for."""
        return self._outbox.left_out

    @property
    def put_number(self) -> int:
        """The number of the message that came last; numbers grow by one."""
        return self._outbox.put_number

    @property
    def is_flushed(self) -> bool:
        """Whether the message that came last was given to the connection."""
        return self._outbox.taken_number == self._outbox.put_number and self.socket is not None

    # Messages -------------------------------------------------------------------------------------

    def send(self, message: Send) -> None:
        """Send a message as soon as the client leaves room for it."""
        if self.over.done():
            return
        outbox = self._outbox
        outbox.put(message)
        if self.socket is not None:
            if not self._full:
                self._flush(self.socket)
            elif outbox.full:
                self._let_go(self.socket, "More results wait for the client than it may leave unread.")
        elif outbox.overflowing:
            self.end()

    def seen(self, seq: int) -> None:
        """The client has seen the messages up to `seq`."""
        self._outbox.seen(seq)

    # Connections ----------------------------------------------------------------------------------

    def attach(self, socket: Socket) -> None:
        """The first connection."""
        self._take(socket)

    def can_resume(self, last_seq: int) -> bool:
        """Whether a client that has seen the messages up to `last_seq` can be given everything after it."""
        return not self.over.done() and self._outbox.has_after(last_seq)

    def resume(self, socket: Socket, last_seq: int, greeting: str) -> int:
        """A newer connection takes over: the older one ends, and the client gets `greeting` and all that it missed.

        Returns how many messages those were.
        """
        assert self.can_resume(last_seq)
        if self.socket is not None:
            error = ASRError(Code.SUPERSEDED, "A newer connection has taken this session over.")
            self._part(self.socket, error)
        self.resumes += 1
        self._outbox.rewind(last_seq)
        missed = len(self._outbox)
        self._take(socket, greeting)
        return missed

    def lost(self, socket: Socket) -> None:
        """A connection is gone. If it was the present one, the line waits for the next, or is over."""
        if socket is not self.socket:
            return
        self.socket = None
        self._stop_pump()
        code = socket.close_received
        # A client that takes its leave does not come back; one that answers our own close has read everything. One
        # that closes while ours is on its way has not.
        answered = self._ending is not None and code == self._ending[0]
        self._wait(0 if code in (NORMAL, GOING_AWAY) or answered else self.window_ms)

    def drop(self, error: ASRError) -> None:
        """Close the present connection with `error`; the conversation waits for another."""
        if self.socket is not None:
            self._part(self.socket, error)
            self._wait(self.window_ms)

    # The end --------------------------------------------------------------------------------------

    async def close(self, code: int, reason: str) -> None:
        """The conversation has ended: send what waits, close, and wait until that is done or the client is lost.

        A client that may come back finds the line open until it is `over`: it gets what it missed, and the close.
        """
        self._ending = (code, reason)
        if self.socket is not None:
            await self._farewell(self.socket)

    def end(self) -> None:
        """Nobody will read any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.over.done():
            self.over.set_result(None)

    async def aclose(self) -> None:
        """End, and leave no task behind."""
        self.end()
        self._stop_pump()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # Inside ---------------------------------------------------------------------------------------

    def _take(self, socket: Socket, greeting: str = "") -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._stop_pump()
        self.socket, self._full = socket, False
        if greeting:
            try:
                self._full = not socket.send_now(greeting)
                self.sent_bytes += size_of(greeting)
            except SocketClosed:  # as in `_send_some`
                self._full = True
                return
        self._flush(socket)
        if self._ending is not None:
            self._do(self._farewell(socket))

    def _flush(self, socket: Socket) -> None:
        """Send what there is room for; the rest follows when there is more."""
        if self._send_some(socket) and self._full:
            self._pump = self._do(self._send_the_rest(socket))

    def _send_some(self, socket: Socket) -> bool:
        """Send until there is no room. Returns whether the connection still stands."""
        outbox, keep = self._outbox, self.window_ms > 0
        try:
            while not self._full and (text := outbox.take(keep=keep)) is not None:
                self._full = not socket.send_now(text)
                self.sent_bytes += size_of(text)
                if self.on_sent is not None:
                    self.on_sent(outbox.taken_number)
        except SocketClosed:  # whoever reads the connection notices it too, and says that it is lost
            self._full = True
            return False
        return True

    async def _send_the_rest(self, socket: Socket) -> None:
        try:
            while self._full:
                async with asyncio.timeout(self._stall_s):
                    await socket.writable()
                self._full = False
                if not self._send_some(socket):
                    return
        except TimeoutError:
            self._let_go(socket, f"The client has read nothing for {self._stall_s:g} s.")
        finally:
            if self._pump is asyncio.current_task():
                self._pump = None

    def _let_go(self, socket: Socket, what: str) -> None:
        if socket is not self.socket:
            return
        text = f"{what} Read results while you send audio."
        if self.window_ms > 0:
            self.drop(ASRError(Code.SLOW_READER, text, action=Action.RESUME))
        else:
            self._stop_pump()
            self.on_stalled(ASRError(Code.SLOW_READER, text))

    def _part(self, socket: Socket, error: ASRError) -> None:
        """Close a connection whose conversation goes on."""
        assert self._lasting is not None
        self.socket = None
        self._stop_pump()
        try:
            socket.send_now(self._lasting.parted(error, self._outbox.last_seq))
        except SocketClosed:
            return
        self._do(socket.close(refusal(error.code).close_code, error.code.value))

    def _wait(self, window_ms: int) -> None:
        if window_ms <= 0:
            self.end()
        elif not self.over.done():
            self._timer = self._loop.call_later(window_ms / 1000, self._expire)
            self.on_lost(window_ms)

    def _expire(self) -> None:
        self.expired = True
        self.end()

    async def _farewell(self, socket: Socket) -> None:
        assert self._ending is not None
        if self._pump is not None:
            await asyncio.wait({self._pump})
        if self.socket is socket:
            await socket.close(*self._ending)
            self.lost(socket)

    def _stop_pump(self) -> None:
        pump, self._pump = self._pump, None
        if pump is not None and pump is not asyncio.current_task():
            pump.cancel()

    def _do(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
