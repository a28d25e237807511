"""MediaRecorder of a real Chromium: each piece that it gives, as it comes, to a gateway that recognizes speech."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import pytest

import speech
from contract.clients import SYSTEMS
from contract.conformance import Conformance
from e2e.browser import chromium, visit
from e2e.gateway import running

pytestmark = [pytest.mark.browser, pytest.mark.asyncio]

RECORD = """async ({ url, mimeType, encoding, seconds }) => {
  const microphone = await navigator.mediaDevices.getUserMedia({
    audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  const socket = new WebSocket(url, ["asr.v1"]);
  const heard = { texts: [], blobs: [], errors: [], warnings: [], early: 0 };
  let recorder;
  let sending = Promise.resolve();
  await new Promise((done) => {
    socket.onclose = done;
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "ready") {
        recorder = new MediaRecorder(microphone, { mimeType });
        recorder.ondataavailable = ({ data }) => {
          heard.blobs.push(data.size);
          sending = sending.then(async () => socket.send(await data.arrayBuffer()));
        };
        recorder.onstop = () => sending.then(() => socket.send('{"type":"stop"}'));
        recorder.start(250);
        setTimeout(() => recorder.stop(), seconds * 1000);
      }
      if (message.type === "partial" && recorder.state === "recording") heard.early += 1;
      if (message.type === "final") heard.texts.push(message.text);
      if (message.type === "warning") heard.warnings.push(message.message);
      if (message.type === "error") heard.errors.push(message);
    };
    socket.onopen = () => socket.send(JSON.stringify({ type: "start", audio: { encoding } }));
  });
  microphone.getTracks().forEach((track) => track.stop());
  return heard;
}"""

ALLOWANCE = 0.1
"""Added to the clip's own limit: the sound is resampled, coded and resampled again, on a machine that may be busy."""

MIXED = {"2 channels were mixed down to one."}
"""Chromium records in stereo where its device has two channels, as the fake one does."""


async def recorded(tmp_path: Path, mime_type: str, encoding: str) -> dict[str, Any]:
    clip = speech.clip("greeting")
    spoken = tmp_path / "spoken.wav"
    with wave.open(str(spoken), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(16_000)
        # The microphone plays from the moment it is opened, before the session stands.
        wav.writeframes(speech.silence(1_500) + clip.pcm)
    async with (
        running(None, tmp_path, asr_engine="local") as addresses,
        chromium(speech=spoken) as browser,
        visit(browser, addresses.url) as seen,
    ):
        if not await seen.page.evaluate("(type) => MediaRecorder.isTypeSupported(type)", mime_type):
            return {"unsupported": True}
        seconds = clip.duration_ms / 1000 + 3
        asked = {
            "url": addresses.url.replace("http", "ws", 1).rstrip("/") + "/v1/stream",
            "mimeType": mime_type,
            "encoding": encoding,
            "seconds": seconds,
        }
        heard: dict[str, Any] = await seen.page.evaluate(RECORD, asked)
        assert len(heard["blobs"]) >= seconds * 2
        assert heard["errors"] == []
        assert speech.wer(clip.text, " ".join(heard["texts"])) <= clip.max_wer + ALLOWANCE, heard
        assert heard["early"] > 0, "words were to come while it was recorded"
        return heard


@pytest.mark.parametrize("encoding", ["webm_opus", "auto"])
async def test_webm_with_opus(tmp_path: Path, encoding: str, conformance: Conformance) -> None:
    heard = await recorded(tmp_path, "audio/webm;codecs=opus", encoding)
    assert set(heard["warnings"]) <= MIXED
    conformance.record(
        dialect="asr.v1",
        client="Chromium's MediaRecorder",
        version=SYSTEMS,
        exercised="pieces of 250 ms of WebM with Opus, as they come",
    )


async def test_fragmented_mp4_where_the_browser_writes_it(tmp_path: Path) -> None:
    """Safari's container; Chromium writes it too, from version 126 on, and older ones say that they do not."""
    heard = await recorded(tmp_path, "audio/mp4;codecs=opus", "mp4")
    assert heard.get("unsupported") or set(heard["warnings"]) <= MIXED
