"""curl and requests against the transcription REST: each example of `docs/transcription-rest.md`, as it stands.

Only the address and the id of the job are put in.
"""

from __future__ import annotations

import ast
import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

import sound
import speech
from contract.clients import PYTHON, ROOT, SYSTEMS, run, version_of
from contract.conformance import Conformance
from e2e.gateway import running
from server.serve import Addresses

DOCUMENT = (ROOT / "docs" / "transcription-rest.md").read_text("utf-8")
DIALECT = "transcription REST"
CLIP = speech.clip("greeting")
EXAMPLES = re.findall(r"^```(bash|python)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def example(*words: str, kind: str = "bash") -> str:
    """The one example that has all of these words."""
    (found,) = [text for its_kind, text in EXAMPLES if its_kind == kind and all(word in text for word in words)]
    return found


class Folder:
    """A folder with `audio.mp3`, in which examples are run."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.url = url
        self.ran: set[str] = set()

    async def bash(self, text: str, job_id: str = "") -> str:
        """Run an example; the status must be that of a success."""
        self.ran.add(text)
        line = text.replace("http://localhost:8000", self.url).replace("{job_id}", job_id)
        return (
            await run("bash", "-ec", f'cd {self.home}\ncurl() {{ command curl -sS --fail-with-body "$@"; }}\n{line}')
        ).ok()

    async def python(self, text: str) -> str:
        """Run an example with the clients' Python."""
        self.ran.add(text)
        text = text.replace("http://localhost:8000", self.url).replace("time.sleep(5)", "time.sleep(0.2)")
        return (await run(PYTHON, "-c", f"import os; os.chdir({str(self.home)!r})\n{text}")).ok()


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Folder]:
    samples = np.frombuffer(CLIP.pcm, "<i2")
    (tmp_path / "audio.mp3").write_bytes(sound.encoded(samples, 16_000, "libmp3lame", "mp3"))
    async with running(None, tmp_path / "state", asr_engine="local") as addresses:
        yield Folder(tmp_path, address(addresses))


def address(addresses: Addresses) -> str:
    return f"http://localhost:{addresses.port}"


def check(answer: str) -> None:
    body = json.loads(answer)
    assert list(body) == ["text", "segments", "filename", "timestamp"]
    assert speech.wer(CLIP.text, body["text"]) <= CLIP.max_wer
    assert body["filename"] == "audio.mp3"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", body["timestamp"])
    assert all(list(segment) == ["start", "end", "text"] for segment in body["segments"])


@pytest.mark.slow
async def test_every_example_works_as_it_stands(folder: Folder, conformance: Conformance) -> None:
    check(await folder.bash(example('/transcribe"', "multipart", "-F")))
    check(await folder.bash(example("audio/mpeg")))
    check(await folder.bash(example("base64")))
    printed = await folder.python(example('/transcribe"', "response.json()", kind="python"))
    check(json.dumps(ast.literal_eval(printed)))
    health = json.loads(await folder.bash(example("/health")))
    assert list(health)[:3] == ["status", "model_loaded", "model_name"]
    assert health["status"] == "healthy"

    accepted = json.loads(await folder.bash(example("/transcribe/async")))
    job_id = accepted["job_id"]
    assert accepted == {"job_id": job_id, "status": "pending", "message": "Transcription job started for audio.mp3"}
    async with asyncio.timeout(30):
        while (status := json.loads(await folder.bash(example('/status"'), job_id)))["status"] != "completed":
            await asyncio.sleep(0.1)
    documented = ["job_id", "status", "filename", "created_at", "completed_at", "error", "result"]
    assert list(status)[: len(documented)] == documented
    check(await folder.bash(example('/result"'), job_id))
    assert (await folder.bash(example("format=srt"), job_id)).startswith("1\n00:00:0")
    listed = json.loads(await folder.bash(example("status=completed")))
    assert [job["job_id"] for job in listed["jobs"]] == [job_id]
    assert await folder.bash(example("DELETE"), job_id) == ""

    polled = await folder.python(example("Poll for completion", kind="python"))
    assert polled.startswith("Job started: ")
    assert "'filename': 'audio.mp3'" in polled

    (folder.home / "audio.mp3").write_bytes(sound.wav(CLIP.pcm * 200))
    long_id = json.loads(await folder.bash(example("/transcribe/async")))["job_id"]
    cancelled = json.loads(await folder.bash(example("/cancel"), long_id))
    assert cancelled == {"message": f"Job {long_id} cancelled", "status": "cancelled"}

    assert folder.ran == {text for _, text in EXAMPLES}, "an example of the document was not run"
    conformance.record(
        dialect=DIALECT, client="curl", version=SYSTEMS,
        exercised="every example of the document: form, JSON, raw body, jobs, captions, health",
    )  # fmt: skip
    conformance.record(
        dialect=DIALECT, client="requests (Python)", version=version_of("requests"),
        exercised="the examples of the document: transcribe, a job polled to its end",
    )  # fmt: skip


@pytest.mark.slow
async def test_curl_gets_an_answer_to_an_upload_that_is_too_large(tmp_path: Path, conformance: Conformance) -> None:
    """With `Expect: 100-continue`, which curl sends by itself, and without: then all of it is on its way already."""
    size = 26 * 1024 * 1024
    big = tmp_path / "big.wav"
    big.write_bytes(sound.wav(bytes(size)))
    async with running(None, tmp_path / "state", asr_engine="mock", max_upload_bytes=size + 100) as addresses:
        line = ["curl", "-sS", "-w", "%{http_code}", f"{address(addresses)}/transcribe?format=text"]
        fits = (await run(*line, "-F", f"file=@{big}")).ok()
        assert fits.endswith("200")
        big.write_bytes(sound.wav(bytes(size * 3)))
        for more in ([], ["-H", "Expect:"], ["-H", "Expect:", "-H", "Transfer-Encoding: chunked"]):
            for body in (["-F", f"file=@{big}"], ["--data-binary", f"@{big}", "-H", "Content-Type: audio/wav"]):
                answer = (await run(*line, *body, *more)).ok()
                assert answer.endswith("413"), answer
                assert list(json.loads(answer[:-3])) == ["detail"]
    conformance.record(
        dialect=DIALECT, client="curl", version=SYSTEMS,
        exercised="uploads of 26 MiB, and over the limit: 413 with its sentence, with and without 100-continue",
    )  # fmt: skip
