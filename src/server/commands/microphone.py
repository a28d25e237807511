"""The machine's microphone as an audio iterator. `sounddevice` and PortAudio are loaded on first use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from asr.engine import SAMPLE_RATE_HZ
from asr.errors import ASRError, Code
from server.commands.exits import Exit, Stop

CHUNK_MS = 50
MAX_WAITING_MS = 30_000
"""Sound that the recognizer has not taken yet; beyond this it has fallen behind for good."""


class Microphone:
    """PCM16, mono, 16 kHz, from now until `stop`."""

    def __init__(self, device: str | None) -> None:
        """`device` is a number or a part of a name from `devices()`, or None for the system's choice."""
        self._device: int | str | None = int(device) if device is not None and device.isdigit() else device
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_WAITING_MS // CHUNK_MS)
        self._overrun = False
        self._stopped = False

    def stop(self) -> None:
        """End the audio cleanly: what was heard until now is still recognized."""
        self._stopped = True
        if self._chunks.full():
            self._chunks.get_nowait()
        self._chunks.put_nowait(None)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The sound as it arrives.

        Raises:
            Stop: there is no PortAudio, no such device, or the system refuses it.
            ASRError: `overloaded`, when the recognizer falls half a minute behind.
        """
        sounddevice = _sounddevice()
        loop = asyncio.get_running_loop()

        def arrived(data: Any, _frames: int, _time: Any, _status: Any) -> None:  # on PortAudio's own thread
            loop.call_soon_threadsafe(self._take, bytes(data))

        try:
            stream = sounddevice.RawInputStream(
                samplerate=SAMPLE_RATE_HZ,
                blocksize=SAMPLE_RATE_HZ * CHUNK_MS // 1000,
                channels=1,
                dtype="int16",
                device=self._device,
                callback=arrived,
            )
        except (ValueError, sounddevice.PortAudioError) as error:
            raise Stop(_refusal(error), Exit.BAD_INPUT) from error
        with stream:
            while (chunk := await self._chunks.get()) is not None:
                yield chunk
        if self._overrun:
            raise ASRError(
                Code.OVERLOADED,
                "The recognizer is slower than the speech. Close other programs, or use a faster server.",
            )

    def _take(self, chunk: bytes) -> None:
        if self._stopped:
            return
        if self._chunks.full():
            self._overrun = True
            self.stop()
        else:
            self._chunks.put_nowait(chunk)


def devices() -> list[tuple[int, str]]:
    """The microphones of this machine, with the numbers that name them.

    Raises:
        Stop: PortAudio is not installed.
    """
    found = _sounddevice().query_devices()
    return [(number, str(entry["name"])) for number, entry in enumerate(found) if entry["max_input_channels"] > 0]


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ModuleNotFoundError as error:
        raise Stop(
            "The microphone needs the package sounddevice: pip install 'riva-gateway[microphone]'.", Exit.CONFIGURATION
        ) from error
    except OSError as error:
        raise Stop(
            "The microphone needs PortAudio, which is not installed: apt-get install libportaudio2 "
            "(or brew install portaudio).",
            Exit.CONFIGURATION,
        ) from error
    return sounddevice


def _refusal(error: Exception) -> str:
    try:
        names = ", ".join(f"{number}: {name}" for number, name in devices())
    except Exception:  # the list is a courtesy; the refusal itself must come through
        names = ""
    there_are = f"microphones here are {names}" if names else "this machine has no microphone"
    return f"The microphone cannot be opened ({error}): {there_are}; choose one with --device."
