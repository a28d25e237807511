"""The rollout at run time: one small file says what is to be; it is watched, and written by whoever changes it.

The file is `rollout.json` in the state directory. Once it is there it wins over ASR_SWITCH and ASR_CANARY_PERCENT,
also after a restart. It may be a link or a mounted file (a ConfigMap); one that cannot be written can still be read.
One that cannot be understood changes nothing, and is complained of once. What was changed and could not be saved holds
until the file says something new, or the gateway ends.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import structlog

from asr.errors import ASRError, Code
from server.rollout.engine import RolloutEngine
from server.rollout.state import (
    MAX_NAME_CHARS,
    MAX_REASON_CHARS,
    MAX_STATE_BYTES,
    Position,
    Wanted,
    clean,
    in_words,
    read_state,
)
from server.rollout.verdict import Verdict
from server.whole_file import write_whole

log = structlog.get_logger("server.rollout")

FILE_NAME = "rollout.json"
INTERVAL_S = 1.0
WARM_UP_S = 1.0
"""So long a change waits for the recognizer that is about to get streams."""
SAVE_S = 3.0
"""So long it waits for the disk. It holds already."""
FIRST_READ_S = 3.0
"""So long a start waits for the file."""


class Control:
    """Applies what the file and the operator want to an engine.

    Args:
        engine: the one that is controlled.
        path: of the state file.
        configured: what the settings say; it holds until there is a file.
        utc_now: the wall clock.
        interval_s: between two looks at the file.
    """

    def __init__(
        self,
        engine: RolloutEngine,
        path: Path,
        configured: Wanted,
        *,
        utc_now: Callable[[], datetime],
        interval_s: float = INTERVAL_S,
    ) -> None:
        self.engine = engine
        self.path = path
        self._utc_now = utc_now
        self._interval_s = interval_s
        self._seen: bytes | None = None
        self._complaint = ""
        self._unsaved = False
        self._nudge = asyncio.Event()
        self._files = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None
        self._asked = 0
        self._applied = 0
        engine.apply(configured)
        engine.on_worse = self._aborted

    async def start(self) -> None:
        """Read the file, if there is one, and watch it from now on. A disk that hangs keeps nobody from starting."""
        read = asyncio.Event()
        self._watch = asyncio.create_task(self._keep_watching(read), name="rollout")
        try:
            async with asyncio.timeout(FIRST_READ_S):
                await read.wait()
        except TimeoutError:
            self._complain(f"it could not be read within {FIRST_READ_S:g} s")

    async def aclose(self) -> None:
        """Watch no more. What is not saved is."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.wait([watch])
        if self._unsaved:
            await self._save()

    def in_words(self) -> str:
        """For a status page: one sentence."""
        return in_words(self.engine.wanted)

    async def change(
        self, *, position: Position | None = None, canary_percent: int | None = None, by: str, reason: str
    ) -> str:
        """An operator wants something else; None for what shall stay.

        It holds when this returns, whether or not it could be saved.

        Returns:
            What the operator should know, or "".

        Raises:
            ASRError: `bad_request`, where it needs an endpoint that is not set; nothing has changed.
        """

        def wanted() -> Wanted:
            present = self.engine.wanted
            return Wanted(
                present.position if position is None else position,
                present.canary_percent if canary_percent is None else canary_percent,
                self._now(),
                clean(by, MAX_NAME_CHARS),
                clean(reason, MAX_REASON_CHARS),
            )

        notes = [await self._change(wanted), await self._save()]
        return " ".join(filter(None, notes))

    async def _keep_watching(self, read: asyncio.Event) -> None:
        while True:
            try:
                if self._unsaved:
                    await self._save()
                await self._reread()
                self.engine.watch()
            except Exception:
                log.exception("rollout watch failed")
            read.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._nudge.wait()
            self._nudge.clear()

    async def _reread(self) -> None:
        try:
            async with self._files:
                data = await asyncio.to_thread(_read, self.path)
                if data == self._seen:
                    return
                self._seen = data
        except FileNotFoundError:
            return
        except OSError as error:
            self._complain(f"it cannot be read ({error.strerror or type(error).__name__})")
            return
        try:
            wanted = read_state(data, self.engine.wanted)
        except ValueError as error:
            self._complain(str(error))
            return
        possible = self._possible(wanted)
        if possible == wanted:
            self._complaint = ""
        wanted = possible
        self._unsaved = False
        if wanted != self.engine.wanted:
            # What is saved during the wait has taken this one's place.
            await self._change(lambda: wanted if self._seen is data else self.engine.wanted)

    def _possible(self, wanted: Wanted) -> Wanted:
        """As much of it as there are endpoints for: who says `off` is heard, whatever else the file says."""
        try:
            self.engine.check(wanted)
        except ASRError as error:
            self._complain(error.message)
            if not self.engine.has_canary:
                wanted = replace(wanted, canary_percent=0)
            if wanted.position is Position.FORMER and not self.engine.has_former:
                wanted = replace(wanted, position=self.engine.wanted.position)
        return wanted

    async def _change(self, wanted: Callable[[], Wanted]) -> str:
        """`wanted` is asked again after the wait: meanwhile a canary may have been aborted.

        What was asked for later holds, also where it had nothing to wait for: `off` is not undone by a `former` of
        before.
        """
        self._asked += 1
        turn = self._asked
        asked = wanted()
        self.engine.check(asked)
        note = ""
        if asked.position is not Position.OFF:  # which must not wait for anybody
            try:
                async with asyncio.timeout(WARM_UP_S):
                    note = await self.engine.prepare(asked)
            except TimeoutError:
                note = "The recognizer that gets the streams now has not answered yet."
        if self._applied > turn:
            return f"Another change came in between, and that one holds: {in_words(self.engine.wanted)}"
        before, after = self.engine.wanted, wanted()
        self._applied = turn
        if after is before:
            return note
        self.engine.apply(after)
        self._tell(before, after, note)
        return note

    def _aborted(self, _: Verdict) -> None:
        """The engine has aborted its canary by itself: that has to be written down."""
        wanted = replace(self.engine.wanted, changed_at=self._now())
        self.engine.apply(wanted)
        self._unsaved = True
        self._nudge.set()

    async def _save(self) -> str:
        self._unsaved = False
        try:
            async with asyncio.timeout(SAVE_S), self._files:
                data = self.engine.wanted.to_json().encode()
                await asyncio.to_thread(_write, self.path, data)
                self._seen = data
        except OSError as error:  # TimeoutError is one
            why = error.strerror or type(error).__name__
            log.error("rollout not saved", path=str(self.path), error=why)
            return f"It holds now, but could not be saved ({why}): after a restart it is forgotten."
        self._complaint = ""
        return ""

    def _complain(self, why: str) -> None:
        if why != self._complaint:
            self._complaint = why
            log.error("rollout file not used", path=str(self.path), reason=why, kept=in_words(self.engine.wanted))

    def _tell(self, before: Wanted, after: Wanted, note: str) -> None:
        log.warning(
            "rollout changed",
            position=after.position.value,
            position_before=before.position.value,
            canary_percent=after.canary_percent,
            canary_percent_before=before.canary_percent,
            by=after.by or "the state file",
            reason=after.reason,
            note=note,
        )

    def _now(self) -> str:
        return self._utc_now().isoformat(timespec="seconds").replace("+00:00", "Z")


def read_file(path: Path, present: Wanted) -> Wanted:
    """What a state file says, `present` where there is none.

    Raises:
        ASRError: `bad_request`, for one that cannot be read or understood.
    """
    try:
        return read_state(_read(path), present)
    except FileNotFoundError:
        return present
    except (OSError, ValueError) as error:
        why = str(error) if isinstance(error, ValueError) else error.strerror or type(error).__name__
        raise ASRError(Code.BAD_REQUEST, f"{path}: {why}. Correct the file, or remove it.") from error


def write_file(path: Path, wanted: Wanted) -> None:
    """Put a state file there, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    _write(path, wanted.to_json().encode())


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_STATE_BYTES + 1)


def _write(path: Path, data: bytes) -> None:
    # A link is kept: what it points to is replaced.
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, data, mode=0o644)  # it may be another user's gateway that reads it
