"""A request at the docker stand-in's daemon: words, files, folder; flags; templates; how things are refused."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Mapping
from typing import Any

MANY = {"env_files", "env", "ulimits", "ports", "volumes", "labels", "mounts", "caps", "security", "tmpfs", "log"}


class Refused(Exception):
    """Ends the command with a line on stderr."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


class Call:
    """What somebody typed."""

    def __init__(self, there: socket.socket) -> None:
        self.there = there
        head, files, _, _ = socket.recv_fds(there, 8, 3)
        size, data = int.from_bytes(head, "big"), b""
        while len(data) < size:
            data += there.recv(size - len(data))
        self.words: list[str]
        self.words, self.folder, self.variables = json.loads(data)
        self.typed, self.out, self.err = open(files[0]), open(files[1], "w"), open(files[2], "w")  # noqa: PTH123, SIM115

    def say(self, text: str) -> None:
        self.out.write(text + "\n")
        self.out.flush()

    def complain(self, text: str) -> None:
        self.err.write(text + "\n")
        self.err.flush()

    def close(self) -> None:
        for file in (self.typed, self.out, self.err, self.there):
            file.close()


def parse(words: list[str], known: Mapping[str, str], switches: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Flags and the words after them; docker's own order: flags first. `known` and `switches`: flag to name."""
    found: dict[str, Any] = {}
    words = list(words)
    while words and words[0].startswith("-"):
        word, _, value = words.pop(0).partition("=")
        if word in switches:
            found[switches[word]] = value != "false"
        elif word not in known:
            raise Refused(f"unknown flag: {word}\nSee 'docker --help'.", 125)
        else:
            value = value or (words.pop(0) if words else "")
            name = known[word]
            found[name] = [*found.get(name, []), value] if name in MANY else value
    return found, words


def formatted(form: str, record: Mapping[str, Any]) -> str:
    """{{.A.B}} and {{json .A}}, which is all that scripts need."""

    def one(match: re.Match[str]) -> str:
        value: Any = record
        for part in match[2].split("."):
            if part not in value:
                raise Refused(f'template parsing error: map has no entry for key "{part}"')
            value = value[part]
        if isinstance(value, str) and not match[1]:
            return value
        return json.dumps(value)

    text = re.sub(r"\{\{\s*(json )?\.([\w.]+)\s*\}\}", one, form)
    if "{{" in text:
        raise Refused(f"the stand-in does not know this template: {form}")
    return text


def show(call: Call, form: str | None, records: list[dict[str, Any]]) -> None:
    """Records through a template, or as they are."""
    call.say("\n".join(formatted(form, each) for each in records) if form else json.dumps(records, indent=4))
