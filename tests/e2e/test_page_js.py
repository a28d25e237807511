"""The page's pure modules, run where they run for people: inside Chromium."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import jsonschema
import pytest
import pytest_asyncio
from playwright.async_api import Page

from asr import transcript, wire
from asr.captions import to_srt, to_text, to_vtt
from asr.events import Final, Word
from asr.transcript import fold
from e2e.browser import chromium, visit
from e2e.page_server import Talk, page_server

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


async def no_talk(talk: Talk) -> None:
    raise AssertionError("nobody was to speak")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page() -> AsyncIterator[Page]:
    async with page_server(no_talk) as server, chromium() as browser, visit(browser, server.url) as seen:
        yield seen.page
        seen.assert_clean()


# Tones through the resampler, in blocks of odd sizes; the level of what comes out, in dB of the tone that went in.
TONE = """async ([from, hz, seconds]) => {
  const { Resampler } = await import("/resample.js");
  const n = Math.round(from * seconds);
  const input = Float32Array.from({ length: n }, (_, i) => Math.sin((2 * Math.PI * hz * i) / from));
  const resampler = new Resampler(from, 16000);
  const parts = [];
  for (let at = 0, size = 1; at < n; at += size, size = (size * 7 + 3) % 611) {
    parts.push(resampler.push(input.subarray(at, at + size)));
  }
  parts.push(resampler.flush());
  const output = parts.flatMap((part) => [...part]);
  // The edges are steps, which hold all frequencies; the middle is the filter's own work.
  const middle = output.slice(1000, -1000);
  const rms = Math.sqrt(middle.reduce((sum, x) => sum + x * x, 0) / middle.length);
  let error = 0;
  for (let k = 1000; k < output.length - 1000; k += 1) {
    error = Math.max(error, Math.abs(output[k] - Math.sin((2 * Math.PI * hz * k) / 16000)));
  }
  return { length: output.length, db: 20 * Math.log10(Math.max(rms, 1e-12) * Math.SQRT2), error };
}"""


@pytest.mark.parametrize("rate", [48_000, 44_100, 96_000, 32_000])
async def test_tones_above_the_new_nyquist_frequency_are_gone(page: Page, rate: int) -> None:
    for hz in (8_050, 9_000, 12_500, 15_900):
        heard = await page.evaluate(TONE, [rate, hz, 0.5])
        assert heard["db"] < -70, f"{hz} Hz at {rate} Hz leaves an alias of {heard['db']:.1f} dB"


@pytest.mark.parametrize("rate", [48_000, 44_100, 96_000, 22_050, 8_000])
async def test_speech_frequencies_pass_in_time_and_unchanged(page: Page, rate: int) -> None:
    for hz in (100, 1_000, 3_500, *((7_100,) if rate > 16_000 else ())):
        heard = await page.evaluate(TONE, [rate, hz, 0.5])
        assert heard["error"] < 2e-3, f"{hz} Hz at {rate} Hz: off by {heard['error']}"


@pytest.mark.parametrize("rate", [48_000, 44_100, 96_000, 22_050, 16_000, 8_000, 11_025])
async def test_the_length_is_exact(page: Page, rate: int) -> None:
    lengths = await page.evaluate(
        """async (from) => {
          const { Resampler } = await import("/resample.js");
          return [0, 1, 2, 127, 128, 4410, 9999].map((n) => {
            const resampler = new Resampler(from, 16000);
            let count = 0;
            for (let at = 0; at < n; at += 128) count += resampler.push(new Float32Array(Math.min(128, n - at))).length;
            return [n, count + resampler.flush().length];
          });
        }""",
        rate,
    )
    assert lengths == [[n, -(-n * 16_000 // rate)] for n, _ in lengths]


async def test_where_the_input_is_cut_does_not_matter(page: Page) -> None:
    same = await page.evaluate(
        """async () => {
          const { Resampler } = await import("/resample.js");
          const input = Float32Array.from({ length: 5000 }, (_, i) => Math.sin(i * i * 1e-4));
          const run = (size) => {
            const resampler = new Resampler(44100, 16000);
            const parts = [];
            for (let at = 0; at < input.length; at += size) {
              parts.push(...resampler.push(input.subarray(at, at + size)));
            }
            return [...parts, ...resampler.flush()].join();
          };
          return run(5000) === run(128) && run(5000) === run(1) && run(5000) === run(997);
        }"""
    )
    assert same


async def test_loud_samples_are_clipped_not_wrapped(page: Page) -> None:
    pcm = await page.evaluate(
        """async () => {
          const { toPcm16 } = await import("/resample.js");
          return [...new Int16Array(toPcm16([0, 1, -1, 2, -2, 0.5, 1 / 32768, -1 / 32768]))];
        }"""
    )
    assert pcm == [0, 32767, -32768, 32767, -32768, 16384, 1, -1]


REDUCE = """async ([sessions, tail]) => {
  const t = await import("/transcript.js");
  const c = await import("/captions.js");
  let state = t.emptyTranscript();
  for (const messages of sessions) {
    state = t.beginSession(state);
    for (const message of messages) state = t.reduce(state, message);
    if (tail !== "running") state = t.endSession(state, { broken: tail === "broken" });
  }
  return {
    lines: state.lines,
    partials: state.partials.map((p) => [p.text, ...t.splitPartial(p)]),
    warnings: state.warnings,
    pieces: state.lines.map((line) => t.pieces(line).map((piece) => [piece.text, piece.word !== null])),
    txt: c.toText(state), srt: c.toSrt(state), vtt: c.toVtt(state), json: c.toJson(state),
  };
}"""


def partial(text: str, u: int = 0, revision: int = 1, stable: int = 0) -> dict[str, Any]:
    return {
        "type": "partial",
        "utterance_id": f"u{u}",
        "revision": revision,
        "start_ms": 0,
        "end_ms": 700,
        "text": text,
        "stable_chars": stable,
    }


def final(text: str, u: int = 0, start_ms: int = 0, step_ms: int = 500, words: bool = True) -> dict[str, Any]:
    spoken = text.split()
    timed = [
        wire.encode(Final(0, 1, w, 0, 0, words=(Word(w, start_ms + i * step_ms, start_ms + (i + 1) * step_ms),)))[
            "words"
        ][0]
        for i, w in enumerate(spoken)
    ]
    return {
        "type": "final",
        "utterance_id": f"u{u}",
        "revision": 5,
        "start_ms": start_ms,
        "end_ms": start_ms + len(spoken) * step_ms,
        "text": text,
        "words": timed if words else [],
        "confidence": None,
        "language": "en-US",
        "reason": "endpoint",
    }


async def test_a_partial_is_replaced_and_becomes_final(page: Page) -> None:
    talk = [partial("hel"), partial("hello wor", revision=2, stable=5), partial("old", revision=1)]
    seen = await page.evaluate(REDUCE, [[talk], "running"])
    assert seen["partials"] == [["hello wor", "hello", " wor"]]
    seen = await page.evaluate(REDUCE, [[[*talk, final("hello world"), partial("late", revision=9)]], ""])
    assert [line["text"] for line in seen["lines"]] == ["hello world"]
    assert seen["partials"] == []


async def test_stable_characters_are_counted_as_the_wire_counts_them(page: Page) -> None:
    seen = await page.evaluate(REDUCE, [[[partial("😀😀 ja wohl", stable=5)]], "running"])
    assert seen["partials"][0][1:] == ["😀😀 ja", " wohl"]


async def test_empty_finals_leave_no_line_and_no_partial(page: Page) -> None:
    seen = await page.evaluate(REDUCE, [[[partial("uh"), final("")]], ""])
    assert seen["lines"] == []


async def test_a_partial_that_never_became_final_is_kept_as_unfinished(page: Page) -> None:
    talk = [final("one two"), partial("three fo", u=1)]
    seen = await page.evaluate(REDUCE, [[talk], ""])
    assert [line["text"] for line in seen["lines"]] == ["one two"], "a session that ended well left nothing open"
    seen = await page.evaluate(REDUCE, [[talk], "broken"])
    assert [(line["text"], line["unfinished"]) for line in seen["lines"]] == [("one two", False), ("three fo", True)]
    assert seen["txt"] == "one two\nthree fo\n"


async def test_sessions_follow_each_other_on_one_clock(page: Page) -> None:
    first = [{"type": "ready", "session_id": "a"}, final("one"), {"type": "summary", "audio_ms": 4000}]
    second = [{"type": "ready", "session_id": "b"}, final("two", start_ms=250)]
    seen = await page.evaluate(REDUCE, [[first, second], ""])
    assert [(line["text"], line["start_ms"]) for line in seen["lines"]] == [("one", 0), ("two", 4250)]
    assert seen["lines"][1]["words"][0]["start_ms"] == 4250


async def test_lost_audio_is_shown_where_it_was(page: Page) -> None:
    gap = {"type": "gap", "start_ms": 500, "end_ms": 1700, "cause": "upstream_lost"}
    seen = await page.evaluate(REDUCE, [[[final("one"), gap, final("two", u=1, start_ms=1700)]], ""])
    assert [line["kind"] for line in seen["lines"]] == ["speech", "gap", "speech"]
    assert seen["txt"] == "one\ntwo\n"


async def test_warnings_are_kept_once(page: Page) -> None:
    ready = {"type": "ready", "warnings": ["no punctuation here", "no punctuation here"]}
    late = {"type": "warning", "code": "x", "message": "later"}
    seen = await page.evaluate(REDUCE, [[[ready, late, late, {"type": "something_new"}]], "running"])
    assert set(seen["warnings"]) == {"no punctuation here", "later"}


async def test_words_are_found_in_punctuated_text(page: Page) -> None:
    message = final("hello world")
    message["text"] = "Well, hello, world."
    seen = await page.evaluate(REDUCE, [[[message]], ""])
    assert seen["pieces"] == [[["Well, ", False], ["hello", True], [", ", False], ["world", True], [".", False]]]


def talk_show(seed: int) -> list[Final]:
    """Finals of every kind: long words, pauses, speakers, scripts without blanks, none with words, overlaps, markup."""
    dice = Random(seed)
    vocabulary = [
        "a",
        "&",
        "<b>",
        "-->",
        "naïve",
        "Straße",
        "😀",
        "今天天气很好我们一起",
        "ไทย",
        "x" * 90,
        "well",
        "remarkable",
    ]
    finals = []
    at_ms = 0
    for number in range(40):
        texts = dice.choices(vocabulary, weights=[4, 1, 1, 1, 4, 4, 1, 2, 2, 1, 8, 8], k=dice.randrange(0, 25))
        words, start_ms = [], at_ms
        for text in texts:
            end_ms = at_ms + dice.randrange(0, 900)
            speaker = dice.choice([None, None, None, "1"])
            words.append(Word(text, at_ms, end_ms, confidence=dice.choice([None, 0.5]), speaker=speaker))
            at_ms = end_ms + dice.choice([0, 10, 1_499, 1_500])
        timed = tuple(words) if dice.random() < 0.7 else ()
        language = dice.choice(["en-US", "ja-JP", None])
        finals.append(Final(number, 1, " ".join(texts), start_ms, at_ms, words=timed, language=language))
        at_ms = max(0, at_ms - dice.choice([0, 0, 0, 300]))
    return finals


@pytest.mark.parametrize("seed", range(4))
async def test_downloads_are_those_of_the_library(page: Page, seed: int) -> None:
    finals = talk_show(seed)
    ready = {"type": "ready", "session_id": "a", "model": "m", "language": "en-US"}
    seen = await page.evaluate(REDUCE, [[[ready, *(wire.encode(final) for final in finals)]], ""])
    expected = fold(finals, language="en-US", model="m")
    assert seen["txt"] == to_text(expected)
    assert seen["srt"] == to_srt(expected)
    assert seen["vtt"] == to_vtt(expected)
    document = json.loads(seen["json"])
    jsonschema.validate(document, transcript.schema())
    # The page leaves out finals without text.
    assert transcript.from_json(document).text == expected.text
    assert [final["text"] for final in document["finals"]] == [f.text.strip() for f in finals if f.text.strip()]
    assert sum(len(final["words"]) for final in document["finals"]) == len(expected.words)


async def test_json_tells_what_was_lost(page: Page) -> None:
    gap = {"type": "gap", "start_ms": 500, "end_ms": 1700, "cause": "upstream_lost"}
    seen = await page.evaluate(REDUCE, [[[final("one"), gap, partial("two", u=1)]], "broken"])
    document = json.loads(seen["json"])
    jsonschema.validate(document, transcript.schema())
    assert document["warnings"] == [
        "1200 ms of audio from 500 ms on were lost.",
        "The connection broke: “two” was not confirmed.",
    ]


async def test_latency_is_measured_from_the_chunk_that_holds_the_sound(page: Page) -> None:
    seen = await page.evaluate(
        """async () => {
          const { CaptureClock, median } = await import("/latency.js");
          const clock = new CaptureClock();
          const nothing = clock.since(10, 0);
          for (let i = 1; i <= 5000; i += 1) clock.captured(i * 100, 10000 + i * 100);
          const known = [clock.since(499950, 510040), clock.since(499900, 510040), clock.since(500001, 0)];
          return [nothing, ...known, median([]), median([3, 1, 2]), median([4, 1])];
        }"""
    )
    assert seen == [None, 40, 140, None, None, 2, 2.5]


WAV = """async ([rate, hz, seconds, channels]) => {
  const { decodeFile } = await import("/file.js");
  const n = rate * seconds;
  const wav = new DataView(new ArrayBuffer(44 + n * 2 * channels));
  const text = (at, s) => [...s].forEach((c, i) => wav.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF"); wav.setUint32(4, wav.byteLength - 8, true); text(8, "WAVEfmt "); wav.setUint32(16, 16, true);
  wav.setUint16(20, 1, true); wav.setUint16(22, channels, true); wav.setUint32(24, rate, true);
  wav.setUint32(28, rate * 2 * channels, true); wav.setUint16(32, 2 * channels, true); wav.setUint16(34, 16, true);
  text(36, "data"); wav.setUint32(40, n * 2 * channels, true);
  const sample = (i) => Math.round(16000 * Math.sin((2 * Math.PI * hz * i) / rate));
  // All of the sound is in the left channel.
  for (let i = 0; i < n; i += 1) wav.setInt16(44 + i * 2 * channels, sample(i), true);
  const recording = await decodeFile(new File([wav], "tone.wav"));
  const pcm = [...recording.blocks()].flatMap((block) => [...new Int16Array(block)]);
  const middle = pcm.slice(1000, -1000);
  const rms = Math.sqrt(middle.reduce((sum, x) => sum + x * x, 0) / middle.length);
  return {
    ms: recording.totalMs,
    samples: pcm.length,
    db: 20 * Math.log10(Math.max(rms, 0.01) * Math.SQRT2 / 16000),
    exact: pcm.every((x, i) => x === sample(i)),
  };
}"""


@pytest.mark.parametrize("rate", [48_000, 44_100])
async def test_what_a_file_holds_above_8_khz_does_not_come_back_below(page: Page, rate: int) -> None:
    for hz in (8_100, 9_000, 12_000):
        seen = await page.evaluate(WAV, [rate, hz, 1, 1])
        assert (seen["ms"], seen["samples"]) == (1000, 16_000)
        assert seen["db"] < -60, f"{hz} Hz comes back at {seen['db']:.1f} dB"


async def test_a_16_khz_file_is_sent_as_it_is(page: Page) -> None:
    seen = await page.evaluate(WAV, [16_000, 440, 1, 1])
    assert seen["exact"]
    assert seen["samples"] == 16_000


async def test_a_stereo_file_is_mixed_down(page: Page) -> None:
    seen = await page.evaluate(WAV, [48_000, 440, 1, 2])
    assert seen["samples"] == 16_000
    assert abs(seen["db"] - -6.02) < 0.05


async def test_a_files_own_rate_is_read_from_its_header(page: Page) -> None:
    rates = await page.evaluate(
        """async () => {
          const { statedRate } = await import("/file.js");
          const flac = new Uint8Array(64);
          flac.set([0x66, 0x4c, 0x61, 0x43, 0, 0, 0, 34]);
          flac.set([0x0a, 0xc4, 0x42, 0xf0], 18); // 44100 Hz, two channels
          const text = (s) => [...s].map((c) => c.charCodeAt(0));
          const wav = new Uint8Array([
            ...text("RIFF____WAVELIST"), 3, 0, 0, 0, 1, 2, 3, 0,
            ...text("fmt "), 16, 0, 0, 0, 1, 0, 1, 0, 0x22, 0x56, 0, 0, 0, 0, 0, 0,
          ]);
          const cut = wav.slice(0, 20);
          return [flac, wav, cut, new Uint8Array([1, 2]), new Uint8Array(100)].map((bytes) => statedRate(bytes.buffer));
        }"""
    )
    assert rates == [44_100, 22_050, 48_000, 48_000, 48_000]


async def test_when_to_come_back_is_said_once(page: Page) -> None:
    down = "The recognizer is down."
    for message, wait_ms, shown in (
        (f"{down} Try again shortly.", 1_300, f"{down} Try again in 1 s."),
        (f"{down} Try again in a moment.", 4_000, f"{down} Try again in 4 s."),
        (f"{down} Try again shortly.", None, f"{down} Try again in a moment."),
        (down, 4_000, f"{down} Try again in 4 s."),
        ("Try again shortly. It is busy.", 4_000, "Try again shortly. It is busy. Try again in 4 s."),
        ("Try again in a moment.", 200, "Try again in 1 s."),
    ):
        said = {"message": message, "code": "unavailable", "action": "wait", "retry_after_ms": wait_ms, "fatal": True}
        advice = await page.evaluate(
            """async (said) => {
              const { ServerProblem } = await import("/problems.js");
              return new ServerProblem(said).advice;
            }""",
            said,
        )
        assert advice == shown
