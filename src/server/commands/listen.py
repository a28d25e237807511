"""`riva-gateway listen`: the microphone on screen, words growing in place until they are final."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
from collections.abc import AsyncIterable
from typing import Annotated, TextIO

import typer
from rich.cells import cell_len

from asr.client import RivaASRClient
from asr.events import Event, Final, Gap, Partial, State, Status
from asr.options import Options
from asr.wire import encode
from server.commands.connection import (
    CaCert,
    Connection,
    EngineFlag,
    Insecure,
    Language,
    MockPlan,
    ModelName,
    Recognizer,
    Server,
    connect,
    read_settings,
    recognizer,
)
from server.commands.exits import command, complain, run_async
from server.commands.gaps import gap_sentence
from server.commands.microphone import Microphone, devices

_ERASE_LINE = "\r\x1b[K"


@command
def listen(
    engine: EngineFlag = None,
    server: Server = None,
    language: Language = None,
    model: ModelName = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device", "-d", help="Microphone: a number or part of a name; see --list. [dim]ASR_DEVICE[/dim]"
        ),
    ] = None,
    list_devices: Annotated[bool, typer.Option("--list", help="List the microphones and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Each event as a line of JSON (asr.v1), partials too.")
    ] = False,
    mock_plan: MockPlan = None,
    ca_cert: CaCert = None,
    insecure: Insecure = False,
) -> None:
    """Transcribe the microphone of this machine until Ctrl-C.

    [dim]$[/dim] riva-gateway listen
    [dim]$[/dim] riva-gateway listen > notes.txt

    Words appear as they are recognized and become a line when you pause. Ctrl-C ends the recording and
    waits for the last words; a second Ctrl-C does not wait.
    """
    if list_devices:
        for number, name in devices():
            typer.echo(f"{number}\t{name}")
        return
    settings = read_settings({"asr_language": language, "asr_model": model, "asr_device": device})
    options = Options(language=settings.asr_language, model=settings.asr_model)
    to = recognizer(Connection(engine, server, ca_cert, insecure, mock_plan))
    run_async(_listen(to, options, Microphone(settings.asr_device or None), as_json))


async def _listen(to: Recognizer, options: Options, microphone: Microphone, as_json: bool) -> None:
    loop = asyncio.get_running_loop()

    def interrupted() -> None:
        loop.remove_signal_handler(signal.SIGINT)  # the next one is Python's own, and ends at once
        microphone.stop()

    loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        async with connect(to) as client:
            if sys.stderr.isatty():
                complain("listening; Ctrl-C ends it")
            await show(client, microphone.chunks(), options, Screen(sys.stdout, as_json=as_json))
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def show(client: RivaASRClient, audio: AsyncIterable[bytes], options: Options, screen: Screen) -> None:
    """Recognize `audio` and put every event on the screen."""
    try:
        async for event in client.stream_transcribe(audio, options):
            screen.put(event)
    finally:
        screen.close()


class Screen:
    """Partials in place on a terminal, finals as lines anywhere; or every event as JSON."""

    def __init__(self, out: TextIO, *, as_json: bool = False) -> None:
        self._out = out
        self._as_json = as_json
        self._in_place = out.isatty() and not as_json
        self._dirty = False

    def put(self, event: Event) -> None:
        """Show one event."""
        if self._as_json:
            self._out.write(json.dumps(encode(event), ensure_ascii=False) + "\n")
        elif isinstance(event, Final):
            if event.text:
                self._out.write((_ERASE_LINE if self._in_place else "") + event.text + "\n")
                self._dirty = False
        elif isinstance(event, Partial) and self._in_place:
            width = shutil.get_terminal_size().columns - 1
            self._out.write(_ERASE_LINE + _tail(event.text, width))
            self._dirty = True
        elif isinstance(event, Gap):
            self._warn(gap_sentence(event))
        elif isinstance(event, Status) and event.state is State.FAILING_OVER:
            self._warn("the recognizer was lost; what you say is kept for the next one")
        self._out.flush()

    def close(self) -> None:
        """Take away a partial that never became final."""
        if self._dirty:
            self._out.write(_ERASE_LINE)
            self._out.flush()

    def _warn(self, sentence: str) -> None:
        # Not into the middle of a partial; the next one shows it again.
        self.close()
        self._dirty = False
        complain(sentence)


def _tail(text: str, width: int) -> str:
    """The end of `text`, as much as fits in `width` columns: the newest words are the ones to see."""
    if cell_len(text) <= width:
        return text
    kept = text[-(width - 1) :] if width > 1 else ""
    while cell_len(kept) > width - 1:
        kept = kept[1:]
    return "…" + kept
