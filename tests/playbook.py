"""Golden conversations as text, played at three heights: core, in-memory wire, running server.

A line is `> message` (the client says), `< message` (the server answers) or a comment. A message is JSON, or
`audio MS` (that much PCM16), `append MS RATE` (that much PCM16 of RATE Hz in an `input_audio_buffer.append`), `header
RATE` (of a WAV file, likewise), `bytes N` (N zero bytes), `text …` (that very text), `close CODE`. In an answer `"*"`
stands for any value, `"$name"` for any text that is the same in all places. Acks depend on time, so they are left out,
but their `seq` is counted. The first lines may be `! fault NAME` (of `WordEngine`) and `! path /ws`.

A client that loses its connection: `> cut` breaks it without a word, `> leave CODE` closes it; `> resume` opens another
and asks for the session, with what `ready` or `resumed` said last and the number of the last message that was read.
`> resume {…}` does so with these fields changed; the token `"spent"` is the one before the last. `< old …` is an
answer on the connection before. `! window MS` is the server's window, `> wait MS` lets time pass. Such
conversations need more than a core.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

RECONNECTING = ("cut", "leave", "resume", "wait")
FOLDER = Path(__file__).parent / "golden" / "conversations"


@dataclass
class Playbook:
    """One conversation: its lines as (who, message), and how it is set up."""

    name: str
    lines: list[tuple[str, str]]
    fault: str = ""
    path: str = "/v1/stream"
    window: str = "60000"
    file: Path = field(default_factory=Path)

    @property
    def reconnects(self) -> bool:
        """Whether it is about more than one connection."""
        return any(who == ">" and line.split(" ")[0] in RECONNECTING for who, line in self.lines)


def read(file: Path) -> Playbook:
    book = Playbook(file.stem, [], file=file)
    for line in file.read_text().splitlines():
        mark, _, rest = line.partition(" ")
        if mark in (">", "<"):
            book.lines.append((mark, rest.strip()))
        elif mark == "!":
            key, _, value = rest.partition(" ")
            setattr(book, key, value.strip())
        elif line.strip() and mark != "#":
            raise AssertionError(f"{file.name}: cannot read {line!r}")
    return book


def all_playbooks() -> list[Playbook]:
    books = [read(file) for file in sorted(FOLDER.glob("*.txt"))]
    assert books, "no golden conversations were found"
    return books


def to_message(line: str) -> str | bytes:
    kind, _, rest = line.partition(" ")
    if kind == "audio":
        return bytes(int(rest) * 32)
    if kind == "append":
        ms, rate_hz = map(int, rest.split())
        audio = base64.b64encode(bytes(2 * rate_hz * ms // 1000)).decode()
        return json.dumps({"type": "input_audio_buffer.append", "audio": audio})
    if kind == "header":
        header = wav_header(int(rest))
        return json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(header).decode()})
    if kind == "bytes":
        return bytes(int(rest))
    if kind == "text":
        return rest
    return line


def wav_header(rate_hz: int) -> bytes:
    """Of mono PCM16 whose length nobody knew when it was written."""
    fmt = struct.pack("<HHIIHH", 1, 1, rate_hz, rate_hz * 2, 2, 16)
    return b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data\xff\xff\xff\xff"


class Connection(Protocol):
    """One connection to a server."""

    async def say(self, message: str | bytes) -> None: ...

    async def hear(self) -> str:
        """The next text message, or `close CODE`."""
        ...

    async def cut(self) -> None:
        """Break it without a word."""
        ...

    async def leave(self, code: int) -> None:
        """Close it."""
        ...


class Player:
    """A client that keeps what a resume needs, and skips acks.

    Args:
        connect: opens a connection at `path`.
    """

    def __init__(self, connect: Callable[[str], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._connections: list[Connection] = []
        self.check = SeqCheck()
        self.session_id = ""
        self.tokens: list[str] = []

    async def open(self, path: str) -> None:
        self._connections.append(await self._connect(path))

    async def say(self, message: str | bytes) -> None:
        await self._connections[-1].say(message)

    async def answer(self, back: int = 1) -> str:
        while True:
            text = await self._connections[-back].hear()
            if not text.startswith("{"):
                return text
            message = self.check(text)
            if message.get("resume_token"):
                self.session_id = message["session_id"]
                self.tokens.append(message["resume_token"])
            if message.get("type") != "ack":
                return text

    async def message(self) -> dict[str, Any]:
        text = await self.answer()
        assert text.startswith("{"), text
        return json.loads(text)  # type: ignore[no-any-return]

    async def cut(self) -> None:
        await self._connections[-1].cut()

    async def leave(self, code: int) -> None:
        await self._connections[-1].leave(code)

    async def resume(self, **changed: Any) -> None:
        fields = {
            "session_id": self.session_id,
            "resume_token": self.tokens[-1],
            "last_seq": self.check.last,
            "sent_bytes": 0,
            **changed,
        }
        if fields["resume_token"] == "spent":
            fields["resume_token"] = self.tokens[-2]
        await self.open(f"/v1/stream?session={fields['session_id']}")
        await self.say(json.dumps({"type": "resume", **fields}))


async def play(book: Playbook, player: Player) -> None:
    await player.open(book.path)
    names: dict[str, str] = {}
    for number, (who, line) in enumerate(book.lines, 1):
        verb, _, rest = line.partition(" ")
        if who == ">" and verb in RECONNECTING:
            match verb:
                case "cut":
                    await player.cut()
                case "leave":
                    await player.leave(int(rest))
                case "wait":
                    await asyncio.sleep(int(rest) / 1000)
                case "resume":
                    await player.resume(**json.loads(rest or "{}"))
        elif who == ">":
            await player.say(to_message(line))
        else:
            old = verb == "old"
            expected = rest if old else line
            got = await player.answer(2 if old else 1)
            problem = compare(expected, got, names)
            assert not problem, f"{book.name}, line {number}: {problem}\n expected {expected}\n got      {got}"


def compare(expected: str, got: str, names: dict[str, str] | None = None) -> str:
    """What is wrong with an answer, or ""; `names` keeps what each `"$name"` stands for."""
    if expected.startswith("text "):
        return "" if got == expected.removeprefix("text ") else "another text"
    if expected.startswith("close ") or got.startswith("close "):
        return "" if expected == got else "another ending"
    return _differs(json.loads(expected), json.loads(got), "", {} if names is None else names)


def _differs(expected: Any, got: Any, where: str, names: dict[str, str]) -> str:
    if expected == "*":
        return ""
    if isinstance(expected, str) and expected.startswith("$") and isinstance(got, str):
        known = names.setdefault(expected, got)
        return "" if got == known else f"{where}: {got!r} is not {expected}, {known!r}"
    if isinstance(expected, dict) and isinstance(got, dict):
        keys = set(got) - ({"seq"} if not where else set())
        if keys != set(expected):
            return f"fields of {where or 'the message'}: {sorted(keys ^ set(expected))} only on one side"
        for key, value in expected.items():
            problem = _differs(value, got[key], f"{where}.{key}", names)
            if problem:
                return problem
        return ""
    return "" if expected == got else f"{where}: {expected!r} is not {got!r}"


class SeqCheck:
    """Every message that carries `seq` must carry the next one; one about the connection repeats the last."""

    def __init__(self) -> None:
        self.last = 0

    def __call__(self, text: str) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(text)
        seq = message.get("seq")
        if message.get("type") == "resumed":
            assert seq == self.last, f"resumed from {seq}, not from {self.last}"
        elif message.get("type") == "error" and message.get("fatal") and seq == max(self.last, 1):
            pass  # about the connection
        elif seq is not None:
            assert seq == self.last + 1, f"seq {seq} after {self.last}"
            self.last += 1
        return message
