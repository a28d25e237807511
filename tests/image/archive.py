"""An image as a file (docker-archive): its settings, its layers one by one, and what a container sees of them."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

_GONE = ".wh."


@dataclass(frozen=True)
class Entry:
    """One file or folder, in the layer that it comes from."""

    info: tarfile.TarInfo
    layer: tarfile.TarFile

    def content(self) -> bytes:
        """What is in it; nothing for all that is no file."""
        opened = self.layer.extractfile(self.info) if self.info.isreg() else None
        return b"" if opened is None else opened.read()

    @property
    def signature(self) -> tuple[Any, ...]:
        """Equal where two are the same in everything that a container can tell."""
        info = self.info
        return (info.type, info.mode, info.uid, info.gid, info.mtime, info.linkname, self.content())


class Archive:
    """A saved image. Paths are as in `usr/bin/env`, without a slash in front."""

    def __init__(self, path: Path) -> None:
        self._outer = tarfile.open(path)  # noqa: SIM115 - read from until the tests end
        (self.manifest,) = json.loads(self._text("manifest.json"))
        self.config_text = self._text(self.manifest["Config"])
        self.layers = [tarfile.open(fileobj=self._member(name)) for name in self.manifest["Layers"]]  # noqa: SIM115 - the same

    @property
    def config(self) -> dict[str, Any]:
        """What a container is started with: User, Env, Labels and the like."""
        return dict(json.loads(self.config_text)["config"])

    @property
    def history(self) -> list[dict[str, Any]]:
        """How each layer came to be."""
        return list(json.loads(self.config_text)["history"])

    @property
    def layer_bytes(self) -> list[int]:
        """The content of each layer, the base's first."""
        return [sum(info.size for info in layer) for layer in self.layers]

    def everything(self) -> Iterator[tuple[str, Entry]]:
        """Every entry of every layer, also what a later one hides."""
        for layer in self.layers:
            for info in layer:
                yield _plain(info.name), Entry(info, layer)

    @cached_property
    def files(self) -> dict[str, Entry]:
        """What a container sees."""
        seen: dict[str, Entry] = {}
        for layer in self.layers:
            for info in layer:
                path = PurePosixPath(_plain(info.name))
                if path.name.startswith(_GONE):
                    hidden = str(path.with_name(path.name.removeprefix(_GONE)))
                    for name in [name for name in seen if name == hidden or name.startswith(f"{hidden}/")]:
                        del seen[name]
                else:
                    seen[str(path)] = Entry(info, layer)
        return seen

    def text(self, path: str) -> str:
        """A file as a container reads it."""
        return self.files[path].content().decode()

    def close(self) -> None:
        """Close it."""
        self._outer.close()

    def _member(self, name: str) -> IO[bytes]:
        return cast(IO[bytes], self._outer.extractfile(name))

    def _text(self, name: str) -> str:
        return self._member(name).read().decode()


def _plain(name: str) -> str:
    return name.removeprefix("./").strip("/")
