"""The sound of clips: what a file's header says of it, and its samples when they are streamed."""

from __future__ import annotations

import hashlib
import wave
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from asr.audio import open_audio
from asr.errors import ASRError, Code
from evaluation.clips import Clip, Speech, SpokenWord

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".m4a")
"""Of the files that are taken for audio in a folder."""

MAX_CLIP_MS = 3 * 3600 * 1000
"""A longer clip is refused: its samples are held in memory while they are streamed."""

PAUSE_MS = 400
"""Where two stretches of speech are closer, no recognizer can be expected to end an utterance between them."""

_DECODED_HZ = 16_000
_RATES_HZ = range(4_000, 192_001)
_HASH_CHARS = 64


def header(path: Path) -> tuple[int, int]:
    """Length (milliseconds) and sample rate (Hz, as the clip will be streamed) of an audio file.

    Only the header is read, but where a format tells no length there: that file is decoded once.

    Raises:
        ASRError: `not_found`, `bad_request` or `bad_audio`; the message names the file.
    """
    if (plain := _plain_wav(path)) is not None:
        return plain
    with open_audio(path) as audio:
        length_ms = audio.duration_ms
        if length_ms is None:
            length_ms = sum(map(len, audio)) * 1000 // (2 * _DECODED_HZ)
    return length_ms, _DECODED_HZ


def samples(clip: Clip) -> bytes:
    """PCM16 little-endian, mono, at `clip.sample_rate_hz`. Blocking.

    Joined clips come out as long as their parts say, so that the places of the words hold.

    Raises:
        ASRError: `not_found` or `bad_audio` where the file cannot be used; `bad_request` where it is not the one that
            the set was made with; `too_large` where the clip is longer than `MAX_CLIP_MS`.
    """
    if clip.audio_ms > MAX_CLIP_MS:
        raise _too_long(clip)
    if isinstance(clip.source, Path):
        return _read(clip, clip.source)
    parts = bytearray()
    for part in clip.source:
        if isinstance(part, int):
            parts += bytes(2 * _count(clip.sample_rate_hz, part))
        else:
            size = 2 * _count(clip.sample_rate_hz, part.audio_ms)
            parts += samples(part)[:size].ljust(size, b"\0")
    return bytes(parts)


def joined(id: str, condition: str, parts: tuple[Clip | int, ...]) -> Clip:
    """One clip of several with pauses (milliseconds) between them: text, words, speech and length put together.

    Words and speech are known where they are known of each part that somebody speaks in.

    Raises:
        ASRError: `bad_request` without a clip among the parts, with a pause below 0, or where sample rates differ.
    """
    clips = [part for part in parts if isinstance(part, Clip)]
    if not clips:
        raise ASRError(Code.BAD_REQUEST, f"The clip {id!r} is joined of no other clip. Name at least one.")
    if any(part < 0 for part in parts if isinstance(part, int)):
        raise ASRError(Code.BAD_REQUEST, f"The clip {id!r} has a pause below 0 ms.")
    if len(rates := sorted({clip.sample_rate_hz for clip in clips})) > 1:
        found = " and ".join(f"{rate} Hz" for rate in rates)
        raise ASRError(Code.BAD_REQUEST, f"The clip {id!r} is joined of clips with {found}. Use one sample rate.")
    spoken = [clip for clip in clips if clip.text]
    at_ms = 0
    words: list[SpokenWord] = []
    speech: list[Speech] = []
    for part in parts:
        if isinstance(part, Clip):
            words += (replace(w, start_ms=w.start_ms + at_ms, end_ms=w.end_ms + at_ms) for w in part.words)
            for stretch in part.speech:
                start_ms, end_ms = stretch.start_ms + at_ms, stretch.end_ms + at_ms
                if speech and start_ms - speech[-1].end_ms < PAUSE_MS:
                    start_ms = speech.pop().start_ms
                speech.append(Speech(start_ms, end_ms))
        at_ms += part.audio_ms if isinstance(part, Clip) else part
    return Clip(
        id=id,
        condition=condition,
        text=" ".join(clip.text for clip in spoken),
        source=parts,
        audio_ms=at_ms,
        sample_rate_hz=rates[0],
        words=tuple(words) if all(clip.words for clip in spoken) else (),
        speech=tuple(speech) if all(clip.speech for clip in spoken) else (),
    )


def _plain_wav(path: Path) -> tuple[int, int] | None:
    """Length and rate of PCM16 mono WAV; None for anything else, which the decoder has to judge."""
    if path.suffix.lower() != ".wav":
        return None
    with suppress(OSError, EOFError, wave.Error), wave.open(str(path)) as file:
        rate_hz, promised = file.getframerate(), file.getnframes()
        if (file.getnchannels(), file.getsampwidth()) != (1, 2) or rate_hz not in _RATES_HZ:
            return None
        # A header may promise what was never written.
        return (promised * 1000 // rate_hz, rate_hz) if 2 * promised <= path.stat().st_size else None
    return None


def _read(clip: Clip, path: Path) -> bytes:
    _check(clip, path)
    if (plain := _plain_wav(path)) is not None and plain[1] == clip.sample_rate_hz:
        if plain[0] > MAX_CLIP_MS:
            raise _too_long(clip)
        with wave.open(str(path)) as file:
            pcm: bytes = file.readframes(file.getnframes())
            return pcm
    if clip.sample_rate_hz != _DECODED_HZ:
        raise ASRError(
            Code.BAD_REQUEST,
            f"{str(path)!r} is no mono PCM16 WAV of {clip.sample_rate_hz} Hz, as the set says of {clip.id!r}. "
            f"Set it to {_DECODED_HZ} Hz: audio of other kinds is decoded to that.",
        )
    decoded = bytearray()
    with open_audio(path, chunk_ms=1000) as audio:
        for chunk in audio:
            decoded += chunk
            if len(decoded) > 2 * _count(_DECODED_HZ, MAX_CLIP_MS):
                raise _too_long(clip)
    return bytes(decoded)


def _check(clip: Clip, path: Path) -> None:
    if not clip.sha256:
        return
    if len(clip.sha256) != _HASH_CHARS:
        raise ASRError(Code.BAD_REQUEST, f"The sha256 of the clip {clip.id!r} has not {_HASH_CHARS} hex digits.")
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise ASRError(Code.NOT_FOUND, f"There is no file {str(path)!r}, the audio of {clip.id!r}.") from None
    except OSError as error:
        raise ASRError(Code.BAD_REQUEST, f"{str(path)!r} cannot be read: {error.strerror}.") from None
    if found != clip.sha256.lower():
        raise ASRError(
            Code.BAD_REQUEST,
            f"{str(path)!r} is not the audio that the set was made with: its sha256 is {found[:12]}…, not "
            f"{clip.sha256[:12]}…. Restore the file, or make the set anew.",
        )


def _count(rate_hz: int, length_ms: int) -> int:
    return length_ms * rate_hz // 1000


def _too_long(clip: Clip) -> ASRError:
    return ASRError(
        Code.TOO_LARGE,
        f"The clip {clip.id!r} is longer than {MAX_CLIP_MS // 3_600_000} hours. Cut it into shorter clips.",
    )
