"""Audio files, pipes and open files as 16 kHz PCM16, in flat memory however long they are.

WAV and FLAC go through the streaming decoder; every other container is read by FFmpeg's libraries,
which only ever see an open file: no name that could be taken for an address, and no playlist.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import av

from asr.audio.decode import AudioDecoder
from asr.audio.formats import OUT_BYTES_PER_MS, AudioFormat, Container, Encoding, Stereo, Warn, bad_audio, container_of
from asr.audio.frames import FrameOutput
from asr.audio.reader import Reader
from asr.audio.samples import refuse_stereo
from asr.errors import ASRError, Code

BLOCK_BYTES = 64 << 10
"""How much is read at a time."""

PEEK_BYTES = 64
"""How much of a pipe is awaited before its kind is decided; live audio may trickle."""

_DEMUXERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,eac3,flac,flv,gsm,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,"
    "mp3,mpeg,mpegts,ogg,oma,rm,tak,tta,voc,w64,wav,wv"
)
_PIPE_HINT = " M4A and MP4 often cannot be read from a pipe: give it as a file."
_DAMAGED = "Damaged parts of the audio were skipped."


class AudioSource:
    """PCM chunks of one file, to be iterated once. A context manager; closing twice does no harm.

    Attributes:
        name: the file's name, as messages use it.
        duration_ms: how long the audio is, or None where that cannot be known beforehand.
        channels: how many channels the chunks hold, interleaved; 1 unless they are to be split.
        warnings: sentences about oddities; complete when the iteration has ended.
    """

    def __init__(
        self,
        name: str,
        duration_ms: int | None,
        channels: int,
        warnings: list[str],
        chunks: Generator[bytes],
        closers: tuple[Callable[[], object], ...],
    ) -> None:
        self.name = name
        self.duration_ms = duration_ms
        self.channels = channels
        self.warnings = warnings
        self._chunks = chunks
        self._closers = closers

    def __iter__(self) -> Iterator[bytes]:
        """Chunks of 16 kHz PCM16, each `chunk_ms` long but for the last.

        Raises:
            ASRError: `bad_audio` where the rest cannot be decoded.
        """
        return self._chunks

    def close(self) -> None:
        """End the iteration, and let go of the file if it was opened here. Not while a chunk is being read."""
        self._chunks.close()
        for closer in self._closers:
            closer()

    def __enter__(self) -> AudioSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_audio(source: Path | str | BinaryIO, *, stereo: Stereo = "mix", chunk_ms: int = 100) -> AudioSource:
    """Open a file (or take an open one, also a pipe such as `sys.stdin.buffer`) as 16 kHz PCM16.

    Blocking: call it, and iterate, off the event loop. `stereo` says what becomes of several channels: mixed down to
    one, refused, or split, that is kept, interleaved.

    Raises:
        ASRError: `not_found` for a missing file, `bad_request` for a folder or one that may not be read,
            `bad_audio` for what is empty or not audio. The message names the file.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        file = _open(path)
        return _source(path.name, file, file, stereo, chunk_ms)
    name = Path(str(getattr(source, "name", "the input"))).name.strip("<>")
    return _source(name, source, None, stereo, chunk_ms)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise ASRError(Code.NOT_FOUND, f"There is no file {str(path)!r}.", param="file") from None
    except IsADirectoryError:
        raise ASRError(Code.BAD_REQUEST, f"{str(path)!r} is a folder. Name an audio file.", param="file") from None
    except PermissionError:
        raise ASRError(Code.BAD_REQUEST, f"{str(path)!r} may not be read: permission denied.", param="file") from None
    except (OSError, ValueError) as error:
        raise ASRError(Code.BAD_REQUEST, f"{str(path)!r} cannot be opened: {error}.", param="file") from error


def _source(name: str, file: BinaryIO, own: BinaryIO | None, stereo: Stereo, chunk_ms: int) -> AudioSource:
    reader = Reader(file)
    warnings: list[str] = []
    closers: list[Callable[[], object]] = [] if own is None else [own.close]
    try:
        head = reader.peek(BLOCK_BYTES if reader.seekable() else PEEK_BYTES)
        if not head:
            raise bad_audio("The file is empty.")
        if _is_streamable(head):
            duration_ms, channels, pcm = _streamed(reader, stereo, warnings)
        else:
            container = _container(reader)
            closers.insert(0, container.close)
            hint = "" if reader.seekable() else _PIPE_HINT
            duration_ms, channels, pcm = _from_library(container, stereo, warnings, hint)
    except (ASRError, OSError) as error:
        for closer in closers:
            closer()
        raise _named(error, name) from error
    chunks = _chunks(pcm, chunk_ms * OUT_BYTES_PER_MS * channels, name)
    return AudioSource(name, duration_ms, channels, warnings, chunks, tuple(closers))


def _is_streamable(head: bytes) -> bool:
    if container_of(head) not in (Container.WAV, Container.FLAC):
        return False
    try:
        AudioDecoder(AudioFormat(Encoding.AUTO, None)).feed(head)
    except ASRError as error:
        # A WAV with a compressed codec: not for the streaming decoder, but the library can read it.
        return error.code is not Code.UNSUPPORTED
    return True


def _streamed(reader: Reader, stereo: Stereo, warnings: list[str]) -> tuple[int | None, int, Iterator[bytes]]:
    decoder = AudioDecoder(AudioFormat(Encoding.AUTO, None), stereo=stereo)
    decoder.warnings = warnings
    first = b""
    while not first and (block := reader.read(BLOCK_BYTES)):
        first = decoder.feed(block)
    if not first:
        first = decoder.finish()
    size = reader.size()
    duration_ms = decoder.duration_ms
    if size is not None and decoder.detected is not None and decoder.detected.encoding is Encoding.WAV:
        duration_ms = decoder.duration_within(size)

    def pcm() -> Iterator[bytes]:
        yield first
        while block := reader.read(BLOCK_BYTES):
            yield decoder.feed(block)
        yield decoder.finish()

    return duration_ms, decoder.out_channels, pcm()


def _container(reader: Reader) -> Any:
    try:
        return av.open(
            reader,
            "r",
            options={"format_whitelist": _DEMUXERS, "protocol_whitelist": "none"},
            metadata_errors="replace",  # titles are not always in the character set that they claim
        )
    except av.FFmpegError as error:
        hint = "" if reader.seekable() else _PIPE_HINT
        raise bad_audio(f"This is not audio of a kind that is known here, or it is damaged.{hint}") from error


def _from_library(
    container: Any, stereo: Stereo, warnings: list[str], hint: str
) -> tuple[int | None, int, Iterator[bytes]]:
    streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
    if not streams:
        unknown = " of a kind that can be decoded" if container.streams.audio else ""
        raise bad_audio(f"There is no sound in it{unknown}.")
    stream = streams[0]
    refuse_stereo(stream.codec_context.channels, stereo)

    def warn(sentence: str) -> None:
        if sentence not in warnings:
            warnings.append(sentence)

    output = FrameOutput(stereo=stereo, warn=warn)
    pcm = _decoded(container, stream, output, warn)
    first = next((piece for piece in pcm if piece), b"")
    if not first:
        raise bad_audio(f"There is no sound in it that can be decoded.{hint}")
    return _duration_ms(container, stream), output.out_channels, chain((first,), pcm)


def _decoded(container: Any, stream: Any, output: FrameOutput, warn: Warn) -> Iterator[bytes]:
    for packet in _packets(container, stream, warn):
        try:
            frames = packet.decode()
        except (av.FFmpegError, ValueError):
            warn(_DAMAGED)
            continue
        for frame in frames:
            yield output.push(frame)
    yield output.finish()


def _packets(container: Any, stream: Any, warn: Warn) -> Iterator[Any]:
    try:
        yield from container.demux(stream)
    except av.FFmpegError:
        warn("The file is damaged or cut off; what came before was used.")


def _duration_ms(container: Any, stream: Any) -> int | None:
    if stream.duration and stream.time_base:
        return int(stream.duration * stream.time_base * 1000)
    return int(container.duration // 1000) if container.duration and container.duration > 0 else None


def _chunks(pcm: Iterator[bytes], size: int, name: str) -> Generator[bytes]:
    rest = bytearray()
    try:
        for piece in pcm:
            rest += piece
            whole = len(rest) // size * size
            for at in range(0, whole, size):
                yield bytes(rest[at : at + size])
            del rest[:whole]
    except (ASRError, OSError) as error:
        if rest:  # what was said before the damage, to its last word
            yield bytes(rest)
        raise _named(error, name) from error
    if rest:
        yield bytes(rest)


def _named(error: ASRError | OSError, name: str) -> ASRError:
    if isinstance(error, OSError):
        return ASRError(Code.BAD_REQUEST, f"{name}: reading failed: {error}.", param="file")
    return ASRError(error.code, f"{name}: {error.message}", param="file")
