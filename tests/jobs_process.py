"""A process that does jobs, and what a test needs to drive it: commands go in and answers come out, a line each.

`python tests/jobs_process.py SETTINGS` (JSON). Its recognizer hears a word in every 200 ms, takes as long as the
settings say for a second of audio, and is away while the file `away` lies in the state folder. Each stream that it
begins leaves a line in `streams.log`.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from asr.engine import BYTES_PER_MS, AudioInput
from asr.errors import ASRError, Code
from asr.events import Event
from asr.options import Options
from asr.settings import load_settings
from server.admission import Admission
from server.forms import Upload
from server.jobs.model import JobView, Status
from server.jobs.service import Jobs, _rules
from server.logs import configure_logs
from server.settings import ServerSettings
from server.spool import Spool
from word_engine import WordEngine


class PacedEngine(WordEngine):
    """Hears as `WordEngine` does, but not faster than it is told."""

    def __init__(self, folder: Path, pace: float) -> None:
        super().__init__()
        self._folder = folder
        self._pace = pace

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        with (self._folder / "streams.log").open("a") as file:
            file.write(f"{options.request_id}\n")
        async for event in super().stream(self._paced(audio), options):
            yield event

    async def _paced(self, audio: AsyncIterable[AudioInput]) -> AsyncGenerator[AudioInput]:
        async for item in audio:
            if (self._folder / "away").exists():
                raise ASRError(Code.UNAVAILABLE, "The recognizer is away.")
            if isinstance(item, bytes):
                await asyncio.sleep(len(item) / BYTES_PER_MS / 1000 * self._pace)
            yield item


class Process:
    """The commands."""

    def __init__(self, given: dict[str, Any]) -> None:
        pace = given.pop("pace", 0.0)
        rules = given.pop("rules", {})
        settings = load_settings(ServerSettings, given, env={}, env_file=None)
        self._folder = settings.state_dir
        self._spool = Spool(settings.spool_folder, settings.spool_max_bytes)
        self._engine = PacedEngine(settings.state_dir, pace)
        self.admission = Admission(settings.max_streams, random=random.random, clock=time.monotonic)
        self.jobs = Jobs(
            settings,
            self._engine,
            self.admission,
            self._spool,
            rules=replace(_rules(settings), **rules) if rules else None,
        )

    async def answer(self, command: dict[str, Any]) -> Any:
        match command.pop("do"):
            case "submit":
                options = Options(**command.pop("options", {}))
                patience_s = command.pop("patience_s", None)
                upload = await asyncio.to_thread(self._upload, Path(command.pop("path")))
                try:
                    async with asyncio.timeout(patience_s):
                        return _seen(await self.jobs.submit(upload, options, **command))
                except TimeoutError:
                    return None
                finally:
                    await upload.close()
            case "get":
                found = await self.jobs.get(command["id"], command.get("owner"))
                return None if found is None else _seen(found)
            case "list":
                wanted = command.pop("status", None)
                statuses = None if wanted is None else [Status(one) for one in wanted]
                return [_seen(job) for job in await self.jobs.list(status=statuses, **command)]
            case "cancel":
                return _seen(await self.jobs.cancel(command["id"]))
            case "delete":
                return await self.jobs.delete(command["id"])
            case "files":
                return sorted(path.name for path in self._spool.folder.glob("*.upload"))
            case "ping":
                return "pong"
            case "streams":
                return self._engine.open_streams
            case other:
                raise AssertionError(other)

    def _upload(self, source: Path) -> Upload:
        file = self._spool.create()
        file.write(source.read_bytes())
        file.close()
        return Upload(file.path, source.name, "audio/wav", file.size_bytes, self._spool)


def _seen(job: JobView) -> dict[str, Any]:
    return {
        "id": job.id,
        "status": job.status.value,
        "filename": job.filename,
        "error": job.error,
        "error_code": job.error_code,
        "percent": job.progress_percent,
        "audio_ms": job.audio_ms,
        "total_ms": job.audio_total_ms,
        "text": None if job.transcript is None else job.transcript.text,
        "warnings": [] if job.transcript is None else list(job.transcript.warnings),
        "owner": job.owner,
        "labels": dict(job.labels),
    }


async def main() -> None:
    configure_logs("info", "json")
    process = Process(json.loads(sys.argv[1]))
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    reader = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def serve_one(command: dict[str, Any]) -> None:
        number = command.pop("number")
        try:
            answer: dict[str, Any] = {"number": number, "answer": await process.answer(command)}
        except ASRError as error:
            answer = {"number": number, "code": error.code.value, "message": error.message, "param": error.param}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    async def serve_all() -> None:
        async with asyncio.TaskGroup() as group:
            while line := await reader.readline():
                group.create_task(serve_one(json.loads(line)))

    await process.jobs.start()
    serving = asyncio.create_task(serve_all())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
    finally:
        serving.cancel()
        stopping.cancel()
        await process.jobs.aclose()


if __name__ == "__main__":
    asyncio.run(main())
