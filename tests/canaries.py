"""Secrets that must turn up nowhere: made for a test, and looked for in all that comes out, in every spelling."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from server.settings import ServerSettings

_SHAPES = {
    "RIVA_METADATA": "x-canary={}",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization={}",
    "JOBS_DATABASE_URL": "postgresql://speech:{}@127.0.0.1:1/jobs",
}
"""How a value has to look; those of all other keys are the canary alone."""


@dataclass
class Canaries:
    """Each made once, by what it is for; the same name gives the same secret."""

    made: dict[str, str] = field(default_factory=dict)

    def secret(self, name: str) -> str:
        """A secret that a header, a subprotocol and an address can carry."""
        return self.made.setdefault(name, "cnry." + hashlib.sha256(name.encode()).hexdigest()[:36] + "~")

    def settings(self) -> dict[str, str]:
        """A canary for every secret key there is, also for one that is added tomorrow."""
        return {key: _SHAPES.get(key, "{}").format(self.secret(key)) for key in ServerSettings.secret_keys()}

    def found_in(self, place: str, data: bytes | str) -> list[str]:
        """Which of them are there, in which spelling: `place: name (spelling)`."""
        content = data if isinstance(data, bytes) else data.encode("utf-8", "surrogateescape")
        folded = content.lower()
        return [
            f"{place}: {name} ({spelling})"
            for name, value in self.made.items()
            for spelling, text in _spellings(value)
            if text.lower() in folded
        ]

    def found_under(self, folder: Path) -> list[str]:
        """The same for every file below `folder`, its names included."""
        found = [hit for path in folder.rglob("*") for hit in self.found_in(f"the name {path.name}", path.name)]
        for path in folder.rglob("*"):
            if path.is_file():
                found += self.found_in(str(path.relative_to(folder)), path.read_bytes())
        return found


def _spellings(value: str) -> Iterator[tuple[str, bytes]]:
    raw = value.encode()
    yield "as it is", raw
    yield "its middle", raw[8:28]
    yield "backwards", raw[::-1]
    yield "hex", raw.hex().encode()
    yield "URL", quote(value, safe="").replace("~", "%7E").encode()
    yield "JSON", json.dumps(value).strip('"').encode()
    yield "HTML", html.escape(value).encode()
    for shift in range(
        3
    ):  # wherever in a longer text it stands; its first and last characters belong to the neighbours
        encoded = base64.b64encode(b"\0" * shift + raw)
        inner = encoded[4 : len(encoded) // 4 * 4 - 4]
        yield f"base64, shifted by {shift}", inner
        yield f"base64url, shifted by {shift}", inner.translate(bytes.maketrans(b"+/", b"-_"))
