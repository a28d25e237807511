"""The native sessions there are: who may come back to which, and for how long.

A connection's first message decides what it is: a new session, or the next connection of one that lost its client
(`resume`). A session lives in a task of its own, so it outlives the connection that began it. Its resume token is
good for one return: it is spent as soon as the client shows, by sending anything, that the next one has arrived.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from asr.errors import Action, ASRError, Code
from server.access.grants import payer_of
from server.drive import Driver
from server.faces.native import NativeConversation
from server.faces.native_messages import Resume, read_resume, unheard
from server.faces.native_setup import NativeSetup
from server.line import Line
from server.sockets import Incoming, Place, Socket, SocketClosed

MAX_FINISHED = 200
"""Sessions that have ended and wait for a client to fetch the rest."""
MAX_EXPIRED = 10_000
"""Sessions that are remembered only to say that they have expired."""
MAX_DETACHED = 100
"""Sessions of one caller that go on while nobody is connected; each holds a place."""
MAX_RETURNING = 4
"""Connections that hold no place because they name one session, and have not shown yet that it is theirs."""

ADDRESS = "address "
"""How a principal begins that has no credential (`server.principal`)."""

OpenDriver = Callable[[str, NativeConversation, Line, Socket, float], Driver]
"""Starts a conversation: its session's name, its core, its line, the client's connection, when that was made."""


@dataclass(frozen=True, slots=True)
class _Keys:
    """Who may come back: the principal that opened the session, with any of these tokens."""

    principal: str
    tokens: tuple[str, ...] = field(repr=False)

    def fit(self, principal: str, token: str) -> bool:
        # Every token is compared, and in constant time: how long it takes says nothing.
        fits = [hmac.compare_digest(token.encode(), good.encode()) for good in self.tokens]
        return self.admit(principal) and any(fits)

    def admit(self, principal: str) -> bool:
        """Whether this is the principal that opened the session, or can be."""
        # Without a credential it is an address, which a client may change as it changes networks, or between IPv4 and
        # IPv6: then the token alone tells who may come back.
        if principal.startswith(ADDRESS) and self.principal.startswith(ADDRESS):
            return True
        return hmac.compare_digest(principal.encode(), self.principal.encode())


class _Turn:
    """What a connection that may return to a session holds instead of a place, until it has or has not."""

    def __init__(self, session: Session) -> None:
        self._session: Session | None = session
        session.returning += 1

    def release(self) -> None:
        """See `server.sockets.Place`."""
        session, self._session = self._session, None
        if session is not None:
            session.returning -= 1


class Session:
    """One session: its core, its driver and its line, and the keys to it.

    Attributes:
        returning: connections that name it and have not resumed it yet.
    """

    def __init__(self, session_id: str, core: NativeConversation, line: Line, driver: Driver, keys: _Keys) -> None:
        self.id = session_id
        self.line = line
        self.driver = driver
        self.keys = keys
        self.returning = 0
        self._core = core

    async def attend(self, socket: Socket, first: Incoming) -> None:
        """Read the first connection until it is lost."""
        self.line.attach(socket)
        await self.driver.attend(socket, first)

    async def resume(self, socket: Socket, last_seq: int, shown: str, token: str) -> None:
        """Read a further connection until it is lost; `shown` is the token it came with, `token` for the one after."""
        # The token shown stays good until the client proves that it has the new one: the answer may get lost too.
        # Those before it are spent: who shows this one has received it.
        self.keys = _Keys(self.keys.principal, (shown, token))
        missed = self.line.resume(socket, last_seq, self._core.resumed(last_seq, token))
        self.driver.watch.resumed(socket.peer, missed)
        await self.driver.attend(socket, proven=lambda: self._prove(token))

    def _prove(self, token: str) -> None:
        self.keys = _Keys(self.keys.principal, (token,))


class Sessions:
    """Serves the native path: opens sessions, and finds them again.

    Args:
        setup: what all sessions have in common.
        open_driver: starts a conversation.
        new_id, new_token: names and resume tokens nobody can guess.
        open_line: what a session sends its messages through.
        max_finished, max_expired, max_detached: see `MAX_FINISHED`, `MAX_EXPIRED`, `MAX_DETACHED`.
            crowded: whether places are scarce, so that `max_detached` counts.
    """

    def __init__(
        self,
        setup: NativeSetup,
        open_driver: OpenDriver,
        *,
        new_id: Callable[[], str],
        new_token: Callable[[], str],
        open_line: Callable[[NativeConversation], Line] = Line,
        max_finished: int = MAX_FINISHED,
        max_expired: int = MAX_EXPIRED,
        max_detached: int = MAX_DETACHED,
        crowded: Callable[[], bool] = lambda: True,
    ) -> None:
        self._setup = setup
        self._open_driver = open_driver
        self._new_id = new_id
        self._new_token = new_token
        self._open_line = open_line
        self._max_finished = max_finished
        self._max_expired = max_expired
        self._max_detached = max_detached
        self._crowded = crowded
        self._sessions: dict[str, Session] = {}
        self._finished: dict[str, Session] = {}
        self._expired: dict[str, _Keys] = {}
        self._detached: dict[str, dict[str, Session]] = {}  # by caller; those that wait longest come first
        self._tasks: set[asyncio.Task[None]] = set()
        self._newcomers: set[asyncio.Timeout] = set()
        self._drain_ms: int | None = None

    def __len__(self) -> int:
        """How many sessions there are, those that wait for their client included."""
        return len(self._sessions)

    @property
    def waiting(self) -> int:
        """How many of them wait for their client."""
        return sum(map(len, self._detached.values()))

    def exempt(self, query: Mapping[str, str], principal: str) -> Place | None:
        """What a connection holds instead of a place that names a session which lives, and comes from its principal.

        None where there is no such session, or as many connections as may be are about to return to it already.
        """
        session = self._sessions.get(query.get("session", ""))
        if session is None or session.returning >= MAX_RETURNING or not session.keys.admit(principal):
            return None
        return _Turn(session)

    async def serve(self, socket: Socket, *, hinted: bool, keep_place: Callable[[], Place | None]) -> None:
        """Run a connection to its end.

        Args:
            socket: the connection.
            hinted: it was opened for a resume, and may have no place.
            keep_place: hands over the place that the connection took, if it did.
        """
        connected_at = asyncio.get_running_loop().time()
        first = await self._first(socket)
        last_seq = 0
        try:
            request = read_resume(first) if isinstance(first, str) else None
            if request is not None:
                last_seq = request.last_seq
                session = self._find(request, socket.principal)
                if (place := keep_place()) is not None:
                    place.release()  # the session has its own
                self._not_detached(session)
                await session.resume(socket, last_seq, request.resume_token, self._new_token())
                return
            if hinted and first is not None:
                text = 'The address names a session, so the first message must be "resume". Leave ?session= away.'
                raise ASRError(Code.BAD_REQUEST, text, param="session")
        except ASRError as error:
            message, code, reason = unheard(error, last_seq)
            with suppress(SocketClosed):
                socket.send_now(message)
            await socket.close(code, reason)
            return
        await self._open(socket, first, keep_place, connected_at)

    def part(self, socket: Socket, error: ASRError, deadline_ms: int) -> None:
        """A connection has lasted as long as it may: its client is told `error`, and may resume on another.

        A session that cannot be resumed is brought to its end instead, within `deadline_ms`.
        """
        for session in self._sessions.values():
            if session.line.socket is socket:
                if session.line.window_ms > 0:
                    session.line.drop(error)
                else:
                    session.driver.drain(deadline_ms)

    def drain(self, deadline_ms: int) -> None:
        """The server goes down: bring every session to its end. Those without a client end at once."""
        self._drain_ms = deadline_ms
        now = asyncio.get_running_loop().time()
        for patience in self._newcomers:
            if not patience.expired():  # one that is about to fire cannot be moved, and need not be
                patience.reschedule(now)
        for session in list(self._sessions.values()):
            session.driver.drain(deadline_ms)

    def give_up(self) -> None:
        """The time of a drain is nearly over: tell every client what is lost."""
        for session in list(self._sessions.values()):
            session.driver.give_up()

    async def aclose(self) -> None:
        """End every session at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Inside ---------------------------------------------------------------------------------------

    async def _first(self, socket: Socket) -> Incoming:
        """The first message; None when none comes in time, or none can."""
        patience = asyncio.timeout(self._setup.limits.start_timeout_ms / 1000)
        try:
            async with patience:
                self._newcomers.add(patience)
                return await socket.receive()
        except TimeoutError:
            return None
        finally:
            self._newcomers.discard(patience)

    async def _open(
        self, socket: Socket, first: Incoming, keep_place: Callable[[], Place | None], connected_at: float
    ) -> None:
        session_id, token = self._new_id(), self._new_token()
        core = NativeConversation(self._setup, session_id, token)
        line = self._open_line(core)
        driver = self._open_driver(session_id, core, line, socket, connected_at)
        keys = _Keys(socket.principal, (token,))
        session = Session(session_id, core, line, driver, keys)

        def lost(window_ms: int) -> None:
            driver.watch.lost(window_ms)
            self._detach(session)

        line.on_lost = lost
        self._sessions[session_id] = session
        task = asyncio.create_task(self._live(session, keep_place()), name=f"session {session_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._drain_ms is not None:
            line.attach(socket)
            driver.drain(self._drain_ms)
        await session.attend(socket, first)
        if line.over.done():
            await asyncio.wait({task})

    async def _live(self, session: Session, place: Place | None) -> None:
        """The life of a session: to the end of the conversation, and on until its client has the rest."""
        try:
            try:
                await session.driver.run()
            finally:
                if place is not None:
                    place.release()
            self._not_detached(session)  # it holds no place any more, and is bounded with those that have ended
            self._finished[session.id] = session
            self._forget_finished()
            await session.line.over
        finally:
            self._not_detached(session)
            self._finished.pop(session.id, None)
            del self._sessions[session.id]
            if session.line.expired:
                self._expired[session.id] = session.keys
                if len(self._expired) > self._max_expired:
                    del self._expired[next(iter(self._expired))]
            await session.line.aclose()

    def _forget_finished(self) -> None:
        """End the oldest of the sessions that are over, but for those whose client is there and reads."""
        unread = [session for session in self._finished.values() if session.line.socket is None]
        for session in unread[: max(len(self._finished) - self._max_finished, 0)]:
            del self._finished[session.id]
            session.line.end()

    def _detach(self, session: Session) -> None:
        """A session goes on without its client. One caller's must not hold every place that there is."""
        if session.id in self._finished:
            return
        waiting = self._detached.setdefault(payer_of(session.keys.principal), {})
        waiting[session.id] = session
        if len(waiting) > self._max_detached and self._crowded():
            longest = next(iter(waiting.values()))
            self._not_detached(longest)
            longest.line.end()

    def _not_detached(self, session: Session) -> None:
        """A session does not wait for its client, or not any more."""
        payer = payer_of(session.keys.principal)
        waiting = self._detached.get(payer, {})
        waiting.pop(session.id, None)
        if not waiting:
            self._detached.pop(payer, None)

    def _find(self, request: Resume, principal: str) -> Session:
        session = self._sessions.get(request.session_id)
        keys = session.keys if session is not None else self._expired.get(request.session_id)
        if keys is None or not keys.fit(principal, request.resume_token):
            text = "There is no such session for you to resume. Start a new one."
            raise ASRError(Code.NOT_FOUND, text, action=Action.RESTART)
        if session is None:
            raise ASRError(Code.EXPIRED, "The session waited for you as long as it could. Start a new one.")
        if not session.line.can_resume(request.last_seq):
            if session.line.socket is None:
                session.line.end()  # nobody can make use of it any more
            text = f"What the session said after message {request.last_seq} is not kept any more. Start a new one."
            raise ASRError(Code.EXPIRED, text)
        return session
