"""Drives processes that do jobs (`jobs_process`), as their clients and as their fate."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from server.jobs.database import Database, postgres_url, sqlite_url

from .postgres import ROOT

PATIENCE_S = 30.0
SECRET = "whsec test"
WORD_MS = 200


class Refused(Exception):
    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(f"{answer['code']}: {answer['message']}")
        self.code, self.message, self.param = answer["code"], answer["message"], answer["param"]


class Gone(Exception):
    """The process is no more."""


class Gateway:
    """One life of a process. Answers come in any order."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._number = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, do: str, **more: Any) -> Any:
        assert self._process.stdin is not None
        self._number += 1
        future = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = future
        if self._reading.done():
            raise Gone
        self._process.stdin.write((json.dumps({"number": self._number, "do": do, **more}) + "\n").encode())
        async with asyncio.timeout(PATIENCE_S):
            answer = await future
        if "code" in answer:
            raise Refused(answer)
        return answer["answer"]

    async def submit(self, path: Path, **more: Any) -> dict[str, Any]:
        found: dict[str, Any] = await self.ask(
            "submit", path=str(path), **{"filename": path.name, "owner": "me", **more}
        )
        return found

    async def over(self, job_id: str) -> dict[str, Any]:
        """The job, when it is over."""
        return await self.until(job_id, "completed", "failed", "cancelled")

    async def until(self, job_id: str, *statuses: str, percent: int = 0) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                job: dict[str, Any] = await self.ask("get", id=job_id)
                if job["status"] in statuses and job["percent"] >= percent:
                    return job
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        await self._end()

    async def stop(self) -> int:
        """As an operator stops it; its exit status."""
        os.kill(self._process.pid, signal.SIGTERM)
        return await self._end()

    async def close(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._end()

    async def _end(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            status = await self._process.wait()
            await self._reading
        return status

    async def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                answer = json.loads(line)
                future = self._waiting.pop(answer["number"])
                if not future.done():  # else nobody waits any more
                    future.set_result(answer)
        finally:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(Gone())
                    future.exception()


@dataclass
class Site:
    """Where gateways live: a database, state folders, and what was seen there.

    Attributes:
        folder: of recordings, logs and state.
        postgres: the URL of a PostgreSQL database, or "" for SQLite.
        settings: of every gateway here.
    """

    folder: Path
    postgres: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    gateways: list[Gateway] = field(default_factory=list)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text() if (self.folder / "log").exists() else ""

    @property
    def streams(self) -> list[str]:
        """The request ids of the streams that recognizers began."""
        return [line for path in self.folder.glob("*/streams.log") for line in path.read_text().splitlines()]

    async def gateway(self, name: str = "one", **more: Any) -> Gateway:
        state = self.folder / name
        state.mkdir(exist_ok=True)
        given: dict[str, Any] = {"state_dir": str(state), **self.settings, **more}
        if self.postgres:
            given["jobs_database_url"] = self.postgres
        with (self.folder / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, ROOT / "tests" / "jobs_process.py", json.dumps(given)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self.gateways.append(Gateway(process))
        return self.gateways[-1]

    def recording(self, seconds: float, name: str = "") -> Path:
        """Speech, as far as the recognizer of the tests can tell: it hears a word in every 200 ms."""
        path = self.folder / (name or f"{seconds:g}.wav")
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(b"\x10\x20" * int(seconds * 16_000))
        return path

    def database(self, name: str = "one") -> Database:
        return Database(
            postgres_url(self.postgres) if self.postgres else sqlite_url(self.folder / name / "jobs.sqlite")
        )

    def watch(self, name: str = "one") -> None:
        """Note every change of a job's state from now on, in the database itself."""
        (self.folder / name).mkdir(exist_ok=True)
        database = self.database(name)
        database.create()
        with database.engine.begin() as conn:
            for statement in _WATCH_POSTGRES if self.postgres else _WATCH_SQLITE:
                conn.execute(sa.text(statement))
        database.dispose()

    def moves(self, name: str = "one") -> list[tuple[str, str]]:
        """Each job's id with the state it came to, in order."""
        rows = self.query("SELECT job_id, status FROM seen_moves ORDER BY number", name)
        return [(str(job_id), str(status)) for job_id, status in rows]

    def query(self, text: str, name: str = "one") -> list[Any]:
        database = self.database(name)
        try:
            with database.engine.connect() as conn:
                return list(conn.execute(sa.text(text)))
        finally:
            database.dispose()

    @property
    def workflows(self) -> str:
        """The engine's table."""
        return "dbos.workflow_status" if self.postgres else "workflow_status"


_WATCH_SQLITE = (
    "CREATE TABLE seen_moves (number INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT, status TEXT)",
    "CREATE TRIGGER watch AFTER UPDATE OF status ON gateway_jobs WHEN new.status <> old.status "
    "BEGIN INSERT INTO seen_moves (job_id, status) VALUES (new.id, new.status); END",
)
_WATCH_POSTGRES = (
    "CREATE TABLE seen_moves (number BIGSERIAL PRIMARY KEY, job_id TEXT, status TEXT)",
    "CREATE FUNCTION note_move() RETURNS trigger AS $$ BEGIN "
    "INSERT INTO seen_moves (job_id, status) VALUES (new.id, new.status); RETURN new; END $$ LANGUAGE plpgsql",
    "CREATE TRIGGER watch AFTER UPDATE OF status ON gateway_jobs FOR EACH ROW "
    "WHEN (new.status IS DISTINCT FROM old.status) EXECUTE FUNCTION note_move()",
)


@asynccontextmanager
async def site(folder: Path, postgres: str = "", **settings: Any) -> AsyncIterator[Site]:
    """A place for gateways; none of them outlives it."""
    there = Site(folder, postgres, settings)
    try:
        yield there
    finally:
        for gateway in there.gateways:
            await gateway.close()


@dataclass
class Receiver:
    """A receiver of webhooks. `answers`: status codes for the next requests, 200 after that."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
            body = await reader.readexactly(int(headers["content-length"]))
            self.requests.append(({"": head[0], **headers}, body))
            status = self.answers.pop(0) if self.answers else 200
            more = "Location: /elsewhere\r\n" if status // 100 == 3 else ""
            writer.write(f"HTTP/1.1 {status} So\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # its sender was killed
        finally:
            writer.close()


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    there = Receiver()
    server = await asyncio.start_server(there.serve, "127.0.0.1", 0)
    there.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    async with server:
        yield there
