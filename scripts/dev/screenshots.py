"""Take the pictures of the page that the documents show: docs/images/page-{light,dark,phone}.png.

A gateway with the embedded recognizer serves the page to a Chromium whose microphone plays clips of
`tests/fixtures`, so what the pictures show is what it understood.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

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
async def gateway(engine: str, state: Path) -> AsyncIterator[str]:
    """A gateway of its own on a free port; yields the page's address."""
    command = Path(sys.executable).with_name("riva-gateway")
    process = await asyncio.create_subprocess_exec(
        command, "serve", "--no-tls", "--port", "0", "--grpc-port", "off", "--engine", engine,
        cwd=state, env=os.environ | {"STATE_DIR": str(state), "PYTHONUNBUFFERED": "1"}, stdout=asyncio.subprocess.PIPE,
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


async def main() -> None:
    """All pictures, one after the other."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as state:
        clip = talk(Path(state) / "talk.wav")
        async with gateway("local", Path(state)) as url:
            for look in LOOKS:
                await take(url, clip, look)


if __name__ == "__main__":
    asyncio.run(main())
