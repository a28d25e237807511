"""`riva-gateway transcribe`: files in, words out, in the order the files were named."""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from asr.client import RivaASRClient
from asr.errors import ASRError
from asr.options import Options
from asr.transcript import Transcript
from server.commands.advice import without_name
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
from server.commands.exits import Exit, Stop, command, complain, exit_of, run_async
from server.commands.formats import Format, destinations, render, render_error
from server.commands.gaps import gap_sentence
from server.commands.progress import Bars

AT_ONCE = 4
"""Files in work at a time: enough to keep every core and a server busy, few enough to hold in memory."""


@command
def transcribe(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE…", help="Audio: WAV, FLAC, Ogg, MP3, M4A, WebM …; [bold]-[/bold] reads stdin."),
    ],
    format_: Annotated[
        Format | None, typer.Option("--format", "-f", help="What is written. Default text. [dim]ASR_FORMAT[/dim]")
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir",
            "-o",
            metavar="DIR",
            help="Write a file for each input there, instead of stdout. [dim]ASR_OUTPUT_DIR[/dim]",
        ),
    ] = None,
    engine: EngineFlag = None,
    server: Server = None,
    language: Language = None,
    model: ModelName = None,
    words: Annotated[
        bool | None,
        typer.Option("--words/--no-words", help="Ask for the time of each word. Default yes. [dim]ASR_WORDS[/dim]"),
    ] = None,
    mock_plan: MockPlan = None,
    ca_cert: CaCert = None,
    insecure: Insecure = False,
) -> None:
    """Transcribe audio files; text on stdout, progress on stderr.

    [dim]$[/dim] riva-gateway transcribe talk.wav
    [dim]$[/dim] riva-gateway transcribe *.flac --format srt --output-dir captions
    [dim]$[/dim] riva-gateway transcribe a.wav b.wav --format json | jq .text
    [dim]$[/dim] sox talk.mp3 -t wav - | riva-gateway transcribe - --server https://gateway:8443

    With several files a bad one does not stop the others; the exit status tells at the end.
    """
    if files.count("-") > 1:
        raise Stop("'-' (stdin) can be given once.", Exit.CONFIGURATION)
    if "-" in files and sys.stdin.isatty():
        raise Stop(
            "'-' reads audio from a pipe, and stdin is a terminal: riva-gateway transcribe - < FILE", Exit.CONFIGURATION
        )
    settings = read_settings(
        {
            "asr_format": None if format_ is None else format_.value,
            "asr_output_dir": output_dir,
            "asr_language": language,
            "asr_model": model,
            "asr_words": words,
        }
    )
    written = Format(settings.asr_format)
    if len(files) > 1 and settings.asr_output_dir is None and written in (Format.SRT, Format.VTT):
        raise Stop(
            f"Several files as {written.value} need --output-dir DIR, one caption file for each.", Exit.CONFIGURATION
        )
    options = Options(
        language=settings.asr_language, model=settings.asr_model, words=settings.asr_words, partials=False
    )
    to = recognizer(Connection(engine, server, ca_cert, insecure, mock_plan))
    status = run_async(_transcribe(files, written, settings.asr_output_dir, to, options))
    if status is not Exit.OK:
        raise typer.Exit(status)


async def _transcribe(
    files: list[str], format_: Format, output_dir: Path | None, to: Recognizer, options: Options
) -> Exit:
    several = len(files) > 1
    paths = destinations(files, output_dir, format_) if output_dir is not None else {}
    statuses: set[Exit] = set()
    slots = asyncio.Semaphore(AT_ONCE)
    async with connect(to) as client:
        with Bars() as bars:
            tasks = [asyncio.create_task(_one(client, to, name, options, slots, bars)) for name in files]
            try:
                for name, task in zip(files, tasks, strict=True):
                    result = await task
                    with bars.aside():
                        if isinstance(result, ASRError):
                            statuses.add(exit_of(result))
                        _write(name, result, format_, paths.get(name), several=several)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    if not statuses:
        return Exit.OK
    return statuses.pop() if len(statuses) == 1 else Exit.FAILED


async def _one(
    client: RivaASRClient, to: Recognizer, name: str, options: Options, slots: asyncio.Semaphore, bars: Bars
) -> Transcript | ASRError:
    async with slots:
        with bars.file(name) as report:
            try:
                source = _stdin() if name == "-" else Path(name)
                return await client.transcribe_file(source, options, on_progress=report)
            except ASRError as error:
                advised = to.advise(error)
                advised.message = without_name(advised.message, name)
                return advised


def _write(name: str, result: Transcript | ASRError, format_: Format, path: Path | None, *, several: bool) -> None:
    shown = "stdin" if name == "-" else name
    if isinstance(result, ASRError):
        complain(f"{shown}: {result.message}")
        if several and format_ is Format.JSON and path is None:
            sys.stdout.write(render_error(name, result))
        return
    for warning in result.warnings:
        complain(f"{shown}: {warning}")
    for gap in result.gaps:
        complain(f"{shown}: {gap_sentence(gap)}")
    if not result.text:
        complain(f"{shown}: no speech was recognized")
    if path is None:
        sys.stdout.write(render(name, result, format_, several=several))
    else:
        _save(path, render(name, result, format_, several=False))
        typer.echo(path, err=True)


def _save(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Stop(f"{path} cannot be written ({error.strerror}): choose another --output-dir.", Exit.FAILED) from error


def _stdin() -> BinaryIO:
    # An object of its own: a thread that waits in `sys.stdin` holds its lock, and the interpreter aborts over
    # that lock when Ctrl-C ends it.
    raw = io.FileIO(sys.stdin.fileno(), closefd=False)
    raw.name = "<stdin>"
    return io.BufferedReader(raw)
