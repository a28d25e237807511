"""The whole gateway with jobs: the command, its HTTP side, and its sudden death."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx2
import psutil

from timing import in_time

from .command import FIXTURES, PATIENCE_S, Shell, wait_for
from .jobs_driver import SECRET, Receiver, receiver

CLIP = FIXTURES / "digits.wav"
SERVE = ("serve", "--port", "0", "--grpc-port", "0", "--no-tls")


def url_of(process: subprocess.Popen[str]) -> str:
    return wait_for(process, r"(http://\S+)").group(1).rstrip("/").replace("localhost", "127.0.0.1")


def send(url: str, **more: Any) -> httpx2.Response:
    return httpx2.post(f"{url}/transcribe/async", files={"file": CLIP.open("rb")}, timeout=30, trust_env=False, **more)


def ask(url: str, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(f"{url}/jobs/{job_id}/status", timeout=10, trust_env=False).json()
    return found


def over(url: str, job_id: str) -> dict[str, Any]:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        job = ask(url, job_id)
        if job["status"] in ("completed", "failed", "cancelled"):
            return job
        time.sleep(0.1)
    raise AssertionError(f"the job is still {job}")


async def test_jobs_outlive_a_gateway_that_is_killed(tmp_path: Path) -> None:
    hooks = {"JOBS_WEBHOOK_SECRET": SECRET, "JOBS_WEBHOOK_PRIVATE": "on", "ASR_ENGINE": "mock"}
    shell = Shell(tmp_path, hooks)

    def told(hook: Receiver) -> set[str]:
        return {headers["riva-gateway-delivery"] for headers, _ in hook.requests}

    def drill(hook: Receiver) -> None:
        with shell.start(*SERVE) as process:
            url = url_of(process)
            ids = [send(url, data={"webhook_url": hook.url}).json()["job_id"] for _ in range(6)]
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE_S)
        with shell.start(*SERVE) as process:
            url = url_of(process)
            jobs = [over(url, job_id) for job_id in ids]
            assert {job["status"] for job in jobs} == {"completed"}
            words = {httpx2.get(f"{url}/jobs/{one}/result", trust_env=False).json()["text"] for one in ids}
            assert len(words) == 1
            assert words != {""}
            until = time.monotonic() + PATIENCE_S
            while len(told(hook)) < len(ids):
                assert time.monotonic() < until
                time.sleep(0.1)
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
            in_time(time.monotonic() - begun, 10)

    async with receiver() as hook:
        await asyncio.to_thread(drill, hook)
        assert {headers["riva-gateway-event"] for headers, _ in hook.requests} == {"job.completed"}
        assert len(told(hook)) == 6


def test_jobs_that_are_off_are_no_path_and_no_database(tmp_path: Path) -> None:
    with Shell(tmp_path, {"JOBS": "off", "ASR_ENGINE": "mock"}).start(*SERVE) as process:
        url = url_of(process)
        assert send(url).status_code in (404, 405)
        assert httpx2.get(f"{url}/jobs/x/status", trust_env=False).status_code == 404
    assert not list(tmp_path.rglob("jobs.sqlite"))


def test_a_gateway_without_jobs_loads_no_workflow_engine(tmp_path: Path) -> None:
    with Shell(tmp_path, {"ASR_ENGINE": "mock"}).start(*SERVE) as process:
        url = url_of(process)
        assert httpx2.get(f"{url}/readyz", trust_env=False).status_code == 200
        names = {Path(one.path).as_posix() for one in psutil.Process(process.pid).memory_maps()}
        assert not [name for name in names if re.search(r"psycopg|_sqlite3", name)]
    assert not list(tmp_path.rglob("jobs.sqlite"))
