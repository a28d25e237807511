"""Golden conversations as text, played at three heights: core, in-memory wire, running server.

A line is `> message` (the client says), `< message` (the server answers) or a comment. A message is JSON, or
`audio MS` (that much PCM16), `bytes N` (N zero bytes), `text …` (that very text), `close CODE`. In an
answer `"*"` stands for any value. Acks depend on time, so they are left out, but their `seq` is counted. The first
lines may be `! fault NAME` (of `WordEngine`) and `! path /ws`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

FOLDER = Path(__file__).parent / "golden" / "conversations"


@dataclass
class Playbook:
    """One conversation: its lines as (who, message), and how it is set up."""

    name: str
    lines: list[tuple[str, str]]
    fault: str = ""
    path: str = "/v1/stream"
    file: Path = field(default_factory=Path)


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
    if kind == "bytes":
        return bytes(int(rest))
    if kind == "text":
        return rest
    return line


class Stage(Protocol):
    """One height at which a conversation can be played."""

    async def say(self, message: str | bytes) -> None: ...

    async def answer(self) -> str:
        """The next text message that is no ack, or `close CODE`."""
        ...


async def play(book: Playbook, stage: Stage) -> None:
    for number, (who, line) in enumerate(book.lines, 1):
        if who == ">":
            await stage.say(to_message(line))
        else:
            got = await stage.answer()
            problem = compare(line, got)
            assert not problem, f"{book.name}, line {number}: {problem}\n expected {line}\n got      {got}"


def compare(expected: str, got: str) -> str:
    """What is wrong with an answer, or ""."""
    if expected.startswith("text "):
        return "" if got == expected.removeprefix("text ") else "another text"
    if expected.startswith("close ") or got.startswith("close "):
        return "" if expected == got else "another ending"
    return _differs(json.loads(expected), json.loads(got), "")


def _differs(expected: Any, got: Any, where: str) -> str:
    if expected == "*":
        return ""
    if isinstance(expected, dict) and isinstance(got, dict):
        keys = set(got) - ({"seq"} if not where else set())
        if keys != set(expected):
            return f"fields of {where or 'the message'}: {sorted(keys ^ set(expected))} only on one side"
        for key, value in expected.items():
            problem = _differs(value, got[key], f"{where}.{key}")
            if problem:
                return problem
        return ""
    return "" if expected == got else f"{where}: {expected!r} is not {got!r}"


class SeqCheck:
    """Every message that carries `seq` must carry the next one."""

    def __init__(self) -> None:
        self.last = 0

    def __call__(self, text: str) -> dict[str, Any]:
        message = json.loads(text)
        if "seq" in message:
            assert message["seq"] == self.last + 1, f"seq {message['seq']} after {self.last}"
            self.last += 1
        return message  # type: ignore[no-any-return]
