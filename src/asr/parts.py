"""The parts of a recording that is cut at its pauses, as files of PCM. Blocking: all of it runs on a thread.

The files have no name: they vanish with the process, however it ends.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from asr.engine import BYTES_PER_MS
from asr.errors import ASRError, Code
from asr.options import Options

if TYPE_CHECKING:
    from asr.audio import Stereo
    from asr.pauses import CutRules

_CHUNK_MS = 200
_COPY_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_RETRY_MS = 30_000


@dataclass(frozen=True, slots=True)
class Part:
    """One part, in a file that whoever takes it closes.

    Attributes:
        index: 0, 1, 2 …
        start_ms, end_ms: where it lies in the recording.
        channels: of its 16 kHz PCM16, interleaved.
        is_last: nothing follows.
        file: the samples.
    """

    index: int
    start_ms: int
    end_ms: int
    channels: int
    is_last: bool
    file: IO[bytes]

    def chunks(self) -> Iterator[bytes]:
        """The samples from the start, 200 ms at a time."""
        self.file.seek(0)
        size = _CHUNK_MS * BYTES_PER_MS * self.channels
        while chunk := self.file.read(size):
            yield chunk


class Recording:
    """A file, decoded and cut into parts.

    Attributes:
        total_ms: how long it is: a guess before it is decoded, or None.
        warnings: what was odd in it; complete when it is decoded.
    """

    def __init__(
        self, path: Path, options: Options, stereo: Stereo, rules: CutRules | None, max_audio_ms: int | None
    ) -> None:
        self._path = path
        self._options = options
        self._stereo = stereo
        self._rules = rules
        self._max_ms = max_audio_ms
        self.total_ms: int | None = None
        self.warnings: list[str] = []
        self._files: list[IO[bytes]] = []

    def close(self) -> None:
        """Let go of the parts' files."""
        for file in self._files:
            with suppress(OSError):
                file.close()

    def parts(self) -> Iterator[Part]:
        """Each part as soon as its end is known."""
        from asr.audio import open_audio  # FFmpeg's libraries and numpy: when there is audio
        from asr.pauses import CutFinder

        with open_audio(self._path, stereo=self._stereo, chunk_ms=1_000) as audio:
            channels = audio.channels
            self._check(audio.duration_ms or 0)
            self.total_ms = audio.duration_ms
            self.warnings = audio.warnings
            rules = self._rules_for()
            finder = None if rules is None else CutFinder(rules, channels)
            cutter = _Cutter(self._path.parent, channels, self._files)
            for chunk in audio:
                cutter.write(chunk)
                self._check(cutter.end_ms)
                for cut_ms in () if finder is None else finder.feed(chunk):
                    yield cutter.cut(cut_ms)
            self.total_ms = cutter.end_ms
            for cut_ms in () if finder is None else finder.finish():
                yield cutter.cut(cut_ms)
            yield cutter.last()

    def _rules_for(self) -> CutRules | None:
        from asr.pauses import CutRules

        ends = self._options.endpointing
        if self._options.diarization is not None or (ends is not None and ends.manual):
            return None
        rules = self._rules if self._rules is not None else CutRules()
        longest = 0 if ends is None else ends.silence_ms or 0
        return replace(rules, pause_ms=max(rules.pause_ms, longest))

    def _check(self, now_ms: int) -> None:
        if self._max_ms is not None and now_ms > self._max_ms:
            raise ASRError(
                Code.TOO_LARGE,
                f"The recording is longer than the {self._max_ms / 60_000:g} minutes allowed. Send it in pieces.",
                param="file",
            )


class _Cutter:
    """Writes PCM to a file without a name, and cuts off its head. `files`: where each new file is noted."""

    def __init__(self, folder: Path, channels: int, files: list[IO[bytes]]) -> None:
        self._folder = folder
        self._files = files
        self._channels = channels
        self._bytes_per_ms = BYTES_PER_MS * channels
        self._index = 0
        self._start_ms = 0
        self._written = 0
        self._file: IO[bytes] | None = self._new()

    @property
    def end_ms(self) -> int:
        """How much has been written, from the recording's start."""
        return self._start_ms + self._written // self._bytes_per_ms

    def write(self, pcm: bytes) -> None:
        """Append. Raises `storage_full`."""
        self._put(self._open(), pcm)
        self._written += len(pcm)

    def cut(self, at_ms: int) -> Part:
        """The part before `at_ms`; what is behind goes on in a new file."""
        head, size = self._open(), (at_ms - self._start_ms) * self._bytes_per_ms
        tail = self._new()
        head.seek(size)
        while block := head.read(_COPY_BYTES):
            self._put(tail, block)
        head.truncate(size)
        part = self._part(head, at_ms, is_last=False)
        self._file, self._start_ms, self._written = tail, at_ms, self._written - size
        return part

    def last(self) -> Part:
        """The part up to the end."""
        part = self._part(self._open(), self.end_ms, is_last=True)
        self._file = None
        return part

    def _part(self, file: IO[bytes], end_ms: int, *, is_last: bool) -> Part:
        try:
            file.flush()
        except OSError as error:
            raise _disk(error) from error
        self._index += 1
        return Part(self._index - 1, self._start_ms, end_ms, self._channels, is_last, file)

    def _open(self) -> IO[bytes]:
        assert self._file is not None, "nothing is written after the last part"
        return self._file

    def _new(self) -> IO[bytes]:
        try:
            file = tempfile.TemporaryFile(dir=self._folder, prefix="part-")  # noqa: SIM115 (`close` of Recording)
        except OSError as error:
            raise _disk(error) from error
        self._files.append(file)
        return file

    def _put(self, file: IO[bytes], data: bytes) -> None:
        try:
            file.write(data)
        except OSError as error:
            raise _disk(error) from error


def _disk(error: OSError) -> ASRError:
    if error.errno in _FULL:
        text = "The disk is full: there is no room to cut the recording. Try again later."
        return ASRError(Code.STORAGE_FULL, text, retry_after_ms=_FULL_RETRY_MS, param="file")
    return ASRError(Code.INTERNAL, f"The recording cannot be cut: writing beside it failed ({error.strerror}).")
