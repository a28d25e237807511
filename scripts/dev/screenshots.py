"""Take the pictures of the pages that the documents show: docs/images/page-{light,dark,phone}.png and status.png.

A gateway with the embedded recognizer serves the page to a Chromium whose microphone plays clips of
`tests/fixtures`, so what the pictures show is what it understood. The status page is that of a gateway under load in
front of two stand-ins, the second of which has just been killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tempfile
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

from asr.mock.plan import load_plan
from asr.mock.riva_server import MockRivaServer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import speech  # noqa: E402 - found through the path above
from e2e.browser import chromium, visit  # noqa: E402

CLIP = ROOT / "tests" / "fixtures" / "meeting.wav"
IMAGES = ROOT / "docs" / "images"
CLIPS = ("meeting", "groceries", "doctor")
PARTIAL = "that a long walk"
"""In the last clip, when this is recognized, the picture is taken."""

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "phone": {
        "viewport": {"width": 390, "height": 780},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
}


@asynccontextmanager
async def gateway(engine: str, state: Path, **more: str) -> AsyncIterator[str]:
    """A gateway of its own on a free port, with `more` in its environment; yields the page's address."""
    command = Path(sys.executable).with_name("riva-gateway")
    process = await asyncio.create_subprocess_exec(
        command, "serve", "--no-tls", "--port", "0", "--grpc-port", "off", "--engine", engine,
        cwd=state, env=os.environ | {"STATE_DIR": str(state), "PYTHONUNBUFFERED": "1"} | more,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            found = None
            while found is None:
                line = (await process.stdout.readline()).decode()
                if not line:
                    raise SystemExit("the gateway ended before it listened")
                found = re.search(r"http://localhost:\d+", line)
        yield found[0]
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def talk(path: Path) -> Path:
    """What the microphone hears: clips with pauses that end an utterance; the last is cut off in mid-sentence."""
    pause = speech.silence(1200)
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(16_000)
        wav.writeframes(pause + pause.join(speech.pcm(name) for name in CLIPS) + speech.silence(8000))
    return path


async def take(url: str, clip: Path, look: str) -> None:
    """One picture: finals, and a partial under way."""
    async with chromium(speech=clip) as browser, visit(browser, url, **LOOKS[look]) as seen:
        await seen.page.click("#talk")
        last = seen.page.locator("#finals .words").nth(len(CLIPS) - 2)
        await last.wait_for(timeout=60_000)
        await seen.page.locator(".partial .words", has_text=PARTIAL).wait_for()
        path = IMAGES / f"page-{look}.png"
        await seen.page.screenshot(path=path)
        await seen.page.click("#talk")
        await seen.page.wait_for_selector("body[data-mode=idle]")
        seen.assert_clean()
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KB")


async def speak(url: str, path: str) -> None:
    """One live stream until it is cancelled; what comes back is read and thrown away."""

    async def audio() -> None:
        if path == "/v1/stream":
            await socket.send(json.dumps({"type": "start"}))
        while True:
            await socket.send(b"\x00\x20\x00\xe0" * 800)
            await asyncio.sleep(0.1)

    async with connect(url.replace("http", "ws", 1) + path, proxy=None) as socket:
        sending = asyncio.create_task(audio())
        try:
            async for _ in socket:
                pass
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def take_status(state: Path) -> None:
    """The status page a moment after one of two recognizers was killed."""
    plan = load_plan({"hears": "clock", "utterances": [{"words": "a b c d e f", "word_ms": 180, "pause_ms": 900}]})
    async with MockRivaServer(plan) as first, MockRivaServer(plan) as second:
        more = {
            "RIVA_ENDPOINTS": f"127.0.0.1:{first.port},127.0.0.1:{second.port}",
            "RIVA_MAX_STREAMS": "20",
            "MAX_STREAMS": "40",
        }
        async with gateway("riva", state, **more) as url, chromium(device=False) as browser:
            paths = ["/v1/stream"] * 9 + ["/ws"] * 4
            speakers = [asyncio.create_task(speak(url, path)) for path in paths]
            await asyncio.sleep(12)
            async with connect(url.replace("http", "ws", 1) + "/v1/stream", proxy=None) as socket:
                await socket.send("what no client says")
                await socket.wait_closed()
            await second.stop()
            async with visit(browser, f"{url}/status", viewport={"width": 1280, "height": 800}) as seen:
                await seen.page.locator("#words", has_text="endpoint 2 is down").wait_for()
                await asyncio.sleep(3)
                path = IMAGES / "status.png"
                await seen.page.screenshot(path=path, full_page=True)
                print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KB")
                seen.assert_clean()
            for task in speakers:
                task.cancel()
            await asyncio.gather(*speakers, return_exceptions=True)


async def main() -> None:
    """All pictures, one after the other."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as state:
        clip = talk(Path(state) / "talk.wav")
        async with gateway("local", Path(state)) as url:
            for look in LOOKS:
                await take(url, clip, look)
        await take_status(Path(state))


if __name__ == "__main__":
    asyncio.run(main())
